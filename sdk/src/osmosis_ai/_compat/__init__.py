"""What only code written for 0.2 needs: its import paths, and what else it reaches into. Nothing builds on it.

The tables below are all there is of the old paths. An old module *is* the new one (``sys.modules`` has the same object
under both names), so that whoever replaces a name in one replaces it in the other. To drop the 0.2 line, delete this
package, the call of ``install`` and the exports from here in ``osmosis_ai`` and ``osmosis_ai.rollout``.
"""

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:  # importlib.abc loads a hundred times what these two do
    Loader = MetaPathFinder = object

# Old path -> new path. What lies below an old path lies below the new one, unless it has a line of its own.
MOVED = {
    "osmosis_ai.cli_services": "osmosis_ai.rollout.core.user_errors",
    "osmosis_ai.consts": "osmosis_ai.rollout.core.consts",
    "osmosis_ai.rubric_eval": "osmosis_ai._compat.rubric",
    "osmosis_ai.rubric_types": "osmosis_ai._compat.rubric",
    "osmosis_ai.utils": "osmosis_ai.rollout.core.reward_functions",
    "osmosis_ai._litellm_compat": "osmosis_ai.rollout.run.models.litellm",
    "osmosis_ai.cli.parser": "osmosis_ai._compat.parser",
    "osmosis_ai.rollout._compat": "osmosis_ai._compat.optional",
    "osmosis_ai.rollout.cli": "osmosis_ai._compat.commands",
    "osmosis_ai.rollout.cli_utils": "osmosis_ai.rollout.core.loading",
    "osmosis_ai.rollout.client": "osmosis_ai.rollout.wire.client",
    "osmosis_ai.rollout.config.settings": "osmosis_ai.rollout.core.settings",
    "osmosis_ai.rollout.console": "osmosis_ai.rollout.core.console",
    "osmosis_ai.rollout.eval.common.cli": "osmosis_ai._compat.eval_common_cli",
    "osmosis_ai.rollout.eval.common.dataset": "osmosis_ai.rollout.run.data.dataset",
    "osmosis_ai.rollout.eval.common.errors": "osmosis_ai.rollout.run.errors",
    "osmosis_ai.rollout.eval.common.llm_client": "osmosis_ai.rollout.run.models.llm_client",
    "osmosis_ai.rollout.eval.common.runner": "osmosis_ai.rollout.run.local_runner",
    "osmosis_ai.rollout.eval.evaluation": "osmosis_ai.rollout.run.evaluate",
    "osmosis_ai.rollout.eval.evaluation.report": "osmosis_ai.rollout.run.evaluate.terminal",
    "osmosis_ai.rollout.eval.evaluation.runner": "osmosis_ai.rollout.run.evaluate.eval_runner",
    "osmosis_ai.rollout.eval.test_mode": "osmosis_ai.rollout.run.test",
    "osmosis_ai.rollout.eval.test_mode.runner": "osmosis_ai.rollout.run.test.local_test_runner",
    "osmosis_ai.rollout.network": "osmosis_ai._compat.network",
    "osmosis_ai.rollout.registry": "osmosis_ai._compat.registry",
    "osmosis_ai.rollout.server.registration": "osmosis_ai._compat.registration",
    "osmosis_ai.rollout.test_mode.cli": "osmosis_ai.rollout.eval.test_mode.cli",
    "osmosis_ai.rollout.test_mode.dataset": "osmosis_ai.rollout.run.data.dataset",
    "osmosis_ai.rollout.test_mode.external_llm_client": "osmosis_ai.rollout.run.models.llm_client",
    "osmosis_ai.rollout.test_mode.interactive": "osmosis_ai.rollout.run.test.interactive",
    "osmosis_ai.rollout.test_mode.runner": "osmosis_ai.rollout.run.test.local_test_runner",
    "osmosis_ai.rollout.testing": "osmosis_ai.rollout.trainer.testing",
    "osmosis_ai.rollout.tools": "osmosis_ai.rollout.core.tools",
    "osmosis_ai.rollout.utils": "osmosis_ai.rollout.core.messages",
    "osmosis_ai.rollout.validator": "osmosis_ai.rollout.core.validator",
}

# Old path -> where the names are that it offers: all exports of a module, or those named (as what they were called).
OFFERED: dict[str, tuple[str, ...]] = {
    "osmosis_ai.cli": ("osmosis_ai._compat.parser:build_parser as _build_parser",),  # beside its own
    "osmosis_ai.rollout.config": ("osmosis_ai.rollout.core.settings",),
    "osmosis_ai.rollout.eval": (),
    "osmosis_ai.rollout.eval.common": ("osmosis_ai.rollout.run", "osmosis_ai._compat.eval_common_cli"),
    "osmosis_ai.rollout.eval.evaluation.cli": ("osmosis_ai._compat.commands:EvalCommand",),
    "osmosis_ai.rollout.eval.test_mode.cli": ("osmosis_ai._compat.commands:TestCommand",),
    "osmosis_ai.rollout.test_mode": (
        "osmosis_ai.rollout.run.data.dataset",
        "osmosis_ai.rollout.test_mode.exceptions",
        "osmosis_ai.rollout.run.models.llm_client",
        "osmosis_ai.rollout.run.test.interactive",
        "osmosis_ai.rollout.run.test.local_test_runner",
    ),
    "osmosis_ai.rollout.test_mode.exceptions": (
        "osmosis_ai.rollout.run.errors:DatasetParseError",
        "osmosis_ai.rollout.run.errors:DatasetValidationError",
        "osmosis_ai.rollout.run.errors:ProviderError",
        "osmosis_ai.rollout.run.errors:LocalExecutionError as TestModeError",
        "osmosis_ai.rollout.run.errors:ToolValidationError",
    ),
}


def install() -> None:
    """Make the old paths importable; a second call does nothing."""
    if not any(isinstance(finder, _OldPaths) for finder in sys.meta_path):
        # In front: below a moved package, the ordinary finder would load a second copy of each module.
        sys.meta_path.insert(0, _OldPaths())


class _OldPaths(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("osmosis_ai."):
            return None
        if fullname in OFFERED:
            own = PathFinder.find_spec(fullname, path)
            if own is None or not isinstance(own.loader, SourceFileLoader):
                return ModuleSpec(fullname, _Offering(OFFERED[fullname]), is_package=True)
            own.loader = _Offering(OFFERED[fullname], own.loader)
            return own
        old = fullname
        while old not in MOVED:
            old = old.rpartition(".")[0]
            if old in ("", "osmosis_ai"):
                return None
        return ModuleSpec(fullname, _Moved(MOVED[old] + fullname.removeprefix(old)))


class _Moved(Loader):
    """Gives the new module in place of one of its own."""

    def __init__(self, new: str) -> None:
        self._new = new
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self._new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which the import system has just replaced by that of the old path


class _Offering(Loader):
    """Gives a package, empty but for what its ``own`` loader finds, that looks other names up where they are now."""

    def __init__(self, offered: tuple[str, ...], own: SourceFileLoader | None = None) -> None:
        self._offered = offered
        self._own = own

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if self._own is not None:
            self._own.exec_module(module)
        own_names = vars(module).pop("__all__", ())

        def look_up(name: str) -> object:
            if name == "__all__":
                return sorted({*own_names, *(new for new, _, _ in self._names())})
            for new, home, attribute in self._names():
                if new == name:
                    return getattr(import_module(home), attribute)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = look_up  # type: ignore[method-assign]

    def _names(self) -> Iterator[tuple[str, str, str]]:
        """Each name, with the module that has it now, and what it is called there."""
        for entry in self._offered:
            home, _, named = entry.partition(":")
            for attribute in [named] if named else getattr(import_module(home), "__all__", ()):
                attribute, _, name = attribute.partition(" as ")
                yield name or attribute, home, attribute
