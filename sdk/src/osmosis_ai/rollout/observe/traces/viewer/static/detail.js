// One rollout: what came of it, where its time went, what was said, and every event as it stands in the trace.
const Detail = (() => {
  const { el, block } = Text;
  const panel = document.getElementById("detail");
  const JSON_CHARACTERS = 100_000;
  const TABS = ["Conversation", "Events", "Request"];
  let current = null, tab = TABS[0], close = () => {}, step = () => {}, before = null;

  // The SDK counts turns from 1; an agent counts its own from 0, and in older traces from 1.
  const AGENTS = new Set(["pre_llm", "llm_response", "tool_results"]);
  const agentsFirst = (events) => events.some((event) => AGENTS.has(event.event) && event.turn === 0) ? 1 : 0;

  function segmentsOf(events) {
    const shift = agentsFirst(events);
    const segments = [];
    const ended = new Set();
    const add = (lane, end, ms, label, bad, turn) => {
      if (Number.isFinite(end) && Number.isFinite(ms)) segments.push({ lane, from: end - ms / 1000, to: end, label, bad, turn });
    };
    const isServers = events.some((event) => event.event === "chat_start");
    for (const event of events) {
      if (event.event === "run_start") add("Queue", event.time, event.queue_ms, `waited ${Text.duration(event.queue_ms)}`);
      else if (event.event === "chat_end") {
        ended.add(event.turn);
        add("Model", event.time, event.latency_ms, `turn ${event.turn}: ${event.error ? "failed after" : "model"} ${Text.duration(event.latency_ms)}`, event.error !== undefined, event.turn);
      } else if (event.event === "pause_end") add("Pause", event.time - event.ago_ms / 1000, event.pause_ms, `turn ${event.turn}: the trainer paused for ${Text.duration(event.pause_ms)}${event.answered ? "" : ", and was given up"}`, !event.answered, event.turn);
      else if (event.event === "tool_call") add("Tools", event.time, event.latency_ms, `turn ${event.turn}: ${event.name} ${Text.duration(event.latency_ms)}${event.outcome === "ok" ? "" : `, ${event.outcome}`}`, event.outcome !== "ok", event.turn);
      else if (event.event === "delivery") add("Delivery", event.time, event.latency_ms, `attempt ${event.attempt}: ${event.verdict}, ${Text.duration(event.latency_ms)}`, event.verdict !== "acknowledged");
      else if (!isServers && event.event === "llm_response") add("Model", event.time, event.latency_ms, `turn ${event.turn + shift}: model ${Text.duration(event.latency_ms)}`, false, event.turn + shift);
      else if (!isServers && event.event === "tool_results") add("Tools", event.time, event.latency_ms, `turn ${event.turn + shift}: tools ${Text.duration(event.latency_ms)}`, false, event.turn + shift);
    }
    const last = events.reduce((latest, event) => Math.max(latest, event.time || 0), 0);
    const finished = events.some((event) => event.event === "rollout_result");
    for (const event of events) {
      if (event.event === "chat_start" && !ended.has(event.turn) && !finished) segments.push({ lane: "Model", from: event.time, to: Math.max(last, event.time), label: `turn ${event.turn}: waiting for the model`, waiting: true, turn: event.turn });
    }
    return segments;
  }

  function timeline(events) {
    const segments = segmentsOf(events);
    if (!segments.length) return null;
    const from = Math.min(...segments.map((one) => one.from)), to = Math.max(...segments.map((one) => one.to), ...events.filter((event) => event.event === "rollout_result").map((event) => event.time));
    const span = Math.max(to - from, 1e-4);
    const lanes = ["Queue", "Model", "Pause", "Tools", "Delivery"].map((name) => {
      const own = segments.filter((one) => one.lane === name).sort((a, b) => a.from - b.from);
      if (!own.length) return null;
      const ends = [];
      for (const one of own) {
        let level = ends.findIndex((end) => end <= one.from + 1e-6);
        if (level < 0) level = ends.length < 6 ? ends.length : 5;
        ends[level] = one.to;
        one.level = level;
      }
      const total = own.reduce((sum, one) => sum + (one.to - one.from), 0) * 1000;
      const track = el("div", { class: "track" });
      track.style.height = `${ends.length * 14 + 6}px`;
      for (const one of own) {
        const bar = el(one.turn ? "button" : "div", { class: `seg ${name.toLowerCase()}${one.bad ? " bad" : ""}${one.waiting ? " waiting" : ""}`, title: one.label, "aria-label": one.label, type: one.turn ? "button" : null });
        bar.style.left = `${(one.from - from) / span * 100}%`;
        bar.style.width = `${Math.max((one.to - one.from) / span * 100, 0.4)}%`;
        bar.style.top = `${one.level * 14 + 3}px`;
        if (one.turn) bar.addEventListener("click", () => panel.querySelector(`#turn-${one.turn}`)?.scrollIntoView({ block: "start" }));
        track.append(bar);
      }
      return el("div", { class: "lane" }, el("span", { class: "lane-name", text: name }), track, el("span", { class: "lane-total", text: Text.duration(total) }));
    });
    return el("section", { class: "timeline", "aria-label": "Timeline" }, lanes.filter(Boolean),
      el("div", { class: "lane scale", "aria-hidden": "true" }, el("span", { class: "lane-name" }), el("div", { class: "axis" }, el("span", { text: "0" }), el("span", { text: Text.duration(span * 500) }), el("span", { text: Text.duration(span * 1000) })), el("span", { class: "lane-total" })));
  }

  function lazyJson(summary, value) {
    const details = el("details", { class: "raw" }, summary);
    details.addEventListener("toggle", () => {
      if (!details.open || details.querySelector("pre")) return;
      const text = Text.json(value), pre = el("pre", { tabindex: 0 });
      pre.textContent = Text.show(text.slice(0, JSON_CHARACTERS));
      details.append(pre);
      if (text.length > JSON_CHARACTERS) details.append(el("button", { type: "button", class: "more", text: `Show all ${text.length.toLocaleString("en")} characters`, onclick: (event) => { pre.textContent = Text.show(text); event.target.remove(); } }));
    });
    return details;
  }

  function eventsNode(events) {
    const shift = agentsFirst(events);
    const first = events[0]?.time ?? 0;
    return el("div", { class: "events" }, events.map((event) => {
      const bad = event.error !== undefined || event.status === "ERROR" || (event.outcome !== undefined && event.outcome !== "ok");
      return lazyJson(el("summary", null,
        el("span", { class: "offset", text: `+${Text.duration(Math.max(0, ((event.time ?? first) - first) * 1000))}` }),
        el("b", { class: bad ? "error" : null, dir: "auto", text: event.event }),
        el("span", { class: "dim", dir: "auto", text: gist(event, AGENTS.has(event.event) ? shift : 0) })), event);
    }));
  }

  function gist(event, shift) {
    const turn = event.turn + shift;
    const parts = [turn ? `turn ${turn}` : null, event.name, event.outcome, event.status, event.verdict, event.finish_reason, event.error ?? event.error_message ?? event.problem];
    return parts.filter((part) => typeof part === "string" && part).join(" · ").slice(0, 200);
  }

  function requestNode(events) {
    const start = events.find((event) => event.event === "trace_start");
    if (!start) return el("p", { class: "dim", text: "The trace does not hold the request." });
    const { messages, ...rest } = start.request ?? {};
    return el("div", { class: "request" },
      el("h3", { text: "Settings and metadata" }), block(Text.json(rest), "code"),
      el("h3", { text: `Tools (${start.tools?.length ?? 0})` }),
      (start.tools ?? []).map((tool) => lazyJson(el("summary", null, el("b", { text: tool?.function?.name ?? "?" }), el("span", { class: "dim", text: (tool?.function?.description ?? "").slice(0, 160) })), tool)));
  }

  function fact(name, value, className) {
    return el("div", { class: `fact ${className ?? ""}` }, el("dt", { text: name, title: Text.show(name) }), el("dd", { dir: "auto", text: value }));
  }

  function header(rollout) {
    const kind = { COMPLETED: "ok", ERROR: "bad" }[rollout.status] ?? "open";
    const word = { COMPLETED: "Completed", ERROR: "Failed" }[rollout.status] ?? "No result";
    return [el("header", { class: "detail-title" },
        el("span", { class: `chip ${kind}`, text: word }),
        el("h2", { dir: "auto", text: rollout.id || "(no id)" }),
        el("div", { class: "detail-buttons" },
          el("button", { type: "button", "aria-label": "Previous rollout", title: "Previous (k)", text: "↑", onclick: () => step(-1) }),
          el("button", { type: "button", "aria-label": "Next rollout", title: "Next (j)", text: "↓", onclick: () => step(1) }),
          el("button", { type: "button", id: "close", "aria-label": "Close", title: "Close (Esc)", text: "✕", onclick: () => close() }))),
      el("div", { class: "detail-head" },
      rollout.error ? el("div", { class: "problem", role: "note" }, el("b", { text: rollout.outcome && rollout.failed ? rollout.outcome : rollout.failed ? "error" : "so far" }), block(rollout.where ? `${rollout.error}\n${rollout.where}` : rollout.error)) : null,
      rollout.warning ? el("div", { class: "problem warn", role: "note" }, el("b", { text: "warning" }), block(rollout.warning)) : null,
      rollout.delivery && rollout.delivery !== "acknowledged" ? el("div", { class: "problem warn", role: "note" }, el("b", { text: "delivery" }), block(`The trainer has not taken the result: ${rollout.delivery}.`)) : null,
      el("dl", { class: "facts" },
        fact("reward", Text.reward(rollout.reward), "strong"),
        Object.entries(rollout.components ?? {}).map(([name, value]) => fact(name, Text.reward(value), "part")), fact("finish", rollout.finish ?? "–"), fact("outcome", rollout.outcome ?? "–"),
        fact("turns", String(rollout.turns)), fact("tool calls", rollout.toolErrors ? `${rollout.tools} (${rollout.toolErrors} failed)` : String(rollout.tools)),
        fact("tokens", `${Text.count(rollout.promptTokens)} + ${Text.count(rollout.responseTokens)}`),
        fact("duration", Text.duration(rollout.duration)), fact("queue", Text.duration(rollout.queue)), fact("model", Text.duration(rollout.llm)), fact("tools", Text.duration(rollout.tool)),
        fact("started", Text.when(rollout.started)), rollout.agent ? fact("agent", rollout.agent) : null))];
  }

  function render(rollout, answer) {
    const views = { Conversation: () => Conversation.render(answer.events), Events: () => eventsNode(answer.events), Request: () => requestNode(answer.events) };
    const bodyNode = el("div", { class: "tab-body", role: "tabpanel", "aria-label": tab });
    const tabs = el("div", { class: "tabs", role: "tablist" }, TABS.map((name) => el("button", { type: "button", role: "tab", "aria-selected": name === tab, text: name === "Events" ? `Events (${answer.events.length})` : name, onclick: () => { tab = name; render(rollout, answer); } })));
    const scroll = panel.scrollTop;
    const hadFocus = panel.contains(document.activeElement);
    bodyNode.append(views[tab]());
    panel.replaceChildren(...[...header(rollout), timeline(answer.events), tabs, answer.cut ? el("p", { class: "notice", text: "The trace is too large to show; this is its beginning." }) : null, bodyNode].filter(Boolean));
    panel.scrollTop = scroll;
    if (hadFocus) (panel.querySelector('[role="tab"][aria-selected="true"]') ?? panel).focus({ preventScroll: true });
  }

  async function open(rollout) {
    if (panel.hidden) before = document.activeElement;
    const isNew = current !== rollout.key;
    current = rollout.key;
    panel.hidden = false;
    document.body.classList.add("with-detail");
    if (isNew) {
      panel.scrollTop = 0;
      panel.replaceChildren(...header(rollout), el("p", { class: "dim loading", text: "Reading…" }));
    }
    panel.setAttribute("aria-label", `Rollout ${Text.show(rollout.id)}`);
    try {
      const answer = await Source.detail(rollout.key);
      if (current === rollout.key) render(rollout, answer);
    } catch (error) {
      if (current === rollout.key) panel.replaceChildren(...header(rollout), el("p", { class: "notice", text: error.message }));
    }
    if (isNew && current === rollout.key && !document.activeElement?.closest(".row")) panel.focus({ preventScroll: true });
  }

  function shut() {
    current = null;
    panel.hidden = true;
    panel.replaceChildren();
    document.body.classList.remove("with-detail");
    if (before?.isConnected) before.focus({ preventScroll: true });
  }

  return {
    open, shut,
    get current() { return current; },
    onClose(callback) { close = callback; },
    onStep(callback) { step = callback; },
    nextTab(by) { tab = TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length]; },
  };
})();
