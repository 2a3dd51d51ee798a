"""``python -m bench.viewer``: opens a folder of 50,000 made-up rollouts twice, and types into its search; a report.

Needs Chromium, and the browser that the tests drive. Times are of the wall, from the start of ``osmosis view`` on. The
CPU time of both stands beside them, as other work may share the machine.
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
PATIENCE = 8
TYPED = "step70"
# From a key to the next frame, as the one who types sees it.
_KEYSTROKE = """(async () => {
    const box = document.querySelector('#search'), began = performance.now();
    box.value = TYPED;
    box.dispatchEvent(new Event('input'));
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - began;
})()"""
_REST = "new Promise(done => setTimeout(done, 2000))"


@dataclass(frozen=True)
class Row:
    """One thing that was measured."""

    what: str
    value: str
    bound: str
    cpu: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and with ``--write`` keep; 0 if there is a browser."""
    parser = argparse.ArgumentParser(prog="python -m bench.viewer", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    parser.add_argument("--write", action="store_true", help=f"write {WRITTEN.name}")
    options = parser.parse_args(arguments)
    executable = chromium()
    if executable is None:
        parser.error("there is no Chromium here: apt-get install chromium")
    machine = describe()
    with tempfile.TemporaryDirectory(prefix="osmosis-bench-viewer-") as place:
        folder = Path(place) / "traces"
        write_random_traces(folder, options.rollouts)
        rows = []
        with Browser(executable, Path(place) / "profile") as browser:
            browser.resize(1440, 900)
            for name in ("first", "second"):
                rows += _opened(browser, folder, name, options.rollouts)
        rows.append(_report(folder, Path(place), options.rollouts))
    text = _page(rows, options.rollouts, machine)
    sys.stdout.write(text)
    if options.write:
        WRITTEN.write_text(text, encoding="utf-8")
    return 0


def _opened(browser: Browser, folder: Path, name: str, rollouts: int) -> list[Row]:
    before = _cpu_seconds(browser.pid)
    began = time.monotonic()
    command = [sys.executable, "-m", "osmosis_ai", "view", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        try:
            said = process.stdout.readline() if process.stdout is not None else ""
            url = next(word for word in said.split() if word.startswith("http://"))
            browser.open(url)
            browser.wait_for("document.querySelector('.row')")
            readable = time.monotonic() - began
            _patiently(browser, f"document.querySelector('.shown').textContent.startsWith('{rollouts:,} of')")
            whole = time.monotonic() - began
            cpu = f"{_cpu_seconds(process.pid):.1f} + {_cpu_seconds(browser.pid) - before:.1f} s"
            rows = [
                Row(f"{name} opening: something to read", f"{readable:.1f} s", "3 s"),
                Row(f"{name} opening: all of it", f"{whole:.1f} s", "8 s" if name == "first" else "", cpu),
            ]
            if name == "second":
                browser.evaluate(_REST)
                rows.append(_keystrokes(browser))
            browser.open("about:blank")
            return rows
        finally:
            process.terminate()


def _keystrokes(browser: Browser) -> Row:
    browser.call("Performance.enable", timeDomain="threadTicks")
    times, cpu = [], []
    for end in range(1, len(TYPED) + 1):
        before = _script_seconds(browser)
        times.append(browser.evaluate(_KEYSTROKE.replace("TYPED", repr(TYPED[:end]))))
        cpu.append((_script_seconds(browser) - before) * 1000)
        browser.evaluate(_REST)
    typed = f"{statistics.median(times):.0f} ms, at most {max(times):.0f} ms"
    return Row("a keystroke in the search", typed, "100 ms", f"{statistics.median(cpu):.0f} ms")


def _script_seconds(browser: Browser) -> float:
    """The CPU time of the page's scripts, layout and styles so far."""
    told = {one["name"]: one["value"] for one in browser.call("Performance.getMetrics")["metrics"]}
    return float(sum(told[name] for name in ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")))


def _patiently(browser: Browser, condition: str) -> None:
    """On a machine that others use too it may take minutes."""
    for _ in range(PATIENCE):
        try:
            browser.wait_for(condition)
        except AssertionError:
            continue
        return
    raise TimeoutError(condition)


def _cpu_seconds(pid: int) -> float:
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _report(folder: Path, place: Path, rollouts: int) -> Row:
    few = place / "few" / "run"
    few.mkdir(parents=True)
    for path in sorted(folder.rglob("*.jsonl"))[: min(REPORTED, rollouts)]:
        (few / path.name).write_bytes(path.read_bytes())
    report = place / "report.html"
    command = [sys.executable, "-m", "osmosis_ai", "view", str(few.parent), "-o", str(report)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - ours
    return Row(f"report of {min(REPORTED, rollouts)} rollouts", f"{report.stat().st_size / 1e6:.1f} MB", "10 MB")


def _page(rows: list[Row], rollouts: int, machine: Machine) -> str:
    head = f"# Viewer: a folder of {rollouts:,} rollouts\n\n{machine_list(machine)}"
    head += f"- load average before: {machine.load_average:.1f}\n\n"
    lines = [[row.what, row.value, row.bound, row.cpu] for row in rows]
    return head + table(["what", "measured", "bound", "CPU, server + browser"], lines)


if __name__ == "__main__":
    sys.exit(main())
