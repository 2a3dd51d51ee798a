"""The picture of a run: reward and tool-result-right, raw and as a moving average."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOW = 5


def moving_average(values: Sequence[float], window: int = WINDOW) -> list[float]:
    """Mean of the last ``window`` values at each place; fewer at the start."""
    return [sum(values[max(0, at - window + 1) : at + 1]) / min(at + 1, window) for at in range(len(values))]


def draw_run(steps: Sequence[dict[str, Any]], evaluations: dict[str, Any]) -> bytes:
    """Reward, tool-result-right and length per step, raw and averaged, with the held-out evaluations, as PNG."""
    figure, (rewards, lengths) = _pyplot().subplots(
        2, 1, figsize=(9, 6.5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    for field, color, label in (("reward", "tab:green", "reward"), ("tool_right", "tab:orange", "tool result right")):
        known = [step for step in steps if step[field] is not None]
        at = [step["step"] for step in known]
        values = [step[field] for step in known]
        rewards.plot(at, values, color=color, alpha=0.3, linewidth=1)
        rewards.plot(at, moving_average(values), color=color, linewidth=2, label=f"{label}, mean of {WINDOW} steps")
    last = max((step["step"] for step in steps), default=1)
    for when, place in (("before", 0), ("after", last)):
        for (name, summary), marker in zip(evaluations.get(when, {}).items(), "osD^", strict=False):
            if summary["reward"] is not None:
                # One entry of the legend for both times.
                shown = f"before and after: {name}" if when == "before" else "_"
                rewards.plot(
                    [place], [summary["reward"]], marker, color="black", markersize=6, label=shown, clip_on=False
                )
    rewards.set_ylim(-0.02, 1.02)
    rewards.set_ylabel("mean of a step")
    rewards.legend(loc="lower right", fontsize=8)
    rewards.grid(alpha=0.3)
    known = [step for step in steps if step["sampled_tokens"] is not None]
    lengths.plot([step["step"] for step in known], [step["sampled_tokens"] for step in known], color="tab:blue")
    lengths.set_ylabel("sampled tokens")
    lengths.set_xlabel("step")
    lengths.grid(alpha=0.3)
    return _png(figure)


def _pyplot() -> Any:
    """Matplotlib, drawing into files; imported when something is drawn."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    _pyplot().close(figure)
    return buffer.getvalue()
