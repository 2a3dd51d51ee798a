// Where rollouts come from: the server of this page, asked again and again, or the data inside a report.
const Source = (() => {
  const POLL_MS = 1000;
  const embedded = document.getElementById("data");
  const report = embedded ? JSON.parse(embedded.textContent) : null;
  const rollouts = new Map(), addresses = new Map();
  let version = 0, epoch = "", columns = report?.columns ?? [];

  // A rollout is addressed by its run and its id; the second of one id in a run has ~2 behind it.
  function addressed(rollout) {
    const plain = `${rollout.run}/${rollout.id}`;
    let address = plain;
    for (let number = 2; (addresses.get(address) ?? rollout.key) !== rollout.key; number += 1) address = `${plain}~${number}`;
    addresses.set(address, rollout.key);
    return address;
  }

  // A copy of an object that has all fields already is read several times faster than one that got them one by one.
  function take(rows) {
    const blank = JSON.parse(JSON.stringify(Object.fromEntries([...columns, "failed", "tokens", "address", "haystack"].map((name) => [name, null]))));
    for (const row of rows) {
      const rollout = { ...blank };
      for (let index = 0; index < columns.length; index += 1) rollout[columns[index]] = row[index];
      for (const foreign of [rollout.metadata, rollout.components]) if (foreign) Object.setPrototypeOf(foreign, null);  // a key may be "constructor"
      rollout.failed = rollout.status === "ERROR";
      rollout.tokens = rollout.promptTokens + rollout.responseTokens;
      rollout.address = rollouts.get(rollout.key)?.address ?? addressed(rollout);
      rollouts.set(rollout.key, rollout);
    }
  }

  async function fetched(path) {
    const answer = await fetch(path, { cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.text()).trim() || `HTTP ${answer.status}`);
    return answer.json();
  }

  async function unpacked(text) {
    if (typeof DecompressionStream === "undefined") throw new Error("This browser is too old to open a report: it needs DecompressionStream.");
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }

  // `changed(rollouts, about, keys, more)` is called whenever there is something new, `lost(error, more)` with each round.
  async function follow(changed, lost) {
    if (report) {
      try { take(await unpacked(report.rows)); } catch (error) { lost(error); return; }
      changed(rollouts, { ...report, isReport: true }, null, false);
      return;
    }
    let about = { source: "" }, asked = null;
    const ask = () => fetched(`/api/rollouts?since=${version}&epoch=${epoch}`);
    const round = async () => {
      let more = false;
      try {
        if (!document.hidden || version === 0) {
          const asking = asked ?? ask();
          asked = null;
          const answer = await asking;
          const first = version === 0 || answer.whole;
          if (answer.whole) { rollouts.clear(); addresses.clear(); }
          if (answer.columns) { columns = answer.columns; about = { source: answer.source }; }
          [version, epoch, more] = [answer.version, answer.epoch, answer.more];
          // The server reads the next part while this one is drawn.
          if (more) { asked = ask(); asked.catch(() => {}); }
          take(answer.rows);
          if (first || answer.rows.length || !more) changed(rollouts, about, answer.rows.length || first ? new Set(answer.rows.map((row) => row[0])) : null, more);
          lost(null, more);
        }
      } catch (error) { lost(error); }
      setTimeout(round, more ? 0 : POLL_MS);
    };
    round();
  }

  const opened = new Map();
  function block(number) {
    if (!opened.has(number)) {
      if (opened.size > 4) opened.delete(opened.keys().next().value);
      opened.set(number, unpacked(report.blocks[number]));
    }
    return opened.get(number);
  }

  async function detail(key) {
    if (!report) {
      const answer = await fetched(`/api/rollouts/${key}?epoch=${epoch}`);
      return { ...answer, events: Events.read(answer.events) };
    }
    const place = report.places[key];
    if (!place) throw new Error("This report holds only the row of this rollout: it is bounded in size. Run osmosis view on the folder to see the whole.");
    return { events: Events.read((await block(place[0]))[place[1]]), cut: false };
  }

  // The texts of tools are not in the rows. A report has them in its blocks, which are read once, when first searched.
  let texts = null;
  const answersIn = (messages) => (Array.isArray(messages) ? messages : []).filter((one) => one?.role === "tool").map((one) => one.content);
  const textOf = (events) => events.map((event) => {
    if (event.event === "chat_end") return JSON.stringify(event.reply?.tool_calls ?? "");
    return JSON.stringify(answersIn(event.appended ?? event.final_messages));
  }).join("\n").toLowerCase();

  async function allTexts() {
    const found = new Map();
    for (let number = 0; number < report.blocks.length; number += 1) {
      const contents = await unpacked(report.blocks[number]);
      for (const [key, place] of Object.entries(report.places)) if (place[0] === number) found.set(Number(key), textOf(contents[place[1]]));
    }
    return found;
  }

  // For each word, the keys of the rollouts whose tools were called with it or said it.
  async function search(words) {
    if (!report) return (await fetched(`/api/search?${words.map((word) => `word=${encodeURIComponent(word)}`).join("&")}`)).found.map((keys) => new Set(keys));
    texts ??= allTexts();
    const known = [...await texts];
    return words.map((word) => new Set(known.filter(([, text]) => text.includes(word)).map(([key]) => key)));
  }

  return { follow, detail, search, isReport: Boolean(report), at: (address) => rollouts.get(addresses.get(address)) };
})();
