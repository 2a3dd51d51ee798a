"""The end of a run as a picture and a page: ``reward.png`` and ``report.html``, made from the files of the run alone.

The page is one file without scripts or outside links. Text of models and tools is escaped.
"""

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training import records
from training.config import SETTINGS_FILE
from training.plots import draw_run

MAX_DISPUTED = 12

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem .8rem; border-bottom: 1px solid #8884; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; background: #fff; }
.rollouts { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
.rollout { border: 1px solid #8886; border-radius: 6px; padding: .6rem .8rem; overflow-wrap: anywhere; }
.rollout p { margin: .2rem 0; white-space: pre-wrap; } .role { color: #888; font-size: .8em; }
.good { color: #2a8a3e; } .bad { color: #c0392b; }
"""


_CLASS = {True: "good", False: "bad"}


def write_report(folder: Path) -> None:
    """Make both files; with no step done yet there is nothing to draw, and no picture."""
    steps = list(records.read_lines(folder / records.STEPS))
    evaluations = records.read_document(folder / records.EVALUATIONS) or {}
    config = records.read_document(folder / SETTINGS_FILE) or {}
    picture = draw_run(steps, evaluations) if steps else None
    if picture is not None:
        (folder / "reward.png").write_bytes(picture)
    (folder / "report.html").write_text(_page(steps, evaluations, config, picture), encoding="utf-8")


def _page(
    steps: Sequence[dict[str, Any]], evaluations: dict[str, Any], config: dict[str, Any], picture: bytes | None
) -> str:
    title = f"Training {config.get('agent', '')}, seed {config.get('seed', '')}"
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>{_text(title)}</title><style>{_STYLE}</style><h1>{_text(title)}</h1>",
        f"<p>{len(steps)} steps in {_minutes(steps)}. {_text(_outcomes(steps))}</p>",
        "<h2>Held out</h2>",
        _evaluation_table(evaluations),
    ]
    if picture is not None:
        encoded = base64.b64encode(picture).decode()
        parts.append(f"<h2>Steps</h2><img alt='Reward per step' src='data:image/png;base64,{encoded}'>")
    parts += ["<h2>Where reward and tool result differ</h2>", _disputed(steps, evaluations)]
    for when in ("before", "after"):
        for name, summary in evaluations.get(when, {}).items():
            shown = "".join(map(_rollout, summary["transcripts"][:4]))
            parts.append(f"<h2>{_text(when.capitalize())}: {_text(name)}</h2><div class='rollouts'>{shown}</div>")
    parts.append(f"<h2>Settings</h2><pre>{_text(json.dumps(config, indent=1))}</pre></html>")
    return "\n".join(parts)


def _minutes(steps: Sequence[dict[str, Any]]) -> str:
    return f"{sum(step['seconds'] for step in steps) / 60:.1f} min"


def _outcomes(steps: Sequence[dict[str, Any]]) -> str:
    totals: dict[str, int] = {}
    for step in steps:
        for outcome, count in step["outcomes"].items():
            totals[outcome] = totals.get(outcome, 0) + count
    return "Rollouts by outcome: " + ", ".join(f"{name} {count}" for name, count in sorted(totals.items())) + "."


def _evaluation_table(evaluations: dict[str, Any]) -> str:
    rows = [
        "<table><tr><th>set<th>when<th>reward<th>tool result right<th>they differ<th>rollouts<th>sampled tokens</tr>"
    ]
    for name in evaluations.get("before", {}):
        for when in ("before", "after"):
            summary = evaluations.get(when, {}).get(name)
            if summary is None:
                continue
            fields = ("reward", "tool_right", "disputed", "rewarded", "sampled_tokens")
            numbers = "".join(f"<td class='n'>{_number(summary[field])}" for field in fields)
            rows.append(f"<tr><td>{_text(name)}<td>{when}{numbers}</tr>")
    return "\n".join([*rows, "</table>"])


def _disputed(steps: Sequence[dict[str, Any]], evaluations: dict[str, Any]) -> str:
    found = [one for summary in _summaries(evaluations) for one in summary["transcripts"] if _differ(one)]
    found += [one | {"tool_right": one["reward"] < 1} for step in reversed(steps) for one in step["disputed"]]
    # First what was paid for without a right tool result: a hack of the reward looks like success everywhere else.
    found.sort(key=lambda one: bool(one["tool_right"]))
    if not found:
        return "<p>Nowhere in this run.</p>"
    lead = (
        "A right answer without a right tool result was found another way, or the reward was hacked;"
        " a right tool result without a right answer was not copied."
    )
    return f"<p>{lead}</p><div class='rollouts'>{''.join(map(_rollout, found[:MAX_DISPUTED]))}</div>"


def _summaries(evaluations: dict[str, Any]) -> list[dict[str, Any]]:
    return [summary for when in ("after", "before") for summary in evaluations.get(when, {}).values()]


def _differ(one: dict[str, Any]) -> bool:
    return one["reward"] is not None and (one["reward"] >= 1) != one["tool_right"]


def _rollout(one: dict[str, Any]) -> str:
    reward, tool = one["reward"], one["tool_right"]
    verdict = f"<b class='{_CLASS[tool]}'>{'right' if tool else 'wrong or none'}</b>"
    lines = [
        f"<p class='role'>{_text(one['rollout_id'])}</p>",
        f"<p>reward <b class='{_CLASS[bool(reward)]}'>{_text(reward)}</b>, tool result {verdict}</p>",
    ]
    for message in one["messages"]:
        said = [str(message.get("content") or "")]
        for call in message.get("tool_calls") or []:
            function = call.get("function") or {}
            said.append(f"{function.get('name')}({function.get('arguments')})")
        text = "\n".join(filter(None, said))
        lines.append(f"<p><span class='role'>{_text(message.get('role'))}</span> {_text(text)}</p>")
    return f"<div class='rollout'>{''.join(lines)}</div>"


def _number(value: float | None) -> str:
    return f"{value:.2f}" if isinstance(value, float) else _text(value)


def _text(value: object) -> str:
    return html.escape("-" if value is None else str(value))
