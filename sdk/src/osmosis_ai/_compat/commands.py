"""The commands as classes for an argparse program of one's own."""

import argparse
from typing import Any

from osmosis_ai._compat import parser as argparse_view
from osmosis_ai.cli.app import tell
from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.loading import load_agent_loop
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.run.evaluate.command import run_eval
from osmosis_ai.rollout.run.evaluate.options import Options as EvalOptions
from osmosis_ai.rollout.run.options import RunOptions
from osmosis_ai.rollout.run.test.command import run_test
from osmosis_ai.rollout.run.test.options import Options as TestOptions

__all__ = ["CLIError", "EvalCommand", "ServeCommand", "TestCommand", "ValidateCommand"]

_load_agent_loop = load_agent_loop


class _Command:
    _name: str

    def configure_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments, and the default ``handler``: namespace to exit code."""
        argparse_view.configure(parser, self._name)
        parser.set_defaults(handler=self.run)

    def run(self, args: argparse.Namespace) -> int:
        """Run the command; an argument that ``args`` lacks takes its default."""
        return argparse_view.run(self._name, args)


class ServeCommand(_Command):
    """``osmosis serve``."""

    _name = "serve"


class ValidateCommand(_Command):
    """``osmosis validate``."""

    _name = "validate"


class _RunCommand(_Command):
    """What prints on a ``console``: the ``sys.stdout`` of the moment it is made."""

    _options: type[RunOptions]
    _work: Any

    def __init__(self) -> None:
        self.console = Console()

    def _validate_args(self, args: argparse.Namespace) -> str | None:
        try:
            self._options.of(args).check()
        except UsageError as error:
            return str(error)
        return None

    async def _run_async(self, args: argparse.Namespace) -> int:
        try:
            code: int = await self._work(self._options.of(args), self.console)
        except CLIError as error:
            return tell(error)
        return code


class TestCommand(_RunCommand):
    """``osmosis test``."""

    __test__ = False
    _name = "test"
    _options = TestOptions
    _work = staticmethod(run_test)


class EvalCommand(_RunCommand):
    """``osmosis eval``."""

    _name = "eval"
    _options = EvalOptions
    _work = staticmethod(run_eval)
