// The problems: how their samples did, and which have no signal, as all of a group got the same reward.
const Problems = (() => {
  const { el, show } = Text;
  const MAX_NAMED = 5;
  let onOpen = () => {}, onCompare = () => {}, onSilent = () => {}, onBy = () => {};
  const plain = (textOf) => (cell, one) => { cell.textContent = textOf(one); };

  // By what the dataset asked, whatever the system prompt, and its row where the trainer told that, as two rows may ask the
  // same; or by the whole prompt; or by a key of the metadata.
  const problemOf = (by) => (one) => {
    if (by === "prompt") return one.digest || one.prompt || one.id;
    if (by) return one.metadata?.[by] === undefined ? `no ${by}` : String(one.metadata[by]);
    const row = one.metadata?.row_index;
    const question = one.question || one.digest || one.prompt;
    return row === undefined ? question || one.id : `row ${row} ${question}`;
  };
  const nameOf = (one, by) => !by && one.row !== null ? `row ${one.row}` : /^[0-9a-f]{12}$/.test(one.key) ? null : one.key;

  function keysOf(rollouts) {
    const keys = new Map();
    for (const one of rollouts) for (const key in one.metadata) keys.set(key, (keys.get(key) ?? 0) + 1);
    return [...keys].sort((a, b) => b[1] - a[1]).slice(0, 30).map(([key]) => key);
  }

  // In which runs all samples got the same, and what that was.
  function silentIn(one, most, named) {
    const told = one.silentRuns.slice(0, most).flatMap((run, index) => [`${index ? ", " : ""}${Text.reward(one.runs.get(run)[0])} in `, named(run)]);
    return ["always ", ...told, one.silent > most ? ` + ${one.silent - most} more` : ""];
  }

  function signal(cell, one) {
    cell.replaceChildren();
    if (!one.groups) cell.append(el("span", { class: "chip", text: "too few", title: "No run has two rewards of it." }));
    else if (one.silent === one.groups && one.spread > Stats.SAME) cell.append(el("span", { class: "chip bad", text: "same in each run", title: "No signal: in each run all samples got the same reward, though not the same as in another run." }));
    else if (one.silent === one.groups) cell.append(el("span", { class: "chip bad", text: "no signal", title: "All samples of a group got the same reward, so none is better than another." }));
    else if (one.silent) cell.append(el("span", { class: "chip open", text: `none in ${one.silent} of ${one.groups}`, title: "In these runs all samples got the same reward." }));
    else cell.append(el("span", { class: "chip ok", text: "signal" }));
  }

  function prompt(cell, one) {
    if (!cell.firstChild) cell.append(el("div", { class: "id", dir: "auto" }), el("div", { class: "why", dir: "auto" }));
    cell.children[0].textContent = Text.line(one.prompt, 240);
    cell.children[0].title = show(one.prompt);
    const known = [one.name, ...Stats.lacking(one.n, one.failed, one.rewards.length), one.runs.size > 1 ? `${one.runs.size} runs` : null].filter(Boolean).join(" · ");
    const isToldOf = one.silent && (one.silent < one.groups || one.spread > Stats.SAME), told = isToldOf ? silentIn(one, MAX_NAMED, Text.runName).join("") : "";
    cell.children[1].title = [show(known), told].filter(Boolean).join(" · ");
    cell.children[1].replaceChildren(el("span", { class: "known", text: known }), el("span", { class: "of-runs", text: told && known ? ` · ${told}` : told }),
      told ? el("span", { class: "of-first" }, silentIn(one, one.silent === 2 ? 2 : 1, (run) => el("span", { class: "run-name" }, Text.middle(Text.runName(run))))) : "");
  }

  function samples(cell, one) {
    // Of one run, as another may be paid differently: the one in which they lie farthest apart. Of two only where no run has any.
    const within = Stats.farthest([...Map.groupBy(one.samples, (sample) => sample.run).values()].map(Stats.ends));
    const [worst, best] = within ?? Stats.farthest([Stats.ends(one.samples)]) ?? [];
    if (!best) { cell.replaceChildren(); return; }
    // The button stays when the row is drawn anew, as it may have the focus.
    const button = cell.firstChild ?? cell.appendChild(el("button", { type: "button", class: "small", text: "best | worst" }));
    button.title = `Best and worst sample of ${within ? "a run" : "two runs"}, side by side`;
    button.setAttribute("aria-label", `best | worst of ${[one.name, Text.line(one.prompt, 80)].filter(Boolean).join(": ")}, side by side`);
    button.onclick = () => { grid.select(one.key); onCompare(best.key, worst.key); };
  }

  // Of what a problem's samples earned, each by itself.
  const INTERVAL = "below it its 95% interval, from the problem's own samples";
  const intervalOf = (one, valueOf = (reward) => reward) => Stats.interval(one.rewards.map((reward) => [valueOf(reward)]));

  // How the numbers of each column are written.
  let written = {};
  function read(found) {
    const all = (name) => found.map((one) => one[name]);
    written = { pass: Text.percents(all("pass")), mean: Text.column(all("mean"), { fewest: 3, most: 4 }), spread: Text.column(all("spread"), { most: 4 }), turns: Text.column(all("turns"), { enough: 1, most: 1 }) };
  }

  const grid = Grid({
    id: "problem-table", label: "Problems",
    columns: [
      { name: "prompt", label: "Problem", first: 1, value: (one) => one.row ?? one.prompt, draw: prompt },
      { name: "n", label: "n", first: -1, number: true, value: (one) => one.n, draw: plain((one) => one.n) },
      { name: "pass", label: "Pass rate", first: 1, number: true, value: (one) => one.pass, draw: (cell, one) => cell.replaceChildren(...Text.withInterval(one.pass, intervalOf(one, Stats.whole), written.pass)), title: `Share of the rewards that are at least 1; ${INTERVAL}` },
      { name: "mean", label: "Mean", first: 1, number: true, value: (one) => one.mean, draw: (cell, one) => { Text.numberCell(cell, one.mean, written.mean(one.mean)); cell.replaceChildren(...Text.withInterval(one.mean, intervalOf(one), written.mean)); }, title: `Mean reward; ${INTERVAL}` },
      { name: "spread", label: "Spread", first: -1, number: true, value: (one) => one.spread, draw: (cell, one) => Text.numberCell(cell, one.spread, written.spread(one.spread)), title: "Standard deviation of the rewards, of all runs together, with divisor n" },
      { name: "length", label: "Turns", first: -1, number: true, value: (one) => one.turns, draw: plain((one) => written.turns(one.turns)), title: "Mean turns of a sample" },
      { name: "written", label: "Written", first: -1, number: true, value: (one) => one.written, draw: plain((one) => Text.count(Math.round(one.written))), title: "Mean tokens that the model wrote" },
      { name: "signal", label: "Signal", first: -1, value: (one) => one.groups ? one.silent / one.groups : null, draw: signal },
      { name: "samples", label: "Differ", first: -1, value: (one) => one.spread, draw: samples },
    ],
    order: { name: "signal", direction: -1 },
    tieBreak: (a, b) => (a.row ?? 0) - (b.row ?? 0) || (a.key < b.key ? -1 : 1),
    classOf: (one) => one.groups && one.silent === one.groups ? "bad" : one.silent ? "open" : "ok",
    open: (key) => onOpen(key),
  });

  // What is chosen with stays in the page, as a list that is open would close.
  const says = el("p", { class: "says" });
  const toggle = (kind) => el("button", { type: "button", class: "toggle", onclick: () => onSilent(kind) });
  const onlySilent = toggle("1"), onlySometimes = toggle("some"), only = el("span", { class: "only" }, "Show only ", onlySilent, " ", onlySometimes);
  const by = el("select", { id: "by", onchange: () => onBy(by.value || null) });
  document.getElementById("problem-head").append(says, only, el("label", { class: "by" }, "Told apart by ", by));
  let known = "";

  function draw(rollouts, all, state) {
    const found = [...Stats.problems(rollouts, problemOf(state.by)).values()];
    for (const one of found) one.name = nameOf(one, state.by);
    read(found);
    const silent = found.filter((one) => one.groups && one.silent === one.groups);
    // What is right is known where rewards go from 0 to 1, and of these two alone: 0.98 may be the best there is.
    const high = Stats.best(found.map((one) => Stats.best(one.rewards))), low = -Stats.best(found.map((one) => Stats.best(one.rewards.map((value) => -value))));
    const isWhole = low > -Stats.SAME && high < 1 + Stats.SAME;
    const right = silent.filter((one) => isWhole && one.pass === 1), wrong = silent.filter((one) => isWhole && Stats.best(one.rewards) < Stats.SAME);
    const unlike = silent.filter((one) => one.spread > Stats.SAME), others = silent.filter((one) => ![right, wrong, unlike].some((list) => list.includes(one))), earned = others.flatMap((one) => one.rewards).sort((a, b) => a - b).map(Text.reward);
    const between = earned[0] === earned[earned.length - 1] ? `reward ${earned[0]}` : `rewards ${earned[0]} to ${earned[earned.length - 1]}`;
    const ofRuns = new Map();
    for (const one of found) for (const [run, rewards] of one.runs) ofRuns.set(run, Math.max(ofRuns.get(run) ?? -Infinity, Stats.best(rewards)));
    const short = [...ofRuns.values()].filter((best) => best < 1 - Stats.SAME && best > Stats.SAME).length;
    const mixed = high >= 1 - Stats.SAME && short ? ` In ${short} of ${ofRuns.size} runs no reward reaches 1, which lowers the pass rates: choose one run.` : "";
    const none = high < 1 - Stats.SAME && high > Stats.SAME ? ` No reward reaches 1, the best is ${Text.reward(high)}: so each pass rate is 0%.` : "";
    const sometimes = found.filter((one) => one.silent && one.silent < one.groups);
    const share = found.length ? ` (${Text.percent(silent.length / found.length)})` : "";
    const options = [["", "what was asked"], ["prompt", "the whole prompt"], ...keysOf(all).map((key) => [key, key])];
    says.replaceChildren(el("b", { text: `${silent.length.toLocaleString("en")} of ${found.length.toLocaleString("en")} problems have no signal${share}` }),
      silent.length ? `: ${[right.length ? `${right.length} always right` : null, wrong.length ? `${wrong.length} never right` : null, unlike.length ? `${unlike.length} the same within each run but not between runs` : null, others.length ? `${others.length} always the same in a run (${between})` : null].filter(Boolean).join(", ")}.` : ".",
      sometimes.length ? ` ${sometimes.length.toLocaleString("en")} more ${sometimes.length === 1 ? "has" : "have"} none in some of the runs.` : "", none || mixed);
    onlySilent.setAttribute("aria-pressed", state.silent === "1");
    onlySometimes.setAttribute("aria-pressed", state.silent === "some");
    onlySilent.textContent = `no signal (${silent.length.toLocaleString("en")})`;
    onlySometimes.textContent = `none in some runs (${sometimes.length.toLocaleString("en")})`;
    onlySometimes.hidden = !sometimes.length && state.silent !== "some";
    const offered = JSON.stringify(options);
    if (offered !== known) by.replaceChildren(...options.map(([value, text]) => el("option", { value, text })));
    known = offered;
    if (by.value !== (state.by ?? "")) by.value = state.by ?? "";
    grid.show({ 1: silent, some: sometimes }[state.silent] ?? found);
    return found.length;
  }

  return Object.assign(grid, {
    draw, problemOf, nameOf, keysOf,
    onOpen(callback) { onOpen = callback; }, onCompare(callback) { onCompare = callback; },
    onSilent(callback) { onSilent = callback; }, onBy(callback) { onBy = callback; },
  });
})();
