"""The errors that a user can put right, and the one rule how they end a command.

The text of each is one sentence that says what is wrong and what to do. A command shows it as ``Error: <text>`` on
standard error (``osmosis_ai.cli.app``) and ends with 2 where the command line is wrong, with 1 where anything else is.
"""


class CLIError(Exception):
    """Root of all errors whose text is for the user; exit code 1."""


class UsageError(CLIError):
    """The command line contradicts itself, lacks something or names a file that is not there; exit code 2."""
