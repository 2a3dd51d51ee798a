// Where rollouts come from: the server of this page, asked again and again, or the data inside a report.
const Source = (() => {
  const POLL_MS = 1000;
  const embedded = document.getElementById("data");
  const report = embedded ? JSON.parse(embedded.textContent) : null;
  const rollouts = new Map();
  let version = 0;

  const rolloutOf = (columns, row) => Object.fromEntries(columns.map((name, index) => [name, row[index]]));
  let columns = report?.columns ?? [];

  function take(rows) {
    for (const row of rows) {
      const rollout = rolloutOf(columns, row);
      rollout.failed = rollout.status === "ERROR";
      rollout.haystack = null;
      rollout.why = rollout.error || rollout.warning || "";
      rollouts.set(rollout.key, rollout);
    }
  }

  async function fetched(path) {
    const answer = await fetch(path, { cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.text()).trim() || `HTTP ${answer.status}`);
    return answer.json();
  }

  // `changed(rollouts, about)` is called whenever there is something new, `lost(error)` when the server is gone.
  function follow(changed, lost) {
    if (report) {
      take(report.rows);
      changed(rollouts, { source: report.source, report: true, total: report.total, whole: Object.keys(report.details).length });
      return;
    }
    let about = { source: "" };
    const round = async () => {
      let more = false;
      try {
        if (!document.hidden || version === 0) {
          const answer = await fetched(`/api/rollouts?since=${version}`);
          const first = version === 0 || answer.whole;
          if (answer.whole) rollouts.clear();
          if (answer.columns) { columns = answer.columns; about = { source: answer.source }; }
          version = answer.version;
          more = answer.more;
          take(answer.rows);
          if (first || answer.rows.length) changed(rollouts, about, new Set(answer.rows.map((row) => row[0])));
          lost(null, more);
        }
      } catch (error) { lost(error); }
      setTimeout(round, more ? 0 : POLL_MS);
    };
    round();
  }

  async function detail(key) {
    if (!report) return fetched(`/api/rollouts/${key}`);
    const events = report.details[key];
    if (!events) throw new Error("This report holds only the row of this rollout: it is bounded in size. Run osmosis view on the folder to see the whole.");
    return { events, cut: false };
  }

  return { follow, detail, isReport: Boolean(report) };
})();
