"""What runs the server: Python, this SDK, the packages of its extras, the limit of open files."""

import importlib.metadata
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from osmosis_ai.rollout.core.consts import PACKAGE_FOLDER, PACKAGE_VERSION, package_name
from osmosis_ai.rollout.journal.postgres.address import is_postgres
from osmosis_ai.rollout.tooling.doctor.case import Case, check
from osmosis_ai.rollout.tooling.doctor.types import Finding, ok, problem, warning

SPARE_FILES = 128
"""For the journal, the logs, and connections that are about to be closed."""

# Of the extra "server": without these, it serves more slowly, or without --reload.
_DISPENSABLE = frozenset({"uvloop", "httptools", "watchfiles"})
_REQUIREMENT = re.compile(r"""(?P<name>[\w.-]+).*;.*\bextra\s*==\s*["'](?P<extra>[\w-]+)["']""")
_REQUIRES_PYTHON = re.compile(r"""^requires-python\s*=\s*["']\s*>=\s*(\d+)\.(\d+)""", re.MULTILINE)


@check("python", "Python is new enough, and the project's own")
def check_python(case: Case) -> Finding:
    version = "{}.{}.{}".format(*sys.version_info[:3])
    with suppress(OSError, UnicodeDecodeError):
        asked = _REQUIRES_PYTHON.search(Path("pyproject.toml").read_text(encoding="utf-8"))
        if asked and sys.version_info[:2] < (int(asked[1]), int(asked[2])):
            return problem(
                f"Python {version} is older than the {asked[1]}.{asked[2]} that pyproject.toml asks for.",
                f"Run it with a newer one, as in uv run --python {asked[1]}.{asked[2]} osmosis doctor.",
            )
    own = Path(".venv")
    with suppress(OSError):
        if (own / "pyvenv.cfg").is_file() and not own.samefile(sys.prefix):
            return warning(
                f"Python {version} of {sys.prefix} runs, not that of this folder's .venv: packages may differ.",
                "Use uv run osmosis ..., or activate .venv.",
            )
    return ok(f"Python {version}.")


@check("sdk", "no other product is installed under this SDK's name")
def check_sdk(case: Case) -> Finding:
    here = Path(PACKAGE_FOLDER)
    try:
        installed = importlib.metadata.version(package_name)
    except importlib.metadata.PackageNotFoundError:
        return warning(
            f"{here} runs, but no package {package_name} is installed: what depends on it may bring another one.",
            "Install this SDK, as in uv sync, or uv pip install PATH_OF_SDK.",
        )
    if installed != PACKAGE_VERSION:
        return problem(
            f"{package_name} {installed} is installed, but {PACKAGE_VERSION} of {here} runs: two under one name.",
            f"Remove the other one (uv pip uninstall {package_name}), or take {here.parent} off PYTHONPATH.",
        )
    on_path = shutil.which("osmosis")
    if on_path and not Path(on_path).resolve().parent.samefile(Path(sys.executable).parent):
        return warning(
            f"The command osmosis is {on_path}, and not the one beside {sys.executable}.",
            "Use uv run osmosis ..., or activate the environment you mean.",
        )
    return ok(f"{package_name} {PACKAGE_VERSION}.")


@check("extras", "the packages that are needed are installed")
def check_extras(case: Case) -> Finding:
    extras = ["server"]
    if case.setup.mcp is not None:
        extras.append("mcp")
    if case.setup.model is not None and not case.setup.model.startswith("builtin/"):
        extras.append("llm")
    if is_postgres(case.journal):
        extras.append("postgres")
    missing = {extra: sorted(missing_packages(extra) - _DISPENSABLE) for extra in extras}
    lacking = [extra for extra in extras if missing[extra]]
    if lacking:
        names = ", ".join(name for extra in lacking for name in missing[extra])
        return problem(
            f"Not installed: {names}.", f"Install them: uv add '{package_name}[{','.join(lacking)}]' (or pip install)."
        )
    return ok(f"Extras that are needed here: {', '.join(extras)}.")


@check("fast-http", "uvloop, httptools and watchfiles are installed")
def check_fast_http(case: Case) -> Finding:
    missing = sorted(missing_packages("server") & _DISPENSABLE)
    if missing:
        return warning(
            f"Not installed: {', '.join(missing)}; it serves, but more slowly, or without --reload.",
            f"Install them: uv add '{package_name}[server]' (or pip install).",
        )
    return ok(f"{', '.join(sorted(_DISPENSABLE))}.")


def missing_packages(extra: str) -> set[str]:
    """What ``extra`` of this SDK asks for and is not installed, by the SDK's own metadata."""
    try:
        requirements = importlib.metadata.requires(package_name) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    missing = set()
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None or match["extra"] != extra or ("win32" in requirement and sys.platform == "win32"):
            continue
        try:
            importlib.metadata.version(match["name"])
        except importlib.metadata.PackageNotFoundError:
            missing.add(match["name"])
    return missing


@check("open-files", "enough files may be open")
def check_open_files(case: Case) -> Finding:
    try:
        import resource
    except ImportError:
        return ok("This system sets no limit.")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    rollouts = case.settings.server.max_concurrent_rollouts
    needed = 2 * rollouts + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        fitting = max((hard - SPARE_FILES) // 2, 1)
        return warning(
            f"At most {hard} files may be open, and {rollouts} rollouts at once may need {needed}.",
            f"Raise the limit (ulimit -Hn {needed}), or set OSMOSIS_ROLLOUT_SERVER_MAX_CONCURRENT_ROLLOUTS={fitting}.",
        )
    return ok(f"{'Any number' if hard == resource.RLIM_INFINITY else hard}, enough for {rollouts} rollouts at once.")
