"""The commands for argparse, from the very functions that Typer reads, so that the two cannot drift apart."""

import argparse
import inspect
from collections.abc import Callable, Iterable
from enum import Enum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo

from osmosis_ai.cli.app import COMMANDS, HELP, exit_code_of
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION, package_name
from osmosis_ai.rollout.core.user_errors import UsageError


def build_parser() -> argparse.ArgumentParser:
    """A parser of all commands, program name ``osmosis``."""
    parser = argparse.ArgumentParser(prog="osmosis", description=HELP)
    parser.add_argument("-V", "--version", action="version", version=f"{package_name} {PACKAGE_VERSION}")
    commands = parser.add_subparsers(title="Commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        about = inspect.getdoc(command) or ""
        configure(commands.add_parser(name, help=about.partition("\n")[0], description=about), name)
    return parser


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Give ``parser`` the options of command ``name``, and the default ``handler``: namespace to exit code."""
    hints = get_type_hints(COMMANDS[name], include_extras=True)
    for option in _parameters(name):
        hint, info = get_args(hints[option.name])
        is_required = option.default is option.empty
        member = get_args(hint)[0] if isinstance(hint, UnionType) else hint
        is_listed = get_origin(member) is list
        kind = get_args(member)[0] if is_listed else member
        about = argparse.SUPPRESS if getattr(info, "hidden", False) else (info.help or "").replace("%", "%%")
        settings: dict[str, Any] = {"default": _default(option), "help": about}
        if kind is bool:
            settings["action"] = "store_true"
        else:
            settings |= {"type": _converter(kind, info), "metavar": info.metavar}
            settings |= {"action": "append"} if is_listed else {}
            if issubclass(kind, Enum):
                settings |= {"choices": list(kind), "metavar": f"{{{','.join(kind)}}}"}
        if isinstance(info, ArgumentInfo):
            parser.add_argument(option.name, nargs=None if is_required else "?", **settings)
        else:
            # In the Annotated form, typer.Option() keeps its first flag where a default would be.
            flags = [flag for flag in (info.default, *(info.param_decls or ())) if str(flag).startswith("-")]
            parser.add_argument(*flags, dest=option.name, required=is_required, **settings)
    parser.set_defaults(handler=lambda arguments: run(name, arguments))


def run(name: str, arguments: argparse.Namespace) -> int:
    """Run command ``name``; an option that the namespace lacks takes its default."""
    values = {option.name: getattr(arguments, option.name, _default(option)) for option in _parameters(name)}
    return exit_code_of(COMMANDS[name], **values)


def _parameters(name: str) -> Iterable[inspect.Parameter]:
    return inspect.signature(COMMANDS[name]).parameters.values()


def _default(option: inspect.Parameter) -> Any:
    return None if option.default is option.empty else option.default


def _converter(kind: type, info: Any) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = kind(text)
        if info.min is not None and value < info.min:
            raise argparse.ArgumentTypeError(f"{text} is less than {info.min}")
        if info.max is not None and value > info.max:
            raise argparse.ArgumentTypeError(f"{text} is more than {info.max}")
        try:
            return value if info.callback is None else info.callback(value)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    convert.__name__ = kind.__name__
    return convert
