"""Two rollouts side by side: where they part, and what does not count as a difference."""

from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, answer, call, calling, saying
from support.viewer import show, shown, texts

from osmosis_ai.cli import main

pytestmark = browser_tests()


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        (("x", "x"), "They part in turn 1, in what they thought alone."),
        (("x", "y"), "They part in turn 1, in what they thought; in what they said or did, in turn 2."),
    ],
)
def test_thoughts_are_folded_too(page: Browser, tmp_path: Path, ends: tuple[str, str], verdict: str) -> None:
    told = {"a": "<think>It is three.</think>So three.", "b": "<think>It is four.</think>So three."}
    makers = []
    for (name, text), said in zip(told.items(), ends, strict=True):
        reply = saying(text) | {"reasoning_content": "Long before."}
        maker = (
            TraceMaker(name)
            .start("Hi?")
            .turn(1, reply)
            .turn(2, saying(f"<think>Now {name}.</think>{said}"))
            .end(reward=1.0)
        )
        makers.append(maker)
    show(page, tmp_path, *makers)
    page.evaluate("location.hash = '#pin=traces/a&rollout=traces/b'")
    page.wait_for("document.querySelector('.differ')")
    assert shown(page, "#detail .verdict") == [verdict]
    assert shown(page, "#detail .said") == ["So three.", "So three.", *ends]
    assert shown(page, "#detail .reasoning .text") == [
        "Long before.\n\nIt is three.",
        "Long before.\n\nIt is four.",
        "Now a.",
        "Now b.",
    ]
    assert shown(page, "#detail .reasoning mark") == ["three.", "four.", "a.", "b."]
    assert shown(page, "#detail summary") == [
        f"Thinking ({length} characters, not the same)" for length in (26, 25, 6, 6)
    ]
    assert page.evaluate("[...document.querySelectorAll('#detail details')].every(one => !one.open)")


@pytest.mark.parametrize(
    ("given", "sums", "ends", "verdict"),
    [
        (('{"a": 1, "b": 2}', '{"b":2,"a":1}'), "33", "xx", "Both said the same, turn by turn."),
        (('{"a": 1, "b": 2}', '{"a": 2, "b": 1}'), "33", "xx", "in arguments that led to the same alone."),
        (
            ('{"a": 1, "b": 2}', '{"a": 2, "b": 1}'),
            "33",
            "xy",
            "in arguments that led to the same; in what they said or did, in turn 2.",
        ),
        (('{"a": 1, "b": 2}', '{"a": 2, "b": 2}'), "34", "xy", "They part in turn 1."),
    ],
    ids=["another order", "swapped", "swapped before", "others"],
)
def test_arguments_that_led_to_the_same_decide_nothing(
    page: Browser, tmp_path: Path, given: tuple[str, str], sums: str, ends: str, verdict: str
) -> None:
    makers = []
    for name, arguments, total, end in zip("ab", given, sums, ends, strict=True):
        asked = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": arguments}}
        maker = TraceMaker(name).start("Hi?").turn(1, calling(asked), [answer(1, total)])
        makers.append(maker.turn(2, saying(end)).end(reward=1.0))
    show(page, tmp_path, *makers)
    page.evaluate("location.hash = '#pin=traces/a&rollout=traces/b'")
    page.wait_for("document.querySelector('#detail .verdict')")
    [said] = shown(page, "#detail .verdict")
    assert said.removeprefix("They part in turn 1, ") == verdict


def test_the_next_difference_is_a_key_away_and_what_is_the_same_is_folded(page: Browser, tmp_path: Path) -> None:
    lines = "\n".join(f"line {number}" for number in range(30))
    makers = []
    for name, given, said in (("a", (1, 2), "three."), ("b", (2, 1), "four.")):
        maker = TraceMaker(name).start("Hi?").turn(1, calling(call(1, "add", a=given[0], b=given[1])), [answer(1, "3")])
        makers.append(maker.turn(2, saying(f"{lines}\nThe answer is {said}")).end(reward=1.0))
    show(page, tmp_path, *makers)
    page.evaluate("location.hash = '#pin=traces/a&rollout=traces/b'")
    page.wait_for("document.querySelector('.differ')")
    assert shown(page, ".alike summary") == ["25 lines, the same"] * 2
    assert lines.splitlines()[10] in page.evaluate("document.querySelector('.alike').textContent")
    for reached in ("1,", "three.", "1,"):
        page.press("d")
        page.wait_for(f"document.querySelector('.reached')?.textContent === '{reached}'")
    page.click("[aria-label='Next difference']")
    page.wait_for("document.querySelector('.reached').textContent === 'three.'")


def test_another_tool_is_a_difference_and_no_error(page: Browser, tmp_path: Path) -> None:
    makers = []
    for name, tool in (("a", "add"), ("b", "multiply")):
        maker = TraceMaker(name).start("Hi?").turn(1, calling(call(1, tool, a=2, b=2)), [answer(1, "4")])
        makers.append(maker.turn(2, saying("4")).end(reward=1.0))
    show(page, tmp_path, *makers)
    page.evaluate("location.hash = '#pin=traces/a&rollout=traces/b'")
    page.wait_for("document.querySelector('.differ')")
    assert shown(page, ".differ mark") == ["add", "multiply"]
    named = "['.said .tool-name', '.said .tool-name mark', 'body'].map(e => document.querySelector(e))"
    colours = f"{named}.map(e => getComputedStyle(e).color)"
    assert len(set(page.evaluate(colours))) == 1


SYSTEM = "You are a careful calculator. Use the tools for every step."
ALIKE = "Prompt, tools and sampling are the same."


@pytest.mark.parametrize(
    ("system", "asked", "temperature", "tool", "notices", "alike", "marks"),
    [
        (SYSTEM, "Which?", 0.8, "add", [], ALIKE, []),
        (
            SYSTEM.replace("careful", "quick"), "Which?", 0.8, "add",
            ["Only the system prompt differs in what they were asked."],
            "Tools and sampling are the same.", ["careful", "quick"],
        ),
        (
            SYSTEM, "Which one?", 0.8, "add",
            ["They were asked different things, from message 2 on."],
            "Tools and sampling are the same.", ["Which?", "Which one?"],
        ),
        (
            SYSTEM, "Which?", 0.5, "plus",
            ["Tools that differ: add, plus.", "Sampling differs: temperature 0.8 | 0.5."],
            "Prompt is the same.", [],
        ),
    ],
)  # fmt: skip
def test_what_they_were_asked_is_compared(
    page: Browser,
    tmp_path: Path,
    system: str,
    asked: str,
    temperature: float,
    tool: str,
    notices: list[str],
    alike: str,
    marks: list[str],
) -> None:
    first = TraceMaker("r1").start("Which?").turn(1, saying("so")).end(reward=1.0)
    other = TraceMaker("r2").start(asked, completion_params={"temperature": temperature})
    other.lines[0] = other.lines[0].replace(SYSTEM, system).replace('"name":"add"', f'"name":"{tool}"')
    show(page, tmp_path, first, other.turn(1, saying("so")).end(reward=0.0))
    page.evaluate("location.hash = '#pin=traces/r1&rollout=traces/r2'")
    page.wait_for("document.querySelector('.detail.double .verdict')")
    assert shown(page, "#detail .notice") == notices
    assert shown(page, "#detail .alike-asks") == [alike]
    assert "".join(shown(page, "#detail mark")) == "".join(marks)
    asks = page.evaluate("document.querySelector('#detail .asked')?.innerText ?? null")
    assert asks == ("Asked: Which?" if asked == "Which?" else None)


@pytest.mark.parametrize(
    ("changed", "marked"), [({200: "seven"}, ["seven"]), ({5: "seven", 350: "eight"}, ["seven 5", "eight 350"])]
)
def test_long_texts_are_marked_only_where_they_differ(
    page: Browser, tmp_path: Path, changed: dict[int, str], marked: list[str]
) -> None:
    texts = ["\n".join(f"{words.get(number, 'word')} {number}" for number in range(400)) for words in ({}, changed)]
    makers = [
        TraceMaker(name).start("Hi?").turn(1, saying(text)).end(reward=1.0)
        for name, text in zip("ab", texts, strict=True)
    ]
    show(page, tmp_path, *makers)
    page.evaluate("location.hash = '#pin=traces/a&rollout=traces/b'")
    page.wait_for("document.querySelector('.differ')")
    ofb = "[...document.querySelectorAll('.differ .pair > div:last-child mark')].map(mark => mark.textContent.trim())"
    assert page.evaluate(ofb) == marked


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize(
    ("pinned", "opened", "names"),
    [
        ("before/r1", "after/r2", ["r1", "r2"]),
        ("before/r1", "after/r1", ["before/r1", "after/r1"]),
        ("after/r2", "after/r2~2", ["after/r2", "after/r2~2"]),
    ],
)
def test_side_by_side_each_is_called_by_its_name_as_a_and_b_are_runs(
    page: Browser, tmp_path: Path, width: int, pinned: str, opened: str, names: list[str]
) -> None:
    kept = {"before/r1": "r1", "after/r1": "r1", "after/again": "r2", "after/r2": "r2"}
    for place, (name, id_) in enumerate(kept.items()):
        maker = TraceMaker(id_, 1_700_000_000.0 + place).start("Hi?", metadata={"ground_truth": str(place)})
        told = {"outcome": "success", "reward_components": {"format": place / 4}}
        maker.turn(1, saying(f"so {place}")).end(reward=0.5, extra_fields=told)
        maker.write(tmp_path / "traces" / name.split("/")[0]).rename(tmp_path / "traces" / f"{name}.jsonl")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.resize(width, 844, mobile=width < 500)
    page.open(f"{(tmp_path / 'report.html').as_uri()}#pin={pinned}&rollout={opened}")
    page.wait_for("document.querySelector('.detail.double .differ')")
    assert texts(page, ".side h3") == names
    assert texts(page, ".detail .list thead th") == ["Part", *names]
    assert page.text(".truth") == "Truth: " + " · ".join(
        f"{name}: {place}" for name, place in zip(names, texts(page, ".differ mark"), strict=True)
    )
    seen = "[...document.querySelectorAll('.differ .whose')].filter(e => e.getClientRects().length)"
    assert page.evaluate(f"{seen}.map(e => e.innerText)") == (names if width < 500 else [])
    buttons = page.evaluate("[...document.querySelectorAll('.detail-buttons button')].map(e => e.ariaLabel)")
    assert {f"Next rollout, beside {names[0]}", f"Unpin {names[0]}"} <= set(buttons)
    cut = "filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)"
    assert page.evaluate(f"[...document.querySelectorAll('.side h3, .detail .list th, .detail .list td')].{cut}") == []
