"""Of several attempts, cases or places, the failure names the one that is wrong."""

import pytest
from servers.judging import KEY, failed, judged
from servers.mutants import MUTANTS

from rollout_conformance import select

TIMEOUT_SECONDS = 30.0


@pytest.mark.parametrize(
    ("mutant", "check_id", "words"),
    [
        ("has-a-trace-for-new-calls", "callbacks.trace", "with attempt 2 of call 1 for a completion"),
        ("sends-its-key-with-the-first-call", "callbacks.key", "with attempt 2 of call 1 for a completion"),
        ("fails-on-a-null-usage", "chat.null_fields", "a completion with null for usage, beside choices"),
        ("answers-nested-calls-last", "tools.order", "the first and the third have an object within their arguments"),
        ("tells-its-key-with-an-error", "callbacks.secret", "got the api_key in its last_error"),
        ("asks-at-once-after-an-abort", "retries.delay", "calls after a reply with finish_reason 'abort'"),
        ("asks-at-once-in-a-pause", "retries.delay", "calls after 503, three times; got no wait to speak of"),
        ("composes-texts", "ids.text", "; at character 19: U+0065 U+0301, then U+00E9"),
        ("rounds-exponents", "chat.reply_kept", "at index 2, which differs at tool_calls"),
        ("leaves-its-call", "callbacks.order", "after it, first attempt 2 of call 1 for a completion"),
        ("takes-a-reset-of-a-call-for-final", "retries.cut", "a connection that was reset before an answer; got ERROR"),
        ("ignores-retry-after", "retries.too_many", "without a wait for it"),
    ],
)
async def test_a_failure_names_the_attempt_the_case_or_the_place(mutant: str, check_id: str, words: str) -> None:
    server, checks = MUTANTS[mutant].server(api_key=KEY), select([check_id, *MUTANTS[mutant].beside])
    found = failed(await judged(server, checks, timeout_seconds=TIMEOUT_SECONDS))
    assert words in found[check_id]
