"""The error every `osmosis` command ends with when the user can put it right."""


class CLIError(Exception):
    """Root of the command line's own errors: one sentence, shown as ``Error: <text>``; the exit code is 1."""


class UsageError(CLIError):
    """The command line contradicts itself, or lacks something; exit code 2."""
