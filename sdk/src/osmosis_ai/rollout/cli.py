"""The commands as classes for an argparse program of one's own. Spec: server.md, section 12."""

import argparse

from osmosis_ai.rollout.cli_utils import CLIError, load_agent_loop

__all__ = ["CLIError", "ServeCommand", "ValidateCommand"]

_load_agent_loop = load_agent_loop


class _Command:
    _name: str

    def configure_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments, and the default ``handler``: namespace to exit code."""
        from osmosis_ai.cli.parser import configure

        configure(parser, self._name)
        parser.set_defaults(handler=self.run)

    def run(self, args: argparse.Namespace) -> int:
        """Run the command; an argument that ``args`` lacks takes its default."""
        from osmosis_ai.cli.parser import run

        return run(self._name, args)


class ServeCommand(_Command):
    """``osmosis serve``."""

    _name = "serve"


class ValidateCommand(_Command):
    """``osmosis validate``."""

    _name = "validate"
