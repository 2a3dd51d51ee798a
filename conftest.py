"""Test reports travel between processes, as UTF-8 text; some tests are about text that is none."""

import os
import signal
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about what else the machine does.
settings.register_profile("suite", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A developer's shell may hold a server's key and settings; to a test, nothing is set but what it sets itself.
for _name in [name for name in os.environ if name.upper().startswith(("OSMOSIS_", "ROLLOUT_", "OTEL_"))]:
    if not _name.startswith("OSMOSIS_TEST_"):
        del os.environ[_name]

# Started with `nohup` or `&`, the suite ignores Ctrl-C, and so would all that it starts; a handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGQUIT") and signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


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
