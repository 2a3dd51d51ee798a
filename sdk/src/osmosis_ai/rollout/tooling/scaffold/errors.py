"""What making a project raises: one sentence that says what is wrong and what to do."""


class ScaffoldError(Exception):
    """The project cannot be made; nothing was overwritten."""
