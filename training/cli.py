"""``python -m training``: one training run, or ``--serve`` of a trained model.

Exit codes: 0 done, 1 failed, 2 the command line is wrong, 130 Ctrl-C or SIGTERM (a checkpoint is kept).
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from osmosis_ai.rollout.trainer import TrainerError
from training.config import TrainingConfig, read_config, saved_settings
from training.errors import TrainingError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    given = vars(_parser().parse_args(arguments))
    config_path, resume, serve, port = (given.pop(name) for name in ("config", "resume", "serve", "port"))
    flags = {name: value for name, value in given.items() if value is not None}
    try:
        if serve is not None:
            return _serve(read_config(config_path, flags), serve, port)
        if resume is not None:
            flags = saved_settings(resume) | flags | {"output": resume}
        return _train(read_config(config_path, flags), is_resumed=resume is not None)
    except TrainingError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    except (TrainerError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


def _train(config: TrainingConfig, *, is_resumed: bool) -> int:
    from training.display import Display
    from training.loop import Run

    with Display() as display:
        asyncio.run(_until_told_to_stop(Run(config, display, is_resumed=is_resumed).run()))
        display.note(f"Report: {config.output / 'report.html'}, picture: {config.output / 'reward.png'}.")
    return 0


async def _until_told_to_stop(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work``; SIGTERM and Ctrl-C cancel it, which ends the server and keeps a checkpoint."""
    running = asyncio.ensure_future(work)

    def stop() -> None:
        # Once: a second time would cut off what the first made it do.
        if not running.cancelling():
            running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await running


def _serve(config: TrainingConfig, folder: Path, port: int) -> int:
    from training.datasets import read_datasets
    from training.serve import serve_model

    asyncio.run(serve_model(config, read_datasets(config).examples, folder, port))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train a model on an agent through its rollout server, with GRPO, and write a report.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help="TOML file of settings; flags win over it.")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="Go on with the run in this folder.")
    parser.add_argument(
        "--serve", type=Path, metavar="MODEL", help="Serve this model folder for 'osmosis test', and train nothing."
    )
    parser.add_argument("--port", type=int, default=8000, help="Port of --serve [default: 8000].")
    for name, field in TrainingConfig.model_fields.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", **_argument(field.annotation, field.default, field.description)
        )
    return parser


def _argument(annotation: Any, default: Any, description: str | None) -> dict[str, Any]:
    kind = next((part for part in get_args(annotation) if part is not type(None)), annotation)
    kind = annotation if get_origin(annotation) is None else kind
    shown = default.value if isinstance(default, Enum) else default
    help_text = f"{description} [default: {shown}]" if default is not None else description
    argument: dict[str, Any] = {"default": None, "help": help_text}
    if kind is bool:
        return argument | {"action": argparse.BooleanOptionalAction}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return argument | {"choices": [member.value for member in kind]}
    return argument | {"metavar": getattr(kind, "__name__", "VALUE").upper()}
