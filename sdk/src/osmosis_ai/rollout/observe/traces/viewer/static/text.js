"use strict";
// Text of models and tools goes into the page as text nodes only, with what cannot be seen made visible.
const Text = (() => {
  // What cannot be seen, but for what scripts and emoji need: a joiner, a selector behind what has variants, a flag's tags.
  const NEEDED = [/(?<![\u200c\u200d])[\u200c\u200d]/u, /(?<=\p{Extended_Pictographic})[\ufe0e\ufe0f]|\ufe0f(?=\u20e3)/u, /(?<=\p{Script=Han})[\ufe00-\ufe02\u{e0100}-\u{e01ef}]/u, /(?<=\p{Script=Mongolian})[\u180b-\u180f]/u, /\u{1f3f4}[\u{e0030}-\u{e007a}]{1,6}\u{e007f}/u];
  const HIDDEN = new RegExp(`(${NEEDED.map((one) => one.source).join("|")})|[\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f\\ufff9-\\ufffb\\p{Default_Ignorable_Code_Point}]`, "gu");
  const PREVIEW_CHARACTERS = 3000, MAX_DRAWN = 500;

  const seen = (character) => {
    const code = character.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code)
      : code === 0x7f ? "\u2421" : `\u2039U+${code.toString(16).toUpperCase().padStart(4, "0")}\u203a`;
  };
  const show = (value) => (value !== null && typeof value === "object" ? json(value) : String(value ?? "")).replace(HIDDEN, (hidden, needed) => needed ?? seen(hidden));
  // On one line, of so many characters; what is cut says so.
  function line(value, limit) {
    const text = show(value).replace(/\s+/g, " ");
    return text.length > limit ? `${text.slice(0, limit)}…` : text;
  }

  // What of a JSON string begins here, up to its end or that of the text. A pattern of one branch a character, as this
  // would be, overflows the stack.
  function stringAt(text, from) {
    let at = from;
    while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
    return text.slice(from, at > text.length ? -1 : at);
  }

  // The words of an error without the JSON that it came in, as `core/said.py` has them for the rows.
  function saidBy(error) {
    const text = String(error), decoded = (json) => { try { return JSON.parse(json); } catch { return null; } };
    const [, body, behind] = /^\w+: (\{.*\})(.*)$/s.exec(text) ?? [], torn = /^\w+: \{\s*"detail":\s*"/.exec(text);
    const found = decoded(body), inner = found?.error, said = inner?.message ?? inner ?? found?.message ?? found?.detail;
    if (typeof said === "string") return `${said}${typeof inner?.code === "string" && !said.includes(inner.code) ? ` (${inner.code})` : ""}${behind}`;
    return (torn && decoded(`"${stringAt(text, torn[0].length)}"`)) ?? text;
  }

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === null || value === undefined || (value === false && !name.startsWith("aria-"))) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "class") node.className = value;
      else if (name === "text") node.textContent = show(value);
      else if (name === "title" || name === "aria-label") node.setAttribute(name, show(value));
      else node.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : value);
    }
    for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child);
    return node;
  }

  // A long text is shown in part, until asked for.
  function block(value, className) {
    const text = show(value);
    const node = el("div", { class: `text ${className ?? ""}`, dir: "auto" });
    if (text.length <= PREVIEW_CHARACTERS) {
      node.textContent = text;
      return node;
    }
    node.textContent = `${text.slice(0, PREVIEW_CHARACTERS)}…`;
    const more = el("button", { type: "button", class: "more", text: `Show all ${text.length.toLocaleString("en")} characters` });
    more.addEventListener("click", () => { node.textContent = text; });
    return el("div", null, node, more);
  }

  // Of very many things the first are drawn, until all are asked for: `longer.all` then, also where they are drawn anew.
  function first(things, what, draw, longer = {}) {
    if (things.length <= MAX_DRAWN || longer.all) return things.map(draw);
    const more = el("button", { type: "button", class: "more", text: `Show all ${things.length.toLocaleString("en")} ${what}`, onclick: () => { longer.all = true; more.replaceWith(...things.slice(MAX_DRAWN).map(draw)); } });
    return [...things.slice(0, MAX_DRAWN).map(draw), more];
  }

  const json = (value) => {
    try { return JSON.stringify(value, null, 2) ?? "null"; } catch { return "[nested too deep to show]"; }
  };

  function duration(ms) {
    if (ms === null || ms === undefined) return "–";
    if (ms < 1) return `${ms.toFixed(1)} ms`;
    if (ms < 1000) return `${Math.round(ms)} ms`;
    if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
    if (ms >= 360_000_000) return `${reward(ms / 86_400_000)} days`;
    return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
  }
  const number = (value, digits = 2) => value === null || value === undefined ? "–"
    : Number.isInteger(value) && digits === 0 ? value.toLocaleString("en") : String(Number(value.toFixed(digits)));
  // So short that it is never cut; what that leaves out of a large number, `whole` tells, for a title.
  const LARGE = 1e5, LARGEST = 1.797e308, SAME = 1e-9;

  // How all numbers of a column are written: with as many digits behind the point as they need, from `fewest` to `enough`;
  // with more, up to `most`, where two of them, or one and 0 or `full`, would look the same.
  function column(values, { fewest = 0, enough = 3, most = 6, full = 1 } = {}) {
    const points = [...new Set([0, full, ...values.filter((value) => value !== null && Math.abs(value) < LARGE)])];
    if (points.some((value) => Math.abs(value) >= 100)) [fewest, enough, most] = [0, Math.min(enough, 1), Math.min(most, 3)];
    const unlike = (digits) => new Set(points.map((value) => Math.round(value * 10 ** digits))).size;
    let digits = fewest;
    for (const value of points) while (digits < enough && Math.abs(value - Math.round(value * 10 ** digits) / 10 ** digits) > SAME) digits += 1;
    for (const all = unlike(9); digits < most && unlike(digits) < all;) digits += 1;
    return Object.assign((value) => written(value, digits), { digits });
  }
  function written(value, digits) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    if (size > LARGEST) return value > 0 ? "> 1.8e308" : "< -1.8e308";
    if (size >= LARGE) return value.toExponential(3).replace(/\.?0*e\+/, "e");
    const text = (value + Math.sign(value) * SAME).toFixed(digits);
    return Number(text) ? text : size > SAME ? value.toExponential(0) : (0).toFixed(digits);
  }
  const reward = (value) => column([value ?? null])(value);
  const whole = (value) => Math.abs(value) >= LARGE && Number.isFinite(value) ? String(value) : null;
  // A number in its cell, and all of its digits as the title.
  function numberCell(cell, value, text) {
    cell.textContent = text;
    cell.title = whole(value) ?? (value !== null && Math.abs(Number(text) - value) > SAME ? String(value) : "");
  }
  const count = (value) => value >= 1e9 ? reward(value) : value >= 1e6 ? `${(value / 1e6).toFixed(1)}M` : value >= 1e4 ? `${(value / 1e3).toFixed(1)}k` : value.toLocaleString("en");
  function when(seconds) {
    const date = new Date(seconds * 1000);
    if (!seconds || Number.isNaN(date.getTime())) return "–";
    return date.toDateString() === new Date().toDateString() ? timeOf(date) : dated(date);
  }
  const digits = (...values) => values.map((value) => String(value).padStart(2, "0"));
  const timeOf = (date) => digits(date.getHours(), date.getMinutes(), date.getSeconds()).join(":");
  const dated = (date) => `${digits(date.getMonth() + 1, date.getDate()).join("-")} ${timeOf(date)}`;
  // A server names a run by the second of its start: a reader is told its date and time.
  const runName = (run) => show(run).replace(/(^|\/)(1\d{9})(-\d+)?$/, (_, before, seconds, again) => {
    const date = new Date(seconds * 1000), year = date.getFullYear();
    return `${before}${year === new Date().getFullYear() ? "" : `${year}-`}${dated(date)}${again ?? ""}`;
  });
  // Numbers in their order, without what is not known.
  const sorted = (values) => Float64Array.from(values.filter((value) => value !== null)).sort();
  const median = (sorted, share = 0.5) => sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] : null;

  // Where there is no room an id loses its middle: it differs from others at its end.
  function middle(id) {
    const text = show(id), cut = Math.max(0, text.length - 10);
    return [el("span", { class: "id-start", text: text.slice(0, cut) }), el("span", { class: "id-end", text: text.slice(cut) })];
  }

  function copyIcon() {
    const node = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [name, value] of Object.entries({ viewBox: "0 0 14 14", width: 13, height: 13, "aria-hidden": "true", class: "icon" })) node.setAttribute(name, value);
    for (const d of ["M5 5h7v7h-7z", "M3 9h-1v-7h7v1"]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", d);
      node.append(path);
    }
    return node;
  }

  function copyButton(label, textOf) {
    const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${label}`, title: `Copy ${label}` }, copyIcon());
    button.addEventListener("click", async (event) => {
      event.stopPropagation();
      let done = true;
      try { await navigator.clipboard.writeText(await textOf()); } catch { done = false; }
      button.replaceChildren(done ? "✓" : "✗");
      document.getElementById("said").textContent = done ? `Copied ${label}.` : `The browser does not let the page copy ${label}.`;
      setTimeout(() => button.replaceChildren(copyIcon()), 1500);
    });
    return button;
  }

  // What is drawn anew within a node keeps the focus on what is named the same, or else on `otherwise()`, or on what is
  // in its place; and what had been opened is open again.
  function redraw(node, draw, otherwise = () => null) {
    const FOCUSABLE = "button, input, select, summary, [tabindex]";
    const nameOf = (one) => `${one.tagName} ${one.id || one.getAttribute("aria-label") || one.textContent}`;
    const list = (selector) => [...node.querySelectorAll(selector)], alike = (selector, name) => list(selector).filter((one) => nameOf(one) === name);
    const remember = (selector, one) => { const name = nameOf(one), nth = alike(selector, name).indexOf(one); return () => alike(selector, name)[nth] ?? alike(selector, name)[0]; };
    const focused = document.activeElement, had = node !== focused && node.contains(focused), place = had ? list(FOCUSABLE).indexOf(focused) : -1;
    const again = had ? remember(FOCUSABLE, focused) : null, opened = list("details[open] > summary").map((one) => remember("details > summary", one));
    draw();
    for (const summary of opened) { const details = summary()?.parentElement; if (details) details.open = true; }
    if (had && document.activeElement !== focused) (again() ?? otherwise() ?? list(FOCUSABLE)[place] ?? list(FOCUSABLE).pop())?.focus({ preventScroll: true });
  }

  // Draw `fresh` within a node: what says the same as before stays as it is, with what is selected in it and unfolded.
  const PARTS = ".tab-body, .conversation, .events, .comparison";
  function stamp(one) {
    one.told = one.outerHTML;
    if (one.matches(PARTS)) for (const part of one.children) stamp(part);
  }
  function settle(node, fresh) {
    const had = [...node.children];
    fresh.forEach((one, index) => {
      const old = had[index];
      if (one.told === undefined) stamp(one);
      if (old?.told === one.told) return;
      if (old?.told && one.matches(PARTS) && old.className === one.className && old.getAttribute("aria-labelledby") === one.getAttribute("aria-labelledby")) {
        settle(old, [...one.children]);
        old.told = one.told;
      } else if (old) old.replaceWith(one); else node.append(one);
    });
    for (const old of had.slice(fresh.length)) old.remove();
  }

  // Shares as percents; one digit behind the point is the most.
  function percents(shares) {
    const format = column(shares.map((share) => share === null ? null : share * 100), { enough: Number(shares.every((share) => share < 0.1)), most: 1, full: 100 });
    return (share) => share === null || share === undefined || Number.isNaN(share) ? "–" : `${format(share * 100)}%`;
  }
  const percent = (share) => percents([share ?? null])(share);

  // A number, and below it, smaller, what its interval is.
  const withInterval = (value, ends, format) => [format(value), ends ? el("span", { class: "chance", text: `${format(ends[0])} to\u00a0${format(ends[1])}` }) : null].filter((one) => one !== null);

  return { el, withInterval, show, line, saidBy, runName, redraw, settle, middle, copyButton, percent, percents, block, first, json, duration, number, reward, column, numberCell, whole, count, when, sorted, median };
})();
