"""The page of settings: names, defaults and bounds from the models, meanings from the table of the README."""

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from osmosis_ai.rollout import RolloutClientSettings, RolloutServerSettings, RolloutSettings

README = Path(__file__).parents[2] / "README.md"
MODELS: tuple[type[BaseModel], ...] = (RolloutServerSettings, RolloutClientSettings, RolloutSettings)
_ROW = re.compile(r"^\| `([A-Z_]+)` \| [^|]* \| (.*) \|$", re.MULTILINE)


def page(notice: str) -> str:
    """The page."""
    table = README.read_text(encoding="utf-8").replace("](docs/", "](../")
    meanings = dict(_ROW.findall(table))
    lines = [
        "# Settings",
        "",
        notice,
        "",
        "Each is an environment variable, or a line of `.env`, or a field of the model",
    ]
    lines += ["that heads its table. A value out of bounds is an error at the start that names it.", ""]
    for model in MODELS:
        lines += [f"## `{model.__name__}`", "", "| variable | type | default | bounds | |", "|---|---|---|---|---|"]
        for name, about in model.model_json_schema()["properties"].items():
            if name in ("client", "server"):
                continue
            variable = f"{model.model_config.get('env_prefix')}{name.upper()}"
            cells = f"`{variable}`", _type(about), _default(about), _bounds(about), meanings.get(variable, "")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _type(about: dict[str, Any]) -> str:
    if "anyOf" in about:
        return "secret text" if any(part.get("format") == "password" for part in about["anyOf"]) else "text"
    kind: str = about.get("type", "string")
    return "text" if kind == "string" else kind


def _default(about: dict[str, Any]) -> str:
    value = getattr(about.get("default"), "value", about.get("default"))
    return "none" if value in (None, "") else f"`{value}`"


def _bounds(about: dict[str, Any]) -> str:
    low, high = about.get("minimum"), about.get("maximum")
    return f"{low} to {high}" if low is not None and high is not None else ""
