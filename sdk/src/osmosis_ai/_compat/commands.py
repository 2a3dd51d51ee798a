"""The commands as classes for an argparse program of one's own."""

import argparse
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.loading import CLIError, load_agent_loop

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.evaluate import cli as evaluation_cli
    from osmosis_ai.rollout.run.test import cli as test_mode_cli

__all__ = ["CLIError", "EvalCommand", "ServeCommand", "TestCommand", "ValidateCommand"]

_load_agent_loop = load_agent_loop


class _Command:
    _name: str

    def configure_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments, and the default ``handler``: namespace to exit code."""
        from osmosis_ai._compat.parser import configure

        configure(parser, self._name)
        parser.set_defaults(handler=self.run)

    def run(self, args: argparse.Namespace) -> int:
        """Run the command; an argument that ``args`` lacks takes its default."""
        from osmosis_ai._compat.parser import run

        return run(self._name, args)


class ServeCommand(_Command):
    """``osmosis serve``."""

    _name = "serve"


class ValidateCommand(_Command):
    """``osmosis validate``."""

    _name = "validate"


class TestCommand:
    """``osmosis test``; the command itself is loaded when its parser is configured."""

    __test__ = False
    _impl: "test_mode_cli.TestCommand"

    def configure_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments, and the default ``handler``: namespace to exit code."""
        from osmosis_ai.rollout.run.test.cli import TestCommand as Command

        self._impl = Command()
        self._impl.configure_parser(parser)


class EvalCommand:
    """``osmosis eval``; the command itself is loaded when its parser is configured."""

    _impl: "evaluation_cli.EvalCommand"

    def configure_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments, and the default ``handler``: namespace to exit code."""
        from osmosis_ai.rollout.run.evaluate.cli import EvalCommand as Command

        self._impl = Command()
        self._impl.configure_parser(parser)
