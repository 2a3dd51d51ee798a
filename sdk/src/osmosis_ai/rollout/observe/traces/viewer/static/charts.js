// Small charts of the rollouts that pass the filter; SVG, made by hand.
const Charts = (() => {
  const { el } = Text;
  const W = 320, H = 96, PAD = 4, HEAD = 16, MAX_WRITTEN = 8;
  const svg = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  // How far a value is from the low end to the high one; their difference may be larger than a number can be.
  const share = (value, low, high) => (value / 2 - low / 2) / (high / 2 - low / 2);

  // What a bar says, upon it; where there is no room for that it is told when pointed at.
  const written = (x, y, text) => svg("text", { x, y: Math.max(11, y - 3), class: "value", "aria-hidden": "true" }, document.createTextNode(text));

  function figure(title, said, picture, from, to) {
    return el("figure", null,
      el("figcaption", null, el("b", { text: title }), el("span", { text: said })),
      picture,
      el("div", { class: "axis", "aria-hidden": "true" }, el("span", { text: from }), el("span", { text: to })));
  }

  function histogram(rollouts, choose, chosen) {
    const rewards = rollouts.filter((one) => one.reward !== null).map((one) => one.reward);
    if (!rewards.length) return null;
    let low = Infinity, high = -Infinity;
    for (const value of rewards) { low = Math.min(low, value); high = Math.max(high, value); }
    if (low >= 0 && high <= 1) { low = 0; high = 1; }
    if (low === high) { const around = Math.max(0.5, Math.abs(low) / 1e6); low = Math.max(-Number.MAX_VALUE, low - around); high = Math.min(Number.MAX_VALUE, high + around); }
    const bins = new Array(20).fill(0), width = high / bins.length - low / bins.length;
    const binOf = (value) => Math.min(bins.length - 1, Math.floor(value / width - low / width));
    for (const value of rewards) bins[binOf(value)] += 1;
    const top = Math.max(...bins);
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": "Reward histogram; a bar filters the table" });
    const texts = bins.map((amount) => amount ? Text.count(amount) : "");
    bins.forEach((amount, index) => {
      const from = low + index * width, to = from + width;
      const height = amount ? Math.max(2, (H - HEAD) * amount / top) : 0, wide = W / bins.length, x = index * wide;
      const label = `${amount.toLocaleString("en")} with reward ${Text.reward(from)} to ${Text.reward(to)}`;
      const bar = svg("rect", { x: x + 1, y: H - height, width: wide - 2, height, rx: 1.5, class: "bar" });
      const hit = svg("rect", { x, y: 0, width: wide, height: H, class: "hit" });
      const group = svg("g", { role: "button", tabindex: amount ? 0 : -1, "aria-label": label }, bar, hit, svg("title", null, document.createTextNode(label)));
      if (chosen && Math.abs(chosen[0] - from) < width / 2) group.classList.add("chosen");
      const pick = () => { if (amount) choose([from, index === bins.length - 1 ? Infinity : to]); };
      group.addEventListener("click", pick);
      group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } });
      picture.append(group);
      const isFree = [index - 1, index + 1].every((beside) => !texts[beside] || texts[index].length + texts[beside].length <= 4);
      if (amount && isFree) picture.append(written(x + wide / 2, H - height, texts[index]));
    });
    return figure("Reward", `mean ${Text.reward(Stats.mean(rewards))} of ${rewards.length.toLocaleString("en")}`, picture, Text.reward(low), Text.reward(high));
  }

  // Over the rollouts in the order of their starts: a server that stood still for a night leaves no gap. The lines down
  // are where a run begins.
  function overRollouts(ordered, title, valueOf, summarise, format, said) {
    const points = [], starts = [];
    let run = null;
    for (const one of ordered) {
      const value = valueOf(one);
      if (value === null) continue;
      if (one.run !== run) { run = one.run; starts.push([points.length, run]); }
      points.push(value);
    }
    if (!points.length) return null;
    const buckets = Math.max(1, Math.min(60, Math.ceil(points.length / 4)));
    const line = Array.from({ length: buckets }, (_, index) => [(index + 0.5) / buckets, summarise(points.slice(Math.floor(index * points.length / buckets), Math.floor((index + 1) * points.length / buckets)))]);
    let low = 0, high = -Infinity;
    for (const [, value] of line) { low = Math.min(low, value); high = Math.max(high, value); }
    if (high === low) high = low + Math.max(1, Math.abs(low) / 1e6);
    const x = (place) => PAD + place * (W - 2 * PAD), y = (value) => H - PAD - share(value, low, high) * (H - 2 * PAD - 4);
    const path = line.map(([place, value], index) => `${index ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}: from ${format(line[0][1])} to ${format(line[line.length - 1][1])}, at most ${format(high)}` },
      svg("path", { d: `${path}L${x(line[line.length - 1][0]).toFixed(1)} ${H}L${x(line[0][0]).toFixed(1)} ${H}Z`, class: "area" }),
      svg("path", { d: path, class: "line" }));
    if (starts.length > 1 && starts.length <= 40) for (const [place, name] of starts) picture.append(svg("line", { x1: x(place / points.length), x2: x(place / points.length), y1: 0, y2: H, class: "border" }, svg("title", null, document.createTextNode(Text.runName(name)))));
    for (const [place, value] of line) picture.append(svg("circle", { cx: x(place), cy: y(value), r: buckets > 40 ? 1.6 : 2.4, class: "dot" }, svg("title", null, document.createTextNode(format(value)))));
    return figure(title, `${said} · max ${format(high)}`, picture, "1", `${points.length.toLocaleString("en")} rollouts${starts.length > 1 ? `, ${starts.length} runs` : ""}`);
  }

  function byRun(runs) {
    const rewarded = runs.map(({ name, list }) => [name, list.filter((one) => one.reward !== null).map((one) => one.reward)]);
    const bars = rewarded.filter(([, rewards]) => rewards.length).slice(-60).map(([name, rewards]) => [name, Stats.mean(rewards), rewards.length]);
    if (bars.length < 2) return null;
    const low = Math.min(0, ...bars.map(([, value]) => value)), high = Math.max(low + 1e-9, 0, ...bars.map(([, value]) => value));
    const y = (value) => H - PAD - share(value, low, high) * (H - PAD - HEAD), width = W / bars.length;
    const format = Text.column(bars.map(([, value]) => value), { most: 4 }), label = ([name, value, count]) => `${Text.runName(name)}: mean ${format(value)} of ${count.toLocaleString("en")}`;
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `Reward by run. ${bars.slice(-6).map(label).join("; ")}` });
    bars.forEach((bar, index) => {
      const top = Math.min(y(bar[1]), y(0));
      picture.append(svg("rect", { x: index * width + width * 0.1, y: top, width: width * 0.8, height: Math.max(1, Math.abs(y(0) - y(bar[1]))), rx: 1.5, class: "bar" }, svg("title", null, document.createTextNode(label(bar)))));
      if (bars.length <= MAX_WRITTEN) picture.append(written((index + 0.5) * width, top, format(bar[1])));
    });
    const missing = runs.reduce((sum, { list }) => sum + list.length, 0) - rewarded.reduce((sum, [, rewards]) => sum + rewards.length, 0);
    return figure("Reward by run", `mean, ${bars.length} runs${missing ? `; ${missing.toLocaleString("en")} unscored` : ""}`, picture, Text.runName(bars[0][0]), Text.runName(bars[bars.length - 1][0]));
  }

  const medianOf = (values) => Text.median(Text.sorted(values));

  function draw(node, rollouts, choose, chosen) {
    // Runs stay together, the earliest first, as two may have gone on at once.
    const firstOf = (list) => list.reduce((first, one) => Math.min(first, one.started ?? Infinity), Infinity);
    const runs = [...Map.groupBy(rollouts, (one) => one.run)].map(([name, list]) => ({ name, list, first: firstOf(list) })).sort((a, b) => a.first - b.first || (a.name < b.name ? -1 : 1));
    const ordered = runs.flatMap(({ list }) => list.sort((a, b) => (a.started ?? 0) - (b.started ?? 0) || a.key - b.key));
    const isPaid = rollouts.some((one) => one.reward !== null);
    Text.redraw(node, () => node.replaceChildren(...[
      isPaid ? null : el("p", { class: "dim", text: "None of these rollouts has a reward." }), histogram(rollouts, choose, chosen), byRun(runs),
      overRollouts(ordered, "Reward over rollouts", (one) => one.reward, Stats.mean, Text.reward, "mean"),
      overRollouts(ordered, "Length over rollouts", (one) => one.status === "UNFINISHED" ? null : one.turns, Stats.mean, (value) => `${Text.number(value, 1)} ${value === 1 ? "turn" : "turns"}`, "mean"),
      overRollouts(ordered, "Latency over rollouts", (one) => one.duration, medianOf, Text.duration, "median")].filter(Boolean)));
  }

  return { draw };
})();
