"""The checks, a module for each group or two; importing one puts its checks into the catalogue."""

from importlib import import_module

_MODULES = (
    "init",
    "auth",
    "invalid",
    "idempotency",
    "callbacks",
    "chat",
    "chat_calls",
    "tools",
    "completed",
    "errors",
    "retries",
    "delivery",
    "delays",
    "wire",
    "state",
    "refused",
    "load",
    "ids",
    "restart",
    "drain",
    "limits",
)


def load() -> None:
    """Import every module of checks."""
    for name in _MODULES:
        import_module(f"{__name__}.{name}")
