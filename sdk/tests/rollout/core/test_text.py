"""Foreign text on its way to terminals, logs, errors and the wire: what each cleaner promises, for any text."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.core.text import (
    HIDDEN,
    MAX_EXCERPT_CHARACTERS,
    MAX_REDACTED_CHARACTERS,
    bare_url,
    both_ends,
    counted,
    cut,
    described,
    encodable,
    escaped,
    excerpt,
    fitted,
    one_line,
    printable,
    redacted,
    shortened,
    strip_control,
    text_of,
    without,
)

# Any character, lone surrogates and controls included, with the makings of control sequences more often.
HOSTILE = st.text(
    st.one_of(st.sampled_from("\x1b[]0;31mP\\\x07\x9b\x9c\x9d (Bc\r\n\t\u2028\u202e\ud800"), st.characters())
)
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=6, max_size=40)


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


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
def test_a_terminal_gets_one_harmless_line(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_the_encoding_lacks_is_escaped() -> None:
    assert printable("5 \N{MULTIPLICATION SIGN} 2", "ascii") == "5 \\xd7 2"


@given(HOSTILE)
def test_any_text_becomes_printable(text: str) -> None:
    assert printable(text).isprintable()


@pytest.mark.parametrize("clean", [strip_control, one_line, printable, escaped, encodable])
@given(text=HOSTILE)
def test_what_is_clean_stays_as_it_is(clean: Callable[[str], str], text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(HOSTILE)
def test_one_line_is_one_line_without_controls(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert not {each for each in line if unicodedata.category(each) == "Cc"}


@given(HOSTILE)
def test_a_log_line_is_one_line_and_shows_what_it_escaped(text: str) -> None:
    line = escaped(text)
    assert len(line.splitlines()) <= 1
    assert line.encode().decode() == line
    assert escaped("a\nb\x1b\N{RIGHT-TO-LEFT OVERRIDE}") == "a\\nb\\x1b\\u202e"


@given(
    HOSTILE, st.sampled_from(["utf-8", "ascii", "latin-1", "cp437"]), st.sampled_from(["backslashreplace", "replace"])
)
def test_encodable_text_can_be_encoded(text: str, encoding: str, errors: str) -> None:
    encodable(text, encoding, errors).encode(encoding)


@given(HOSTILE, st.integers(3, 20))
def test_a_limit_is_kept(text: str, limit: int) -> None:
    assert len(shortened(text, limit)) <= limit + len("...")
    assert len(cut(text, limit)) <= limit + len("...")
    assert len(fitted(text, limit)) <= limit
    assert len(both_ends(text, limit, "...")) == min(limit, len(text))
    assert cut(text, len(text)) == fitted(text, len(text)) == text


def test_where_the_mark_stands() -> None:
    assert cut("abcdef", 4) == "abcd..."
    assert fitted("abcdef", 5) == "ab..."
    assert fitted("abcdef", 5, "…") == "abcd…"
    assert both_ends("abcdef", 4, "…") == "a…ef"
    assert shortened("a\nb" * 300, 4) == "a ba..."


@given(HOSTILE, st.lists(SECRETS, min_size=1, max_size=3))
def test_no_secret_is_left(text: str, secrets: list[str]) -> None:
    told = text + text.join(secrets)
    assert not [secret for secret in secrets if secret in without(told, secrets)]
    assert not [secret for secret in secrets if secret in redacted(told, secrets)]
    assert secrets[0] not in excerpt(told, secrets[0])


@given(SECRETS, st.integers(0, 2 * MAX_EXCERPT_CHARACTERS))
def test_no_half_of_a_secret_is_left_by_a_cut(secret: str, before: int) -> None:
    told = excerpt(" " * before + (secret + " ") * 100, secret)
    assert len(told) <= MAX_EXCERPT_CHARACTERS + len("...")
    assert set(told) <= set(" *.")
    assert len(redacted("x" * MAX_REDACTED_CHARACTERS + secret, [secret])) <= MAX_REDACTED_CHARACTERS


def test_bearer_tokens_of_others_are_hidden_too() -> None:
    assert excerpt("Bearer abc, not BEARER def", None) == f"Bearer {HIDDEN} not BEARER {HIDDEN}"


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("https://user:secret@host:8/v1?key=secret#secret", "https://host:8/v1"),
        ("http://host/a", "http://host/a"),
        ("http://[", None),
        ("", None),
        (None, None),
    ],
)
def test_a_bare_url_has_no_place_for_a_secret(url: str | None, bare: str | None) -> None:
    assert bare_url(url) == bare


def test_an_exception_is_its_type_and_its_text() -> None:
    assert described(ValueError("text")) == "ValueError: text"
    assert described(ValueError()) == "ValueError"
    assert described(ValueError("secret"), "other") == "ValueError: other"
    assert described(UnprintableError()) == "UnprintableError: <unprintable UnprintableError>"


def test_what_has_no_text_gets_a_placeholder() -> None:
    assert text_of(3) == "3"
    assert text_of(UnprintableError()) == "<unprintable UnprintableError>"
    assert text_of(UnprintableError(), "none") == "none"


class TestStripControl:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("plain\ttext\né 日本 😀", "plain\ttext\né 日本 😀"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b[2J\x1b[1;1Hcleared", "cleared"),
            ("\x1b]0;title\x07after", "after"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bP1$r0m\x1b\\dcs", "dcs"),
            ("\x9b31mc1\x9d0;t\x9c", "c1"),
            ("\x1bcreset\x1b(B", "reset"),
            ("a\rb\x00\x08\x7f\x85", "ab"),
            ("cut off \x1b[31", "cut off 31"),
            ("cut off \x1b]0;title", "cut off 0;title"),
            ("\x1b\x1b[31m", ""),
            ("\x1b", ""),
        ],
    )
    def test_removes_sequences_whole(self, text: str, expected: str) -> None:
        assert strip_control(text) == expected

    @given(st.text(alphabet=st.one_of(st.sampled_from("\x1b[]0;31mP\\\x07\x9b\x9c\x9d (Bc"), st.characters())))
    def test_leaves_no_control_character_and_is_idempotent(self, text: str) -> None:
        stripped = strip_control(text)
        controls = {character for character in stripped if unicodedata.category(character) == "Cc"}
        assert controls <= {"\n", "\t"}
        assert strip_control(stripped) == stripped

    @given(st.text(alphabet=st.characters(exclude_categories=["Cc"])))
    def test_changes_nothing_else(self, text: str) -> None:
        assert strip_control(text) == text

    @pytest.mark.parametrize("unit", ["\x1b[", "\x1b]", "\x9d", "\x1b[0", "\x1b]a", "\x1b ", "\x1b[ "])
    def test_hostile_repetition_takes_linear_time(self, unit: str) -> None:
        assert "\x1b" not in strip_control(unit * 200_000 + "\x1b[" + "0" * 200_000)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1000, "1,000 runs"), (-1, "-1 runs")]
)
def test_a_count_agrees_with_its_noun(number: int, text: str) -> None:
    assert counted(number, "run") == text
