"""What holds for every test: how many examples, which signals, and that reports are UTF-8 text."""

import gc
import os
import re
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

# Without bytecode each of hundreds of processes compiles the same packages, for as long as it then runs. Where none is
# to be written beside the source, what is imported until the tests begin goes here; the processes find it there.
MAY_WRITE_BYTECODE = not sys.dont_write_bytecode
if not MAY_WRITE_BYTECODE:
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parent / "build" / "bytecode")
    sys.dont_write_bytecode = False

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

_ALL_SLOW = re.compile(rb"^pytestmark = .*\bmark\.slow\b", re.MULTILINE)

# How long an example takes says more about what else the machine does.
settings.register_profile("suite", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("suite"), max_examples=30)

# A developer's shell may hold a server's key and settings; to a test, nothing is set but what it sets itself.
for _name in [name for name in os.environ if name.upper().startswith(("OSMOSIS_", "ROLLOUT_", "OTEL_"))]:
    if not _name.startswith("OSMOSIS_TEST_"):
        del os.environ[_name]
if "PYTEST_XDIST_WORKER" in os.environ:  # which has them now; they are not for the projects whose tests a test runs
    os.environ.pop("PYTEST_ADDOPTS", None)

# Started with `nohup` or `&`, the suite ignores Ctrl-C, and so would all that it starts; a handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGQUIT") and signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def is_quick(config: pytest.Config) -> bool:
    """Whether the slow tests are left out."""
    return bool(config.option.markexpr == "not slow")


def pytest_configure(config: pytest.Config) -> None:
    """Where slow tests run too, properties are tried with all the examples that Hypothesis thinks right."""
    settings.load_profile("quick" if is_quick(config) else "suite")


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """Quick tests wait for servers and sockets a sixth of their time: one process more than cores fills it."""
    cores = yield
    return cores + 1 if is_quick(config) else cores


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file whose tests are all slow is not imported by every worker, only to be left out."""
    if not is_quick(config) or collection_path.suffix != ".py":
        return None
    return _ALL_SLOW.search(collection_path.read_bytes()) is not None or None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    # Nine thousand tests and all they import stay to the end: nobody need look for garbage among them, now or later.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(50_000, 50, 50)  # seldom: looking for it took a tenth of their time
        # A module that a test writes twice within a second must not be found as it was first.
        sys.dont_write_bytecode = not MAY_WRITE_BYTECODE


@pytest.fixture(scope="module", autouse=True)
def forget_settings() -> Iterator[None]:
    """What a file of tests has set for its whole process ends with it: which files share a process is chance."""
    yield
    core = "osmosis_ai.rollout.core"
    if f"{core}.settings" in sys.modules:
        sys.modules[f"{core}.settings"].reset_settings()
    if f"{core}.schemas" in sys.modules:
        vars(sys.modules[f"{core}.schemas"])["_max_metadata_size_bytes"] = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.sections = [(name, _printable(content)) for name, content in report.sections]
    if report.longrepr is not None and _printable(report.longreprtext) != report.longreprtext:
        report.longrepr = _printable(report.longreprtext)
    return report


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
