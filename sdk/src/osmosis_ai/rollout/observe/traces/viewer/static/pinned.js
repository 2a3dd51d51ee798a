// Two rollouts side by side, turn by turn, with what differs marked.
const Pinned = (() => {
  const { el, show } = Text;
  const WORDS = /\s+|[^\s]+/g, LINES = /[^\n]*\n|[^\n]+/g, MAX_UNITS = 600, KEPT_LINES = 3, MIN_FOLDED_LINES = 6;

  // The words of two texts, each with whether the other has it too, in this order: a longest common subsequence of what
  // lies between what both begin and end with; of its lines, where that is many words.
  function differences(left, right, unit = WORDS) {
    const a = left.match(unit) ?? [], b = right.match(unit) ?? [], least = Math.min(a.length, b.length);
    let head = 0, tail = 0;
    while (head < least && a[head] === b[head]) head += 1;
    while (tail < least - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
    const [inA, inB] = [a, b].map((all) => all.slice(head, all.length - tail));
    const isLong = inA.length > MAX_UNITS || inB.length > MAX_UNITS;
    if (isLong && unit === WORDS) return differences(left, right, LINES);
    const between = isLong ? [[[inA.join(""), false]], [[inB.join(""), false]]] : common(inA, inB);
    return [a, b].map((all, side) => [[all.slice(0, head).join(""), true], ...between[side], [all.slice(all.length - tail).join(""), true]]);
  }

  function common(a, b) {
    const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i -= 1) for (let j = b.length - 1; j >= 0; j -= 1) lengths[i][j] = a[i] === b[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    const [x, y] = [[], []];
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { x.push([a[i], true]); y.push([b[j], true]); i += 1; j += 1; }
      else if (j >= b.length || (i < a.length && lengths[i + 1][j] >= lengths[i][j + 1])) { x.push([a[i], false]); i += 1; }
      else { y.push([b[j], false]); j += 1; }
    }
    return [x, y];
  }

  // What is the same for many lines is folded but for its ends.
  function alike(text) {
    const lines = show(text).split("\n"), hidden = lines.length - 2 * KEPT_LINES;
    if (hidden < MIN_FOLDED_LINES) return [lines.join("\n")];
    return [lines.slice(0, KEPT_LINES).join("\n"), el("details", { class: "alike" }, el("summary", { text: `${hidden} lines, the same` }), lines.slice(KEPT_LINES, -KEPT_LINES).join("\n")), lines.slice(-KEPT_LINES).join("\n")];
  }

  function marked(words) {
    const node = el("div", { class: "text", dir: "auto" });
    let run = "", same = true;
    const flush = () => { if (run) node.append(...(same ? alike(run) : [el("mark", { text: run })])); run = ""; };
    for (const [word, isSame] of words) { if (isSame !== same) { flush(); same = isSame; } run += word; }
    flush();
    return node;
  }

  const sayings = (turn) => turn ? [["", turn.thought], ["", turn.text], ...turn.calls.flatMap((call) => [[call.name, call.arguments], ["→", call.result ?? "no result"]])] : [];
  const isSame = (a, b) => a && b && JSON.stringify(sayings(a)) === JSON.stringify(sayings(b));

  // What the two are called: A and B are runs. Ids are those of a trainer, who may give one twice.
  const WAYS = [(one) => one.id, (one) => `${Text.runName(one.run)}/${one.id}`, (one) => one.address];
  const namesOf = (a, b) => { const nameOf = WAYS.find((way) => way(a) !== way(b)); return [a, b].map((one) => show(nameOf(one) || "(no id)")); };

  // Where they stand one below the other, as on a phone, each says whose it is.
  const whose = (name) => el("b", { class: "whose", dir: "auto", text: name });

  function cellsOf(left, right) {
    const [a, b] = [sayings(left), sayings(right)], cells = [[], []];
    for (let index = 0; index < Math.max(a.length, b.length); index += 1) {
      const pair = differences(a[index]?.[1] ?? "", b[index]?.[1] ?? "");
      [a, b].forEach((own, side) => {
        if (!own[index] || (!own[index][1] && index < 2)) return;
        const [name, text] = own[index], other = (side ? a : b)[index];
        if (index === 0) { cells[side].push(Markdown.folded(text, other?.[1] === text ? "" : ", not the same", marked(pair[side]))); return; }
        cells[side].push(el("div", { class: `said${name && name !== "→" ? " arguments" : ""}` }, name ? el("b", { class: "tool-name", dir: "auto" }, other && other[0] !== name ? el("mark", { text: name }) : show(name)) : null, marked(pair[side])));
      });
    }
    return cells;
  }

  function column(rollout, name) {
    const kind = rollout.failed ? "bad" : rollout.status !== "COMPLETED" ? "open" : Stats.passes(rollout.reward ?? 0) ? "ok" : "";
    return el("div", { class: "side" }, el("h3", { class: "id", dir: "auto", title: name }, Text.middle(name)),
      el("p", null, el("span", { class: `chip ${kind}`, text: `reward ${Text.reward(rollout.reward)}` }), ` ${[Text.runName(rollout.run), rollout.outcome, rollout.finish, `${rollout.turns} ${rollout.turns === 1 ? "turn" : "turns"}`, Text.duration(rollout.duration)].filter(Boolean).map(show).join(" · ")}`),
      rollout.error ? el("p", { class: "error", dir: "auto", text: rollout.error.split("\n")[0] }) : null);
  }

  function parts(a, b, samples) {
    const names = [...new Set([...Object.keys(a.components ?? {}), ...Object.keys(b.components ?? {})])];
    const format = Text.column([a, b].flatMap((one) => Object.values(one.components ?? {})));
    return names.length ? el("table", { class: "list parts-of" }, el("thead", null, el("tr", null, ["Part", ...samples].map((text) => el("th", { scope: "col", dir: "auto", text })))),
      el("tbody", null, names.map((name) => el("tr", { class: Math.abs((a.components?.[name] ?? NaN) - (b.components?.[name] ?? NaN)) < Stats.SAME ? "" : "worse" }, el("th", { scope: "row", dir: "auto", text: name }), [a, b].map((one) => el("td", { text: format(one.components?.[name]) })))))) : null;
  }

  // What the two were asked: the first message that differs, and what of the tools and the sampling does.
  function asks(a, eventsOfA, b, eventsOfB, names) {
    const found = Asked.between(eventsOfA, eventsOfB), notice = (text) => el("p", { class: "notice", dir: "auto", text });
    const asked = () => a.prompt ? el("p", { class: "asked", dir: "auto" }, el("b", { text: "Asked: " }), show(a.prompt)) : null;
    if (!found) return a.digest && a.digest !== b.digest ? [notice("They were asked different things.")] : [asked()];
    return [
      found.prompt ? el("section", { class: "differ", "aria-label": "What they were asked" }, notice(found.prompt), messagePair(names, ...found.messages)) : null,
      ...found.others.map(notice),
      found.same ? el("p", { class: "dim alike-asks", text: found.same }) : null,
      found.isAlike ? asked() : null,
    ];
  }

  function messagePair(names, ...messages) {
    const texts = messages.map(Conversation.textOf), isText = texts[0] !== texts[1], told = isText ? texts : messages.map((one) => one ? Text.json(one) : "");
    const words = differences(...told);
    return el("div", { class: "pair" }, messages.map((one, side) => el("div", null, whose(names[side]), el("b", { class: "tool-name", dir: "auto", text: one?.role ?? "no message" }), marked(words[side]))));
  }

  function render(panel, a, eventsOfA, b, eventsOfB, act) {
    const [left, right] = [Conversation.turnsOf(eventsOfA), Conversation.turnsOf(eventsOfB)], turns = Math.max(left.length, right.length);
    const names = namesOf(a, b);
    let first = -1;
    for (let index = 0; index < turns && first < 0; index += 1) if (!isSame(left[index], right[index])) first = index;
    // Thoughts, and arguments that led to the same result, decide nothing.
    const said = (turn) => turn && JSON.stringify([turn.text, turn.calls.map((call) => [call.name, call.result ?? call.arguments])]);
    let acts = Math.max(first, 0);
    while (acts < turns && said(left[acts]) === said(right[acts])) acts += 1;
    const isUnlike = (told) => first >= 0 && left.slice(first, acts).some((turn, index) => told(turn) !== told(right[first + index]));
    const little = [isUnlike((turn) => turn.thought) ? "what they thought" : null, isUnlike((turn) => JSON.stringify(turn.calls)) ? "arguments that led to the same" : null].filter(Boolean).join(" and ");
    const beyond = acts === first ? "." : acts === turns ? `, in ${little} alone.` : `, in ${little}; in what they said or did, in turn ${acts + 1}.`;
    const verdict = turns === 0 ? "Neither said anything." : first < 0 ? "Both said the same, turn by turn." : first >= Math.min(left.length, right.length) ? `The same up to turn ${first}, where one of them ends.` : `They part in turn ${first + 1}${beyond}`;
    const rows = [];
    for (let index = 0; index < turns; index += 1) {
      const same = isSame(left[index], right[index]), cells = cellsOf(left[index], right[index]);
      const heading = el("h4", { text: `Turn ${index + 1}${same ? ": the same" : ""}` });
      if (same) rows.push(el("details", { class: "same" }, el("summary", { text: `Turn ${index + 1}: the same` }), el("div", { class: "pair" }, el("div", null, whose(names[0]), cells[0]), el("div", null, whose(names[1]), cells[1]))));
      else rows.push(el("section", { class: `differ${index === first ? " first" : ""}`, "aria-label": `Turn ${index + 1}` }, heading, el("div", { class: "pair" }, [left, right].map((own, side) => el("div", null, whose(names[side]), own[index] ? cells[side].length ? cells[side] : el("p", { class: "dim", text: "(empty)" }) : el("p", { class: "dim", text: "(it had ended)" }))))));
    }
    const truths = [a, b].map((one) => one.metadata?.ground_truth), known = truths.some((one) => one !== undefined);
    const truth = known ? el("p", { class: "truth", dir: "auto" }, el("b", { text: "Truth: " }), show(truths[0] === truths[1] ? truths[0] : truths.map((one, side) => `${names[side]}: ${one ?? "–"}`).join(" · "))) : null;
    Text.redraw(panel, () => Text.settle(panel, [
      el("header", { class: "detail-title" }, el("h2", { text: "Side by side" }), el("div", { class: "detail-buttons" },
        Text.copyButton("link", () => location.href),
        el("button", { type: "button", "aria-label": "Next difference", title: "Next difference (d)", text: "≠", onclick: () => nextDifference(panel) }),
        el("button", { type: "button", "aria-label": `Previous rollout, beside ${names[0]}`, title: `Previous, beside ${names[0]} (k)`, text: "↑", onclick: () => act.step(-1) }),
        el("button", { type: "button", "aria-label": `Next rollout, beside ${names[0]}`, title: `Next, beside ${names[0]} (j)`, text: "↓", onclick: () => act.step(1) }),
        el("button", { type: "button", "aria-label": `Unpin ${names[0]}`, title: `Unpin ${names[0]} (c)`, text: "⇹", "aria-pressed": true, onclick: () => act.unpin() }),
        el("button", { type: "button", id: "close", "aria-label": "Close", title: "Close (Esc)", text: "✕", onclick: () => act.close() }))),
      el("div", { class: "pair heads" }, column(a, names[0]), column(b, names[1])), parts(a, b, names), ...asks(a, eventsOfA, b, eventsOfB, names), truth,
      el("p", { class: "verdict" }, el("b", { text: verdict })), ...rows].filter(Boolean)), () => panel.querySelector("#close"));
  }

  // Brings the next line with something marked into view; behind the last one comes the first.
  let reached = null;
  function nextDifference(panel) {
    const topOf = (one) => one.getBoundingClientRect().top;
    const marks = [...panel.querySelectorAll(".differ mark")].filter((one) => one.getClientRects().length).sort((x, y) => topOf(x) - topOf(y));
    const next = (marks.includes(reached) ? marks.find((one) => topOf(one) > topOf(reached) + 4) : null) ?? marks[0];
    reached?.classList.remove("reached");
    reached = next ?? null;
    reached?.classList.add("reached");
    reached?.scrollIntoView({ block: "center" });
  }

  return { render, differences, nextDifference };
})();
