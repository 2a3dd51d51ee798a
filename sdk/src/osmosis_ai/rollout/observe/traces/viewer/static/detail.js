// One rollout: what came of it, where its time went, what was said, and every event as it stands in the trace.
const Detail = (() => {
  const { el, block } = Text;
  const panel = document.getElementById("detail");
  const JSON_CHARACTERS = 100_000;
  const TABS = ["Conversation", "Turns", "Events", "Request"];
  let current = null, beside = null, longer = {}, tab = TABS[0], before = null, pinnedNow = null;
  let act = { close() {}, step() {}, nextFailure() {}, tab() {}, pin() {}, unpin() {} };

  function lazyJson(summary, value) {
    const details = el("details", { class: "raw" }, summary);
    details.addEventListener("toggle", () => {
      if (!details.open || details.querySelector("pre")) return;
      const text = Text.json(value), pre = el("pre", { tabindex: 0, role: "region", "aria-label": "JSON" });
      pre.textContent = Text.show(text.slice(0, JSON_CHARACTERS));
      details.append(Text.copyButton("JSON", () => text), pre);
      if (text.length > JSON_CHARACTERS) details.append(el("button", { type: "button", class: "more", text: `Show all ${text.length.toLocaleString("en")} characters`, onclick: (event) => { pre.textContent = Text.show(text); event.target.remove(); } }));
    });
    return details;
  }

  function eventsNode(events) {
    const shift = Timeline.agentsFirst(events);
    const first = events[0]?.time ?? 0;
    return el("div", { class: "events" }, Text.first(events, "events", (event) => {
      const bad = event.error !== undefined || event.status === "ERROR" || (event.outcome !== undefined && event.outcome !== "ok");
      return lazyJson(el("summary", null,
        el("span", { class: "offset", text: `+${Text.duration(Math.max(0, ((event.time ?? first) - first) * 1000))}` }),
        el("b", { class: bad ? "error" : null, dir: "auto", text: event.event }),
        el("span", { class: "dim", dir: "auto", text: gist(event, Timeline.AGENTS.has(event.event) ? shift : 0) })), Events.given(event));
    }, longer));
  }

  function gist(event, shift) {
    const turn = event.turn + shift;
    const parts = [turn ? `turn ${turn}` : null, event.name, event.outcome, event.status, event.verdict, event.finish_reason, event.error ?? event.error_message ?? event.problem];
    return Text.line(parts.filter(Boolean).join(" · "), 200);
  }

  function requestNode(events) {
    const start = events.find((event) => event.event === "trace_start");
    if (!start) return el("p", { class: "dim", text: "The trace does not hold the request." });
    const { messages, ...rest } = start.request ?? {};
    return el("div", { class: "request" },
      el("h3", { text: "Settings and metadata" }), Text.copyButton("JSON", () => Text.json(start.request)), block(Text.json(rest), "code"),
      el("h3", { text: `Tools (${start.tools?.length ?? 0})` }),
      Text.first(start.tools ?? [], "tools", (tool) => lazyJson(el("summary", null, el("b", { text: tool.function?.name ?? "?" }), el("span", { class: "dim", text: Text.line(tool.function?.description, 160) })), tool), longer));
  }

  function fact(name, value, className, title = null) {
    return el("div", { class: `fact ${className ?? ""}` }, el("dt", { text: name, title: name }), el("dd", { dir: "auto", text: value, title }));
  }
  const rewardFact = (name, value, className) => fact(name, Text.reward(value), className, Text.whole(value));

  // What ends in what tells it from others: a run, an id of a dataset.
  function named(name, value, className, shown = value) {
    return el("div", { class: `fact ${className ?? ""}` }, el("dt", { text: name, title: name }), el("dd", { class: "id", dir: "auto", title: value }, Text.middle(shown)));
  }

  function header(rollout, pinned) {
    const kind = { COMPLETED: "ok", ERROR: "bad" }[rollout.status] ?? "open";
    const word = { COMPLETED: "Completed", ERROR: "Failed" }[rollout.status] ?? "No result";
    const button = (text, label, title, onclick, more) => el("button", { type: "button", "aria-label": label, title, text, onclick, ...more });
    return [el("header", { class: "detail-title" },
        el("span", { class: `chip ${kind}`, text: word }),
        el("h2", { dir: "auto", title: rollout.id, "aria-label": rollout.id || "(no id)" }, Text.middle(rollout.id || "(no id)")),
        el("div", { class: "detail-buttons" },
          Text.copyButton("link", () => Address.linkOf(rollout)),
          button("⇹", pinned ? "Unpin" : "Pin, to compare with another", pinned ? "Unpin (c)" : "Pin, to compare with the next that is opened (c)", () => act.pin(), { "aria-pressed": Boolean(pinned) }),
          button("⚠", "Next failure", "Next failure (n)", () => act.nextFailure(1)),
          button("↑", "Previous rollout", "Previous (k)", () => act.step(-1)),
          button("↓", "Next rollout", "Next (j)", () => act.step(1)),
          button("✕", "Close", "Close (Esc)", () => act.close(), { id: "close" }))),
      el("div", { class: "detail-head" },
      rollout.error ? el("div", { class: "problem", role: "note" }, el("b", { text: rollout.outcome && rollout.failed ? rollout.outcome : rollout.failed ? "error" : "so far" }), block(rollout.where ? `${rollout.error}\n${rollout.where}` : rollout.error)) : null,
      rollout.warning ? el("div", { class: "problem warn", role: "note" }, el("b", { text: "warning" }), block(rollout.warning)) : null,
      rollout.delivery && rollout.delivery !== "acknowledged" ? el("div", { class: "problem warn", role: "note" }, el("b", { text: "delivery" }), block(`The trainer has not taken the result: ${rollout.delivery}.`)) : null,
      el("dl", { class: "facts" },
        rewardFact("reward", rollout.reward, "strong"),
        Object.entries(rollout.components ?? {}).map(([name, value]) => rewardFact(name, value, "part")), fact("finish", rollout.finish ?? "–"), fact("outcome", rollout.outcome ?? "–"),
        fact("turns", String(rollout.turns)), fact("tool calls", rollout.toolErrors ? `${rollout.tools} (${rollout.toolErrors} failed)` : String(rollout.tools)),
        fact("tokens in + out", `${Text.count(rollout.promptTokens)} + ${Text.count(rollout.responseTokens)}`),
        fact("duration", Text.duration(rollout.duration)), fact("queue", Text.duration(rollout.queue)), fact("model time", Text.duration(rollout.llm)), fact("tool time", Text.duration(rollout.tool)),
        fact("started", Text.when(rollout.started)), named("run", rollout.run, null, Text.runName(rollout.run)), rollout.agent ? fact("agent", rollout.agent) : null,
        rollout.weights?.length ? fact("weights", rollout.weights.join(", ")) : null,
        Object.entries(rollout.metadata ?? {}).map(([name, value]) => (typeof value === "string" ? named : fact)(name, String(value), "meta"))))];
  }

  function toTurn(number) {
    if (tab !== TABS[0]) { act.tab(TABS[0]); }
    requestAnimationFrame(() => {
      const find = () => document.getElementById(`turn-${number}`);
      if (!find()) panel.querySelector(".conversation > .more")?.click();
      find()?.scrollIntoView({ block: "start" });
    });
  }

  // What cannot be drawn says so in its place, and leaves the others.
  function drawn(part) {
    try { return part(); } catch (error) { return el("p", { class: "notice", text: `This part cannot be shown: ${error.message}` }); }
  }

  function render(rollout, answer) {
    const views = { Conversation: () => Conversation.render(answer.events, longer), Turns: () => Timeline.table(answer.events, toTurn), Events: () => eventsNode(answer.events), Request: () => requestNode(answer.events) };
    const tabs = el("div", { class: "tabs", role: "tablist", "aria-label": "Of this rollout" }, TABS.map((name) => el("button", {
      type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "tab-body", "aria-selected": name === tab, tabindex: name === tab ? 0 : -1,
      text: name === "Events" ? `Events (${answer.events.length})` : name, onclick: () => act.tab(name) })));
    Keys.tabs(tabs);
    const bodyNode = el("div", { class: "tab-body", id: "tab-body", role: "tabpanel", "aria-labelledby": `tab-${tab}`, tabindex: 0 }, drawn(views[tab]));
    Text.redraw(panel, () => Text.settle(panel, [...header(rollout, pinnedNow), drawn(() => Timeline.render(answer.events, toTurn)), tabs, answer.cut ? el("p", { class: "notice", text: "The trace is too large to show; this is its beginning." }) : null, bodyNode].filter(Boolean)),
      () => panel.querySelector('[role="tab"][aria-selected="true"]'));
  }

  // Beside the pinned one, if that is another.
  async function open(rollout, wanted, pinned) {
    if (panel.hidden) before = document.activeElement;
    const other = pinned && pinned !== rollout ? pinned : null;
    const isNew = current !== rollout.key || beside !== (other?.key ?? null);
    [current, beside] = [rollout.key, other?.key ?? null];
    pinnedNow = pinned;
    const had = tab;
    tab = TABS.includes(wanted) ? wanted : TABS[0];
    if (isNew || tab !== had) longer = {};
    panel.hidden = false;
    panel.classList.toggle("double", Boolean(other));
    document.body.classList.add("with-detail");
    if (isNew) {
      panel.scrollTop = 0;
      Text.redraw(panel, () => panel.replaceChildren(...header(rollout, pinned), el("p", { class: "dim loading", text: "Reading…" })), () => panel);
    }
    panel.setAttribute("aria-label", other ? "Two rollouts side by side" : `Rollout ${Text.show(rollout.id)}`);
    try {
      const [answer, second] = await Promise.all([Source.detail(rollout.key), other ? Source.detail(other.key) : null]);
      if (current !== rollout.key) return;
      if (other) Pinned.render(panel, other, second.events, rollout, answer.events, act);
      else render(rollout, answer);
    } catch (error) {
      if (current === rollout.key) panel.replaceChildren(...header(rollout, pinned), el("p", { class: "notice", text: error.message }));
    }
    if (isNew && current === rollout.key && !panel.contains(document.activeElement) && !document.activeElement?.closest(".row")) panel.focus({ preventScroll: true });
  }

  function shut() {
    if (panel.hidden) return;
    current = null;
    panel.hidden = true;
    panel.replaceChildren();
    document.body.classList.remove("with-detail");
    if (before?.isConnected) before.focus({ preventScroll: true });
  }

  return {
    TABS, open, shut,
    nextDifference() { if (current === null || beside === null) return false; Pinned.nextDifference(panel); return true; },
    get current() { return current; },
    get tab() { return tab; },
    on(actions) { act = actions; },
  };
})();
