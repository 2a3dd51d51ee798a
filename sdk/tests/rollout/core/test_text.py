import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.core.text import printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand  more", "two lines and more"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07", "red"),
        ("left\N{RIGHT-TO-LEFT OVERRIDE}right", "leftright"),
        ("lone \ud800 surrogate", "lone surrogate"),
    ],
)
def test_it_is_one_harmless_line(text: str, shown: str) -> None:
    assert printable(text).split() == shown.split()


def test_what_the_encoding_lacks_is_escaped() -> None:
    assert printable("5 \N{MULTIPLICATION SIGN} 2", "ascii") == "5 \\xd7 2"


@given(st.text())
def test_any_text_becomes_printable(text: str) -> None:
    assert printable(text).isprintable()


@given(st.text(), st.integers(1, 20))
def test_a_limit_is_kept(text: str, limit: int) -> None:
    assert len(shortened(text, limit)) <= limit + len("...")
