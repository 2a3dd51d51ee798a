// Small charts of the rollouts that pass the filter; SVG, made by hand.
const Charts = (() => {
  const { el } = Text;
  const W = 320, H = 96, PAD = 4;
  const svg = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  function figure(title, said, picture, from, to) {
    return el("figure", null,
      el("figcaption", null, el("b", { text: title }), el("span", { text: said })),
      picture,
      el("div", { class: "axis", "aria-hidden": "true" }, el("span", { text: from }), el("span", { text: to })));
  }

  function histogram(rollouts, choose, chosen) {
    const rewards = rollouts.filter((one) => one.reward !== null).map((one) => one.reward);
    if (!rewards.length) return figure("Reward", "no rewards", svg("svg", { viewBox: `0 0 ${W} ${H}`, "aria-hidden": "true" }), "", "");
    let low = Infinity, high = -Infinity;
    for (const value of rewards) { low = Math.min(low, value); high = Math.max(high, value); }
    if (low >= 0 && high <= 1) { low = 0; high = 1; }
    if (low === high) { low -= 0.5; high += 0.5; }
    const bins = new Array(20).fill(0), width = (high - low) / bins.length;
    const binOf = (value) => Math.min(bins.length - 1, Math.floor((value - low) / width));
    for (const value of rewards) bins[binOf(value)] += 1;
    const top = Math.max(...bins);
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": "Reward histogram; a bar filters the table" });
    bins.forEach((amount, index) => {
      const from = low + index * width, to = from + width;
      const height = amount ? Math.max(2, (H - 2 * PAD) * amount / top) : 0;
      const label = `${amount.toLocaleString("en")} with reward ${Text.reward(from)} to ${Text.reward(to)}`;
      const bar = svg("rect", { x: index * W / bins.length + 1, y: H - height, width: W / bins.length - 2, height, rx: 1.5, class: "bar" });
      const hit = svg("rect", { x: index * W / bins.length, y: 0, width: W / bins.length, height: H, class: "hit" });
      const group = svg("g", { role: "button", tabindex: amount ? 0 : -1, "aria-label": label }, bar, hit, svg("title", null, document.createTextNode(label)));
      if (chosen && Math.abs(chosen[0] - from) < width / 2) group.classList.add("chosen");
      const pick = () => { if (amount) choose([from, index === bins.length - 1 ? Infinity : to]); };
      group.addEventListener("click", pick);
      group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } });
      picture.append(group);
    });
    const mean = rewards.reduce((sum, value) => sum + value, 0) / rewards.length;
    return figure("Reward", `mean ${Text.reward(mean)} of ${rewards.length.toLocaleString("en")}`, picture, Text.reward(low), Text.reward(high));
  }

  function overTime(rollouts, title, valueOf, summarise, format, said) {
    const points = [];
    for (const one of rollouts) {
      const value = valueOf(one);
      if (value !== null && one.started) points.push([one.started, value]);
    }
    const empty = svg("svg", { viewBox: `0 0 ${W} ${H}`, "aria-hidden": "true" });
    if (!points.length) return figure(title, "nothing yet", empty, "", "");
    points.sort((a, b) => a[0] - b[0]);
    const first = points[0][0], last = points[points.length - 1][0];
    const buckets = Math.max(1, Math.min(60, Math.ceil(points.length / 4)));
    const filled = Array.from({ length: buckets }, () => []);
    for (const [at, value] of points) filled[Math.min(buckets - 1, last > first ? Math.floor((at - first) / (last - first) * buckets) : 0)].push(value);
    const line = filled.map((values, index) => values.length ? [(index + 0.5) / buckets, summarise(values)] : null).filter(Boolean);
    let low = Infinity, high = -Infinity;
    for (const [, value] of line) { low = Math.min(low, value); high = Math.max(high, value); }
    low = Math.min(low, 0);
    if (high === low) high = low + 1;
    const x = (at) => PAD + at * (W - 2 * PAD), y = (value) => H - PAD - (value - low) / (high - low) * (H - 2 * PAD - 4);
    const path = line.map(([at, value], index) => `${index ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const now = format(line[line.length - 1][1]);
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title} over time: from ${format(line[0][1])} to ${now}, at most ${format(high)}` },
      svg("path", { d: `${path}L${x(line[line.length - 1][0]).toFixed(1)} ${H}L${x(line[0][0]).toFixed(1)} ${H}Z`, class: "area" }),
      svg("path", { d: path, class: "line" }));
    for (const [at, value] of line) {
      picture.append(svg("circle", { cx: x(at), cy: y(value), r: buckets > 40 ? 1.6 : 2.4, class: "dot" }, svg("title", null, document.createTextNode(format(value)))));
    }
    return figure(title, `${said} · max ${format(high)}`, picture, Text.when(first), Text.when(last));
  }

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const medianOf = (values) => Text.median([...values].sort((a, b) => a - b));

  function draw(node, rollouts, choose, chosen) {
    node.replaceChildren(
      histogram(rollouts, choose, chosen),
      overTime(rollouts, "Reward over time", (one) => one.reward, mean, Text.reward, "mean"),
      overTime(rollouts, "Length over time", (one) => one.status === "UNFINISHED" ? null : one.turns, mean, (value) => `${Text.number(value, 1)} turns`, "mean"),
      overTime(rollouts, "Latency over time", (one) => one.duration, medianOf, Text.duration, "median"));
  }

  return { draw };
})();
