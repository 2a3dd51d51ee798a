"""What the results of a run depend on, as digests: a run is only gone on with if all of it is the same."""

import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.run.test.options import Options

_OWN_PACKAGE = Path(__file__).parents[3]


def inputs_of(options: Options, agent: RolloutAgentLoop) -> dict[str, Any]:
    """Digests of the dataset and of the agent's source files, the model, and the settings."""
    return {
        "dataset": {options.dataset: file_digest(Path(options.dataset))},
        "agent": {_shown(file): file_digest(file) for file in sorted(set(_agent_files(agent, options.mcp)))},
        "model": {"name": options.model.strip(), "base_url": options.base_url},
        "settings": {
            "module": options.module,
            "mcp": options.mcp,
            "limit": options.limit,
            "offset": options.offset,
            "repeat": options.repeat,
            "max_turns": options.max_turns,
            "completion_params": options.completion_params,
        },
    }


def config_of(options: Options, inputs: dict[str, Any]) -> dict[str, Any]:
    """All that a run can be repeated from; no keys."""
    return {
        "sdk_version": PACKAGE_VERSION,
        "python_version": sys.version.split()[0],
        "model": options.model.strip(),
        "base_url": options.base_url,
        "dataset": options.dataset,
        **inputs["settings"],
        "concurrency": options.concurrency,
        "timeout_seconds": options.timeout,
        "digests": {"dataset": inputs["dataset"], "agent": inputs["agent"]},
    }


def changed_inputs(old: Any, new: dict[str, Any]) -> list[str]:
    """Names of what differs, such as ``rewards.py`` or ``max_turns``."""
    names = []
    for group, values in new.items():
        before = old.get(group) if isinstance(old, dict) else None
        before = before if isinstance(before, dict) else {}
        keys = [*values, *(key for key in before if key not in values)]
        differing = [key for key in keys if before.get(key) != values.get(key)]
        names += [f"{group} {key}" if group in ("model", "settings") else str(key) for key in differing]
    return names


def file_digest(path: Path) -> str:
    """``sha256:`` and the digest in hexadecimal."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _agent_files(agent: RolloutAgentLoop, mcp_directory: str | None) -> Iterator[Path]:
    """The agent's module, and whatever else of the user's own was imported, the reward function for one."""
    if mcp_directory:
        yield from (file.resolve() for file in Path(mcp_directory).rglob("*.py"))
    here = Path.cwd()
    own_module = inspect.getmodule(type(agent))
    for module in [own_module, *list(sys.modules.values())]:
        name = getattr(module, "__file__", None)
        if not isinstance(name, str) or not name.endswith(".py"):
            continue
        file = Path(name).resolve()
        is_users_own = file.is_relative_to(here) and not file.is_relative_to(Path(sys.prefix).resolve())
        if (is_users_own or module is own_module) and not file.is_relative_to(_OWN_PACKAGE) and file.is_file():
            yield file


def _shown(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)
