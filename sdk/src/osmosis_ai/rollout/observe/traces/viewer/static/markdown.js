// Markdown of models as elements: what is no Markdown is text, and nothing of it is ever read as HTML. Links are not
// followed and images not fetched: their addresses are shown.
const Markdown = (() => {
  const { el, show } = Text;
  const MAX_CHARACTERS = 20_000;

  // Code, strong, emphasis and links within a line. Each is found by its own end, so the time is that of one reading.
  function inline(text) {
    const nodes = [], pattern = /(`+)([^`]|[^`][^]{0,500}?[^`])\1(?!`)|\*\*([^*\n]+)\*\*|(?<![\w*])\*([^*\s][^*\n]*)\*(?!\w)|(!?)\[([^\][\n]{0,300})\]\(([^()\s]{1,500})\)/g;
    let from = 0;
    for (const found of text.matchAll(pattern)) {
      if (found.index > from) nodes.push(text.slice(from, found.index));
      const [whole, ticks, code, strong, emphasis, , label, target] = found;
      if (ticks) nodes.push(el("code", { text: code }));
      else if (strong !== undefined) nodes.push(el("strong", { text: strong }));
      else if (emphasis !== undefined) nodes.push(el("em", { text: emphasis }));
      else nodes.push(el("span", { class: "address", text: `${label || ""} (${target})` }));
      from = found.index + whole.length;
    }
    nodes.push(text.slice(from));
    return nodes.map((node) => typeof node === "string" ? document.createTextNode(show(node)) : node);
  }

  const code = (text, language) => el("div", { class: "fence" }, el("div", { class: "fence-head" }, el("span", { text: language || "code" }), Text.copyButton("code", () => text)), el("pre", { tabindex: 0, "aria-label": language || "code", role: "region" }, el("code", { text })));
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

  function render(text) {
    const root = el("div", { class: "markdown", dir: "auto" });
    const lines = text.split("\n");
    let paragraph = [], list = null;
    const flush = () => { if (paragraph.length) root.append(el("p", null, inline(paragraph.join("\n")))); paragraph = []; list = null; };
    for (let at = 0; at < lines.length; at += 1) {
      const line = lines[at];
      const fence = /^\s{0,3}(```+|~~~+)\s*([\w+#.-]*)/.exec(line), heading = /^(#{1,6})\s+(\S.*)$/.exec(line);
      const item = /^\s{0,8}(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/.exec(line), quote = /^>\s?(.*)$/.exec(line);
      if (fence) {
        let end = at + 1;
        while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end += 1;
        flush();
        root.append(code(lines.slice(at + 1, end).join("\n"), fence[2]));
        at = end;
      } else if (heading && !/^\d/.test(heading[2])) {  // "#### 42" is how some agents write an answer
        flush();
        root.append(el("p", { class: `heading h${heading[1].length}` }, inline(heading[2].trimEnd())));
      } else if (/^\s*\|.*\|\s*$/.test(line) && /^\s*\|[\s:|-]+\|\s*$/.test(lines[at + 1] ?? "")) {
        flush();
        const rows = [];
        let end = at + 2;
        while (end < lines.length && /^\s*\|.*\|\s*$/.test(lines[end])) rows.push(cells(lines[end++]));
        root.append(el("table", null, el("thead", null, el("tr", null, cells(line).map((cell) => el("th", { scope: "col" }, inline(cell))))), el("tbody", null, rows.map((row) => el("tr", null, row.map((cell) => el("td", null, inline(cell))))))));
        at = end - 1;
      } else if (item) {
        const kind = item[1] === undefined ? "UL" : "OL";
        if (list?.tagName !== kind) { flush(); root.append(list = el(kind.toLowerCase(), item[1] === undefined ? null : { start: item[1] })); }
        list.append(el("li", null, inline(item[2])));
      } else if (quote) {
        flush();
        root.append(el("blockquote", null, inline(quote[1])));
      } else if (!line.trim()) flush();
      else { list = null; paragraph.push(line); }
    }
    flush();
    return root;
  }

  // Where a thought begins or ends, and where code does: what looks like a thought in code is code.
  const MARKS = /(^[ \t]*<think(?:ing)?>|<\/think(?:ing)?>|^[ \t]*(?:```|~~~)[^\n<]*)/m;
  const FENCE = /^[ \t]{0,3}(`{3,}|~{3,})/;

  // What a reply thought and what it said, piece by piece. Of a thought, the template may have written the beginning, and
  // a limit may have cut off the end.
  function parts(text) {
    const found = [];
    let held = "", opening = null, fence = null, isFirst = true, hasSaid = false;
    const say = (said) => { const rest = said.replace(/^\s+/, ""); if (!rest) return; hasSaid = true; found.push({ isThought: false, text: rest }); };
    const think = (thought) => found.push({ isThought: true, text: thought.trim() });
    for (const [index, piece] of text.split(MARKS).entries()) {
      const isMark = index % 2 === 1, isTag = isMark && piece.endsWith(">") && /^[ \t]*</.test(piece), ends = isTag && piece[1] === "/";
      if (isMark && !isTag && opening === null) {
        if (fence === null) fence = FENCE.exec(piece)?.[1] ?? null; else if (piece.trim().startsWith(fence)) fence = null;
      }
      if (isTag && fence === null) {
        if (!ends && opening === null) { say(held); [held, opening] = ["", piece]; }
        else if (ends && (opening !== null || isFirst)) { think(held); [held, opening] = ["", null]; }
        else held += piece;
        isFirst = false;
      } else held += piece;
    }
    if (opening !== null && !hasSaid) think(held); else say((opening ?? "") + held);
    return found;
  }

  const folded = (text, note, body) => el("details", { class: "reasoning" }, el("summary", { text: `Thinking (${text.length.toLocaleString("en")} characters${note})` }), body);

  // A reply: what it thought is folded, the rest is Markdown; a long text, or one that is hardly that, is shown as it is.
  function reply(text) {
    const shown = parts(text).map((one) => one.isThought ? folded(one.text, "", Text.block(one.text)) : one.text.length > MAX_CHARACTERS ? Text.block(one.text) : render(one.text));
    return el("div", null, shown.length ? shown : render(""));
  }

  return { reply, render, parts, folded };
})();
