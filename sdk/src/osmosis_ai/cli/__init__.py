"""The ``osmosis`` program: ``app`` is the Typer application, ``options`` its options; one module a command."""

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command line (default ``sys.argv[1:]``) and return its exit code.

    Raises:
        SystemExit: 0 after ``--help`` and ``--version``, 2 for a command line that cannot be understood.
    """
    from osmosis_ai.cli.app import run

    return run(argv)
