"""What a report says in sentences: how its numbers are to be read, and what they do not say."""

from collections.abc import Iterator, Sequence

from osmosis_ai.rollout.core.reward_parts import reaches
from osmosis_ai.rollout.core.text import counted
from osmosis_ai.rollout.run.evaluate.eval_results import EvalResult
from osmosis_ai.rollout.run.evaluate.model_lines import ModelLine, each_summary, ks_of
from osmosis_ai.rollout.run.formats import format_number

COUNTING_RULE = (
    "A run that failed (provider, time limit, agent), one that was not made, one whose eval function failed and one"
    " that got no reward count nowhere."
)
INTERVAL_METHOD = (
    "Intervals are 95 % and taken over rows: Wilson's at the effective sample size for scores from 0 to 1, or within"
    " the range that --score-range states; Student's t, which knows no bounds, for others."
)


def reading_notes(result: EvalResult) -> list[str]:
    """How to read the numbers."""
    lines = [COUNTING_RULE, INTERVAL_METHOD, "Standard errors are of the mean, clustered by row."]
    if result.n_runs > 1:
        lines.append(
            f"pass@k: unbiased, 1 - C(n-c, k) / C(n, k) per row with c of n scores at least {result.pass_threshold:g};"
            " averaged over the rows with at least k scored runs. pass^k is the chance that all of k pass,"
            " C(c, k) / C(n, k); majority the share of rows more than half of whose runs pass."
        )
    if result.comparisons:
        permutations = next(iter(result.comparisons.values())).permutations
        lines.append(
            "Comparison: difference of row means, interval by Student's t, two-sided p by a sign-flip permutation test"
            f" ({permutations:,} permutations)."
        )
    return lines


def pass_notes(models: Sequence[ModelLine], result: EvalResult) -> Iterator[str]:
    """Of each eval function what its pass@k does not say: why nothing passes, and where k leaves out rows."""
    threshold = result.pass_threshold
    for eval_name, model, summary in each_summary(models, list(result.eval_summaries)) if ks_of(result) else ():
        owner = f" with {model.name}" if len(models) > 1 else ""
        if summary.max > 0 and not reaches(summary.max, threshold):
            yield (
                f"No run passes {eval_name}{owner}: a pass is a score of {threshold:g} or more"
                f" (--pass-threshold), and the best is {format_number(summary.max, 3)}."
            )
        fewer = {k: rows for k, rows in summary.pass_rows.items() if rows < summary.scored_rows}
        if fewer:
            told = ", ".join(f"pass@{k} over {rows}" for k, rows in fewer.items())
            yield (
                f"{eval_name}{owner}: {told} of {counted(summary.scored_rows, 'row')}, those with k scored runs;"
                " with other rows than at a smaller k it can be lower."
            )


def stop_note(result: EvalResult) -> str | None:
    """Why the evaluation stopped early, if it did."""
    if not result.stopped_early:
        return None
    return f"Stopped early: {result.stop_reason}" if result.stop_reason else "Stopped early."
