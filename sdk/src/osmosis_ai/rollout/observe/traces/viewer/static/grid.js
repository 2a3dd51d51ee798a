// A table of any length: only the rows in view are in the page. One row can be tabbed to; arrows go on from there.
function Grid({ id, label, columns, order, tieBreak, classOf, open, formats = () => "" }) {
  const { el } = Text;
  const grid = document.getElementById(id);
  const head = el("div", { class: "head", role: "row", "aria-rowindex": 1 });
  const heads = el("div", { class: "head-group", role: "rowgroup" }, head);  // what is printed anew on each page
  const body = el("div", { class: "rows", role: "rowgroup" });
  grid.setAttribute("role", "grid");
  grid.setAttribute("aria-label", label);
  const more = el("p", { class: "grid-more" });
  grid.append(heads, body);
  grid.before(more);
  const painted = new Map();
  let shown = [], selected = null, held = null, sort = order, onSort = () => {}, isPrinting = false;
  const MAX_PRINTED = 100;

  const rowHeight = () => Number.parseFloat(getComputedStyle(grid).getPropertyValue("--row"));

  function header() {
    head.replaceChildren(...columns.map((column) => el("div", {
      role: "columnheader", class: `cell c-${column.name}${column.number ? " number" : ""}`,
      "aria-sort": sort.name === column.name ? (sort.direction > 0 ? "ascending" : "descending") : "none", "data-label": column.label,
    }, el("button", { type: "button", text: column.label, title: column.title ?? null, onclick: () => sortBy(column) }))));
  }

  function sortBy(column) {
    const focused = [...head.querySelectorAll("button")].indexOf(document.activeElement);
    sort = { name: column.name, direction: sort.name === column.name ? -sort.direction : column.first };
    header();
    if (focused >= 0) head.querySelectorAll("button")[focused].focus();
    onSort();
  }

  // The order as the address has it: a column's name, with a - where it goes down; null for the one it begins with.
  const sorting = () => sort.name === order.name && sort.direction === order.direction ? null : `${sort.direction < 0 ? "-" : ""}${sort.name}`;
  function arrange(text) {
    const name = text?.replace(/^-/, "");
    sort = columns.some((column) => column.name === name) ? { name, direction: text[0] === "-" ? -1 : 1 } : order;
    header();
  }

  function ordered(items) {
    const value = columns.find((column) => column.name === sort.name).value, direction = sort.direction;
    const keyed = items.map((item) => [value(item), item]);
    keyed.sort(([left, a], [right, b]) => {
      if (left === right) return tieBreak(a, b);
      if (left === null || left === undefined) return 1;  // what is not known comes last, either way
      if (right === null || right === undefined) return -1;
      return (left < right ? -1 : 1) * direction;
    });
    return keyed.map(([, item]) => item);
  }

  function newRow() {
    const cells = columns.map((column) => el("div", { role: "gridcell", class: `cell c-${column.name}${column.number ? " number" : ""}` }));
    const row = el("div", { role: "row", class: "row" }, cells);
    row.addEventListener("click", (event) => { if (!event.target.closest("button, a")) { select(row.rollout.key); open(row.rollout.key); } });
    row.addEventListener("focus", () => { if (selected !== row.rollout.key) select(row.rollout.key); });
    return { row, cells };
  }

  function fill({ row, cells }, item, index, height) {
    const isSelected = item.key === selected, canBeTabbed = isSelected || (index === 0 && place(selected) < 0);
    const kind = classOf(item), told = `${kind} ${formats()}`, at = `${index} ${height} ${isSelected} ${canBeTabbed}`;
    const isDrawn = row.rollout === item && row.told === told;
    if (isDrawn && row.at === at) return;  // nothing to draw, and nothing to lay out
    Object.assign(row, { rollout: item, told, at });
    row.style.transform = `translateY(${index * height}px)`;
    row.className = `row ${kind}${isSelected ? " selected" : ""}`;
    row.setAttribute("aria-rowindex", index + 2);
    row.setAttribute("aria-selected", isSelected);
    row.tabIndex = canBeTabbed ? 0 : -1;
    // What is pressed selects its row, and is no click once it is drawn anew.
    if (!isDrawn) columns.forEach((column, nth) => column.draw(cells[nth], item));
  }

  // Rows stay in their order in the page, as that is the order in which they are read out.
  function paint() {
    if (grid.hidden || grid.closest("[hidden]")) return;
    const height = rowHeight();
    body.style.height = `${shown.length * height}px`;
    const above = Math.max(0, -body.getBoundingClientRect().top);
    const first = isPrinting ? 0 : Math.max(0, Math.floor(above / height) - 8);
    const last = isPrinting ? Math.min(shown.length, MAX_PRINTED) : Math.min(shown.length, first + Math.ceil(window.innerHeight / height) + 16);
    if (isPrinting) more.textContent = last < shown.length ? `Of these ${shown.length.toLocaleString("en")} rows, by ${columns.find((column) => column.name === sort.name).label} ${sort.direction > 0 ? "▲" : "▼"}, the top ${last} are printed.` : "";
    for (const [index, entry] of painted) if ((index < first || index >= last) && !entry.row.contains(document.activeElement)) { entry.row.remove(); painted.delete(index); }
    const wanted = [];
    for (let index = first; index < last; index += 1) wanted.push(index);
    // What is selected can be tabbed to; what has the focus keeps it, wherever it is now.
    const kept = [...new Set([place(selected), place(held)])].sort((a, b) => a - b);
    wanted.unshift(...kept.filter((index) => index >= 0 && index < first));
    wanted.push(...kept.filter((index) => index >= last));
    let before = body.firstElementChild;
    for (const index of wanted) {
      let entry = painted.get(index);
      if (!entry) painted.set(index, entry = newRow());
      if (entry.row === before) before = before.nextElementSibling;
      else if (!entry.row.isConnected || !entry.row.contains(document.activeElement)) body.insertBefore(entry.row, before);
      fill(entry, shown[index], index, height);
    }
    for (const [index, entry] of painted) if (index >= shown.length) { entry.row.remove(); painted.delete(index); }
    grid.setAttribute("aria-rowcount", shown.length + 1);
  }

  let places = null;
  function place(key) {
    if (key === null) return -1;
    places ??= new Map(shown.map((item, index) => [item.key, index]));
    return places.get(key) ?? -1;
  }

  // Of items that are in their order already, only those are shown.
  function show(items, isOrdered) {
    const focused = document.activeElement?.closest?.(".row"), had = focused && body.contains(focused) ? focused.rollout.key : null;
    const inRow = had === null ? -1 : [...focused.querySelectorAll("button")].indexOf(document.activeElement);
    held = had;
    shown = isOrdered ? items : ordered(items);
    places = null;
    paint();
    if (had !== null && document.activeElement?.closest?.(".row")?.rollout?.key !== had) {
      const row = rowOf(had);
      (row?.querySelectorAll("button")[inRow] ?? row)?.focus({ preventScroll: true });
    }
    held = null;
  }

  const rowOf = (key) => [...painted.values()].find((entry) => entry.row.rollout.key === key)?.row;

  function select(key) { selected = key; paint(); }

  // Bring a row into view, below the header and above the end of the window.
  function reveal(key) {
    const index = place(key);
    if (index < 0) return;
    const height = rowHeight(), top = body.getBoundingClientRect().top + index * height, covered = Math.max(head.getBoundingClientRect().bottom, 0);
    if (top < covered) window.scrollBy(0, top - covered);
    else if (top + height > window.innerHeight - 8) window.scrollBy(0, top + height - window.innerHeight + 8);
    paint();
  }

  // While rollouts arrive: what is opened or has the focus stays where it is on the screen, or else what stands at its
  // top. Gives what puts it back there.
  function hold(opened) {
    if (grid.closest("[hidden]")) return () => {};
    const height = rowHeight(), top = body.getBoundingClientRect().top, covered = Math.max(head.getBoundingClientRect().bottom, 0);
    const isSeen = (index) => index >= 0 && top + (index + 1) * height > covered && top + index * height < window.innerHeight;
    const focused = document.activeElement?.closest?.(".row"), own = [opened, body.contains(focused) ? focused.rollout.key : null].map(place).filter(isSeen);
    const first = top < covered ? Math.floor((covered - top) / height) : shown.length;
    const kept = [...own, ...shown.slice(first, first + 40).map((_, at) => first + at)].map((index) => [shown[index].key, top + index * height]);
    return () => {
      const still = kept.find(([key]) => place(key) >= 0);
      if (!still) return;
      const moved = body.getBoundingClientRect().top + place(still[0]) * rowHeight() - still[1];
      if (moved) { window.scrollBy(0, moved); paint(); }
    };
  }

  function move(step, isWanted = () => true) {
    if (!shown.length) return null;
    const at = place(selected);
    let next = at < 0 ? (step === Infinity || step === -1 ? shown.length - 1 : 0) : Math.max(0, Math.min(shown.length - 1, at + step));
    const by = step < 0 ? -1 : 1;
    if (at >= 0 && next === at) return selected;
    while (next >= 0 && next < shown.length && !isWanted(shown[next])) next += by;
    if (next < 0 || next >= shown.length) return null;
    selected = shown[next].key;
    reveal(selected);
    rowOf(selected)?.focus({ preventScroll: true });
    return selected;
  }

  let asked = false;
  const later = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; paint(); }); } };
  window.addEventListener("scroll", later, { passive: true });
  window.addEventListener("resize", later);
  window.addEventListener("beforeprint", () => { isPrinting = true; paint(); });
  window.addEventListener("afterprint", () => { isPrinting = false; paint(); });
  header();

  return {
    columns, ordered, sorting, arrange, show, select, move, reveal, hold, paint,
    get selected() { return selected; },
    get shown() { return shown; },
    focus: () => { const row = rowOf(selected) ?? rowOf(shown[0]?.key); row?.focus({ preventScroll: true }); },
    onSort(callback) { onSort = callback; },
    sortBy(name) { sortBy(columns.find((column) => column.name === name)); },
  };
}
