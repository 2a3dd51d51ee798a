"""LiteLLM's own objects under their own names, imported when first asked for.

Importing LiteLLM takes seconds, and left to itself it downloads a price list and loads a ``.env`` file.
``import_litellm`` is the one place that loads it, with both switched off, and its warnings.
"""

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    APIConnectionError: Any
    APIError: Any
    AuthenticationError: Any
    BudgetExceededError: Any
    ContextWindowExceededError: Any
    NotFoundError: Any
    RateLimitError: Any
    Timeout: Any
    acompletion: Any
    completion: Any

__all__ = [
    "APIConnectionError",
    "APIError",
    "AuthenticationError",
    "BudgetExceededError",
    "ContextWindowExceededError",
    "NotFoundError",
    "RateLimitError",
    "Timeout",
    "acompletion",
    "completion",
]

_OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}


def import_litellm() -> ModuleType:
    """Whatever ``litellm`` is at this moment, imported without touching the network.

    Raises:
        ImportError: LiteLLM, or something it needs, is not installed.
    """
    for variable, value in _OFFLINE.items():
        os.environ.setdefault(variable, value)
    return import_module("litellm")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_litellm(), name)
    globals()[name] = value
    return value
