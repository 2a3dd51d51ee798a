"""``python -m bench.viewer``: opens a folder of 50,000 made-up rollouts twice, and types into its search; a report.

Needs Chromium, and the browser that the tests drive. Times are of the wall, from the start of ``osmosis view`` on. The
CPU time of both stands beside them, as other work may share the machine; ``--beside`` measures another tree of this
project in turn, under the same work.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.contenders.roster import PROJECT
from bench.machine import Machine, describe
from bench.report import machine_list
from bench.table import table

sys.path.insert(0, str(PROJECT / "sdk" / "tests"))
from support.browser import Browser, chromium
from support.traces import write_random_traces

WRITTEN = Path(__file__).parents[1] / "VIEWER.md"
ROLLOUTS = 50_000
REPORTED = 500
PATIENCE = 16
TYPED = "step70"
# From a key to the next frame, as the one who types sees it.
_KEYSTROKE = """(async () => {
    const box = document.querySelector('#search'), began = performance.now();
    box.value = TYPED;
    box.dispatchEvent(new Event('input'));
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - began;
})()"""
# Told by the page, as asking it again and again would take a good part of what is measured.
_IS_WHOLE = """new Promise(done => {
    const isWhole = () => document.querySelector('.shown')?.textContent.startsWith('COUNT of');
    const settle = answer => { watching.disconnect(); done(answer); };
    const watching = new MutationObserver(() => { if (isWhole()) settle(true); });
    watching.observe(document.body, { childList: true, subtree: true });
    setTimeout(() => settle(isWhole()), 30000);
    if (isWhole()) settle(true);
})"""
_REST = "new Promise(done => setTimeout(done, 2000))"


# By what was measured: how it is bounded.
BOUNDS = {
    "first opening: something to read": "3 s",
    "first opening: all of it": "8 s",
    "second opening: something to read": "3 s",
    "second opening: all of it": "",
    "the slowest of six keys in the search": "0.1 s",
}


@dataclass(frozen=True)
class Measured:
    """One measurement; CPU times of the server, with its helpers, and of the browser."""

    value: float
    cpu: tuple[float, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and with ``--write`` keep; 0 if there is a browser."""
    parser = argparse.ArgumentParser(prog="python -m bench.viewer", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--beside", type=Path, metavar="TREE", help="another tree of this project, with its .venv")
    parser.add_argument("--write", action="store_true", help=f"write {WRITTEN.name}")
    options = parser.parse_args(arguments)
    executable = chromium()
    if executable is None:
        parser.error("there is no Chromium here: apt-get install chromium")
    machine = describe()
    trees = [PROJECT, *([options.beside.absolute()] if options.beside else [])]
    found: list[list[dict[str, Measured]]] = [[] for _ in trees]
    with tempfile.TemporaryDirectory(prefix="osmosis-bench-viewer-") as place:
        folder = Path(place) / "traces"
        write_random_traces(folder, options.rollouts)
        for number in range(options.rounds):
            for which, tree in enumerate(trees):
                for store in folder.glob(".osmosis-index.sqlite3*"):
                    store.unlink()
                profile = Path(place) / f"profile-{number}-{which}"
                found[which].append(_round(executable, profile, tree, folder, options.rollouts))
        report = _report(folder, Path(place), options.rollouts)
    text = _page(trees, found, report, options.rollouts, machine)
    sys.stdout.write(text)
    if options.write:
        WRITTEN.write_text(text, encoding="utf-8")
    return 0


def _round(executable: str, profile: Path, tree: Path, folder: Path, rollouts: int) -> dict[str, Measured]:
    measured: dict[str, Measured] = {}
    with Browser(executable, profile) as browser:
        browser.resize(1440, 900)
        for name in ("first", "second"):
            measured |= _opened(browser, tree, folder, name, rollouts)
    return measured


def _opened(browser: Browser, tree: Path, folder: Path, name: str, rollouts: int) -> dict[str, Measured]:
    before = _cpu_seconds(browser.pid)
    began = time.monotonic()
    command = [str(tree / ".venv/bin/python"), "-m", "osmosis_ai", "view", str(folder)]
    with subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        try:
            said = process.stdout.readline() if process.stdout is not None else ""
            url = next(word for word in said.split() if word.startswith("http://"))
            browser.open(url)
            browser.wait_for("document.querySelector('.row')")
            readable = time.monotonic() - began
            _patiently(browser, _IS_WHOLE.replace("COUNT", f"{rollouts:,}"))
            whole = time.monotonic() - began
            cpu = _cpu_seconds(process.pid), _cpu_seconds(browser.pid) - before
            measured = {
                f"{name} opening: something to read": Measured(readable),
                f"{name} opening: all of it": Measured(whole, cpu),
            }
            if name == "second":
                browser.evaluate(_REST)
                measured["the slowest of six keys in the search"] = _keystrokes(browser)
            browser.open("about:blank")
            return measured
        finally:
            process.terminate()


def _keystrokes(browser: Browser) -> Measured:
    """The slowest of those typed."""
    browser.call("Performance.enable", timeDomain="threadTicks")
    times, cpu = [], []
    for end in range(1, len(TYPED) + 1):
        before = _script_seconds(browser)
        times.append(browser.evaluate(_KEYSTROKE.replace("TYPED", repr(TYPED[:end]))) / 1000)
        cpu.append(_script_seconds(browser) - before)
        browser.evaluate(_REST)
    return Measured(max(times), (statistics.median(cpu),))


def _script_seconds(browser: Browser) -> float:
    """The CPU time of the page's scripts, layout and styles so far."""
    told = {one["name"]: one["value"] for one in browser.call("Performance.getMetrics")["metrics"]}
    return float(sum(told[name] for name in ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")))


def _patiently(browser: Browser, condition: str) -> None:
    """On a machine that others use too it may take minutes."""
    for _ in range(PATIENCE):
        if browser.evaluate(condition):
            return
    raise TimeoutError(condition)


def _cpu_seconds(pid: int) -> float:
    """Of a process and its children, those included that have ended."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:4]) for one in (process, *process.children(recursive=True)))


def _report(folder: Path, place: Path, rollouts: int) -> float:
    """The size of a report, in MB."""
    few = place / "few" / "run"
    few.mkdir(parents=True)
    for path in sorted(folder.rglob("*.jsonl"))[: min(REPORTED, rollouts)]:
        (few / path.name).write_bytes(path.read_bytes())
    report = place / "report.html"
    command = [sys.executable, "-m", "osmosis_ai", "view", str(few.parent), "-o", str(report)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - ours
    return report.stat().st_size / 1e6


def _page(
    trees: list[Path], found: list[list[dict[str, Measured]]], report: float, rollouts: int, machine: Machine
) -> str:
    rounds = len(found[0])
    head = f"# Viewer: a folder of {rollouts:,} rollouts\n\n{machine_list(machine)}"
    head += f"- load average before: {machine.load_average:.1f}\n"
    head += (
        f"- {rounds} rounds, of each the median and in brackets all; CPU of the server and of the browser, medians\n\n"
    )
    names = [_commit_of(tree) for tree in trees]
    lines = [
        [what, bound, *(text for rounds in found for text in _told([one[what] for one in rounds]))]
        for what, bound in BOUNDS.items()
    ]
    lines.append([f"report of {min(REPORTED, rollouts)} rollouts", "10 MB", f"{report:.1f} MB", ""])
    lines[-1] += [""] * (2 * len(trees) - 2)
    return head + table(["what", "bound", *(text for name in names for text in (name, "CPU"))], lines)


def _told(measured: list[Measured]) -> tuple[str, str]:
    values = ", ".join(f"{one.value:.2f}" for one in measured)
    median = f"{statistics.median(one.value for one in measured):.2f} s ({values})"
    cpu = [statistics.median(each) for each in zip(*(one.cpu for one in measured), strict=True)]
    return median, " + ".join(f"{one:.2f}" for one in cpu) + (" s" if cpu else "")


def _commit_of(tree: Path) -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - ours


if __name__ == "__main__":
    sys.exit(main())
