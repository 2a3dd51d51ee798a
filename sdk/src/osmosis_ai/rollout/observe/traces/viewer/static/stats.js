// What is said of many rewards: means, spreads, and the difference of two runs with its interval.
const Stats = (() => {
  const SAME = 1e-9;  // 0.7 + 0.2 + 0.1 is less than 1 by 1e-16
  const passes = (reward) => reward >= 1 - SAME;  // as in `osmosis eval`: a whole reward
  const whole = (reward) => Number(passes(reward));
  const best = (values) => values.reduce((high, value) => Math.max(high, value), -Infinity);
  const HUGE = 2 ** 600;  // what is so large that its squares or sums are no numbers is reckoned with in units of this
  const LARGEST = Number.MAX_VALUE;
  const Z = 1.959964;

  const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  function mean(values) {
    if (!values.length) return null;
    const found = average(values);
    return Number.isFinite(found) ? found : average(values.map((value) => value / HUGE)) * HUGE;
  }
  const less = (value, other) => Math.max(-LARGEST, Math.min(LARGEST, value - other));

  // With divisor n, as `osmosis eval`, `test` and a trainer's groups have it; null for fewer than two.
  function spread(values, degrees = values.length) {
    if (values.length < 2) return null;
    let found = deviation(values, degrees);
    if (!Number.isFinite(found)) found = Math.min(LARGEST, deviation(values.map((value) => value / HUGE), degrees) * HUGE);
    return found < SAME ? 0 : found;
  }
  function deviation(values, degrees) {
    const middle = mean(values);
    return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / degrees);
  }
  const standardError = (values) => values.length < 2 ? null : spread(values, values.length - 1) / Math.sqrt(values.length);

  // The 97.5 % quantile of Student's t: a table, and beyond it Abramowitz and Stegun 26.7.5. Of fewer than five degrees,
  // which Welch's need not be whole, its logarithm is nearly straight over their reciprocal: good to half a per cent.
  const FEW = [[1, 12.706], [1.2, 8.603], [1.5, 6.017], [2, 4.303], [3, 3.182], [4, 2.776], [5, 2.571]];
  function quantile(degrees) {
    const after = FEW.findIndex(([least]) => least > degrees);
    if (after > 0) {
      const [[low, high], [next, lower]] = FEW.slice(after - 1), way = (1 / low - 1 / degrees) / (1 / low - 1 / next);
      return high * (lower / high) ** way;
    }
    const z = Z, g = [(z ** 3 + z) / 4, (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96, (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384];
    return z + g[0] / degrees + g[1] / degrees ** 2 + g[2] / degrees ** 3;
  }

  // Half of Welch's 95 % interval of the difference of two means; null where there are too few values.
  function welch(x, y) {
    if (x.length < 2 || y.length < 2) return null;
    const [u, v] = [standardError(x), standardError(y)], both = Math.hypot(u, v);
    const degrees = both > 0 ? 1 / ((u / both) ** 4 / (x.length - 1) + (v / both) ** 4 / (y.length - 1)) : 1;
    return quantile(degrees) * both;
  }

  // The ends of the 95 % interval of the mean over all values, as `osmosis eval` has it: each of `rows` holds the values of
  // a problem, which are not independent. Wilson's, of as many samples as the variance over problems is worth, where all
  // lie within 0 and 1; else Student's, null where no row differs.
  function interval(rows) {
    const values = rows.flat(), largest = best(values.map(Math.abs)), unit = largest > HUGE / 2 ** 100 ? largest : 1;
    if (!values.length) return null;
    const estimate = mean(values) / unit, n = rows.length, size = values.length;
    const residuals = rows.reduce((sum, row) => sum + row.reduce((rest, value) => rest + (value / unit - estimate), 0) ** 2, 0);
    const found = n < 2 ? 0 : n / (n - 1) * residuals / size ** 2, variance = found > 1e-24 ? found : 0;
    if (values.some((value) => value < -SAME || value > 1 + SAME)) {
      if (variance === 0) return null;
      const half = quantile(n - 1) * Math.sqrt(variance);
      return [estimate - half, estimate + half].map((end) => Math.max(-LARGEST, Math.min(LARGEST, end * unit)));
    }
    const share = Math.max(0, Math.min(1, estimate)), worth = variance > 0 ? Math.max(n, share * (1 - share) / variance * (Z / quantile(n - 1)) ** 2) : n, squared = Z ** 2 / worth;
    const centre = (share + squared / 2) / (1 + squared), half = Z * Math.sqrt(share * (1 - share) / worth + squared / worth / 4) / (1 + squared);
    return [Math.min(Math.max(0, centre - half), share), Math.max(Math.min(1, centre + half), share)];
  }

  // Which samples of a group no mean and no rate is of.
  function lacking(n, failed, scored) {
    const silent = n - failed - scored;
    return [failed ? `${failed} of ${n} failed` : null, silent > 0 ? `${silent} of ${n} without a reward` : null].filter(Boolean);
  }

  // The worst and the best of some samples, of which none need have a reward.
  function ends(samples) {
    const ordered = samples.filter((one) => one.reward !== null).sort((a, b) => a.reward - b.reward);
    return ordered.length ? [ordered[0], ordered[ordered.length - 1]] : [];
  }
  // Of pairs of a worse and a better sample, the one that lies farthest apart; null where none does.
  const apart = ([worse, better]) => worse && better ? less(better.reward, worse.reward) : 0;
  const farthest = (pairs) => pairs.reduce((far, pair) => apart(pair) > Math.max(SAME, far ? apart(far) : 0) ? pair : far, null);

  // Rollouts that share a problem, and, of these, those of a run: a group, as its advantages are reckoned.
  function problems(rollouts, problemOf) {
    const found = new Map();
    for (const one of rollouts) {
      const key = problemOf(one);
      let problem = found.get(key);
      if (!problem) found.set(key, problem = { key, prompt: one.prompt, row: one.metadata?.row_index ?? null, samples: [], rewards: [], runs: new Map(), failed: 0 });
      problem.samples.push(one);
      problem.failed += one.failed;
      let group = problem.runs.get(one.run);
      if (!group) problem.runs.set(one.run, group = []);
      if (one.reward !== null) { problem.rewards.push(one.reward); group.push(one.reward); }
    }
    for (const problem of found.values()) {
      const { samples, rewards } = problem;
      problem.n = samples.length;
      problem.pass = rewards.length ? rewards.filter(passes).length / rewards.length : null;
      problem.mean = mean(rewards);
      problem.spread = spread(rewards);
      problem.turns = mean(samples.map((one) => one.turns));
      problem.written = mean(samples.map((one) => one.responseTokens));
      const groups = [...problem.runs].filter(([, group]) => group.length > 1);
      problem.groups = groups.length;
      problem.silentRuns = groups.filter(([, group]) => Math.max(...group) - Math.min(...group) < SAME).map(([run]) => run).sort();
      problem.silent = problem.silentRuns.length;
    }
    return found;
  }

  // B less A. Samples of a problem are alike, so problems are what is counted: paired where both runs have them. `means` are
  // the two that `difference` is of.
  function compare(a, b, problemOf, valueOf = (one) => one.reward) {
    const grouped = (list) => {
      const found = new Map();
      for (const one of list) {
        const key = problemOf(one), value = valueOf(one);
        if (!found.has(key)) found.set(key, { key, values: [], scored: [], prompt: one.prompt, row: one.metadata?.row_index ?? null, n: 0, failed: 0 });
        const group = found.get(key);
        group.n += 1;
        group.failed += one.failed;
        if (typeof value === "number") { group.values.push(value); group.scored.push(one); }
      }
      return found;
    };
    const scored = (groups) => new Map([...groups].filter(([, one]) => one.values.length));
    const [all, others] = [a, b].map(grouped), [left, right] = [all, others].map(scored), pairs = [], unscored = [];
    for (const [key, own] of all) {
      const other = others.get(key);
      if (!other) continue;
      const from = mean(own.values), to = mean(other.values), isPair = from !== null && to !== null;
      (isPair ? pairs : unscored).push({ key, prompt: own.prompt, row: own.row, from, to, difference: isPair ? less(to, from) : null, groups: [own, other] });
    }
    const counts = { better: 0, equal: 0, worse: 0 }, sure = { better: 0, equal: 0, worse: 0 };
    for (const pair of pairs) {
      // How much of a change may be chance: null for too few samples, 0 where each side's are all alike. `sure` is what
      // is beyond it: by this alone a change is counted so, and coloured.
      const word = pair.difference > SAME ? "better" : pair.difference < -SAME ? "worse" : "equal";
      pair.word = word;
      pair.half = welch(...pair.groups.map((group) => group.values));
      pair.sure = word !== "equal" && pair.half !== null && Math.abs(pair.difference) > pair.half ? word : null;
      counts[word] += 1;
      if (pair.sure) sure[word] += 1;
    }
    const means = [left, right].map((found) => mean([...found.values()].map((one) => mean(one.values))));
    const both = pairs.length + unscored.length;
    const answer = { pairs, unscored, means, sure, ...counts, onlyA: all.size - both, onlyB: others.size - both, isPaired: pairs.length > 1, difference: null, half: null };
    if (answer.isPaired) {
      const differences = pairs.map((pair) => pair.difference);
      answer.difference = mean(differences);
      answer.means = ["from", "to"].map((side) => mean(pairs.map((pair) => pair[side])));
      answer.half = quantile(pairs.length - 1) * standardError(differences);
    } else {
      // Nothing in common: over the problems of each run.
      const [x, y] = [left, right].map((found) => [...found.values()].map((one) => mean(one.values)));
      if (x.length && y.length) answer.difference = less(mean(y), mean(x));
      answer.half = welch(x, y);
    }
    return answer;
  }

  // In which problems samples of equal parts, which in each run all earned the same, earned another reward in B than in A:
  // what makes a reward of its parts has changed then. `of` is in how many there are such samples.
  function repaid(a, b, problemOf) {
    const earned = (list) => {
      const found = new Map();
      for (const one of list) {
        const parts = Object.entries(one.components ?? {}).sort(([name], [other]) => name < other ? -1 : 1);
        if (!parts.length || one.reward === null) continue;
        const problem = problemOf(one), key = JSON.stringify([problem, parts]), known = found.get(key);
        if (!known) found.set(key, { problem, parts, reward: one.reward, isOne: true });
        else if (Math.abs(known.reward - one.reward) > SAME) known.isOne = false;
      }
      return found;
    };
    const [before, after] = [a, b].map(earned), of = new Set(), changed = new Map();
    for (const [key, own] of before) {
      const other = after.get(key);
      if (!other || !own.isOne || !other.isOne) continue;
      of.add(own.problem);
      if (Math.abs(own.reward - other.reward) > SAME && !changed.has(own.problem)) changed.set(own.problem, { parts: own.parts, from: own.reward, to: other.reward });
    }
    return { of: of.size, changed: [...changed.values()] };
  }

  return { passes, whole, SAME, best, mean, spread, quantile, interval, lacking, ends, farthest, problems, compare, repaid };
})();
