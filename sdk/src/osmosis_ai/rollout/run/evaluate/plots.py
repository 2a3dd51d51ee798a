"""Plots as HTML figures, to stand in a page without script or another file; text is HTML, escaped, and never cut.

What is drawn is SVG without text, stretched to the room there is; its colours are the page's (``COLOURS`` are classes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from osmosis_ai.rollout.core.text import strip_control
from osmosis_ai.rollout.run.evaluate.statistics import Interval

WIDTH = 600
BAR_HEIGHT = 160
LINE_HEIGHT = 20
BINS = 20
COLOURS = ("first", "second")


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
    step = WIDTH / bins
    thickness = min(step * 0.8 / len(series), WIDTH / BINS)
    bars = []
    for position, share in enumerate(shares):
        for index, amount in enumerate(share):
            height = BAR_HEIGHT * amount / highest
            x = (index + 0.5) * step + (position - len(series) / 2) * thickness
            tip = _text(f"{series[position].name}: {amount:.1%} of runs")
            bars.append(
                f'<rect class="{COLOURS[position % len(COLOURS)]}" x="{x:.1f}" y="{BAR_HEIGHT - height:.1f}"'
                f' width="{thickness:.1f}" height="{height:.1f}"><title>{tip}</title></rect>'
            )
    ends = "".join(f"<span>{_number(end)}{_text(unit)}</span>" for end in ([low, high] if bins > 1 else [low]))
    legend = "".join(
        f'<li><span class="key {COLOURS[position % len(COLOURS)]}"></span>{_text(one.name)}</li>'
        for position, one in enumerate(series)
    )
    return (
        f"<figure><figcaption>{_text(title)}</figcaption>"
        f'<p class="axis">{highest:.0%} of runs</p>'
        f"{_svg(f'{title}: the highest bar is {highest:.0%} of runs', bars, BAR_HEIGHT)}"
        f'<p class="axis ends">{ends}</p>{f"<ul>{legend}</ul>" if len(series) > 1 else ""}</figure>'
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


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
    lines = []
    for estimate in estimates:
        middle, colour = LINE_HEIGHT / 2, estimate.colour
        parts = [f'<line class="rail" x1="0" y1="{middle}" x2="{WIDTH}" y2="{middle}"/>']
        said = f"{estimate.value:.1%}"
        if estimate.interval is not None:
            low, high = (WIDTH * bound for bound in (estimate.interval.low, estimate.interval.high))
            parts.append(f'<line class="{colour}" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>')
            said += f" [{estimate.interval.low * 100:.1f}, {estimate.interval.high * 100:.1f}]"
        at = max(0.0, min(WIDTH - 6.0, WIDTH * estimate.value - 3))
        parts.append(f'<rect class="{colour}" x="{at:.1f}" y="2" width="6" height="{LINE_HEIGHT - 4}"/>')
        drawing = _svg(f"{estimate.name}: {said}, from 0 to 100 %", parts, LINE_HEIGHT)
        lines.append(f"<dt>{_text(estimate.name)}</dt><dd>{drawing}<span>{said}</span></dd>")
    return f"<figure><figcaption>{_text(title)}</figcaption><dl>{''.join(lines)}</dl></figure>"


def _svg(label: str, parts: Sequence[str], height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{_text(label)}"'
        f' viewBox="0 0 {WIDTH} {height}" height="{height}" preserveAspectRatio="none">{"".join(parts)}</svg>'
    )


def _text(text: str) -> str:
    return escape(strip_control(text), quote=True)
