"""Reading a rollout: Markdown, thoughts, pictures, turns and copies; nothing is HTML, and nothing is fetched."""

import json
from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, answer, call, calling, saying
from support.viewer import show, shown

pytestmark = browser_tests()

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
MARKDOWN = """<think>
Is it <b>three</b>?
</think>
## Plan

Some **strong**, *soft* and `code <i>x</i>`; a [link](javascript:alert) and ![x](https://example.com/x.png).

- one
- two

1. first

| a | b |
|---|---|
| 1 | <img src=x onerror=alert(1)> |

```python
print("<script>alert(2)</script>")
```

> quoted

#### 42"""


def opened(page: Browser) -> None:
    page.click(".row")
    page.wait_for("document.querySelector('.conversation')")


def test_a_reply_is_markdown_and_nothing_in_it_is_html(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path, TraceMaker("r1").start("Hi?").turn(1, saying(MARKDOWN)).end(reward=1.0))
    opened(page)
    assert shown(page, ".markdown .heading") == ["Plan"]
    assert (shown(page, ".markdown strong"), shown(page, ".markdown em")) == (["strong"], ["soft"])
    assert shown(page, ".markdown p code") == ["code <i>x</i>"]
    assert shown(page, ".markdown ul li") == ["one", "two"]
    assert shown(page, ".markdown ol li") == ["first"]
    assert shown(page, ".markdown td") == ["1", "<img src=x onerror=alert(1)>"]
    assert shown(page, ".markdown pre") == ['print("<script>alert(2)</script>")']
    assert shown(page, ".markdown blockquote") == ["quoted"]
    assert "#### 42" in page.text(".markdown")  # an answer, and no heading
    assert shown(page, ".address") == ["link (javascript:alert)", "x (https://example.com/x.png)"]
    assert page.evaluate("document.querySelectorAll('#detail :is(img, script, a[href], i)').length") == 0
    assert not page.evaluate("document.querySelector('.reasoning').open")
    page.click(".reasoning summary")
    page.wait_for("document.querySelector('.reasoning').open")
    assert "Is it <b>three</b>?" in page.text(".reasoning")


REPLIES = [  # with what was thought in each, and what was said
    ("<think>a</think>b", ["a"], ["b"]),
    ("a</think>b", ["a"], ["b"]),
    ("a</thinking>b", ["a"], ["b"]),
    ("<think>a", ["a"], []),
    ("a\n<think>b</think>c\n\n <thinking>d\n</thinking>", ["b", "d"], ["a", "c"]),
    ("a <think> tag", [], ["a <think> tag"]),
    ("a\n<think>b", [], ["a", "<think>b"]),
    ("<think>a</think>b</think>", ["a"], ["b</think>"]),
    ("<think>a\n<think>b</think>c", ["a\n<think>b"], ["c"]),
    # In code it is code; in a thought there is no code.
    ("a\n```xml\n<think>b</think>\n```\nc", [], ["axml<think>b</think>c"]),
    ("~~~\n```\n<think>b</think>\n~~~\n<think>c</think>d", ["c"], ["code```\n<think>b</think>", "d"]),
    ("<think>a\n```\nb</think>c", ["a\n```\nb"], ["c"]),
    ("a\n```\nb\n```</think>c", ["a\n```\nb\n```"], ["c"]),
]


def test_what_was_thought_is_folded_and_nothing_else(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path, TraceMaker("r1").start("Hi?").turn(1, saying("so")).end(reward=1.0))
    for text, thoughts, said in REPLIES:
        page.evaluate(f"document.body.replaceChildren(Markdown.reply({json.dumps(text)}))")
        assert (shown(page, ".reasoning .text"), shown(page, ".markdown")) == (thoughts, said), text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ('OsmosisServerError: {"detail": "no GPU {0} is free"} (HTTP 500)', "no GPU {0} is free (HTTP 500)"),
        ('E: {"error": {"message": "too long", "code": "context"}}', "too long (context)"),
        ('E: {"error": "busy"} after 3 tries', "busy after 3 tries"),
        ('OsmosisServerError: {"detail": "a worker \\"7\\" was los...', 'a worker "7" was los...'),
        ('E: {"code": 3}', 'E: {"code": 3}'),
        ("TimeoutError: 30 s", "TimeoutError: 30 s"),
    ],
)
def test_a_failed_call_says_the_words_of_its_error(page: Browser, tmp_path: Path, error: str, said: str) -> None:
    maker = TraceMaker("r1").start("Hi?").add("chat_end", 27, turn=1, error=error, latency_ms=27.0)
    show(page, tmp_path, maker.end(status="ERROR", error_message=error))
    opened(page)
    assert shown(page, ".message.failure .text") == [said]
    page.click("#tab-Events")
    page.click(".raw:nth-child(3) summary")
    page.wait_for("document.querySelector('.raw pre')")
    assert json.loads(page.text(".raw pre"))["error"] == error  # as it stands in the trace


def test_an_opened_rollout_is_the_only_one_with_a_scrollbar(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path, TraceMaker("r1").start("Hi?").end(reward=1.0))
    shown_bar = "getComputedStyle(document.documentElement).scrollbarWidth"
    assert page.evaluate(shown_bar) == "auto"
    opened(page)
    assert page.evaluate(shown_bar) == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('#detail')).overflowY") == "auto"


def test_what_is_cut_says_so(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path, *(TraceMaker(f"r{n}").start(f"{n}" * 250).end(reward=1.0) for n in (1, 2)))
    assert sorted(shown(page, "#table .why")) == [f"{n}" * 240 + "…" for n in (1, 2)]
    page.evaluate("location.hash = '#view=problems'")
    page.wait_for("document.querySelector('.problems .row')")
    assert sorted(shown(page, ".problems .row .id")) == [f"{n}" * 240 + "…" for n in (1, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "`" * 20_000,
        "**" * 10_000,
        "[](" * 6_000,
        "|" * 5000 + "\n" + "|-" * 5000,
        "> " * 9000,
        "`a" * 9000,
        "\n<think>" * 9000,
    ],
    ids=["ticks", "stars", "brackets", "pipes", "quotes", "open ticks", "open thoughts"],
)
def test_what_is_hard_to_read_takes_no_time(page: Browser, tmp_path: Path, text: str) -> None:
    show(page, tmp_path, TraceMaker("r1").start("Hi?").turn(1, saying(text)).end(reward=1.0))
    milliseconds = page.evaluate(
        f"(began => {{ Markdown.reply({json.dumps(text)}); return performance.now() - began }})(performance.now())"
    )
    assert milliseconds < 2000
    opened(page)


def test_parts_of_a_message_are_shown_and_no_address_is_fetched(page: Browser, tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("Look.")
    maker.messages[1] = {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": PIXEL}},
            {"type": "image_url", "image_url": {"url": "https://example.com/secret.png"}},
            {"type": "image_url", "image_url": {"url": "data:image/svg+xml,<svg onload=alert(1)>"}},
            {"type": "input_audio", "input_audio": {"data": "A" * 4000, "format": "wav"}},
            {"type": "other", "value": 1},
        ],
    }
    maker.lines[0] = json.dumps({**json.loads(maker.lines[0]), "request": {"messages": maker.messages}})
    show(page, tmp_path, maker.turn(1, saying("A point.")).end(reward=1.0))
    opened(page)
    page.wait_for("document.querySelector('img.picture').naturalWidth === 1")
    assert page.evaluate("document.querySelectorAll('#detail img').length") == 1
    attached = shown(page, ".attached")
    assert attached[0] == "image, not fetched: https://example.com/secret.png"
    assert attached[1].startswith("image, not fetched: data:image/svg+xml")
    assert attached[2] == "audio, wav, 3 kB"
    assert (
        page.evaluate("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    )


def test_message_call_json_code_and_link_can_be_copied(page: Browser, tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("Hi?").turn(1, calling(call(1, "add", a=1)), [answer(1, "<b>2</b>")])
    show(page, tmp_path, maker.turn(2, saying("```\nx = 1\n```")).end(reward=1.0))
    opened(page)
    page.evaluate("window.copied = []; navigator.clipboard.writeText = async text => { copied.push(text) }")

    def copied(label: str) -> str:
        page.click(f"#detail [aria-label='Copy {label}']")
        page.wait_for(f"document.querySelector('#said').textContent === 'Copied {label}.'")
        return str(page.evaluate("copied.pop()"))

    assert copied("message") == "You are a careful calculator. Use the tools for every step."
    assert json.loads(copied("call")) == {"name": "add", "arguments": '{"a": 1}', "result": "<b>2</b>"}
    assert copied("code") == "x = 1"
    assert copied("link") == f"{(tmp_path / 'report.html').as_uri()}#rollout=traces%2Fr1"
    page.click("#tab-Events")
    page.click(".raw summary")
    assert json.loads(copied("JSON"))["event"] == "trace_start"
    page.evaluate("navigator.clipboard.writeText = async () => { throw new Error('no') }")
    page.click("#detail [aria-label='Copy link']")
    page.wait_for("document.querySelector('#said').textContent.includes('does not let the page copy link')")


def test_the_turns_are_a_table_with_model_and_tool_time(page: Browser, tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("Hi?")
    maker.turn(1, calling(call(1, "add", a=1), call(2, "add", a=2)), [answer(1, "2")], ms=1500.0, tool_ms=40.0)
    maker.turn(2, calling(call(3, "divide", a=1)), [answer(3, "Error: no")], ms=20.0, tool_ms=5.0, outcome="error")
    show(page, tmp_path, maker.turn(3, saying("#### 2"), ms=30.0, weight_versions=[3]).end(reward=1.0))
    opened(page)
    page.click("#tab-Turns")
    page.wait_for("document.querySelector('.turns')")
    rows = page.evaluate("[...document.querySelectorAll('.turns tr')].map(row => row.innerText.split('\\t'))")
    assert rows == [
        ["Turn", "Model", "Tools", "Prompt", "Written", "Finish", "Calls", "Weights"],
        ["1", "1.50 s", "80 ms", "60", "40", "tool_calls", "add \u00d72", "\u2013"],
        ["2", "20 ms", "5 ms", "120", "40", "tool_calls", "divide (1 failed)", "\u2013"],
        ["3", "30 ms", "\u2013", "180", "40", "stop", "\u2013", "3"],
        ["all", "1.55 s", "85 ms", "", "120", "", "", ""],
    ]
    facts = dict(zip(shown(page, ".fact dt"), shown(page, ".fact dd"), strict=True))
    assert (facts["model time"], facts["tool time"], facts["weights"]) == ("1.55 s", "85 ms", "3")
    page.click(".turns tbody tr:nth-child(2) .link")
    page.wait_for("document.querySelector('#turn-2')")


def test_next_failure_goes_from_one_to_the_next(page: Browser, tmp_path: Path) -> None:
    makers = []
    for number in range(9):
        maker = TraceMaker(f"r{number}", 1_700_000_000.0 + number).start("Hi?").turn(1, saying("x"))
        failed = number % 4 == 2
        makers.append(
            maker.end(status="ERROR", error_message="boom", extra_fields={"outcome": "agent_error"})
            if failed
            else maker.end(reward=1.0)
        )
    show(page, tmp_path, *makers)
    opened(page)
    for name in ("r6", "r2"):
        page.click("#detail [aria-label='Next failure']")
        page.wait_for(f"document.querySelector('#detail h2').innerText === '{name}'")
    page.press("p")
    page.wait_for("document.querySelector('#detail h2').innerText === 'r6'")
