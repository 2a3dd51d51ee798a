"""The ``osmosis`` program.

``app`` is the Typer application, one module a command; ``parser`` offers the same commands to argparse.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["_build_parser", "main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command line (default ``sys.argv[1:]``) and return its exit code.

    Raises:
        SystemExit: 0 after ``--help`` and ``--version``, 2 for a command line that cannot be understood.
    """
    from osmosis_ai.cli.app import run

    return run(argv)


def _build_parser() -> "argparse.ArgumentParser":
    """The commands as an argparse parser; a parsed namespace carries the command as ``handler``."""
    from osmosis_ai._compat.parser import build_parser

    return build_parser()
