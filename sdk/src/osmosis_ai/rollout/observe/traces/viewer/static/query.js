// The search: words, each of which has to be somewhere in a rollout, and facets key:value, key:>number, key:a..b.
const Query = (() => {
  const FIELDS = {
    id: (one) => one.id, run: (one) => one.run, agent: (one) => one.agent, status: (one) => [one.status, Table.STATUS[one.status]?.[1]], outcome: (one) => one.outcome,
    finish: (one) => one.finish, delivery: (one) => one.delivery, prompt: (one) => one.prompt, answer: (one) => one.answer, error: (one) => one.error, warning: (one) => one.warning,
    reward: (one) => one.reward, turns: (one) => one.turns, tools: (one) => one.tools, toolErrors: (one) => one.toolErrors, tokens: (one) => one.tokens,
    duration: (one) => one.duration, weights: (one) => one.weights,
  };
  // As long as any number that is told apart: what is tried in two places is tried in their product.
  const NUMBER = String.raw`(-?[\d.]{1,40}?(?:e[+-]?\d+)?)`, RANGE = new RegExp(`^${NUMBER}\\.\\.${NUMBER}$`), BOUND = new RegExp(`^([<>]=?)${NUMBER}$`);
  const names = Object.assign(Object.create(null), Object.fromEntries(Object.keys(FIELDS).map((name) => [name.toLowerCase(), name])));

  const haystackOf = (one) => one.haystack ??= [one.id, one.run, one.prompt, one.answer, one.error, one.warning, one.outcome, one.finish, one.agent, one.status, ...Object.entries(one.metadata ?? {}).map(([name, value]) => `${name}:${value}`)].join("\n").toLowerCase();

  function valueOf(one, key) {
    if (names[key]) return FIELDS[names[key]](one);
    for (const source of [one.metadata, one.components]) for (const name in source) if (name.toLowerCase() === key) return source[name];
    return undefined;
  }

  function fits(value, wanted) {
    if (value === null || value === undefined) return false;
    if (Array.isArray(value)) return value.some((one) => fits(one, wanted));
    const range = RANGE.exec(wanted), bound = BOUND.exec(wanted);
    // Numbers are whole but for rounding, as in what is reckoned of them.
    if (range) return Number(value) >= Number(range[1]) - Stats.SAME && Number(value) <= Number(range[2]) + Stats.SAME;
    if (bound) { const over = Number(value) - Number(bound[2]); return { ">": over > Stats.SAME, ">=": over > -Stats.SAME, "<": over < -Stats.SAME, "<=": over < Stats.SAME }[bound[1]]; }
    if (typeof value === "number" && wanted !== "" && !Number.isNaN(Number(wanted))) return Math.abs(value - Number(wanted)) < Stats.SAME;
    return String(value).toLowerCase().includes(wanted);
  }

  // `known(key)` says whether any rollout has such a key: what is none, as in "KeyError: x", is a word.
  function parse(text, known) {
    const words = [], facets = [];
    for (const [part] of text.toLowerCase().matchAll(/[^\s":]+:"[^"]*"|"[^"]*"|\S+/g)) {
      const at = part.indexOf(":"), key = part.slice(0, at), value = part.slice(at + 1).replaceAll('"', "");
      if (at > 0 && value && (names[key] || key === "tool" || known(key))) facets.push([key, value]);
      else if (part.replaceAll('"', "")) words.push(part.replaceAll('"', ""));
    }
    return { words, facets };
  }

  // `found` has the keys of the rollouts whose tools said a word, once they are known.
  function among(rollouts, { words, facets }, found) {
    if (words.length === 1 && !facets.length && !found.get(words[0])?.size) return having(rollouts, words[0]);
    return rollouts.filter((one) => facets.every(([key, value]) => key === "tool" ? found.get(value)?.has(one.key) : fits(valueOf(one, key), value))
      && words.every((word) => haystackOf(one).includes(word) || found.get(word)?.has(one.key)));
  }

  // All haystacks are one text as well: what follows itself in memory is looked through several times faster.
  let whole = { of: null, text: "", starts: [] };
  function join(rollouts) {
    if (whole.of === rollouts) return whole;
    let at = 0;
    const starts = rollouts.map((one) => { const start = at; at += haystackOf(one).length + 1; return start; });
    return whole = { of: rollouts, text: rollouts.map(haystackOf).join("\u0000"), starts };
  }
  function having(rollouts, word) {
    const { text, starts } = join(rollouts), found = [];
    for (let at = text.indexOf(word), row = 0; at >= 0; at = row < starts.length ? text.indexOf(word, starts[row]) : -1) {
      while (starts[row + 1] <= at) row += 1;
      found.push(rollouts[row]);
      row += 1;
    }
    return found;
  }

  const soughtInTools = ({ words, facets }) => [...words, ...facets.filter(([key]) => key === "tool").map(([, value]) => value)].slice(0, 8);

  return { haystackOf, parse, among, join, soughtInTools, fields: Object.keys(FIELDS) };
})();
