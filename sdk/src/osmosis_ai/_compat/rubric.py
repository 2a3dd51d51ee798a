"""Hosted rubric evaluation, which is not part of this SDK; the names stay importable, and nothing raises the errors."""

from typing import Any, NoReturn


class MissingAPIKeyError(RuntimeError):
    """No API key for the provider of a judging model."""


class ProviderRequestError(RuntimeError):
    """The provider of a judging model refused or failed a request."""


class ModelNotFoundError(ProviderRequestError):
    """The provider does not know the judging model."""


def evaluate_rubric(*args: Any, **kwargs: Any) -> NoReturn:
    """Not available; any arguments are accepted.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        "evaluate_rubric is not available: this SDK does not include hosted rubric evaluation;"
        " call a judging model in your own function and decorate that with @osmosis_rubric."
    )
