// What came of the rollouts that are shown, in numbers, and why some failed, a line a reason.
const Overview = (() => {
  const { el } = Text;
  const MAX_REASONS = 6, MAX_PARTS = 6;
  const at = (id) => document.getElementById(id);

  // The innermost line of the agent's own code.
  const placeOf = (one) => one.where?.startsWith("at ") ? Text.line(one.where.split("\n")[0], 120) : null;
  // Failures of one kind differ in numbers and names.
  const reasonOf = (one) => `${one.outcome ?? "error"}: ${one.kind ?? ""}`;

  function card(label, value, kind, choose, chosen, whole = null) {
    const inside = [el("span", { class: "value", text: value, title: whole }), el("span", { class: "label", text: label })];
    return choose === undefined ? el("div", { class: `card ${kind ?? ""}` }, inside)
      : el("button", { type: "button", class: `card ${kind ?? ""}`, "aria-pressed": chosen, onclick: choose }, inside);
  }

  // Mean and spread of what rewards are made of, over the rollouts that have the part.
  function parts(shown) {
    const known = new Map();
    for (const one of shown) for (const name in one.components) {
      if (known.has(name)) known.get(name).push(one.components[name]);
      else if (known.size < MAX_PARTS) known.set(name, [one.components[name]]);
    }
    return [...known].map(([name, values]) => {
      const mean = Stats.mean(values), spread = Stats.spread(values) ?? 0;
      return card(`mean ${Text.show(name)} ± sd`, [mean, spread].map(Text.column([mean, spread], { most: 4 })).join(" ± "), "part", undefined, undefined, Text.whole(mean) ?? Text.whole(spread) ? `${mean} ± ${spread}` : "sd: standard deviation over rollouts, with divisor n");
    });
  }

  function cards(shown, before, state, set) {
    const counts = { COMPLETED: 0, ERROR: 0, UNFINISHED: 0 };
    let toolErrors = 0, tokens = 0;
    for (const one of before) { counts[one.status] = (counts[one.status] ?? 0) + 1; toolErrors += one.toolErrors > 0; }
    for (const one of shown) tokens += one.tokens;
    const durations = Text.sorted(shown.map((one) => one.duration));
    const pick = (status) => () => set({ status: state.status === status ? null : status, reason: null });
    const rewards = shown.filter((one) => one.reward !== null).map((one) => one.reward), reward = Stats.mean(rewards);
    // A failure is no reward of 0: so of how many it is.
    const ofSome = rewards.length && rewards.length < shown.length ? ` of ${rewards.length.toLocaleString("en")}` : "";
    Text.redraw(at("summary"), () => at("summary").replaceChildren(
      card("rollouts", before.length.toLocaleString("en"), "", pick(null), state.status === null && state.reason === null),
      card("failed", counts.ERROR.toLocaleString("en"), counts.ERROR ? "bad" : "", pick("ERROR"), state.status === "ERROR"),
      card("no result", counts.UNFINISHED.toLocaleString("en"), counts.UNFINISHED ? "open" : "", pick("UNFINISHED"), state.status === "UNFINISHED"),
      card("completed", counts.COMPLETED.toLocaleString("en"), "ok", pick("COMPLETED"), state.status === "COMPLETED"),
      card("with failed tools", toolErrors.toLocaleString("en"), toolErrors ? "open" : "", pick("toolErrors"), state.status === "toolErrors"),
      card(`mean reward${ofSome}`, Text.reward(reward), "", undefined, undefined, Text.whole(reward)), ...parts(shown),
      card("mean turns", Text.number(Stats.mean(shown.map((one) => one.turns)), 1)),
      card("tokens", Text.count(tokens)),
      card("duration, median · p95", `${Text.duration(Text.median(durations))} · ${Text.duration(Text.median(durations, 0.95))}`)));
  }

  function failures(before, state, set) {
    const kinds = new Map();
    let total = 0;
    for (const one of before) {
      if (!one.failed) continue;
      total += 1;
      const reason = reasonOf(one), known = kinds.get(reason);
      if (known) known.count += 1; else kinds.set(reason, { reason, count: 1, outcome: one.outcome ?? "error", example: one.error || "no message", place: placeOf(one) });
    }
    const node = at("failures");
    node.hidden = total === 0;
    if (!total) return;
    const list = [...kinds.values()].sort((a, b) => b.count - a.count);
    const wasOpen = node.querySelector("details")?.open;
    const item = (kind) => el("li", null, el("button", { type: "button", class: "reason", "aria-pressed": state.reason === kind.reason, onclick: () => set({ reason: state.reason === kind.reason ? null : kind.reason, status: null, view: "rollouts" }) },
      el("span", { class: "count", text: kind.count.toLocaleString("en") }), el("span", { class: "chip bad", text: kind.outcome }),
      el("span", { class: "says", dir: "auto", text: Text.line(kind.example.split("\n")[0], 200) }),
      kind.place ? el("span", { class: "place", dir: "auto", text: kind.place }) : null));
    const share = total / Math.max(1, before.length) * 100;
    const more = list.length > MAX_REASONS ? el("details", { open: wasOpen }, el("summary", { text: `${list.length - MAX_REASONS} more reasons` }), el("ul", null, list.slice(MAX_REASONS, 60).map(item))) : null;
    Text.redraw(node, () => node.replaceChildren(...[el("h2", { text: `Why ${total.toLocaleString("en")} failed (${share < 1 ? "<1" : Math.round(share)}%)` }), el("ul", null, list.slice(0, MAX_REASONS).map(item)), more].filter(Boolean)));
  }

  return { cards, failures, reasonOf };
})();
