"""Plots as SVG elements, to stand inside an HTML page without script, style sheet or another file; text is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from osmosis_ai.rollout.core.text import fitted, strip_control
from osmosis_ai.rollout.run.evaluate.statistics import Interval

WIDTH = 560
BAR_HEIGHT = 160
LINE_HEIGHT = 26
LEFT = 190
RIGHT = 90
BINS = 20
MAX_LABEL_CHARACTERS = 28
COLOURS = ("#2f6fab", "#c9742b")


@dataclass(frozen=True)
class Series:
    """The values of one model."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Estimate:
    """A share between 0 and 1, with its interval."""

    name: str
    value: float
    interval: Interval | None
    colour: str = COLOURS[0]


def histogram(title: str, series: Sequence[Series], unit: str = "") -> str:
    """How the values of each series are distributed, in shares of the series."""
    values = [value for one in series for value in one.values]
    if not values:
        return ""
    low, high = min(values), max(values)
    bins = BINS if high > low else 1
    shares = [_binned(one.values, low, high, bins) for one in series]
    highest = max(max(share) for share in shares)
    step = (WIDTH - 60) / bins
    thickness = max(1.0, step * 0.8 / len(series))
    parts = []
    for position, share in enumerate(shares):
        for index, amount in enumerate(share):
            height = BAR_HEIGHT * amount / highest
            x = 40 + index * step + step * 0.1 + position * thickness
            tip = f"{series[position].name}: {amount:.1%} of runs"
            parts.append(
                f'<rect x="{x:.1f}" y="{30 + BAR_HEIGHT - height:.1f}" width="{thickness:.1f}" height="{height:.1f}"'
                f' fill="{COLOURS[position % len(COLOURS)]}"><title>{_text(tip)}</title></rect>'
            )
    bottom = 30 + BAR_HEIGHT
    parts.append(f'<line x1="40" y1="{bottom}" x2="{WIDTH - 20}" y2="{bottom}" stroke="#888"/>')
    ends = [(low, 40, "start"), (high, WIDTH - 20, "end")] if bins > 1 else [(low, WIDTH // 2, "middle")]
    for value, x, anchor in ends:
        parts.append(_label(f"{value:,.4g}{unit}", x, bottom + 16, anchor))
    parts.append(_label(f"{highest:.0%}", 36, 36, "end"))
    legend = [(one.name, COLOURS[position % len(COLOURS)]) for position, one in enumerate(series)]
    return _svg(title, parts, bottom + 24, legend if len(series) > 1 else [])


def _binned(values: Sequence[float], low: float, high: float, bins: int) -> list[float]:
    counts = [0] * bins
    for value in values:
        position = 0.0 if high == low else (value - low) / (high - low) * bins
        counts[min(int(position), bins - 1)] += 1
    return [count / max(1, len(values)) for count in counts]


def intervals(title: str, estimates: Sequence[Estimate]) -> str:
    """Shares on a line from 0 to 1, each with its interval."""
    if not estimates:
        return ""
    scale = WIDTH - LEFT - RIGHT
    parts = []
    for position, estimate in enumerate(estimates):
        y = 40 + position * LINE_HEIGHT
        parts.append(_label(estimate.name, LEFT - 12, y + 4, "end"))
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + scale}" y2="{y}" stroke="#ddd"/>')
        if estimate.interval is not None:
            low, high = (LEFT + scale * bound for bound in (estimate.interval.low, estimate.interval.high))
            parts.append(
                f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{estimate.colour}" stroke-width="4"/>'
            )
        parts.append(f'<circle cx="{LEFT + scale * estimate.value:.1f}" cy="{y}" r="5" fill="{estimate.colour}"/>')
        parts.append(_label(f"{estimate.value:.1%}", WIDTH - RIGHT + 12, y + 4, "start"))
    bottom = 40 + len(estimates) * LINE_HEIGHT
    parts += [_label("0 %", LEFT, bottom, "middle"), _label("100 %", LEFT + scale, bottom, "middle")]
    return _svg(title, parts, bottom + 10, [])


def _svg(title: str, parts: Sequence[str], height: int, legend: Sequence[tuple[str, str]]) -> str:
    drawn = [f'<text x="0" y="16" font-size="14" font-weight="bold">{_text(title)}</text>', *parts]
    for position, (name, colour) in enumerate(legend):
        y = height + 8 + position * 18
        drawn.append(f'<rect x="40" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        drawn.append(_label(name, 56, y, "start"))
    whole = height + 18 * len(legend)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{_text(title)}" width="{WIDTH}"'
        f' height="{whole}" viewBox="0 0 {WIDTH} {whole}" font-family="sans-serif" font-size="12">'
        f"{''.join(drawn)}</svg>"
    )


def _label(text: str, x: float, y: float, anchor: str) -> str:
    shown = _text(fitted(text, MAX_LABEL_CHARACTERS, "…"))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown}</text>'


def _text(text: str) -> str:
    return escape(strip_control(text), quote=True)
