"""Where only some cases of a promise are broken, the failure says which."""

import pytest
from servers.judging import judged
from servers.mutants import MUTANTS

from rollout_conformance import select
from rollout_conformance.cases import SOME, every
from rollout_conformance.vocabulary import Failed


async def _kept() -> None:
    """As promised."""


async def _broken(usually: str | None = None) -> None:
    raise Failed("another", "none", usually=usually)


async def test_a_failure_of_some_cases_says_of_which_it_comes_and_of_which_not() -> None:
    with pytest.raises(Failed) as caught:
        await every({"500": _kept(), "502": _broken(), "503": _broken(), "504": _kept()})
    assert caught.value.usually is not None
    assert "it fails for 502, 503; it holds for 500, 504" in caught.value.usually


async def test_a_failure_of_all_cases_or_one_that_says_why_is_left_as_it_is() -> None:
    with pytest.raises(Failed) as caught:
        await every({"500": _broken(), "502": _broken()})
    assert caught.value.usually is None
    with pytest.raises(Failed) as caught:
        await every({"500": _broken("of this"), "502": _kept()})
    assert caught.value.usually == "of this"


@pytest.mark.parametrize("name", ["has-a-trace-for-new-calls", "keys-a-call-anew-after-a-cut"])
async def test_of_attempts_of_which_some_keep_a_promise_the_hint_says_which(name: str) -> None:
    mutant = MUTANTS[name]
    checks = select(sorted(mutant.finds | mutant.beside))
    [failure] = (await judged(mutant.server(), checks, timeout_seconds=30.0)).failures
    assert failure.usually is not None
    assert failure.usually.startswith(f"{SOME}: it fails for ")
