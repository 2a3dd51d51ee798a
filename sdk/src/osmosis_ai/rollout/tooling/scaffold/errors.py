"""What making a project raises: one sentence that says what is wrong and what to do."""

from osmosis_ai.rollout.core.user_errors import CLIError


class ScaffoldError(CLIError):
    """The project cannot be made; nothing was overwritten."""
