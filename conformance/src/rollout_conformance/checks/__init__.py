"""The checks, a module for each group or two; importing any puts all checks into the catalogue."""

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
    "cancels",
    "refused",
    "load",
    "ids",
    "restart",
    "drain",
    "limits",
)

# In this order however one of them is come by, as reports and the page list the checks as they were put in.
for _name in _MODULES:
    import_module(f"{__name__}.{_name}")
