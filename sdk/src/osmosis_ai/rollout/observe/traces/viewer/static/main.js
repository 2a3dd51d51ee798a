// The page: filters, summary, keyboard, and following the source.
(() => {
  const { el } = Text;
  const at = (id) => document.getElementById(id);
  const state = { status: null, reason: null, reward: null, search: "" };
  let rollouts = new Map(), about = {}, drawn = 0;
  const MAX_REASONS = 6, MAX_PARTS = 6;

  // Failures of one kind differ in numbers and names.
  // The innermost line of the agent's own code.
  const placeOf = (one) => one.where?.startsWith("at ") ? one.where.split("\n")[0].slice(0, 120) : null;
  const reasonOf = (one) => `${one.outcome ?? "error"}\u0000${one.kind ?? ""}`;
  const haystackOf = (one) => one.haystack ??= [one.id, one.prompt, one.error, one.warning, one.outcome, one.finish, one.agent, one.status].join("\n").toLowerCase();

  const passes = {
    status: (one) => state.status === null || (state.status === "toolErrors" ? one.toolErrors > 0 : one.status === state.status),
    reason: (one) => state.reason === null || (one.failed && reasonOf(one) === state.reason),
    reward: (one) => state.reward === null || (one.reward !== null && one.reward >= state.reward[0] && one.reward < state.reward[1]),
    search: (one) => state.search === "" || state.search.split(/\s+/).every((word) => haystackOf(one).includes(word)),
  };
  const filtered = (...without) => {
    const checks = Object.entries(passes).filter(([name]) => !without.includes(name)).map(([, check]) => check);
    return [...rollouts.values()].filter((one) => checks.every((check) => check(one)));
  };

  function update() {
    const shown = filtered();
    Table.show(shown);
    summary(shown);
    failures();
    filters(shown.length);
    if (at("charts").open) Charts.draw(at("plots"), filtered("reward"), (range) => set({ reward: state.reward && state.reward[0] === range[0] ? null : range }), state.reward);
    at("empty").hidden = shown.length > 0;
    at("empty").textContent = rollouts.size ? "No rollout passes the filter." : `No rollouts yet in ${Text.show(about.source ?? "")}. They appear here as the server runs them.`;
    drawn = performance.now();
  }

  function set(change) { Object.assign(state, change); update(); }

  function card(label, value, kind, choose, chosen) {
    const inside = [el("span", { class: "value", text: value }), el("span", { class: "label", text: label })];
    return choose === undefined ? el("div", { class: `card ${kind ?? ""}` }, inside)
      : el("button", { type: "button", class: `card ${kind ?? ""}`, "aria-pressed": chosen, onclick: choose }, inside);
  }

  // Mean and spread of what rewards are made of, over the rollouts that have the part.
  function parts(shown) {
    const known = new Map();
    for (const one of shown) for (const [name, value] of Object.entries(one.components ?? {})) {
      if (known.has(name)) known.get(name).push(value);
      else if (known.size < MAX_PARTS) known.set(name, [value]);
    }
    return [...known].map(([name, values]) => {
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
      return card(`mean ${Text.show(name)}`, `${Text.reward(mean)} ± ${Text.reward(spread)}`, "part");
    });
  }

  function summary(shown) {
    const counts = { COMPLETED: 0, ERROR: 0, UNFINISHED: 0 };
    let toolErrors = 0;
    for (const one of filtered("status", "reason")) { counts[one.status] = (counts[one.status] ?? 0) + 1; toolErrors += one.toolErrors > 0; }
    const all = counts.COMPLETED + counts.ERROR + counts.UNFINISHED;
    const rewards = shown.filter((one) => one.reward !== null), durations = shown.map((one) => one.duration).filter((ms) => ms !== null).sort((a, b) => a - b);
    const mean = (list, valueOf) => list.length ? list.reduce((sum, one) => sum + valueOf(one), 0) / list.length : null;
    const pick = (status) => () => set({ status: state.status === status ? null : status, reason: null });
    const focused = document.activeElement?.closest?.("#summary button");
    const index = focused ? [...at("summary").querySelectorAll("button")].indexOf(focused) : -1;
    at("summary").replaceChildren(
      card("rollouts", all.toLocaleString("en"), "", pick(null), state.status === null && state.reason === null),
      card("failed", counts.ERROR.toLocaleString("en"), counts.ERROR ? "bad" : "", pick("ERROR"), state.status === "ERROR"),
      card("no result", counts.UNFINISHED.toLocaleString("en"), counts.UNFINISHED ? "open" : "", pick("UNFINISHED"), state.status === "UNFINISHED"),
      card("completed", counts.COMPLETED.toLocaleString("en"), "ok", pick("COMPLETED"), state.status === "COMPLETED"),
      card("with failed tools", toolErrors.toLocaleString("en"), toolErrors ? "open" : "", pick("toolErrors"), state.status === "toolErrors"),
      card("mean reward", Text.reward(mean(rewards, (one) => one.reward))), ...parts(shown),
      card("mean turns", Text.number(mean(shown, (one) => one.turns), 1), "turns"),
      card("tokens", Text.count(shown.reduce((sum, one) => sum + one.promptTokens + one.responseTokens, 0))),
      card("median · p95", `${Text.duration(Text.median(durations))} · ${Text.duration(Text.median(durations, 0.95))}`, "wide"));
    if (index >= 0) at("summary").querySelectorAll("button")[index]?.focus({ preventScroll: true });
  }

  function failures() {
    const kinds = new Map();
    let total = 0;
    for (const one of filtered("status", "reason")) {
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
    const item = (kind) => el("li", null, el("button", { type: "button", class: "reason", "aria-pressed": state.reason === kind.reason, onclick: () => set({ reason: state.reason === kind.reason ? null : kind.reason, status: null }) },
      el("span", { class: "count", text: kind.count.toLocaleString("en") }), el("span", { class: "chip bad", text: kind.outcome }),
      el("span", { class: "says", dir: "auto", text: kind.example.split("\n")[0].slice(0, 200) }),
      kind.place ? el("span", { class: "place", dir: "auto", text: kind.place }) : null));
    const share = (total / Math.max(1, filtered("status", "reason").length) * 100);
    node.replaceChildren(el("h2", { text: `Why ${total.toLocaleString("en")} failed (${share < 1 ? "<1" : Math.round(share)}%)` }), el("ul", null, list.slice(0, MAX_REASONS).map(item)));
    if (list.length > MAX_REASONS) node.append(el("details", { open: wasOpen }, el("summary", { text: `${list.length - MAX_REASONS} more reasons` }), el("ul", null, list.slice(MAX_REASONS, 60).map(item))));
  }

  function filters(count) {
    const chips = [];
    const chip = (text, clear) => chips.push(el("button", { type: "button", class: "filter", "aria-label": `Remove filter: ${text}`, onclick: () => set(clear) }, el("span", { dir: "auto", text }), el("span", { "aria-hidden": "true", text: " ✕" })));
    if (state.status) chip({ ERROR: "failed", UNFINISHED: "no result", COMPLETED: "completed", toolErrors: "with failed tools" }[state.status], { status: null });
    if (state.reason) chip(`failed: ${state.reason.replace("\u0000", ", ").slice(0, 80)}`, { reason: null });
    if (state.reward) chip(`reward ${Text.reward(state.reward[0])} to ${state.reward[1] === Infinity ? "max" : Text.reward(state.reward[1])}`, { reward: null });
    if (state.search) chip(`“${state.search}”`, { search: "" });
    if (!state.search && at("search").value.trim() && document.activeElement !== at("search")) at("search").value = "";
    const sort = el("label", { class: "sort" }, "Sort ", el("select", { "aria-label": "Sort by", onchange: (event) => Table.sortBy(event.target.value) }, el("option", { value: "started", text: "by…" }), Table.COLUMNS.map((column) => el("option", { value: column.name, text: column.label }))));
    at("filters").replaceChildren(el("span", { class: "shown", text: `${count.toLocaleString("en")} of ${rollouts.size.toLocaleString("en")} shown` }), ...chips, sort);
  }

  function open(key) {
    const rollout = rollouts.get(key);
    if (!rollout) return;
    history.replaceState(null, "", `#r${key}`);
    Detail.open(rollout);
  }
  function shut() {
    history.replaceState(null, "", location.pathname + location.search);
    Detail.shut();
  }
  let opening = 0;
  function step(by) {
    const key = Table.move(by);
    if (key !== null && Detail.current !== null) {
      clearTimeout(opening);
      opening = setTimeout(() => open(key), 60);
    }
  }

  const KEYS = [["j  k", "next, previous rollout"], ["Enter", "open"], ["Esc", "close; leave the search; clear the filters"], ["/", "search"], ["e", "only the failed"], ["n  p", "next, previous failure"], ["[  ]", "tabs of a rollout"], ["g  G", "first, last"], ["t", "light or dark"], ["?", "this help"]];

  function nextFailure(by) {
    for (let tries = 0; tries < rollouts.size; tries += 1) {
      const before = Table.selected;
      const key = Table.move(by);
      if (key === null || rollouts.get(key)?.failed || key === before) break;
    }
    if (Detail.current !== null && Table.selected !== null) open(Table.selected);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || at("keys").open) return;
    const typing = event.target.matches?.("input, select, textarea");
    if (event.key === "Escape") {
      if (typing) event.target.blur();
      else if (Detail.current !== null) shut();
      else set({ status: null, reason: null, reward: null, search: "" });
      return;
    }
    if (typing) { if (event.key === "Enter" && event.target === at("search")) { event.target.blur(); Table.move(1); } return; }
    const act = {
      j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
      g: () => step(-Infinity), G: () => step(Infinity), PageDown: null, PageUp: null,
      Enter: () => { if (!event.target.closest?.("button, summary, a, g") && Table.selected !== null) open(Table.selected); else return false; },
      "/": () => at("search").focus(), e: () => set({ status: state.status === "ERROR" ? null : "ERROR", reason: null }),
      n: () => nextFailure(1), p: () => nextFailure(-1),
      "[": () => { Detail.nextTab(-1); if (Detail.current !== null) open(Detail.current); }, "]": () => { Detail.nextTab(1); if (Detail.current !== null) open(Detail.current); },
      t: theme, "?": help,
    }[event.key];
    if (!act) return;
    if (event.key.startsWith("Arrow") && event.target.closest?.("pre, .detail")) return;
    if (act() !== false) event.preventDefault();
  });

  function theme() {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept, then */ }
  }
  try { const kept = localStorage.getItem("theme"); if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept; } catch { /* none kept */ }

  function help() {
    const dialog = at("keys");
    dialog.replaceChildren(el("h2", { text: "Keyboard" }), el("dl", null, KEYS.map(([key, meaning]) => [el("dt", null, key.split("  ").map((one) => el("kbd", { text: one }))), el("dd", { text: meaning })])), el("button", { type: "button", text: "Close", onclick: () => dialog.close() }));
    dialog.showModal();
  }

  at("theme").addEventListener("click", theme);
  at("help").addEventListener("click", help);
  at("search").addEventListener("input", (event) => set({ search: event.target.value.trim().toLowerCase() }));
  at("charts").addEventListener("toggle", update);
  if (matchMedia("(max-width: 720px)").matches) at("charts").open = false;
  Table.onOpen(open);
  Table.onSort(update);
  Detail.onClose(shut);
  Detail.onStep(step);

  let waiting = null;
  Source.follow((all, told, changed) => {
    const first = rollouts.size === 0;
    rollouts = all;
    about = told;
    at("source").textContent = Text.show(told.source);
    if (told.report) {
      at("live").textContent = "report";
      if (told.total > told.whole) {
        at("notice").hidden = false;
        at("notice").textContent = `This file is bounded in size: of ${told.total.toLocaleString("en")} rollouts it lists ${all.size.toLocaleString("en")} and holds ${told.whole.toLocaleString("en")} whole, failures first, then the newest.`;
      }
    } else {
      at("live").className = "live on";
    }
    // A large table is drawn anew at most every second or so.
    clearTimeout(waiting);
    waiting = setTimeout(update, first ? 0 : Math.max(0, (all.size > 5000 ? 1500 : 150) - (performance.now() - drawn)));
    if (Detail.current !== null && changed?.has(Detail.current)) open(Detail.current);
    if (first && /^#r\d+$/.test(location.hash)) { const key = Number(location.hash.slice(2)); if (all.has(key)) { Table.select(key); open(key); } }
  }, (error, more) => {
    at("live").textContent = error ? "not connected" : more ? "reading…" : "live";
    at("live").className = error ? "live off" : "live on";
  });
})();
