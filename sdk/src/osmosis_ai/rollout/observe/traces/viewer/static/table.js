// The table: only the rows in view are in the page, so that its length costs nothing.
const Table = (() => {
  const { el, show } = Text;
  const COLUMNS = [
    { name: "status", label: "Status", first: 1 },
    { name: "id", label: "Rollout", first: 1 },
    { name: "reward", label: "Reward", first: -1, number: true },
    { name: "turns", label: "Turns", first: -1, number: true },
    { name: "tools", label: "Tool calls", first: -1, number: true },
    { name: "tokens", label: "Tokens", first: -1, number: true },
    { name: "finish", label: "Finish", first: 1 },
    { name: "outcome", label: "Outcome", first: 1 },
    { name: "duration", label: "Duration", first: -1, number: true },
    { name: "started", label: "Started", first: -1, number: true },
  ];
  const STATUS = { COMPLETED: ["ok", "Completed"], ERROR: ["bad", "Failed"], UNFINISHED: ["open", "No result"] };
  const ORDER = { ERROR: 0, UNFINISHED: 1, COMPLETED: 2 };
  const keyOf = {
    status: (one) => ORDER[one.status] ?? 3,
    tokens: (one) => one.promptTokens + one.responseTokens,
  };

  const head = document.getElementById("head"), body = document.getElementById("rows"), grid = document.getElementById("table");
  let shown = [], selected = null, sort = { name: "started", direction: -1 }, pool = [], open = () => {}, sorted = () => {};

  const rowHeight = () => Number.parseFloat(getComputedStyle(grid).getPropertyValue("--row")) || 52;

  function header() {
    head.replaceChildren(...COLUMNS.map((column) => el("div", {
      role: "columnheader", class: `cell c-${column.name}${column.number ? " number" : ""}`,
      "aria-sort": sort.name === column.name ? (sort.direction > 0 ? "ascending" : "descending") : "none",
    }, el("button", { type: "button", text: column.label, onclick: () => sortBy(column) }))));
  }

  function sortBy(column) {
    sort = { name: column.name, direction: sort.name === column.name ? -sort.direction : column.first };
    header();
    sorted();
  }

  function ordered(rollouts) {
    const key = keyOf[sort.name] ?? ((one) => one[sort.name]);
    const value = new Map(rollouts.map((one) => [one, key(one)]));
    return rollouts.sort((a, b) => {
      const left = value.get(a), right = value.get(b);
      if (left === right) return (b.started ?? 0) - (a.started ?? 0) || b.key - a.key;
      if (left === null || left === undefined) return 1;  // what is not known comes last, either way
      if (right === null || right === undefined) return -1;
      return (left < right ? -1 : 1) * sort.direction;
    });
  }

  function newRow() {
    const cells = Object.fromEntries(COLUMNS.map((column) => [column.name, el("div", { role: "gridcell", class: `cell c-${column.name}${column.number ? " number" : ""}` })]));
    const parts = {
      chip: el("span", { class: "chip" }), id: el("div", { class: "id", dir: "auto" }), why: el("div", { class: "why", dir: "auto" }),
      toolErrors: el("span", { class: "tool-errors" }), toolCount: el("span"),
    };
    cells.status.append(parts.chip);
    cells.id.append(parts.id, parts.why);
    cells.tools.append(parts.toolCount, parts.toolErrors);
    const row = el("div", { role: "row", class: "row", tabindex: -1 }, Object.values(cells));
    row.addEventListener("click", () => { select(row.rollout.key); open(row.rollout.key); });
    body.append(row);
    return { row, cells, parts };
  }

  function fill({ row, cells, parts }, rollout, index, height) {
    const [kind, word] = STATUS[rollout.status] ?? ["open", rollout.status];
    row.rollout = rollout;
    row.hidden = false;
    row.style.transform = `translateY(${index * height}px)`;
    row.className = `row ${kind}${rollout.key === selected ? " selected" : ""}`;
    row.setAttribute("aria-rowindex", index + 2);
    row.setAttribute("aria-selected", rollout.key === selected);
    row.tabIndex = rollout.key === selected ? 0 : -1;
    parts.chip.textContent = word;
    parts.chip.className = `chip ${kind}`;
    parts.id.textContent = show(rollout.id);
    const why = rollout.failed || rollout.status === "UNFINISHED" ? rollout.error : rollout.warning;
    parts.why.textContent = show(why || rollout.prompt).replace(/\s+/g, " ").slice(0, 240);
    parts.why.className = why ? `why ${rollout.failed ? "error" : "warn"}` : "why";
    cells.reward.textContent = Text.reward(rollout.reward);
    cells.turns.textContent = rollout.turns;
    parts.toolCount.textContent = rollout.tools;
    parts.toolErrors.textContent = rollout.toolErrors ? ` ${rollout.toolErrors} failed` : "";
    cells.tokens.textContent = Text.count(rollout.promptTokens + rollout.responseTokens);
    cells.finish.textContent = show(rollout.finish ?? "–");
    const undelivered = rollout.delivery && rollout.delivery !== "acknowledged" ? ` · ${rollout.delivery}` : "";
    cells.outcome.textContent = show((rollout.outcome ?? "–") + undelivered);
    cells.duration.textContent = Text.duration(rollout.duration);
    cells.started.textContent = Text.when(rollout.started);
  }

  function paint() {
    const height = rowHeight();
    body.style.height = `${shown.length * height}px`;
    const above = Math.max(0, -body.getBoundingClientRect().top);
    const first = Math.max(0, Math.floor(above / height) - 8);
    const last = Math.min(shown.length, first + Math.ceil(window.innerHeight / height) + 16);
    while (pool.length < last - first) pool.push(newRow());
    pool.forEach((entry, slot) => {
      if (first + slot < last) fill(entry, shown[first + slot], first + slot, height);
      else entry.row.hidden = true;
    });
    grid.setAttribute("aria-rowcount", shown.length + 1);
  }

  function showRollouts(rollouts) { shown = ordered(rollouts); paint(); }

  const place = (key) => shown.findIndex((one) => one.key === key);

  function select(key) { selected = key; paint(); }

  function move(step) {
    if (!shown.length) return null;
    const at = place(selected);
    const next = at < 0 ? 0 : Math.max(0, Math.min(shown.length - 1, at + step));
    selected = shown[next].key;
    const height = rowHeight(), top = body.getBoundingClientRect().top + next * height;
    const covered = head.getBoundingClientRect().bottom;
    if (top < covered) window.scrollBy(0, top - covered);
    else if (top + height > window.innerHeight - 8) window.scrollBy(0, top + height - window.innerHeight + 8);
    paint();
    pool.find((entry) => !entry.row.hidden && entry.row.rollout.key === selected)?.row.focus({ preventScroll: true });
    return selected;
  }

  let asked = false;
  const later = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; paint(); }); } };
  window.addEventListener("scroll", later, { passive: true });
  window.addEventListener("resize", later);
  header();

  return {
    COLUMNS, show: showRollouts, select, move, paint,
    get selected() { return selected; },
    onOpen(callback) { open = callback; },
    onSort(callback) { sorted = callback; },
    sortBy(name) { sortBy(COLUMNS.find((column) => column.name === name)); },
  };
})();
