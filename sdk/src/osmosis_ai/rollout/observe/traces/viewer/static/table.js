// The rollouts, a row each.
const Table = (() => {
  const { el, show, middle } = Text;
  const STATUS = { COMPLETED: ["ok", "Completed"], ERROR: ["bad", "Failed"], UNFINISHED: ["open", "No result"] };
  const ORDER = { ERROR: 0, UNFINISHED: 1, COMPLETED: 2 };
  let onOpen = () => {}, isOneProblem = false, sides = [null, null], starts = new Set(), rewardOf = Text.reward;
  // Which letter a run has, if any, as long as the samples of a problem stand as those of A and those of B.
  const letterOf = (run) => ["A", "B"].find((_, side) => sides[side] === run) ?? "";
  const plain = (textOf) => (cell, one) => { cell.textContent = textOf(one); };

  function status(cell, one) {
    const [kind, word] = STATUS[one.status] ?? ["open", one.status];
    const chip = cell.firstChild ?? cell.appendChild(el("span"));
    chip.className = `chip ${kind}`;
    chip.textContent = word;
  }

  function name(cell, one) {
    if (!cell.firstChild) cell.append(el("div", { class: "id", dir: "auto" }), el("div", { class: "why", dir: "auto" }));
    const [id, why] = cell.children, problem = one.failed || one.status === "UNFINISHED" ? one.error : one.warning;
    const letter = letterOf(one.run);
    id.replaceChildren(...(letter ? [el("b", { class: "of-run", text: letter })] : []), ...middle(one.id));
    id.title = show(one.id);
    const row = one.metadata?.row_index;
    // What all were asked stands above the samples of one problem: what tells them apart is how each ended.
    const said = isOneProblem ? one.answer && `Answer: ${one.answer}` : row === undefined ? one.prompt : `row ${row} · ${one.prompt}`;
    why.title = show(problem || (isOneProblem ? one.answer : one.prompt));
    why.textContent = Text.line(problem || said, 240);
    why.className = problem ? `why ${one.failed ? "error" : "warn"}` : "why";
  }

  function tools(cell, one) {
    if (!cell.firstChild) cell.append(el("span"), el("span", { class: "tool-errors" }));
    cell.firstChild.textContent = one.tools;
    cell.lastChild.textContent = one.toolErrors ? ` ${one.toolErrors} failed` : "";
  }

  const outcome = (one) => show((one.outcome ?? "–") + (one.delivery && one.delivery !== "acknowledged" ? ` · ${one.delivery}` : ""));

  const grid = Grid({
    id: "table", label: "Rollouts",
    columns: [
      { name: "status", label: "Status", first: 1, value: (one) => ORDER[one.status] ?? 3, draw: status },
      { name: "id", label: "Rollout", first: 1, value: (one) => one.id, draw: name },
      { name: "reward", label: "Reward", first: -1, number: true, value: (one) => one.reward, draw: (cell, one) => Text.numberCell(cell, one.reward, rewardOf(one.reward)) },
      { name: "turns", label: "Turns", first: -1, number: true, value: (one) => one.turns, draw: plain((one) => one.turns) },
      { name: "tools", label: "Tool calls", first: -1, number: true, value: (one) => one.tools, draw: tools },
      { name: "tokens", label: "Tokens", first: -1, number: true, value: (one) => one.tokens, draw: plain((one) => Text.count(one.tokens)), title: "Of the prompts and what the model wrote, of all turns" },
      { name: "finish", label: "Finish", first: 1, value: (one) => one.finish, draw: plain((one) => show(one.finish ?? "–")) },
      { name: "outcome", label: "Outcome", first: 1, value: (one) => one.outcome, draw: plain(outcome) },
      { name: "run", label: "Run", first: 1, value: (one) => `${letterOf(one.run) || "~"} ${one.run}`, draw: (cell, one) => cell.replaceChildren(el("span", { class: "id", title: one.run }, middle(Text.runName(one.run)))) },
      { name: "duration", label: "Duration", first: -1, number: true, value: (one) => one.duration, draw: plain((one) => Text.duration(one.duration)) },
      { name: "started", label: "Started", first: -1, number: true, value: (one) => one.started, draw: plain((one) => Text.when(one.started)) },
    ],
    order: { name: "started", direction: -1 },
    tieBreak: (a, b) => (b.started ?? 0) - (a.started ?? 0) || b.key - a.key,
    classOf: (one) => [(STATUS[one.status] ?? ["open"])[0], letterOf(one.run), starts.has(one.key) ? "starts" : ""].join(" "),
    open: (key) => onOpen(key),
    formats: () => `${rewardOf.digits} ${isOneProblem}`,
  });

  // The runs that are A and B, if any; true where they are others than before, so that what goes by the run is to be
  // ordered again.
  function mark(a, b) {
    const had = String(sides);
    sides = a === null || b === null ? [null, null] : [a, b];
    return String(sides) !== had;
  }

  // With A and B, a line is drawn where a run begins. `isOne`: all were asked the same.
  const { show: showAll } = grid;
  function showSides(items, isOrdered, isOne) {
    isOneProblem = isOne;
    starts = new Set(sides[0] === null ? [] : items.filter((one, index) => index && items[index - 1].run !== one.run).map((one) => one.key));
    showAll(items, isOrdered);
  }

  // Of all rollouts, whatever the filters leave: so a reward is written the same before and after a key.
  const read = (all) => { rewardOf = Text.column(all.map((one) => one.reward)); };

  return Object.assign(grid, { STATUS, mark, letterOf, read, show: showSides, onOpen(callback) { onOpen = callback; } });
})();
