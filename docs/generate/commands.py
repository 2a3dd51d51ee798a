"""The page of the command line, from the commands themselves."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import typer.main

from osmosis_ai.cli.app import app

_KINDS: dict[Any, str] = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its full name, in the order of ``--help``."""
    yield from _below("osmosis", typer.main.get_command(app))


def _below(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _below(f"{prefix} {name}", command)
        else:
            yield f"{prefix} {name}", command


def flags(command: Any) -> set[str]:
    """The options of a command, as they are written."""
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {
        "-h",
        "--help",
    }


def page(notice: str) -> str:
    """The page."""
    lines = ["# Commands", "", notice, "", "Exit codes: 0 done, 1 failed (one sentence on stderr), 2 the command"]
    lines += ["line is wrong, 130 interrupted. `osmosis --version` tells the version.", ""]
    for name, command in commands():
        lines += [f"## `{name}`", "", _text(command.help), ""]
        lines += ["| option | default | |", "|---|---|---|"]
        lines += [_row(parameter) for parameter in command.params if parameter.name != "help"]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _row(parameter: Any) -> str:
    if not hasattr(parameter, "is_flag"):  # an argument
        name = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        value = "" if parameter.is_flag else f" {parameter.metavar or _kind(parameter)}"
        name = ", ".join(f"`{flag}`" for flag in parameter.opts) + _text(value, start=" ")
    about = getattr(parameter, "help", None)
    default = "required" if parameter.required else _default(parameter)
    return f"| {name} | {default} | {_text(about)} |"


def _kind(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, Enum):
            return "|".join(member.value for member in kind)
    return next((_KINDS[kind] for kind in kinds if kind in _KINDS), "TEXT")


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or value in ((), []) or callable(value):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def _text(text: str | None, start: str = "") -> str:
    words = " ".join((text or "").replace("``", "`").replace("|", "\\|").split())
    return start + words if words else ""
