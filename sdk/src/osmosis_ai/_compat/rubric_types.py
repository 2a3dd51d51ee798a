"""Errors of hosted rubric evaluation, kept so that existing imports and ``except`` clauses keep working.

Hosted rubric evaluation is not part of this SDK: nothing here raises them.
"""


class ProviderRequestError(RuntimeError):
    """The provider of a judging model refused or failed a request."""


class ModelNotFoundError(ProviderRequestError):
    """The provider does not know the judging model."""
