"use strict";
// Text of models and tools goes into the page as text nodes only, with what cannot be seen made visible.
const Text = (() => {
  const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
  const PREVIEW_CHARACTERS = 3000;

  const seen = (character) => {
    const code = character.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code)
      : code === 0x7f ? "\u2421" : `\u2039U+${code.toString(16).toUpperCase().padStart(4, "0")}\u203a`;
  };
  const show = (value) => String(value ?? "").replace(HIDDEN, seen);

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === null || value === undefined || (value === false && !name.startsWith("aria-"))) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "class") node.className = value;
      else if (name === "text") node.textContent = show(value);
      else node.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : value);
    }
    for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
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

  const json = (value) => {
    try { return JSON.stringify(value, null, 2) ?? "null"; } catch { return "[nested too deep to show]"; }
  };

  function duration(ms) {
    if (ms === null || ms === undefined) return "–";
    if (ms < 1) return `${ms.toFixed(1)} ms`;
    if (ms < 1000) return `${Math.round(ms)} ms`;
    if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
    return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
  }
  const number = (value, digits = 2) => value === null || value === undefined ? "–"
    : Number.isInteger(value) && digits === 0 ? value.toLocaleString("en") : String(Number(value.toFixed(digits)));
  const reward = (value) => value === null || value === undefined ? "–" : value.toFixed(Math.abs(value) < 10 ? 3 : 1).replace(/(\.\d*?[1-9])0+$|\.0+$/, "$1");
  const count = (value) => value >= 1e6 ? `${(value / 1e6).toFixed(1)}M` : value >= 1e4 ? `${(value / 1e3).toFixed(1)}k` : value.toLocaleString("en");
  function when(seconds) {
    if (!seconds) return "–";
    const date = new Date(seconds * 1000), pad = (value) => String(value).padStart(2, "0");
    const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
    return date.toDateString() === new Date().toDateString() ? time : `${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${time}`;
  }
  const median = (sorted, share = 0.5) => sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] : null;

  return { el, show, block, json, duration, number, reward, count, when, median };
})();
