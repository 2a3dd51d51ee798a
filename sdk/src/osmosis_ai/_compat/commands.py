"""The commands as classes for an argparse program of one's own."""

import argparse
from collections.abc import Callable, Coroutine
from typing import Any

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.loading import load_agent_loop
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError

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


class _RunCommand(_Command):
    """What prints on a ``console``: the ``sys.stdout`` of the moment it is made."""

    def __init__(self) -> None:
        self.console = Console()

    def _library(self) -> tuple[Any, Callable[[Any, Console], Coroutine[Any, Any, int]]]:
        raise NotImplementedError

    def _validate_args(self, args: argparse.Namespace) -> str | None:
        try:
            self._library()[0].of(args).check()
        except UsageError as error:
            return str(error)
        return None

    async def _run_async(self, args: argparse.Namespace) -> int:
        from osmosis_ai.cli.app import tell

        options, work = self._library()
        try:
            return await work(options.of(args), self.console)
        except CLIError as error:
            return tell(error)


class TestCommand(_RunCommand):
    """``osmosis test``."""

    __test__ = False
    _name = "test"

    def _library(self) -> tuple[Any, Callable[[Any, Console], Coroutine[Any, Any, int]]]:
        from osmosis_ai.rollout.run.test.command import run_test
        from osmosis_ai.rollout.run.test.options import Options

        return Options, run_test


class EvalCommand(_RunCommand):
    """``osmosis eval``."""

    _name = "eval"

    def _library(self) -> tuple[Any, Callable[[Any, Console], Coroutine[Any, Any, int]]]:
        from osmosis_ai.rollout.run.evaluate.command import run_eval
        from osmosis_ai.rollout.run.evaluate.options import Options

        return Options, run_eval
