// Where the time of a rollout went: lanes of what went on, and its turns as a table.
const Timeline = (() => {
  const { el } = Text;
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
        add("Model", event.time, event.latency_ms, `turn ${event.turn ?? "?"}: ${event.error ? "failed after" : "model"} ${Text.duration(event.latency_ms)}`, event.error !== undefined, event.turn);
      } else if (event.event === "pause_end") add("Pause", event.time - event.ago_ms / 1000, event.pause_ms, `turn ${event.turn ?? "?"}: the trainer paused for ${Text.duration(event.pause_ms)}${event.answered ? "" : ", and was given up"}`, !event.answered, event.turn);
      else if (event.event === "tool_call") add("Tools", event.time, event.latency_ms, `turn ${event.turn ?? "?"}: ${event.name} ${Text.duration(event.latency_ms)}${event.outcome === "ok" ? "" : `, ${event.outcome}`}`, event.outcome !== "ok", event.turn);
      else if (event.event === "delivery") add("Delivery", event.time, event.latency_ms, `attempt ${event.attempt}: ${event.verdict}, ${Text.duration(event.latency_ms)}`, event.verdict !== "acknowledged");
      else if (!isServers && event.event === "llm_response") add("Model", event.time, event.latency_ms, `turn ${event.turn + shift || "?"}: model ${Text.duration(event.latency_ms)}`, false, event.turn + shift);
      else if (!isServers && event.event === "tool_results") add("Tools", event.time, event.latency_ms, `turn ${event.turn + shift || "?"}: tools ${Text.duration(event.latency_ms)}`, false, event.turn + shift);
    }
    const last = events.reduce((latest, event) => Math.max(latest, event.time || 0), 0);
    const finished = events.some((event) => event.event === "rollout_result");
    for (const event of events) {
      if (event.event === "chat_start" && !ended.has(event.turn) && !finished) segments.push({ lane: "Model", from: event.time, to: Math.max(last, event.time), label: `turn ${event.turn ?? "?"}: waiting for the model`, waiting: true, turn: event.turn });
    }
    return segments;
  }

  function timeline(events, go) {
    const segments = segmentsOf(events);
    if (!segments.length) return null;
    const from = Math.min(...segments.map((one) => one.from)), to = Math.max(...segments.map((one) => one.to), ...events.filter((event) => event.event === "rollout_result").map((event) => event.time ?? from));
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
        const bar = el(one.turn ? "button" : "div", { class: `seg ${name.toLowerCase()}${one.bad ? " bad" : ""}${one.waiting ? " waiting" : ""}`, title: one.label, "aria-label": one.label, type: one.turn ? "button" : null, role: one.turn ? null : "img" });
        bar.style.left = `${(one.from - from) / span * 100}%`;
        bar.style.width = `${Math.max((one.to - one.from) / span * 100, 0.4)}%`;
        bar.style.top = `${one.level * 14 + 3}px`;
        if (one.turn) bar.addEventListener("click", () => go(one.turn));
        track.append(bar);
      }
      return el("div", { class: "lane" }, el("span", { class: "lane-name", text: name }), track, el("span", { class: "lane-total", text: Text.duration(total) }));
    });
    return el("section", { class: "timeline", "aria-label": "Timeline" }, lanes.filter(Boolean),
      el("div", { class: "lane scale", "aria-hidden": "true" }, el("span", { class: "lane-name" }), el("div", { class: "axis" }, el("span", { text: "0" }), el("span", { text: Text.duration(span * 500) }), el("span", { text: Text.duration(span * 1000) })), el("span", { class: "lane-total" })));
  }

  // By the SDK's count of turns, which begins with 1.
  function turnsOf(events) {
    const shift = agentsFirst(events), turns = new Map();
    const turn = (number) => { if (!turns.has(number)) turns.set(number, { number, model: null, tools: 0, calls: [], failed: 0, usage: null, finish: null, error: null, weights: null }); return turns.get(number); };
    const isServers = events.some((event) => event.event === "chat_end");
    for (const event of events) {
      if (event.event === "chat_end") Object.assign(turn(event.turn), { model: (turn(event.turn).model ?? 0) + (event.latency_ms ?? 0), usage: event.usage ?? null, finish: event.finish_reason ?? null, error: event.error ?? null, weights: event.weight_versions ?? null });
      else if (event.event === "tool_call") { const one = turn(event.turn); one.tools += event.latency_ms ?? 0; one.calls.push(event.name); one.failed += event.outcome !== "ok"; }
      else if (!isServers && event.event === "llm_response") Object.assign(turn(event.turn + shift), { model: event.latency_ms ?? null, finish: event.finish_reason ?? null, calls: (event.tool_calls ?? []).map((call) => call.function?.name) });
      else if (!isServers && event.event === "tool_results") turn(event.turn + shift).tools += event.latency_ms ?? 0;
    }
    return [...turns.values()].filter((one) => Number.isInteger(one.number)).sort((a, b) => a.number - b.number);
  }

  function table(events, go) {
    const turns = turnsOf(events);
    if (!turns.length) return el("p", { class: "dim", text: "The trace tells of no turn." });
    const hasWeights = turns.some((one) => one.weights?.length);
    const heads = ["Turn", "Model", "Tools", "Prompt", "Written", "Finish", "Calls", ...(hasWeights ? ["Weights"] : [])];
    const named = (calls) => { const counts = new Map(); for (const name of calls) counts.set(name ?? "?", (counts.get(name ?? "?") ?? 0) + 1); return [...counts].map(([name, count]) => count > 1 ? `${name} ×${count}` : name).join(", ") || "–"; };
    const sum = (valueOf) => turns.reduce((total, one) => total + (valueOf(one) ?? 0), 0);
    const row = (one) => el("tr", { class: one.error || one.failed ? "worse" : "" },
      el("th", { scope: "row" }, el("button", { type: "button", class: "link", "aria-label": `Turn ${one.number} in the conversation`, text: one.number, onclick: () => go(one.number) })),
      [Text.duration(one.model), one.calls.length ? Text.duration(one.tools) : "–", one.usage?.prompt_tokens ?? "–", one.usage?.completion_tokens ?? "–", one.error ? "failed" : one.finish ?? "–"].map((text) => el("td", { text: String(text) })),
      el("td", { class: "wide", dir: "auto", text: named(one.calls) + (one.failed ? ` (${one.failed} failed)` : "") }),
      hasWeights ? el("td", { text: (one.weights ?? []).join(", ") || "–" }) : null);
    return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Turns" }, el("table", { class: "list turns" }, el("thead", null, el("tr", null, heads.map((text) => el("th", { scope: "col", text })))), el("tbody", null, turns.map(row)),
      el("tfoot", null, el("tr", null, el("th", { scope: "row", text: "all" }), [Text.duration(sum((one) => one.model)), Text.duration(sum((one) => one.tools)), "", Text.count(sum((one) => one.usage?.completion_tokens)), "", ""].map((text) => el("td", { text })), hasWeights ? el("td") : null))));
  }

  return { render: timeline, table, turnsOf, agentsFirst, AGENTS };
})();
