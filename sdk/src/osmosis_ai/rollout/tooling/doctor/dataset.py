"""The rows that ``osmosis test``, ``eval`` or ``trainer`` would run."""

from osmosis_ai.rollout.core.answers import is_comparable
from osmosis_ai.rollout.core.text import fitted, one_line
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.comparing_code import agent_scores_by_is_right
from osmosis_ai.rollout.run.data.dataset import DatasetCheck
from osmosis_ai.rollout.run.loading import open_dataset
from osmosis_ai.rollout.tooling.doctor.case import Case, check, once
from osmosis_ai.rollout.tooling.doctor.types import Finding, Need, not_checked, ok, problem, warning

MAX_SHOWN_CHARACTERS = 600


@once
def _looked_through(case: Case) -> DatasetCheck | str:
    """What there is to say of the dataset, or why it cannot be opened."""
    try:
        return open_dataset(case.setup.dataset or "", case.setup.columns).check(is_comparable=is_comparable)
    except (CLIError, OSError) as error:
        return str(error)


@check("dataset", "every row of the dataset can be used", Need.DATASET)
def check_dataset(case: Case) -> Finding:
    found = _looked_through(case)
    wrong = found if isinstance(found, str) else found.error()
    if wrong is not None:
        return problem(_shown(wrong), "Correct that; osmosis test leaves such rows out, and ends with 1.")
    assert isinstance(found, DatasetCheck)  # noqa: S101 - nothing is wrong
    return ok(f"{found.rows:,} rows.") if found.rows else problem("It has no rows.", "Name another file with -d.")


@check("ground-truths", "every row has a ground truth that its reward can be told from", Need.DATASET, Need.AGENT)
def check_ground_truths(case: Case) -> Finding:
    found, setup = _looked_through(case), case.setup
    if isinstance(found, str):
        return not_checked("There is no dataset to look at.")
    if not agent_scores_by_is_right(setup.module, setup.mcp):
        return ok("The agent does not come to is_right, so its ground truths may be anything.")
    wrong = found.warning()
    if wrong is None:
        return ok("is_right can compare all of them.")
    return warning(_shown(wrong), "Correct them, or leave those rows out; osmosis test lists them all.")


def _shown(text: str) -> str:
    return fitted(one_line(text), MAX_SHOWN_CHARACTERS)
