"""The example at the top of the repository goes into what is built, where ``osmosis init`` finds it.

A wheel and a source archive that are built from a checkout get the files from beside ``sdk/``. A source archive has
them in the package already, so that a wheel built from it has them too.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROJECT = "osmosis_ai/rollout/tooling/scaffold/project"
EXAMPLE_FILES = ("server.py", "tools.py", "rewards.py", "test_data.jsonl", "deploy/Containerfile", ".dockerignore")


class ExampleHook(BuildHookInterface):  # type: ignore[misc]
    """Adds them, or refuses to build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a build; an editable one uses the checkout as it is."""
        package = Path(self.root, "src", PROJECT)
        if version == "editable" or all((package / name).is_file() for name in EXAMPLE_FILES):
            return
        folder = f"src/{PROJECT}" if self.target_name == "sdist" else PROJECT
        for name in EXAMPLE_FILES:
            source = Path(self.root).parent / name
            if not source.is_file():
                raise FileNotFoundError(f"{source} is missing: build the SDK in a whole checkout.")
            build_data["force_include"][str(source)] = f"{folder}/{name}"
