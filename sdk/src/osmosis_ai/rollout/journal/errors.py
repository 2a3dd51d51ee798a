"""What a journal raises: always one sentence that says what is wrong, where, and what to do."""

from osmosis_ai.rollout.core.user_errors import CLIError, UsageError


class JournalError(CLIError):
    """The journal could not do what was asked, and has not done part of it."""


class JournalDamagedError(JournalError):
    """What was written cannot be read: nothing new is promised on it."""


class NoJournalError(JournalError, UsageError):
    """There is no journal where one was named."""


class UnknownKeyError(JournalError):
    """The journal has no record under this key, though a result or an acknowledgement came for it."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The journal has no record under the key {key!r}: it was pruned, purged or never accepted.")
        self.key = key
