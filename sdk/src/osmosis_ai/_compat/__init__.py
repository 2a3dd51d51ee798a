"""What only code written for 0.2 needs: its import paths, and what else it reaches into. Nothing builds on it.

The tables below are all there is of the old paths. An old module *is* the new one (``sys.modules`` has the same object
under both names), so that whoever replaces a name in one replaces it in the other. To drop the 0.2 line, delete this
package, the call of ``install`` and the exports from here in ``osmosis_ai`` and ``osmosis_ai.rollout``.
"""

import sys
from collections.abc import Sequence
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
    "osmosis_ai.rubric_eval": "osmosis_ai._compat.rubric_eval",
    "osmosis_ai.rubric_types": "osmosis_ai._compat.rubric_types",
    "osmosis_ai.utils": "osmosis_ai.rollout.core.reward_functions",
    "osmosis_ai._litellm_compat": "osmosis_ai.rollout.run.models.litellm",
    "osmosis_ai.cli.parser": "osmosis_ai._compat.parser",
    "osmosis_ai.rollout._compat": "osmosis_ai.rollout.core.optional",
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
    "osmosis_ai.rollout.eval.evaluation.cli": "osmosis_ai._compat.eval_command",
    "osmosis_ai.rollout.eval.evaluation.report": "osmosis_ai.rollout.run.evaluate.terminal",
    "osmosis_ai.rollout.eval.evaluation.runner": "osmosis_ai.rollout.run.evaluate.eval_runner",
    "osmosis_ai.rollout.eval.test_mode": "osmosis_ai.rollout.run.test",
    "osmosis_ai.rollout.eval.test_mode.cli": "osmosis_ai._compat.test_command",
    "osmosis_ai.rollout.eval.test_mode.runner": "osmosis_ai.rollout.run.test.local_test_runner",
    "osmosis_ai.rollout.network": "osmosis_ai._compat.network",
    "osmosis_ai.rollout.registry": "osmosis_ai._compat.registry",
    "osmosis_ai.rollout.server.registration": "osmosis_ai._compat.registration",
    "osmosis_ai.rollout.test_mode.cli": "osmosis_ai._compat.test_command",
    "osmosis_ai.rollout.test_mode.dataset": "osmosis_ai.rollout.run.data.dataset",
    "osmosis_ai.rollout.test_mode.exceptions": "osmosis_ai._compat.test_mode_exceptions",
    "osmosis_ai.rollout.test_mode.external_llm_client": "osmosis_ai.rollout.run.models.llm_client",
    "osmosis_ai.rollout.test_mode.interactive": "osmosis_ai.rollout.run.test.interactive",
    "osmosis_ai.rollout.test_mode.runner": "osmosis_ai.rollout.run.test.local_test_runner",
    "osmosis_ai.rollout.testing": "osmosis_ai.rollout.trainer.testing",
    "osmosis_ai.rollout.tools": "osmosis_ai.rollout.core.tools",
    "osmosis_ai.rollout.utils": "osmosis_ai.rollout.core.messages",
    "osmosis_ai.rollout.validator": "osmosis_ai.rollout.core.validator",
}

# Old packages that are no package any more -> the modules whose exports they offer.
DISSOLVED = {
    "osmosis_ai.rollout.config": ("osmosis_ai.rollout.core.settings",),
    "osmosis_ai.rollout.eval": (),
    "osmosis_ai.rollout.eval.common": ("osmosis_ai.rollout.run", "osmosis_ai._compat.eval_common_cli"),
    "osmosis_ai.rollout.test_mode": (
        "osmosis_ai.rollout.run.data.dataset",
        "osmosis_ai._compat.test_mode_exceptions",
        "osmosis_ai.rollout.run.models.llm_client",
        "osmosis_ai.rollout.run.test.interactive",
        "osmosis_ai.rollout.run.test.local_test_runner",
    ),
}

# Old names in modules that stay -> where they are.
ADDED = {"osmosis_ai.cli": {"_build_parser": "osmosis_ai._compat.parser:build_parser"}}


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
        if fullname in ADDED:
            return _with_names(fullname, path)
        if fullname in DISSOLVED:
            return ModuleSpec(fullname, _Dissolved(DISSOLVED[fullname]), is_package=True)
        old = fullname
        while old not in MOVED:
            old = old.rpartition(".")[0]
            if old in ("", "osmosis_ai"):
                return None
        return ModuleSpec(fullname, _Moved(MOVED[old] + fullname.removeprefix(old)))


def _with_names(fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """The ordinary spec, of a module that also looks up its old names."""
    spec = PathFinder.find_spec(fullname, path)
    if spec is not None and isinstance(loader := spec.loader, SourceFileLoader):
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            def look_up(name: str) -> object:
                if name not in ADDED[fullname]:
                    raise AttributeError(f"module {fullname!r} has no attribute {name!r}")
                home, _, attribute = ADDED[fullname][name].partition(":")
                return getattr(import_module(home), attribute)

            module.__getattr__ = look_up  # type: ignore[method-assign]
            run(module)
            vars(module)["__all__"] = [*vars(module)["__all__"], *ADDED[fullname]]

        loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec


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


class _Dissolved(Loader):
    """Gives an empty package that looks its names up where they are now."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._modules = modules

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        def look_up(name: str) -> object:
            offered = list(map(import_module, self._modules))
            if name == "__all__":
                return sorted({name for new in offered for name in getattr(new, "__all__", ())})
            for new in offered:
                if name in getattr(new, "__all__", ()):
                    return getattr(new, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = look_up  # type: ignore[method-assign]
