"""The public surface: what the packages export that users import from."""

from importlib import import_module

PACKAGES = (
    "osmosis_ai",
    "osmosis_ai.rollout",
    "osmosis_ai.rollout.run",
    "osmosis_ai.rollout.run.evaluate",
    "osmosis_ai.rollout.run.test",
    "osmosis_ai.rollout.mcp",
    "osmosis_ai.rollout.server",
    "osmosis_ai.rollout.trainer.testing",
    "osmosis_ai.rollout.trainer",
)


def exported_names() -> set[str]:
    """What they export, but for the version."""
    return {name for package in PACKAGES for name in import_module(package).__all__} - {"__version__"}
