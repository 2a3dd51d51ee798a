"""``pytest -p rollout_conformance.pytest --osmosis-server URL``: each check of the conformance kit is a test.

No entry point names this module: a project that wants it says so, by ``-p`` or by ``pytest_plugins`` in its top
``conftest.py``. Without ``--osmosis-server`` it adds nothing.

The checks run at once in a thread that starts with the first of them; a test waits for its own result.
"""

import asyncio
import os
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from rollout_conformance.baseline import read
from rollout_conformance.catalogue import select
from rollout_conformance.options import DEFAULT_TIMEOUT_SECONDS, SERVER_KEY_VARIABLE, KitOptions
from rollout_conformance.report_formats import explanation
from rollout_conformance.vocabulary import Check, Report, Result, Status, UsageError

MARK = "osmosis_conformance"
_RUN = pytest.StashKey["_Run"]()


class ConformanceWarning(UserWarning):
    """A SHOULD of the protocol that does not hold."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; keys come from the environment too."""
    group = parser.getgroup("osmosis conformance")
    group.addoption("--osmosis-server", metavar="URL", help="Judge the rollout server at this address.")
    group.addoption("--osmosis-api-key", metavar="KEY", help=f"The server's key [default: {SERVER_KEY_VARIABLE}].")
    group.addoption("--osmosis-only", metavar="CHECK", action="append", default=[], help="Ids, groups or patterns.")
    group.addoption("--osmosis-skip", metavar="CHECK", action="append", default=[], help="Ids, groups or patterns.")
    strict = "A SHOULD that does not hold fails too, and so does what was not exercised."
    group.addoption("--osmosis-strict", action="store_true", help=strict)
    group.addoption("--osmosis-baseline", type=Path, metavar="FILE", help="Checks that may fail, one a line.")
    about = "Longest wait for any one thing."
    group.addoption("--osmosis-timeout", type=float, default=DEFAULT_TIMEOUT_SECONDS, metavar="S", help=about)


def pytest_configure(config: pytest.Config) -> None:
    """The mark of the checks: ``-m osmosis_conformance`` runs nothing else."""
    config.addinivalue_line("markers", f"{MARK}: a check of a rollout server (--osmosis-server).")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the checks to what was collected, before ``-k`` and ``-m`` choose."""
    if not config.getoption("osmosis_server"):
        return
    try:
        checks = select(config.getoption("osmosis_only"), config.getoption("osmosis_skip"))
        _expected_failures(config)
    except UsageError as error:
        raise pytest.UsageError(re.sub(r"--(only|skip|baseline)", r"--osmosis-\1", str(error))) from None
    group = ConformanceChecks.from_parent(session, name="conformance", path=config.rootpath)
    items += [ConformanceItem.from_parent(group, name=check.id, check=check) for check in checks]


def pytest_runtestloop(session: pytest.Session) -> None:
    """Run what is still there after the choice, and no more."""
    checks = [item.check for item in session.items if isinstance(item, ConformanceItem)]
    if checks and not session.config.getoption("collectonly"):
        session.config.stash[_RUN] = _Run(session.config, checks)


def _expected_failures(config: pytest.Config) -> frozenset[str]:
    path: Path | None = config.getoption("osmosis_baseline")
    return frozenset() if path is None else read(path)


class ConformanceChecks(pytest.Collector):
    """The parent of the checks in pytest's tree."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Nothing by itself: ``pytest_collection_modifyitems`` makes the items."""
        return []


class ConformanceItem(pytest.Item):
    """One check."""

    def __init__(self, *, check: Check, **more: Any) -> None:
        super().__init__(**more)
        self.check = check
        self.add_marker(MARK)

    def runtest(self) -> None:
        """Wait for the check's result, and tell it."""
        result = self.config.stash[_RUN].result_of(self.check)
        if result.is_failure(strict=self.config.getoption("osmosis_strict")):
            if self.check.id in self.config.stash[_RUN].expected_failures:
                pytest.xfail(result.reason)
            raise BrokenPromise(result)
        if result.status in (Status.SKIPPED, Status.NOT_EXERCISED):
            pytest.skip(result.reason)
        if result.is_warning:
            warnings.warn(ConformanceWarning(f"{self.check.id}: {result.reason}"), stacklevel=1)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The reason, without a traceback of ours."""
        if isinstance(excinfo.value, BrokenPromise):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """How the check is called in a report."""
        return Path(__file__), None, f"conformance: {self.check.id}"


class BrokenPromise(Exception):  # noqa: N818 - a verdict
    """The check did not hold."""

    def __init__(self, result: Result) -> None:
        check = result.check
        reason = f"not exercised: {result.reason}" if result.status is Status.NOT_EXERCISED else result.reason
        lines = (reason, *explanation(result), f"protocol, section {check.section} ({check.level})")
        super().__init__("\n".join(lines))


class _Run:
    """The kit in a thread of its own, and the results as they come."""

    def __init__(self, config: pytest.Config, checks: list[Check]) -> None:
        self._config = config
        self._checks = checks
        self.expected_failures = _expected_failures(config)
        self._results: dict[str, Result] = {}
        self._error: Exception | None = None
        self._is_over = False
        self._news = threading.Condition()
        threading.Thread(target=self._run, name=MARK, daemon=True).start()

    def result_of(self, check: Check) -> Result:
        with self._news:
            self._news.wait_for(lambda: check.id in self._results or self._is_over)
        if check.id not in self._results:
            pytest.fail(str(self._error or "the conformance kit ended early"), pytrace=False)
        return self._results[check.id]

    def _run(self) -> None:
        try:
            asyncio.run(self._report())
        except Exception as error:  # noqa: BLE001 - told by every test that waits
            self._error = error
        with self._news:
            self._is_over = True
            self._news.notify_all()

    async def _report(self) -> Report:
        from rollout_conformance.judge import run

        option = self._config.getoption
        options = KitOptions(
            server_url=option("osmosis_server").rstrip("/"),
            api_key=option("osmosis_api_key") or os.environ.get(SERVER_KEY_VARIABLE) or None,
            timeout_seconds=option("osmosis_timeout"),
        )
        return await run(options, self._checks, on_result=self._take)

    def _take(self, result: Result) -> None:
        with self._news:
            self._results[result.check.id] = result
            self._news.notify_all()
