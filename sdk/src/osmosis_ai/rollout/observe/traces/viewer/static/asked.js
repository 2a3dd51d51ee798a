// What the samples of one problem were asked, and how those of each run ended: what tells them apart is often that alone.
const Asked = (() => {
  const { el } = Text;
  const MAX_NAMED = 5, MAX_RUNS = 6;

  // A row has but the beginning of a long prompt.
  let whole = { digest: null, text: "" };

  // How those of a run ended, what many did first: `7 said #### 300 (reward 1), 1 failed`.
  function told(samples) {
    const counts = new Map();
    for (const one of samples) {
      const end = one.failed ? "failed" : one.status === "UNFINISHED" ? "without a result" : one.answer ? "said " : "said nothing";
      const said = end === "said " ? Text.line(one.answer, 80) : null, reward = one.failed ? null : one.reward, key = JSON.stringify([end, said, reward]);
      const known = counts.get(key) ?? { end, said, reward, n: 0 };
      known.n += 1;
      counts.set(key, known);
    }
    const all = [...counts.values()].sort((a, b) => b.n - a.n), format = Text.column(all.map((one) => one.reward));
    const named = all.slice(0, MAX_NAMED).map(({ end, said, reward, n }) => [`${n} ${end}`, said === null ? null : el("bdi", { class: "said", text: said }), reward === null ? "" : ` (reward ${format(reward)})`]);
    if (all.length > MAX_NAMED) named.push(`${all.length - MAX_NAMED} more`);
    return named.flatMap((one, index) => index ? [", ", one].flat() : one);
  }

  function besideOf(run, list, onCompare) {
    const [worst, best] = Stats.farthest([Stats.ends(list)]) ?? [];
    return best ? el("button", { type: "button", class: "small", text: "best | worst", "aria-label": `best | worst of ${Text.runName(run)}, side by side`, onclick: () => onCompare(best.key, worst.key) }) : null;
  }

  function answers(samples, onCompare) {
    const place = (run) => Table.letterOf(run) || "~";
    const runs = [...Map.groupBy(samples, (one) => one.run)].sort(([one], [other]) => place(one).localeCompare(place(other)) || one.localeCompare(other));
    const items = runs.slice(0, MAX_RUNS).map(([run, list]) => el("li", { dir: "auto" }, el("b", { text: `${[Table.letterOf(run), Text.runName(run)].filter(Boolean).join(", ")}: ` }), told(list), " ", besideOf(run, list, onCompare)));
    if (runs.length > MAX_RUNS) items.push(el("li", { text: `${runs.length - MAX_RUNS} more runs` }));
    return el("ul", { class: "answers", "aria-label": "Answers" }, items);
  }

  function draw(node, samples, onCompare) {
    const [one] = samples, wasCut = one?.prompt.endsWith("...");
    node.hidden = !one;
    if (!one) return;
    if (wasCut && whole.digest !== one.digest) {
      whole = { digest: one.digest, text: one.prompt };
      Source.detail(one.key).then(({ events }) => { whole.text = Conversation.askedOf(events) || one.prompt; draw(node, samples, onCompare); }, () => {});
    }
    const prompt = el("p", { dir: "auto" }, el("b", { text: "Asked: " }), el("span", { text: wasCut && whole.digest === one.digest ? whole.text : one.prompt }));
    const truths = new Set(samples.map(({ metadata }) => metadata?.ground_truth)), [truth] = truths;
    const known = truths.size === 1 && truth !== undefined ? [el("p", { class: "truth", dir: "auto" }, el("b", { text: "Truth: " }), Text.show(truth))] : [];
    Text.redraw(node, () => node.replaceChildren(prompt, ...known, answers(samples, onCompare)));
  }

  // Whether all were asked the same: what is told apart by a key of the metadata may not have been.
  const areAlike = (samples) => samples.every((one) => one.question === samples[0].question);

  // How what two were asked differs, sentence by sentence, and in which messages first; null where one does not tell.
  function between(...both) {
    const starts = both.map((events) => events.find((event) => event.event === "trace_start")), json = JSON.stringify;
    const [x, y] = starts.map((start) => start?.request?.messages ?? []);
    if (!x.length || !y.length) return null;
    const unlike = (left, right) => [...new Set([...Object.keys(left), ...Object.keys(right)])].filter((name) => json(left[name]) !== json(right[name]));
    const [at = null] = unlike(x, y), rest = (messages) => json(messages.filter((one) => one?.role !== "system")), isAlike = rest(x) === rest(y);
    const tools = unlike(...starts.map((start) => Object.fromEntries((start.tools ?? []).map((tool) => [tool.function?.name ?? "?", tool]))));
    const settings = starts.map((start) => start.request.completion_params ?? {}), sampling = unlike(...settings);
    const same = [["prompt", at === null], ["tools", !tools.length], ["sampling", !sampling.length]].filter(([, isSame]) => isSame).map(([name]) => name);
    const list = same.length > 1 ? `${same.slice(0, -1).join(", ")} and ${same[same.length - 1]} are` : `${same[0]} ${same[0] === "tools" ? "are" : "is"}`;
    return {
      isAlike, messages: at === null ? null : [x[at], y[at]],
      prompt: at === null ? null : isAlike ? "Only the system prompt differs in what they were asked." : `They were asked different things, from message ${Number(at) + 1} on.`,
      others: [tools.length ? `Tools that differ: ${Text.line(tools.join(", "), 400)}.` : null,
        sampling.length ? `Sampling differs: ${sampling.map((name) => `${name} ${settings.map((one) => Text.line(json(one[name]) ?? "–", 80)).join(" | ")}`).join(", ")}.` : null].filter(Boolean),
      same: same.length ? `${list[0].toUpperCase()}${list.slice(1)} the same.` : null,
    };
  }

  return { draw, areAlike, between };
})();
