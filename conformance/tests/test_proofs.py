"""Each check is the first to find some planted defect, as of today; ``servers/proofs.py`` runs them."""

from servers.proofs import proofs, stale

from rollout_conformance import select


def test_each_check_is_proven_to_be_the_first_that_finds_some_planted_defect() -> None:
    assert [check.id for check in stale()] == [], "in conformance/tests, run: uv run python -m servers.proofs"


def test_no_proof_is_of_a_check_that_is_gone() -> None:
    assert proofs().keys() <= {check.id for check in select()}
