"""Events whose fields hold what nobody writes there: each tab of such a rollout shows what there is, and no error."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.browser import Browser, browser_tests
from support.traces import TraceMaker, answer, call, calling, saying
from support.viewer import open_report, show

pytestmark = browser_tests()

DEEP: Any = json.loads("[" * 150 + "]" * 150)
VALUES: list[Any] = [
    7,
    1e300,
    "1 !(x",
    True,
    None,
    [],
    [None, 7, [{}]],
    {},
    {"toString": None, "valueOf": None, "length": 3, "constructor": 1, "__proto__": None},
    DEEP,
]
OPEN = """(async (rollout) => {
    const panel = document.getElementById("detail"), failed = [];
    for (const tab of Detail.TABS) {
        await Detail.open(rollout, tab, null);
        const body = panel.querySelector(".tab-body")?.textContent.trim();
        if (!body || panel.querySelector(".notice")) failed.push(`${tab}: ${panel.innerText || "nothing"}`);
    }
    await Detail.open(rollout, null, Source.at("run/whole"));
    if (!panel.querySelector(".verdict")) failed.push(`Side by side: ${panel.innerText}`);
    return failed;
})(Source.at(%s))"""


def whole() -> TraceMaker:
    """A rollout with each event, and each field, that the page reads."""
    picture = {"type": "image_url", "image_url": {"url": "https://127.0.0.1/a.png"}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    prompt: Any = [{"type": "text", "text": "Look."}, picture, sound]
    maker = TraceMaker("whole").start(prompt, metadata={"level": "easy"})
    thought = {**calling(call(1, "add", a=1)), "reasoning_content": "Hm.", "name": "model"}
    maker.turn(1, thought, [answer(1, "1")], weight_versions=["w1"])
    maker.add("pause_end", turn=1, ago_ms=1.0, pause_ms=5.0, answered=True)
    maker.add("messages_rewritten", problem="It changed.")
    maker.turn(2, saying("One."))
    maker.add("chat_end", turn=3, error='HTTPError: {"error": {"message": "no", "code": "c"}} (500)', latency_ms=1.0)
    maker.add("rollout_error", error="KeyError: 'x'", where=["a.py:1"], hint="none")
    metrics = {"num_llm_calls": 2, "llm_latency_ms": 3.0}
    extra = {"outcome": "success", "messages_rewritten": ["It changed."], "reward_components": {"form": 0.5}}
    final = [*maker.messages[:-1], {**maker.messages[-1], "content": "Two."}]
    return maker.end(
        reward=0.5, metrics=metrics, error_message="none", extra_fields=extra, final_messages=final
    ).delivered()


def agents() -> TraceMaker:
    """The same of an agent that ran without a server."""
    maker = TraceMaker("agents").add("trace_start", agent="a", request={"messages": [saying("Go.")]}, tools=[])
    maker.add("pre_llm", turn=0, num_messages=1)
    maker.add("llm_response", turn=0, latency_ms=1.0, finish_reason="stop", tool_calls=[call(1, "add")])
    maker.add("tool_results", turn=0, latency_ms=1.0)
    return maker.add("rollout_complete", reward=1.0, finish_reason="stop", final_messages=[saying("Done.")])


def paths_in(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to each value within one; all items of a list are one step."""
    inner = (
        value.items() if isinstance(value, dict) else [("*", one) for one in value] if isinstance(value, list) else []
    )
    for name, one in inner:
        yield (*path, name)
        yield from paths_in(one, (*path, name))


def put(value: Any, path: tuple[str, ...], new: Any) -> None:
    """Put ``new`` wherever ``path`` leads."""
    name, *rest = path
    if not isinstance(value, dict | list):
        return
    keys: Any = range(len(value)) if isinstance(value, list) and name == "*" else [name] if name in value else []
    for key in keys:
        if rest:
            put(value[key], tuple(rest), new)
        else:
            value[key] = new


def altered(maker: TraceMaker) -> Iterator[tuple[str, TraceMaker]]:
    """That rollout once for each field and each of ``VALUES``, with what was done to it."""
    events = [json.loads(line) for line in maker.lines]
    paths = dict.fromkeys(path for event in events for path in paths_in(event))
    for number, path in enumerate(path for path in paths if path not in (("event",), ("rollout_id",))):
        for nth, new in enumerate(VALUES):
            other = TraceMaker(f"{maker.rollout_id}-{number}-{nth}")
            for event in copy.deepcopy(events):
                put(event, path, new)
                other.lines.append(json.dumps(event | {"rollout_id": other.rollout_id}, separators=(",", ":")))
            yield f"{'.'.join(path)} = {json.dumps(new):.80}", other


def test_whatever_a_field_holds_each_tab_shows_what_there_is(page: Browser, tmp_path: Path) -> None:
    done = []
    whole().write(tmp_path / "traces" / "run")
    for what, maker in (*altered(whole()), *altered(agents())):
        maker.write(tmp_path / "traces" / "run")
        done.append((what, maker.rollout_id))
    open_report(page, tmp_path / "traces")
    failed = {what: said for what, name in done if (said := page.evaluate(OPEN % json.dumps(f"run/{name}")))}
    assert failed == {}
    assert page.complaints == []


def test_a_turn_that_is_no_number_leads_nowhere(page: Browser, tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("Go on.").turn(1, saying("One."))
    maker.add("chat_end", turn="2 !(x", reply=saying("Two."), latency_ms=20.0)
    show(page, tmp_path, maker.end())
    page.click(".row")
    page.wait_for("document.querySelectorAll('.seg.model').length === 2")
    page.evaluate("document.querySelectorAll('.seg.model').forEach(one => one.click())")
    page.evaluate("new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame))")
    assert page.complaints == []


def test_a_part_that_cannot_be_drawn_leaves_the_others(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path, TraceMaker("r1").start("Go on.").turn(1, saying("One.")).end())
    page.evaluate("Timeline.render = () => { throw new Error('odd'); }")
    page.click(".row")
    page.wait_for("document.querySelector('.conversation').textContent.includes('One.')")
    assert page.text("#detail .notice") == "This part cannot be shown: odd"


def test_a_name_that_every_object_has_is_one_like_any(page: Browser, tmp_path: Path) -> None:
    odd = TraceMaker("r1").start("Go on.", metadata={"toString": "x"})
    odd.end(reward=0.5, extra_fields={"reward_components": {"constructor": 0.5, "__proto__": 0.25}})
    for maker in (odd, TraceMaker("r2").start("Go on.").end(reward=0.5)):
        maker.write(tmp_path / "traces" / "run")
    open_report(page, tmp_path / "traces")
    for sought, found in (("constructor:0.5", 1), ("__proto__:x", 0), ("__proto__:0.25", 1), ("tostring:x", 1)):
        page.evaluate(f"location.hash = 'q={sought}'")
        page.wait_for(f"document.querySelector('.shown').textContent === '{found} of 2 shown'")
    page.evaluate("location.hash = 'q=valueof:x'")
    page.wait_for("document.querySelector('.shown').textContent === '0 of 2 shown'")
    page.evaluate("location.hash = 'view=problems&by=toString'")
    page.wait_for("document.querySelector('.problems').textContent.includes('no toString')")
    page.evaluate("location.hash = 'rollout=run/r2&pin=run/r1'")
    page.wait_for("document.querySelector('.parts-of').innerText.includes('constructor\\t0.50\\t')")
    assert page.complaints == []
