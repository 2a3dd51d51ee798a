"""The errors of this project; each message is one sentence for the user."""


class TrainingError(Exception):
    """Something the user can put right: a flag, a file, a missing package."""
