// What the page shows, in its address: a link shows the same to whoever opens it, and the browser goes back and forward.
const Address = (() => {
  const EMPTY = { view: "rollouts", q: "", status: null, reason: null, reward: null, run: null, problem: null, by: null, sort: null, order: null, silent: null, a: null, b: null, change: null, rollout: null, pin: null, tab: null };
  const NAMES = Object.keys(EMPTY);

  function read() {
    const given = new URLSearchParams(location.hash.slice(1)), state = { ...EMPTY };
    for (const name of NAMES) if (given.has(name)) state[name] = given.get(name);
    if (state.reward) {
      const [from, to] = state.reward.split("_").map(Number);
      state.reward = Number.isNaN(from) ? null : [from, Number.isNaN(to) ? Infinity : to];
    }
    if (!["rollouts", "problems", "runs"].includes(state.view)) state.view = EMPTY.view;
    if (!["better", "equal", "worse"].includes(state.change)) state.change = null;
    return state;
  }

  function hashOf(state) {
    const told = new URLSearchParams();
    for (const name of NAMES) {
      const value = name === "reward" && state.reward ? state.reward.map((one) => one === Infinity ? "max" : String(one)).join("_") : state[name];
      if (value !== EMPTY[name] && value !== null && value !== "") told.set(name, value);
    }
    const text = told.toString();
    return text ? `#${text}` : location.pathname + location.search;
  }

  // `isStep` makes an entry to go back to; without it the present one is replaced.
  function write(state, isStep) {
    const hash = hashOf(state);
    if (hash === location.hash || (hash[0] !== "#" && location.hash === "")) return;
    history[isStep ? "pushState" : "replaceState"](null, "", hash);
  }

  const linkOf = (rollout) => new URL(`#${new URLSearchParams({ rollout: rollout.address })}`, location.href).href;

  return { EMPTY, read, write, linkOf };
})();
