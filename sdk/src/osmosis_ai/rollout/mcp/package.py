"""A directory as a package of its own, so that its imports neither see nor disturb those of the rest of the process.

The modules of the directory live in ``sys.modules`` below a synthetic package, whatever way they are imported: as
``from .helpers import x`` or, as scripts do, ``import helpers``. The plain names are resolved by the ``__import__``
that the modules are given as a builtin, hence also later, inside functions. No plain name of the directory is left in
``sys.modules``, and ``sys.path`` is what it was.
"""

import builtins
import hashlib
import importlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

NAME_PREFIX = "_osmosis_mcp_"

# sys.path and sys.modules belong to the whole process.
_loading = threading.RLock()


class DirectoryPackage:
    """The package of ``directory``, an absolute path; nothing happens before ``load``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = NAME_PREFIX + hashlib.sha256(str(directory).encode()).hexdigest()[:8]
        self.builtins = {**vars(builtins), "__import__": self._import}

    def load(self, module_name: str) -> ModuleType:
        """Import a module of the directory from its file, and whatever it imports of the directory with it.

        Raises:
            BaseException: what the module raises; nothing of the package is left then.
        """
        with _loading:
            self._forget()
            # Files may have been written since Python last listed the directory.
            importlib.invalidate_caches()
            _finder.packages[self.name] = self
            if _finder not in sys.meta_path:
                sys.meta_path.insert(0, _finder)
            sys.modules[self.name] = self._new_package()
            try:
                with self._plain_imports():
                    return importlib.import_module(f"{self.name}.{module_name}")
            except BaseException:
                self._forget()
                raise

    def holds(self, name: str) -> bool:
        """Whether a plain ``import name`` means a module of the directory."""
        if f"{self.name}.{name}" in sys.modules:
            return True
        if name in sys.builtin_module_names:
            return False
        spec = PathFinder.find_spec(name, [str(self.directory)])
        if spec is None or spec.origin is not None:
            return spec is not None
        return _is_unknown_elsewhere(name)  # a mere folder comes last, as it does on sys.path

    def own_text(self, text: str) -> str:
        """``text`` with the modules under the names their author knows."""
        return text.replace(f"{self.name}.", "").replace(self.name, self.directory.name)

    def spec(self, full_name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """Where a module below the package is, by its full name."""
        spec = PathFinder.find_spec(full_name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _ScopedLoader(full_name, spec.loader.path, self)
        return spec

    def _new_package(self) -> ModuleType:
        module = ModuleType(self.name)
        module.__path__ = [str(self.directory)]
        module.__package__ = self.name
        module.__spec__ = ModuleSpec(self.name, None, is_package=True)
        module.__spec__.submodule_search_locations = module.__path__
        return module

    def _forget(self) -> None:
        for name in [name for name in sys.modules if name == self.name or name.startswith(f"{self.name}.")]:
            del sys.modules[name]

    @contextmanager
    def _plain_imports(self) -> Iterator[None]:
        """Have the directory first on ``sys.path``, and its names out of ``sys.modules``, while it is imported."""
        # Both, as the module may put in another list or change this one.
        path, entries = sys.path, list(sys.path)
        names = self._top_level_names()
        hidden = _take_modules(names)
        path.insert(0, str(self.directory))
        outer, _finder.loading = _finder.loading, (self, threading.get_ident())
        try:
            yield
        finally:
            _finder.loading = outer
            _take_modules(names)
            sys.modules.update(hidden)
            sys.path = path
            sys.path[:] = entries

    def _top_level_names(self) -> set[str]:
        stems = {entry.name.partition(".")[0] for entry in self.directory.iterdir()}
        # The standard library stays visible: whatever else is imported meanwhile needs it.
        candidates = {stem for stem in stems if stem.isidentifier()} - sys.stdlib_module_names
        return {name for name in candidates if self.holds(name)}

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names that __import__ has
        locals: Mapping[str, Any] | None = None,  # noqa: A002 - as above
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or not self.holds(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist or (), 0)
        return module if fromlist else sys.modules[f"{self.name}.{top}"]


class _Finder(MetaPathFinder):
    """Finds the modules of all packages, and those of the one being loaded under their plain names as well."""

    def __init__(self) -> None:
        self.packages: dict[str, DirectoryPackage] = {}
        self.loading: tuple[DirectoryPackage, int] | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        package = self.packages.get(top)
        if package is not None:
            return package.spec(fullname, path) if rest else None
        if self.loading is None:
            return None
        package, thread = self.loading
        # Another thread that imports meanwhile means the ordinary modules.
        if thread == threading.get_ident() and top not in sys.stdlib_module_names and package.holds(top):
            return ModuleSpec(fullname, _AliasLoader(f"{package.name}.{fullname}"))
        return None


_finder = _Finder()


class _ScopedLoader(SourceFileLoader):
    """Runs a module with the package's ``__import__``, from its source as it is on disk now."""

    def __init__(self, full_name: str, path: str, package: DirectoryPackage) -> None:
        super().__init__(full_name, path)
        self._package = package

    def get_code(self, fullname: str) -> Any:
        # A compiled file would be taken for current when the source changed within the same second.
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._package.builtins
        super().exec_module(module)


class _AliasLoader(Loader):
    """Gives a module that was loaded under ``full_name``, for the likes of ``importlib.import_module("helpers")``."""

    def __init__(self, full_name: str) -> None:
        self._full_name = full_name
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._full_name)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec


def _take_modules(top_level_names: set[str]) -> dict[str, ModuleType]:
    """Remove these modules and all below them; return what was removed."""
    names = [name for name in sys.modules if name.partition(".")[0] in top_level_names]
    return {name: sys.modules.pop(name) for name in names}


def _is_unknown_elsewhere(name: str) -> bool:
    specs = (finder.find_spec(name, None) for finder in sys.meta_path if finder is not _finder)
    return not any(spec is not None and spec.origin is not None for spec in specs)
