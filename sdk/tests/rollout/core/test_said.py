"""The words of an error, without the JSON that carried them."""

import tracemalloc

import pytest

from osmosis_ai.rollout.core.said import unwrapped

BEHIND = " (HTTP 500, chat call, http://127.0.0.1:9/v1)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('OsmosisServerError: {"detail": "No \\"x\\".", "code": "c"}' + BEHIND, 'No "x".' + BEHIND),
        ('OsmosisValidationError: {"error": {"message": "No."}} (HTTP 422)', "No. (HTTP 422)"),
        ('OsmosisServerError: {"detail":"No \\"x\\", and ...' + BEHIND, 'No "x", and ...' + BEHIND),
        ('OsmosisServerError: {"detail": "cut in an escape \\u00', None),
        ('OsmosisServerError: {"detail": [{"loc": ["body"]}]}', None),
        ('OsmosisServerError: {"code": "c", "det', None),
        ("OsmosisServerError: " + '{"a":' * 5000, None),
        ("KeyError: 'x'", None),
        ('It said {"detail": "no"}', None),
        ("", None),
    ],
)
def test_what_was_said_is_left_and_what_says_nothing_stays(text: str, said: str | None) -> None:
    assert unwrapped(text) == (text if said is None else said)


@pytest.mark.parametrize("detail", ["a" * 1_000_000, "\\n" * 500_000], ids=["plain", "escaped"])
def test_a_long_torn_detail_costs_little_more_than_itself(detail: str) -> None:
    tracemalloc.start()
    said = unwrapped(f'OsmosisServerError: {{"detail": "{detail}')
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(said) == len(detail.replace("\\n", "\n"))
    assert peak_bytes < 10_000_000
