"""What ``osmosis eval`` was asked for, and the record of it that goes into its files."""

import platform
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.run.common_cli import build_completion_params
from osmosis_ai.rollout.run.evaluate.statistics import CONFIDENCE, DEFAULT_SEED
from osmosis_ai.rollout.run.results import inputs

_DEFAULTS: dict[str, Any] = {
    "module": None,
    "mcp": None,
    "dataset": "",
    "model": "",
    "eval_fns": None,
    "n_runs": 1,
    "pass_threshold": 1.0,
    "batch_size": 1,
    "baseline_model": None,
    "baseline_base_url": None,
    "baseline_api_key": None,
    "max_turns": 10,
    "temperature": None,
    "max_tokens": None,
    "api_key": None,
    "base_url": None,
    "limit": None,
    "offset": 0,
    "timeout": None,
    "output": None,
    "resume": False,
    "reports": None,
    "as_json": False,
    "seed": DEFAULT_SEED,
    "quiet": False,
    "debug": False,
}


class Arguments(Namespace):
    """The arguments given, and the default of every other."""

    def __init__(self, given: Namespace) -> None:
        values = {**_DEFAULTS, **vars(given)}
        super().__init__(**{**values, "quiet": values["quiet"] or values["as_json"]})


def config_of(args: Arguments, agent: Any, number_of_rows: int, eval_names: list[str]) -> dict[str, Any]:
    """All that the results depend on, without keys."""
    digest = inputs.file_digest(Path(args.dataset))
    config: dict[str, Any] = {
        "model": args.model,
        "n_runs": args.n_runs,
        "pass_threshold": args.pass_threshold,
        "eval_fns": eval_names,
    }
    if args.baseline_model:
        config["baseline_model"] = args.baseline_model
        config["baseline_endpoint"] = without_secrets(args.baseline_base_url)
    return config | {
        "endpoint": without_secrets(args.base_url),
        "agent": {"module": args.module, "mcp": args.mcp, "name": getattr(agent, "name", None)},
        "dataset": {
            "path": str(args.dataset),
            "sha256": digest and digest.removeprefix("sha256:"),
            "rows": number_of_rows,
            "offset": args.offset,
            "limit": args.limit,
        },
        "max_turns": args.max_turns,
        "completion_params": build_completion_params(args.temperature, args.max_tokens),
        "batch_size": args.batch_size,
        "timeout_seconds": args.timeout,
        "confidence": CONFIDENCE,
        "seed": args.seed,
        "sdk_version": PACKAGE_VERSION,
        "python_version": platform.python_version(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def inputs_of(args: Arguments) -> dict[str, Any]:
    """Digests of the dataset and of the source files of agent and eval functions, the models, and the settings."""
    return inputs.inputs_of(
        args.dataset,
        modules=[args.module, *(args.eval_fns or ())],
        mcp=args.mcp,
        model={
            "name": args.model,
            "base_url": without_secrets(args.base_url),
            "baseline": args.baseline_model,
            "baseline_base_url": without_secrets(args.baseline_base_url),
        },
        settings={
            "module": args.module,
            "mcp": args.mcp,
            "eval_fns": args.eval_fns,
            "limit": args.limit,
            "offset": args.offset,
            "n": args.n_runs,
            "max_turns": args.max_turns,
            "completion_params": build_completion_params(args.temperature, args.max_tokens),
        },
    )


def without_secrets(url: str | None) -> str | None:
    """``url`` without user, password, query and fragment."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
