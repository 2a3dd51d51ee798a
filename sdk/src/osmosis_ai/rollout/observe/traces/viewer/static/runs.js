// The runs, a row each, and what changed from one to another.
const Runs = (() => {
  const { el, show } = Text;
  const MAX_RUNS = 200, MAX_PAIRS = 300, MEANS = { fewest: 3, most: 4 };
  let compared = { a: null, b: null }, again = () => {}, asks = { pair: [null, null], told: () => null };

  function runsOf(rollouts, problemOf) {
    const found = new Map();
    for (const one of rollouts) {
      if (!found.has(one.run)) found.set(one.run, []);
      found.get(one.run).push(one);
    }
    return [...found].map(([name, list]) => {
      const rewards = list.filter((one) => one.reward !== null).map((one) => one.reward);
      const durations = Text.sorted(list.map((one) => one.duration));
      const problems = [...Stats.problems(list, problemOf).values()], weights = new Set(list.flatMap((one) => one.weights ?? []));
      let started = Infinity;
      for (const one of list) started = Math.min(started, one.started ?? Infinity);
      return {
        name, list, n: list.length, failed: list.filter((one) => one.failed).length, mean: Stats.mean(rewards), pass: rewards.length ? rewards.filter(Stats.passes).length / rewards.length : null, best: Stats.best(rewards),
        turns: Stats.mean(list.map((one) => one.turns)), tokens: list.reduce((sum, one) => sum + one.tokens, 0), duration: Text.median(durations), problems: problems.length, rows: problems.map((one) => one.rewards).filter((rewards) => rewards.length),
        groups: problems.filter((one) => one.groups).length, silent: problems.filter((one) => one.groups && one.silent === one.groups).length, weights: [...weights].sort((a, b) => a.localeCompare(b, "en", { numeric: true })), started,
      };
    }).sort((a, b) => a.started - b.started);
  }

  // A difference by its sign, written as `format` says.
  const signed = (format) => (value) => value === null ? "–" : `${value > Stats.SAME ? "+" : value < -Stats.SAME ? "-" : ""}${format(Math.abs(value))}`;

  const holdsZero = ({ difference, half }) => Math.abs(difference) <= half + Stats.SAME, isNone = (answer) => answer.half < Stats.SAME && holdsZero(answer);

  // What is to be known of the difference before it is read.
  function verdict(answer, isOtherReward) {
    if (answer.difference === null) return "There is nothing to compare: one of them has no rewards.";
    if (answer.half === null) return "Too few problems to tell it from chance: ";
    if (isNone(answer)) return "Nothing changed: ";
    if (holdsZero(answer)) return "It may be chance: ";
    return isOtherReward ? "The reward itself has changed, so this is not the model's alone: " : answer.difference > 0 ? "B is better: " : "B is worse: ";
  }

  // Of numbers that are read together: with as many digits as it takes for the difference, as written, to be that of the
  // two means, as written.
  function agreeing([difference, from, to], values, digits) {
    let format = Text.column([...values, from, to], digits);
    const rounded = (value) => Math.round(value * 10 ** format.digits);
    for (let more = format.digits + 1; more <= 6 && rounded(to) - rounded(from) !== rounded(difference); more += 1) format = Text.column(values, { fewest: more, enough: 0, most: 0 });
    return format;
  }

  // A difference, what it is of, and its interval in brackets.
  function withInterval({ difference, half, means }, { unit = "", scale = 1, sign = "", where = null, ...digits } = {}) {
    const scaled = [difference, ...(half === null ? [] : [difference - half, difference + half])].map((value) => value === null ? null : value * scale);
    const [from, to] = means.map((value) => value * scale), format = where === null ? Text.column(scaled, { most: 4, ...digits }) : agreeing([scaled[0], from, to], scaled, { most: 4, ...digits });
    const [middle, ...ends] = scaled.map(signed(format)), of = where === null ? "" : `, from ${format(from)}${sign} to ${format(to)}${sign}${where}`;
    const told = half === null ? "" : isNone({ difference, half }) ? " (no problem changed)" : ` (95% interval ${ends.join(" to ")}${holdsZero({ difference, half }) ? ", which includes 0" : ""})`;
    return [`${middle}${unit}`, `${of}${told}`];
  }

  // A part that only one run has is what somebody changed about the reward.
  function partOf(name, part) {
    const [inA, inB] = part.means, alone = inA === null ? `only in B, mean ${Text.reward(inB)}` : inB === null ? `only in A, mean ${Text.reward(inA)}` : null;
    return el("li", null, el("b", { dir: "auto", text: name }), alone ? `: ${alone}` : ` ${withInterval(part).join("")}`);
  }

  // Equal parts that earn another reward are somebody's change of the rule, too.
  function repaidOf({ of, changed }) {
    if (!changed.length) return null;
    const [{ parts, from, to }] = changed, samples = parts.map(([name, value]) => `${show(name)} ${Text.reward(value)}`).join(", ");
    return el("p", { class: "notice repaid", text: `Equal parts earned another reward in ${changed.length.toLocaleString("en")} of ${of.toLocaleString("en")} ${of === 1 ? "problem" : "problems"} where both have such samples, as ${samples}: ${Text.reward(from)} in A, ${Text.reward(to)} in B. What makes a reward of its parts may have changed, not the model.` });
  }

  // A failure is no reward of 0, but a run may look better for what it lost: so what it would be then is said too.
  function failuresOf(a, b, problemOf) {
    const sides = [["A", a], ["B", b]].map(([side, { list }]) => ({ side, n: list.length, lost: list.filter((one) => one.failed && one.reward === null).length }));
    if (!sides.some(({ lost }) => lost)) return null;
    const counted = ({ side, n, lost }) => lost ? `${lost.toLocaleString("en")} of ${side}'s ${n.toLocaleString("en")} samples failed (${Text.percent(lost / n)})` : `none of ${side}'s`;
    const told = sides.sort((x, y) => Boolean(y.lost) - Boolean(x.lost)).map(counted).join(" and "), { better, worse, ...zero } = Stats.compare(a.list, b.list, problemOf, (one) => one.reward ?? (one.failed ? 0 : null));
    return el("p", { class: "failing", text: `${told}: they are left out.${zero.difference === null ? "" : ` With a failure as 0 the change would be ${withInterval(zero).join("")}, ${better.toLocaleString("en")} better and ${worse.toLocaleString("en")} worse.`}` });
  }

  // A sample of A and one of B whose rewards differ most, as the problem changed where two pairs do.
  function besideOf({ difference, groups, prompt, key }, onCompare) {
    const [[worstA, bestA], [worstB, bestB]] = groups.map((group) => Stats.ends(group.scored)), down = [worstB, bestA], up = [worstA, bestB];
    const found = Stats.farthest(difference < 0 ? [down, up] : [up, down]);
    if (!found) return null;
    const [left, right, text] = found === up ? [worstA, bestB, "worst of A | best of B"] : [bestA, worstB, "best of A | worst of B"];
    return el("button", { type: "button", class: "small", text, title: `${show(left.id)} | ${show(right.id)}, side by side`, "aria-label": `${text}, of ${Text.line(prompt || key, 80)}, side by side`, onclick: () => onCompare(left.key, right.key) });
  }

  // What a run asked is in the events of its rollouts alone: those of one of A and one of B that were to solve the same tell
  // it. A row that changes is another object, so what was told of it is asked for again.
  function pairOf(a, b, by) {
    const problemOf = Problems.problemOf(by), others = new Map(b.list.toReversed().map((one) => [problemOf(one), one])), left = a.list.find((one) => others.has(problemOf(one)));
    return left ? [left, others.get(problemOf(left))] : null;
  }
  function asksOf(a, b, by) {
    const pair = pairOf(a, b, null) ?? (by === null ? null : pairOf(a, b, by));
    if (!pair) return null;
    if (asks.pair.some((one, side) => one !== pair[side])) {
      const own = asks = { pair, told: () => null }, [left] = pair;
      Promise.all(pair.map((one) => Source.detail(one.key))).then((both) => {
        const found = asks === own ? Asked.between(...both.map(({ events }) => events)) : null;
        if (!found) return;
        own.told = () => ["What a sample of each was asked, of “", el("bdi", { text: Text.line(left.prompt || left.id, 60) }), `”: ${[found.prompt, ...found.others, found.same].filter(Boolean).join(" ")}`];
        again();
      }, () => {});
    }
    return asks.told();
  }

  function comparison(a, b, { by, change }, { onProblem, onCompare, onChange, onSwap }) {
    const problemOf = Problems.problemOf(by);
    const answer = Stats.compare(a.list, b.list, problemOf);
    const names = (run) => [...new Set(run.list.flatMap((one) => Object.keys(one.components ?? {})))].sort().join();
    const parts = new Set([...a.list, ...b.list].flatMap((one) => Object.keys(one.components ?? {})));
    // What has lost its rewards comes first, as the worst there can be; then what has gained them.
    const lost = (pair) => pair.from !== null && pair.to === null, gained = (pair) => pair.from === null && pair.to !== null;
    const size = (pair) => lost(pair) ? Infinity : gained(pair) ? Number.MAX_VALUE : Math.abs(pair.difference ?? -1);
    const pairs = [...answer.pairs, ...answer.unscored].sort((x, y) => size(x) === size(y) ? (String(x.key) < String(y.key) ? -1 : 1) : size(y) > size(x) ? 1 : -1);
    const listed = change === null ? pairs : pairs.filter((pair) => pair.word === change);
    const told = (count, where) => count ? `${count.toLocaleString("en")} ${where}` : null, without = (isSo) => answer.unscored.filter(isSo).length;
    const unlike = answer.pairs.length ? `${answer.pairs.length.toLocaleString("en")} ${answer.pairs.length === 1 ? "problem" : "problems"} in both` : "no problem in both";
    const alone = [told(answer.onlyA, "only in A"), told(answer.onlyB, "only in B"), told(without(gained), "without a reward in A"), told(without(lost), "without a reward in B"),
      told(without((pair) => pair.from === null && pair.to === null), "without a reward in both")].filter(Boolean).join(", ");
    const side = (pair, mean, at, { n, failed, values } = pair.groups[at]) => el("td", { role: "cell", title: Text.whole(mean) }, meanOf(mean), Stats.lacking(n, failed, values.length).map((text) => el("span", { class: "of-failed", text })));
    const isKnown = answer.pairs.some((pair) => pair.half !== null), passed = Stats.compare(a.list, b.list, problemOf, (one) => one.reward === null ? null : Stats.whole(one.reward));
    const meanOf = Text.column(pairs.flatMap((pair) => [pair.from, pair.to]), { most: 4 }), changeOf = Text.column(answer.pairs.map((pair) => pair.difference), { fewest: answer.pairs.some((pair) => pair.half > 0) ? 3 : 0, most: 4 });
    const said = (pair, half = pair.half ?? null) => half === null ? null : half > 0 ? `± ${changeOf(half)}` : Math.abs(pair.difference) > Stats.SAME ? "every sample" : null;
    const row = (pair) => el("tr", { role: "row", "data-key": pair.key, class: pair.sure ?? "" },
      el("th", { scope: "row", role: "rowheader" }, el("button", { type: "button", class: "link", dir: "auto", onclick: () => onProblem(pair.key), text: pair.prompt || pair.key, title: pair.prompt }), Problems.nameOf(pair, by) ? el("span", { class: "chance", dir: "auto", text: Problems.nameOf(pair, by) }) : null, besideOf(pair, onCompare)),
      side(pair, pair.from, 0), side(pair, pair.to, 1), el("td", { role: "cell", class: "change", title: Text.whole(pair.difference) }, signed(changeOf)(pair.difference), said(pair) ? el("span", { class: "chance", text: said(pair) }) : null));
    const where = answer.isPaired ? ` over the ${answer.pairs.length.toLocaleString("en")} problems where both have rewards` : ", each over its run's problems";
    const changed = withInterval(answer, { where }), changedRate = withInterval(passed, { unit: " points", scale: 100, sign: "%", where: "", enough: 1, most: 1 });
    const ofTable = Text.column([a.mean, b.mean], MEANS), isOtherMean = answer.difference !== null && [a.mean, b.mean].some((value, side) => Math.abs(value - answer.means[side]) > Stats.SAME);
    const asked = asksOf(a, b, by);
    // Which weighs in the table but not here, or the other way about.
    const isUneven = [a, b].some(({ rows }) => new Set(rows.map((rewards) => rewards.length)).size > 1), isLess = [a, b].some(({ list }) => list.some((one) => one.failed && one.reward === null));
    const causes = [isUneven ? `a problem with more rewards counts more${isLess ? ", and what failed has none" : ""}` : null, answer.isPaired && (answer.onlyA || answer.onlyB || without(gained) || without(lost)) ? "problems that have rewards in one run alone count too" : null].filter(Boolean).join(", and ");
    const unlikeParts = a.mean !== null && b.mean !== null && names(a) !== names(b) ? el("p", { class: "notice", text: "The rewards of A and B are made of different parts: a difference may be the reward's, not the model's." }) : null;
    const repaid = repaidOf(Stats.repaid(a.list, b.list, problemOf));
    // What a node says tells whether it stays, and does what it did: so the button names both.
    return el("section", { class: "comparison", "aria-label": "B compared with A" },
      el("h2", null, "What changed from A to B ", el("button", { type: "button", class: "small", text: "swap A and B", title: `A is ${show(a.name)}, B is ${show(b.name)}`, onclick: onSwap })),
      el("p", { class: "which", dir: "auto", text: `A is ${Text.runName(a.name)}, B is ${Text.runName(b.name)}.` }), el("p", { class: "alike-asks", hidden: !asked }, asked), unlikeParts, repaid,
      el("p", { class: "verdict" }, verdict(answer, Boolean(unlikeParts ?? repaid)), answer.difference === null ? null : [el("b", { text: `mean reward ${changed[0]}` }), `${changed[1]}.`]), failuresOf(a, b, problemOf),
      a.pass || b.pass ? el("p", { class: "rate" }, el("b", { text: `Pass rate ${changedRate[0]}` }), `${changedRate[1]}.`) : null,
      el("ul", { class: "tally" }, ["better", "equal", "worse"].map((word) => el("li", { class: word }, el("button", { type: "button", "aria-pressed": change === word, title: "Show only these", onclick: () => onChange(change === word ? null : word) },
        el("b", { text: answer[word].toLocaleString("en") }), ` ${answer[word] === 1 ? "problem" : "problems"} ${word}${word !== "equal" && answer[word] && isKnown ? ` (${answer.sure[word].toLocaleString("en")} beyond chance)` : ""}`)))),
      el("p", { class: "dim", text: `${unlike}${alone ? `; ${alone}` : ""}. ${answer.isPaired ? "The difference is the mean over problems of B's mean less A's." : "The difference is of the means over each run's problems."}${isOtherMean ? ` The table's means, ${ofTable(a.mean)} and ${ofTable(b.mean)}, are over rollouts: there, ${causes}.` : ""}` }),
      parts.size ? el("ul", { class: "parts" }, [...parts].slice(0, 12).map((name) => partOf(name, Stats.compare(a.list, b.list, problemOf, (one) => one.components?.[name])))) : null,
      pairs.length ? el("table", { class: "list pairs", role: "table" }, el("caption", null, `Problems${change === null ? "" : `, ${change} alone`}, the most changed first`, el("span", { class: "chance", text: isKnown ? "± is half of the 95% interval, reckoned from a problem's own samples: what changed by more is beyond chance, and coloured. Where nothing has changed, luck alone makes about one problem in twenty look so." : "No problem has two samples in both runs: none is known to be beyond chance, and none is coloured." })),
        el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ["Problem", "A", "B", "Change"].map((text) => el("th", { scope: "col", role: "columnheader", text })))), el("tbody", { role: "rowgroup" }, listed.slice(0, MAX_PAIRS).map(row))) : null,
      listed.length > MAX_PAIRS ? el("p", { class: "dim", text: `${(listed.length - MAX_PAIRS).toLocaleString("en")} more changed less.` }) : null);
  }

  function draw(node, rollouts, state, acts) {
    const { onRun, onPick } = acts;
    again = () => draw(node, rollouts, state, acts);
    // Two runs that are picked, or that a link names, stay those two; else they are the latest two.
    const problemOf = Problems.problemOf(state.by), all = runsOf(rollouts, problemOf), runs = all.filter((run, index) => index >= all.length - MAX_RUNS || [state.a, state.b].includes(run.name)), names = runs.map((run) => run.name);
    const b = state.b ?? names.filter((name) => name !== state.a).pop() ?? null, a = state.a ?? names.filter((name) => name !== b).pop() ?? null;
    const absent = [["A", a], ["B", b]].filter(([, name]) => name !== null && !names.includes(name));
    // Where a row is a card, each cell says what it is, and what its roles are is said anew.
    const heads = ["A", "B", "Run", "Mean reward", "Pass rate", "Rollouts", "Failed", "Turns", "Tokens", "Problems", "No signal", "Median time", "Weights", "Started"];
    const titles = { "Mean reward": "Over its rollouts; below it its 95% interval, as problems differ", "Pass rate": "Share of the rewards that are at least 1; below it its 95% interval, as problems differ", Tokens: "Of the prompts and what the model wrote, of all turns" };
    const every = (name) => runs.map((run) => run[name]), meanOf = Text.column(every("mean"), MEANS), passOf = Text.percents(every("pass")), turnsOf = Text.column(every("turns"), { enough: 1, most: 1 });
    const pick = (side, name, chosen) => el("td", { role: "cell", class: "pick" }, el("label", { "data-head": side.toUpperCase() }, el("input", { type: "radio", name: `side-${side}`, "aria-label": `${Text.runName(name)} is ${side.toUpperCase()}`, checked: chosen, onchange: () => onPick({ a, b, [side]: name }) })));
    const rows = runs.map((run) => el("tr", { role: "row", "data-key": run.name }, pick("a", run.name, run.name === a), pick("b", run.name, run.name === b),
      el("th", { scope: "row", role: "rowheader" }, el("button", { type: "button", class: "link", dir: "auto", text: Text.runName(run.name), title: run.name, onclick: () => onRun(run.name) })),
      [Text.withInterval(run.mean, Stats.interval(run.rows), meanOf), Text.withInterval(run.pass, Stats.interval(run.rows.map((rewards) => rewards.map(Stats.whole))), passOf), run.n.toLocaleString("en"), run.failed.toLocaleString("en"), turnsOf(run.turns), Text.count(run.tokens), run.problems.toLocaleString("en"),
        run.groups ? `${run.silent} of ${run.groups}` : "–", Text.duration(run.duration), run.weights.length > 3 ? `${run.weights[0]} … ${run.weights[run.weights.length - 1]}` : run.weights.join(", ") || "–", Text.when(run.started === Infinity ? null : run.started)].map((told, index) => el("td", { role: "cell", "data-head": heads[index + 3], title: index ? null : Text.whole(run.mean) }, Array.isArray(told) ? told : show(told)))));
    const table = el("table", { class: "list runs", role: "table" }, el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads.map((text) => el("th", { scope: "col", role: "columnheader", title: titles[text], text })))), el("tbody", { role: "rowgroup" }, rows));
    const scrolled = node.querySelector(".scroll")?.scrollLeft ?? 0;
    // A reward in parts may never be whole: its pass rate is then no news of the model.
    const below = runs.filter((run) => run.pass === 0 && run.best > Stats.SAME), told = below.slice(0, 3).map((run) => ` No reward of ${Text.runName(run.name)} is: its best is ${Text.reward(run.best)}.`);
    const rate = `Pass rate: the share of rewards that are at least 1.${told.join("")}${below.length > 3 ? ` So it is with ${below.length - 3} more.` : ""}${rollouts.some((one) => one.failed && one.reward === null) ? " What failed without a reward is neither in it nor in the mean." : ""}`;
    const answer = absent.length ? el("p", { class: "notice", text: absent.map(([side, name]) => `The run ${Text.runName(name)}, which is to be ${side}, is not among those shown.`).join(" ") })
      : a !== null && b !== null && a !== b ? comparison(runs.find((run) => run.name === a), runs.find((run) => run.name === b), state, { ...acts, onSwap: () => onPick({ a: b, b: a }) })
        : el("p", { class: "dim", text: runs.length > 1 ? "Choose two runs to compare." : "With a second run among those shown, both can be compared here." });
    Text.redraw(node, () => Text.settle(node, [el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs" }, table), el("p", { class: "dim", text: rate }), answer]));
    node.querySelector(".scroll").scrollLeft = scrolled;
    compared = a !== null && b !== null ? { a, b } : { a: null, b: null };
  }

  // While rollouts arrive: what stands at the top of the screen stays there. Gives what puts it back.
  function hold(node) {
    const marks = () => [...node.querySelectorAll("tr[data-key], h2, .verdict, caption")], nameOf = (one) => `${one.tagName} ${one.closest("table")?.className} ${one.dataset.key}`;
    const topOf = (one) => one.getBoundingClientRect().top, seen = window.scrollY > 0 ? marks().find((one) => topOf(one) >= 0) : null;
    if (!seen) return () => {};
    const was = topOf(seen), name = nameOf(seen);
    return () => { const now = marks().find((one) => nameOf(one) === name); if (now) window.scrollBy(0, topOf(now) - was); };
  }

  // Which two are compared, picked or not; null and null before there are two.
  return { draw, hold, get compared() { return compared; } };
})();
