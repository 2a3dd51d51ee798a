"""The commands for argparse, from the very functions that Typer reads, so that the two cannot drift apart."""

import argparse
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo

from osmosis_ai.cli.app import COMMANDS, HELP, exit_code_of
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION, package_name


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
    for option in _options(name):
        if option.is_positional:
            parser.add_argument(option.name, **option.settings())
        else:
            parser.add_argument(*option.flags, dest=option.name, **option.settings())
    parser.set_defaults(handler=lambda arguments: run(name, arguments))


def run(name: str, arguments: argparse.Namespace) -> int:
    """Run command ``name``; an option that the namespace lacks takes its default."""
    values = {option.name: getattr(arguments, option.name, option.default) for option in _options(name)}
    return exit_code_of(COMMANDS[name], **values)


@dataclass(frozen=True)
class _Option:
    name: str
    type: type
    default: Any
    required: bool
    repeatable: bool
    info: Any

    @property
    def is_positional(self) -> bool:
        return isinstance(self.info, ArgumentInfo)

    @property
    def flags(self) -> list[str]:
        # In the Annotated form, typer.Option() keeps its first flag where a default would be.
        declared = (self.info.default, *(self.info.param_decls or ()))
        flags = [flag for flag in declared if isinstance(flag, str) and flag.startswith("-")]
        return flags or ["--" + self.name.replace("_", "-")]

    @property
    def _help(self) -> str:
        hidden = getattr(self.info, "hidden", False)
        return argparse.SUPPRESS if hidden else (self.info.help or "").replace("%", "%%")

    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"default": self.default, "help": self._help}
        if self.type is bool:
            return {**settings, "action": "store_true"}
        settings.update(type=_converter(self), metavar=self.info.metavar)
        if not self.is_positional:
            settings["required"] = self.required
        elif not self.required:
            settings["nargs"] = "?"
        if issubclass(self.type, Enum):
            settings.update(choices=list(self.type), metavar="{" + ",".join(item.value for item in self.type) + "}")
        return {**settings, "action": "append"} if self.repeatable else settings


def _options(name: str) -> Iterator[_Option]:
    hints = get_type_hints(COMMANDS[name], include_extras=True)
    for parameter in inspect.signature(COMMANDS[name]).parameters.values():
        hint, info = get_args(hints[parameter.name])
        required = parameter.default is inspect.Parameter.empty
        members = [member for member in (get_args(hint) or (hint,)) if member is not NoneType]
        listed = next((part for part in (hint, *members) if get_origin(part) is list), None)
        yield _Option(
            name=parameter.name,
            type=members[0] if listed is None else get_args(listed)[0],
            default=None if required else parameter.default,
            required=required,
            repeatable=listed is not None,
            info=info,
        )


def _converter(option: _Option) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = option.type(text)
        for limit, wrong in ((option.info.min, "less"), (option.info.max, "more")):
            if limit is not None and ((value < limit) if wrong == "less" else (value > limit)):
                raise argparse.ArgumentTypeError(f"{text} is {wrong} than {limit}")
        return value

    convert.__name__ = option.type.__name__
    return convert
