// The page: what it shows, out of its address; filters, views, and following the source.
(() => {
  const { el } = Text;
  const at = (id) => document.getElementById(id);
  const VIEWS = ["rollouts", "problems", "runs"];
  const NO_FILTER = { status: null, reason: null, reward: null, q: "", run: null, problem: null };
  let state = Address.read();
  let rollouts = new Map(), about = {}, drawn = 0, hasMore = true, sorted = [];
  const knownKeys = new Set();

  // A link names the two runs that are compared, though nobody picked them: a third would make them others.
  const write = (isStep) => Address.write(state.view === "runs" && !hasMore ? { ...state, a: state.a ?? Runs.compared.a, b: state.b ?? Runs.compared.b } : state, isStep);

  // What the search says of a rollout, and, of a word, in whose tools it is, once that is known.
  let query = { words: [], facets: [] }, matched = null, inTools = new Map(), asking = 0;
  function readQuery() {
    query = Query.parse(state.q, (key) => knownKeys.has(key));
    matched = null;
  }
  function askTools(delay) {
    clearTimeout(asking);
    const words = Query.soughtInTools(query).filter((word) => !inTools.has(word));
    if (!words.length) return;
    asking = setTimeout(async () => {
      try {
        const found = await Source.search(words);
        if (inTools.size > 40) inTools.clear();
        words.forEach((word, index) => inTools.set(word, found[index]));
        update();
      } catch { /* the table then tells of what is in the rows */ }
    }, delay);
  }

  let problemOf = Problems.problemOf(state.by);
  const passes = {
    run: (one) => state.run === null || one.run === state.run,
    problem: (one) => state.problem === null || problemOf(one) === state.problem,
    status: (one) => state.status === null || (state.status === "toolErrors" ? one.toolErrors > 0 : one.status === state.status),
    reason: (one) => state.reason === null || (one.failed && Overview.reasonOf(one) === state.reason),
    reward: (one) => state.reward === null || (one.reward !== null && one.reward >= state.reward[0] && one.reward < state.reward[1]),
  };
  const filtered = (...without) => {
    // A view that has all problems, or all runs, in rows is not narrowed to one of them, and neither are its numbers.
    without.push({ problems: "problem", runs: "run" }[state.view]);
    const checks = Object.entries(passes).filter(([name]) => state[name] !== null && !without.includes(name)).map(([, check]) => check);
    // Of 50,000 each key asks all: most often of one thing alone.
    matched ??= state.q ? Query.among(sorted, query, inTools) : sorted;
    return checks.reduce((left, check) => left.filter(check), matched);
  };

  // The table follows each key at once; what is reckoned of all rollouts comes when the typing pauses.
  let later = 0;
  function update(delay = 0) {
    problemOf = Problems.problemOf(state.by);
    if (Table.mark(state.problem === null ? null : state.a, state.b)) sorted = Table.ordered([...rollouts.values()]);
    readQuery();
    const shown = filtered();
    for (const view of VIEWS) at(`view-${view}`).hidden = state.view !== view;
    for (const tab of at("views").children) { const chosen = tab.id === `to-${state.view}`; tab.setAttribute("aria-selected", chosen); tab.tabIndex = chosen ? 0 : -1; }
    const isOne = state.problem !== null && Asked.areAlike(shown);
    if (state.view === "rollouts") Table.show(shown, true, isOne);
    Asked.draw(at("asked"), isOne ? shown : [], compare);
    filters(shown.length);
    at("empty").hidden = shown.length > 0;
    at("problem-head").hidden = at("run-list").hidden = !shown.length;
    at("clear").hidden = !rollouts.size;
    at("says").textContent = rollouts.size ? "The filters leave no rollout." : hasMore ? "Reading the traces…" : `No rollouts yet in ${Text.show(about.source ?? "")}. They appear here as the server runs them.`;
    clearTimeout(later);
    if (delay) later = setTimeout(() => overview(shown), delay); else overview(shown);
    askTools(delay ? 120 : 0);
    drawn = performance.now();
  }

  function overview(shown) {
    const before = filtered("status", "reason");
    Overview.cards(shown, before, state, set);
    if (state.view === "rollouts") {
      Overview.failures(before, state, set);
      const charted = filtered("reward");
      at("charts").hidden = !charted.length;
      if (at("charts").open) Charts.draw(at("plots"), charted, (range) => set({ reward: state.reward && state.reward[0] === range[0] ? null : range }), state.reward);
    } else if (state.view === "problems") {
      const count = Problems.draw(shown, sorted, state);
      if (state.silent !== null) at("chips").querySelector(".shown").textContent = `${Problems.shown.length.toLocaleString("en")} of ${count.toLocaleString("en")} problems shown`;
    } else {
      Runs.draw(at("run-list"), shown, state, { onRun: (run) => set({ run, view: "rollouts" }), onPick: (sides) => set(sides), onProblem: toSides, onCompare: compare, onChange: (change) => set({ change }) });
      write(false);
    }
  }

  // A problem's samples as the comparison has them: those of A, then those of B.
  const toSides = (problem) => openProblem(problem, { ...Runs.compared, run: null, sort: "run" });

  function set(change, isStep = true) {
    Object.assign(state, change);
    write(isStep);
    update();
    if ("view" in change) window.scrollTo(0, 0);
  }

  let sorts = null;
  function filters(count) {
    const chips = [];
    const chip = (text, clear) => chips.push(el("button", { type: "button", class: "filter", "aria-label": `Remove filter: ${text}`, onclick: () => set(clear) }, el("span", { class: "says", dir: "auto", text }), el("span", { "aria-hidden": "true", text: "✕" })));
    if (state.status) chip({ ERROR: "failed", UNFINISHED: "no result", COMPLETED: "completed", toolErrors: "with failed tools" }[state.status] ?? state.status, { status: null });
    if (state.reason) chip(`failed: ${Text.line(state.reason, 80)}`, { reason: null });
    if (state.reward) chip(`reward ${Text.reward(state.reward[0])} to ${state.reward[1] === Infinity ? "max" : Text.reward(state.reward[1])}`, { reward: null });
    if (state.run !== null && state.view !== "runs") chip(`run ${Text.runName(state.run)}`, { run: null });
    if (state.problem !== null && state.view !== "problems") { const one = sorted.find(passes.problem); chip(`problem: ${Text.line(one?.prompt || state.problem, 60)}`, { problem: null }); }
    if (state.q) chip(`“${state.q}”`, { q: "" });
    if (state.pin !== null) chip(`pinned: ${state.pin.slice(state.pin.lastIndexOf("/") + 1).slice(-24)}`, { pin: null });
    if (document.activeElement !== at("search")) at("search").value = state.q;
    const had = at("chips").contains(document.activeElement);
    Text.redraw(at("chips"), () => at("chips").replaceChildren(el("span", { class: "shown", text: `${count.toLocaleString("en")} of ${rollouts.size.toLocaleString("en")} ${state.view === "rollouts" ? "" : "rollouts "}shown` }), ...chips));
    if (had && !chips.length) at("search").focus({ preventScroll: true });
    at("sort").hidden = state.view === "runs";
    if (sorts !== grid()) {
      sorts = grid();
      at("sort-by").replaceChildren(el("option", { value: "", text: "by…" }), ...sorts.columns.map((column) => el("option", { value: column.name, text: column.label })));
    }
  }

  // A rollout beside the table, as the address names it, and the pinned one beside that.
  function showOpened(isSought = true) {
    const rollout = state.rollout === null ? null : Source.at(state.rollout);
    document.title = rollout ? `${Text.show(rollout.id)} · Rollouts` : "Rollouts";
    if (rollout) {
      Table.select(rollout.key);
      Detail.open(rollout, state.tab, state.pin === null ? null : Source.at(state.pin));
      if (isSought && state.view === "rollouts") Table.reveal(rollout.key);
    } else Detail.shut();
    const absent = hasMore ? [] : [state.rollout, state.pin].filter((name, place, all) => name !== null && !Source.at(name) && all.indexOf(name) === place);
    at("notice").hidden = !absent.length && !about.isReport;
    if (absent.length) at("notice").textContent = absent.map((name) => `The rollout ${Text.show(name)}, which the address names, is not here.`).join(" ");
    else if (about.isReport) reportNotice();
  }

  function open(key, isStep = true) {
    const rollout = rollouts.get(key);
    if (!rollout) return;
    state.rollout = rollout.address;
    write(isStep);
    showOpened();
  }
  // What best | worst or a link has pinned goes with the comparison; what the reader has pinned stays.
  let lent = state.rollout === null ? null : state.pin;
  const closed = () => ({ rollout: null, tab: null, ...(lent !== null && state.pin === lent ? { pin: null } : {}) });
  function shut() {
    Object.assign(state, closed());
    write(true);
    showOpened();
  }
  let opening = 0;
  function follow(key) {
    if (key === null || Detail.current === null) return;
    clearTimeout(opening);
    opening = setTimeout(() => open(key, false), 60);
  }
  const grid = () => state.view === "problems" ? Problems : Table;
  const step = (by) => { if (state.view === "runs") return false; const key = grid().move(by); if (grid() === Table) follow(key); return true; };
  const nextFailure = (by) => follow(Table.move(by, (one) => one.failed));
  function toTab(name) {
    state.tab = name === Detail.TABS[0] ? null : name;
    write(true);
    showOpened();
  }
  const nextTab = (by) => { if (Detail.current !== null) toTab(Detail.TABS[(Detail.TABS.indexOf(Detail.tab) + by + Detail.TABS.length) % Detail.TABS.length]); };
  function pin() {
    const one = rollouts.get(Detail.current ?? Table.selected);
    if (!one) return;
    lent = null;
    set({ pin: state.pin === one.address ? null : one.address });
    showOpened();
  }

  function theme() {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept, then */ }
  }
  try { const kept = localStorage.getItem("theme"); if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept; } catch { /* none kept */ }

  const toView = (view) => set({ view });
  Keys.listen({
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1), g: () => step(-Infinity), G: () => step(Infinity),
    Enter: () => { if (grid().selected === null || state.view === "runs") return false; if (grid() === Table) open(Table.selected); else openProblem(Problems.selected); return true; },
    "/": () => at("search").focus(), e: () => set({ status: state.status === "ERROR" ? null : "ERROR", reason: null }),
    1: () => toView("rollouts"), 2: () => toView("problems"), 3: () => toView("runs"),
    n: () => nextFailure(1), p: () => nextFailure(-1), "[": () => nextTab(-1), "]": () => nextTab(1), c: pin, d: () => Detail.nextDifference(), t: theme, "?": Keys.help,
  }, () => { if (Detail.current !== null) shut(); else if (state.problem !== null && state.view === "rollouts") leaveProblem(); else set(NO_FILTER); }, () => { at("search").blur(); grid().move(1); });

  window.addEventListener("beforeprint", () => at("table").classList.toggle("many", Table.shown.some((one) => one.run !== Table.shown[0].run)));
  at("theme").addEventListener("click", theme);
  at("clear").addEventListener("click", () => { set(NO_FILTER); at("search").focus({ preventScroll: true }); });
  at("help").addEventListener("click", Keys.help);
  at("skip").addEventListener("click", (event) => { event.preventDefault(); grid().focus(); });
  at("search").addEventListener("input", (event) => { state.q = event.target.value.trim().toLowerCase(); write(false); update(150); });
  at("sort-by").addEventListener("change", () => { if (at("sort-by").value) grid().sortBy(at("sort-by").value); at("sort-by").value = ""; });
  at("charts").addEventListener("toggle", () => update());
  for (const view of VIEWS) at(`to-${view}`).addEventListener("click", () => toView(view));
  Keys.tabs(at("views"));
  if (getComputedStyle(at("charts")).getPropertyValue("--begins") === "folded") at("charts").open = false;
  const arrange = () => { Table.arrange(state.sort); Problems.arrange(state.order); sorted = Table.ordered([...rollouts.values()]); };
  window.addEventListener("popstate", () => { state = Address.read(); from = null; arrange(); update(); showOpened(); });

  // Where the samples of a problem were opened from, there Escape leads; a link to them tells no more than whether A and B are known.
  let from = null;
  function openProblem(problem, change = {}) {
    from = { view: state.view, sort: state.sort, run: state.run };
    Object.assign(state, closed(), change);
    arrange();
    set({ problem, view: "rollouts" });
    showOpened();
    Table.focus();
  }
  function leaveProblem() {
    const { problem } = state;
    Object.assign(state, from ?? { view: state.a === null ? "problems" : "runs", sort: null }, { problem: null });
    arrange();
    set({ view: state.view });
    const row = [...at("run-list").querySelectorAll(".pairs tr")].find((one) => one.dataset.key === problem);
    if (state.view === "problems") { Problems.select(problem); Problems.reveal(problem); Problems.focus(); } else row?.querySelector("button").focus();
  }
  function compare(left, right) {
    const [a, b] = [rollouts.get(left), rollouts.get(right)];
    state.pin = lent = a.address;
    open(b.key);
  }
  Table.onOpen((key) => open(key));
  Table.onSort(() => { sorted = Table.ordered([...rollouts.values()]); set({ sort: Table.sorting() }); });
  Problems.onSort(() => set({ order: Problems.sorting() }));
  Problems.onOpen(openProblem);
  Problems.onCompare(compare);
  Problems.onSilent((kind) => set({ silent: state.silent === kind ? null : kind }));
  Problems.onBy((by) => set({ by, problem: null }));
  Detail.on({ close: shut, step, nextFailure, tab: toTab, pin, unpin: () => { set({ pin: null }); showOpened(); } });

  function reportNotice() {
    const parts = [about.total > about.whole ? `This file is bounded in size: of ${about.total.toLocaleString("en")} rollouts it lists ${about.listed.toLocaleString("en")} and holds ${about.whole.toLocaleString("en")} whole, failures first, then the newest.` : null, about.leftOut ? `This file leaves out ${about.leftOut}.` : null].filter(Boolean);
    at("notice").hidden = !parts.length;
    at("notice").textContent = parts.join(" ");
  }

  // The first key need not wait for what all later ones use.
  let warming = 0;
  function warm(from = 0) {
    clearTimeout(warming);
    for (const one of sorted.slice(from, from + 2000)) Query.haystackOf(one);
    warming = setTimeout(() => { if (from + 2000 < sorted.length) warm(from + 2000); else Query.join(sorted); }, 20);
  }

  let waiting = null, isStale = false;
  Source.follow((all, told, changed, more) => {
    const first = sorted.length === 0, isWhole = hasMore && !more;
    [rollouts, about, hasMore] = [all, told, more];
    if (changed !== null || first) for (const key of changed ?? all.keys()) { const one = all.get(key); for (const source of [one?.metadata, one?.components]) for (const name in source) if (knownKeys.size < 500) knownKeys.add(name.toLowerCase()); }
    at("source").textContent = Text.show(told.source);
    at("live").className = "live on";
    if (told.isReport) at("live").textContent = "report";
    if (changed === null && !first && !(isStale && !more)) { if (state.rollout !== null && Detail.current === null) showOpened(); if (!rollouts.size) update(); return; }
    if (changed?.size && inTools.size) inTools = new Map();
    // A large table is drawn anew at most every second or so, and while the folder is read when there is far more of it
    // and to draw it, which takes 10 µs a rollout, is little beside the time since it was drawn.
    if (more && !first && all.size > 2000 && (all.size < 8 * sorted.length || performance.now() - drawn < all.size / 10)) { isStale = true; return; }
    isStale = false;
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      sorted = Table.ordered([...rollouts.values()]);
      Table.read(sorted);
      const keep = state.view === "runs" ? Runs.hold(at("run-list")) : grid().hold(Detail.current);
      update();
      if (!more) warm();
      const isSought = first || Detail.current === null || rollouts.get(Detail.current)?.address !== state.rollout;
      keep();
      if (isSought || changed?.has(Detail.current)) showOpened(isSought);
    }, first || isWhole ? 0 : Math.max(0, (all.size > 5000 ? 1500 : 150) - (performance.now() - drawn)));
  }, (error, more) => {
    at("live").textContent = error ? "not connected" : more ? "reading…" : "live";
    at("live").className = error ? "live off" : "live on";
  });
  arrange();
  update();
})();
