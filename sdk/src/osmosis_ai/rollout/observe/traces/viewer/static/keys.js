// The keyboard: what each key does, and the dialog that tells it.
const Keys = (() => {
  const { el } = Text;
  const HELP = [["j  k", "next, previous row"], ["Enter", "open"], ["Esc", "close; leave the search; clear the filters"], ["/", "search"], ["1  2  3", "rollouts, problems, runs"], ["e", "only the failed"], ["n  p", "next, previous failure"], ["[  ]", "tabs of a rollout"], ["c", "pin a rollout, to compare it with the next that is opened"], ["d", "the next difference of two that stand side by side"], ["g  G", "first, last"], ["t", "light or dark"], ["?", "this help"]];
  const FACETS = [["status:failed", "of a status, outcome, finish, agent, run, id, delivery or weights"], ["reward:>0.5  turns:2..4", "numbers: reward, turns, tools, tokens, duration, a part of the reward"], ["row_index:7", "a key of the metadata"], ["tool:sqrt", "what a tool was called with, or said"], ['"two words"', "as they stand"]];

  const list = (pairs) => el("dl", null, pairs.map(([key, meaning]) => [el("dt", null, key.split("  ").map((one) => el("kbd", { text: one }))), el("dd", { text: meaning })]));

  function help() {
    const dialog = document.getElementById("keys");
    dialog.replaceChildren(el("h2", { id: "keys-title", tabindex: -1, autofocus: true, text: "Keyboard" }), list(HELP), el("h2", { text: "Search" }), el("p", { text: "Words are looked for in ids, prompts, errors, metadata and the texts of tools. key:value narrows to a field, a key of the metadata or a part of the reward:" }), list(FACETS),
      el("button", { type: "button", text: "Close", onclick: () => dialog.close() }));
    dialog.showModal();
  }

  // Arrows go from tab to tab, as the role promises.
  function tabs(list) {
    list.addEventListener("keydown", (event) => {
      const all = [...list.querySelectorAll('[role="tab"]')], at = all.indexOf(event.target);
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
      if (at < 0 || next === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      const chosen = all[(next + all.length) % all.length], id = chosen.id;
      chosen.click();
      document.getElementById(id).focus();
    });
  }

  // `actions` by key; what gives false leaves the key to the browser.
  function listen(actions, escape, leaveSearch) {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("keys").open) return;
      const typing = event.target.matches?.("input:not([type=radio]), select, textarea");
      if (event.key === "Escape") {
        event.preventDefault();  // a field for searching would be emptied as well
        if (typing) event.target.blur(); else escape();
        return;
      }
      if (typing) { if (event.key === "Enter" && event.target.id === "search") leaveSearch(); return; }
      const act = actions[event.key];
      if (!act) return;
      if (event.key.startsWith("Arrow") && event.target.closest?.("pre, .detail, [type=radio], .scroll")) return;
      if (event.key === "Enter" && event.target.closest?.("button, summary, a, g, input")) return;
      if (act() !== false) event.preventDefault();
    });
  }

  return { help, tabs, listen };
})();
