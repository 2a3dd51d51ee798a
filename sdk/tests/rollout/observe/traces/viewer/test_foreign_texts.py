"""Texts with what cannot be seen in them, and errors too long for a pattern."""

import json
from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import show

pytestmark = browser_tests()

SEEN = {
    "soft\u00adhyphen": "soft\u2039U+00AD\u203ahyphen",
    "\u061carabic mark": "\u2039U+061C\u203aarabic mark",
    "a\U000e0068\U000e0069": "a\u2039U+E0068\u203a\u2039U+E0069\u203a",
    "a\ufe01\ufe0f\U000e0130": "a\u2039U+FE01\u203a\u2039U+FE0F\u203a\u2039U+E0130\u203a",
    "a\u3164b": "a\u2039U+3164\u203ab",
    "bidi\u202e": "bidi\u2039U+202E\u203a",
    "two\u200c\u200cjoiners": "two\u200c\u2039U+200C\u203ajoiners",
    "1\ufe0f": "1\u2039U+FE0F\u203a",
}
KEPT = [
    "\u2764\ufe0f 1\ufe0f\u20e3",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\u845b\U000e0100",
    "\u1820\u180b",
]


def test_what_cannot_be_seen_is_shown_but_for_what_scripts_and_emoji_need(page: Browser, tmp_path: Path) -> None:
    texts = {**SEEN, **{text: text for text in KEPT}}
    show(page, tmp_path, TraceMaker("r\u00ad1").start("Go.").turn(1, saying("x")).end())
    shown = page.evaluate(f"{json.dumps(list(texts))}.map(text => Text.el('p', {{ text }}).textContent)")
    assert shown == list(texts.values())
    page.click(".row")
    page.wait_for("document.title === 'r\u2039U+00AD\u203a1 \u00b7 Rollouts'")
    assert page.evaluate("document.querySelector('h2').title") == "r\u2039U+00AD\u203a1"


@pytest.mark.parametrize("end", ['"}', "", "\\"])
def test_an_error_of_megabytes_says_what_it_says(page: Browser, tmp_path: Path, end: str) -> None:
    said = "no\\n" + "o" * 9_000_000
    maker = TraceMaker("r1").start("Go on.")
    error = f'OsmosisServerError: {{"detail": "{said}{end}'
    maker.add("chat_end", turn=1, error=error, latency_ms=1.0)
    show(page, tmp_path, maker.end(status="ERROR", error_message="no"))
    page.click(".row")
    page.wait_for("document.querySelector('.message.failure .text').textContent.startsWith('no\\noo')")
