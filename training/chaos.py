"""``python -m training.chaos``: a whole training run during which the rollout server is killed (-9) twice, then judged.

It passes if training went on, if no rollout that a kill hit was waited for longer than ``MARGIN_SECONDS`` after the
server was back, and if none of them brought a reward that was not earned. All from the files of the run. Exit codes: 0
all held, 1 something did not. Arguments are those of ``python -m training``; ``--output`` is required.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import records

KILLS_AFTER_STEPS = (2, 5)
"""A kill comes once this many steps are done, while rollouts of the next are in flight."""
IN_FLIGHT_SECONDS = 2.5
"""From the end of a step to the kill: the next step's rollouts are out by then, and not yet back."""
MARGIN_SECONDS = 5.0
POLL_SECONDS = 0.1
COMPLETED = "COMPLETED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim, and whether the files bear it out."""

    claim: str
    holds: bool
    evidence: str


def main() -> int:
    """Run, kill, judge; the exit code."""
    arguments = sys.argv[1:]
    if "--output" not in arguments[:-1]:
        print("Error: --output FOLDER is required.", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    folder = Path(arguments[arguments.index("--output") + 1])
    training = subprocess.Popen([sys.executable, "-m", "training", *arguments])  # noqa: S603 - our own module
    try:
        kills = [kill for steps in KILLS_AFTER_STEPS if (kill := _kill_after(steps, folder, training)) is not None]
        exit_code = training.wait()
    finally:
        if training.poll() is None:
            training.terminate()
    verdicts = [Verdict("The training ends by itself", exit_code == 0, f"exit code {exit_code}"), *judge(folder, kills)]
    for verdict in verdicts:
        print(f"{'ok  ' if verdict.holds else 'FAIL'} {verdict.claim}: {verdict.evidence}")  # noqa: T201
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _kill_after(steps: int, folder: Path, training: "subprocess.Popen[bytes]") -> float | None:
    """Kill the server in the step after ``steps``; when, in unix seconds, ``None`` if training ended first."""
    while sum(1 for _ in records.read_lines(folder / records.STEPS)) < steps:
        if training.poll() is not None:
            return None
        time.sleep(POLL_SECONDS)
    time.sleep(IN_FLIGHT_SECONDS)
    pid = [event["pid"] for event in records.read_lines(folder / records.SERVER)][-1]
    os.kill(pid, signal.SIGKILL)
    print(f"Killed the rollout server, process {pid}.")  # noqa: T201
    return time.time()


def judge(folder: Path, kills: Sequence[float]) -> list[Verdict]:
    """What the files of a run say about kills at these unix times."""
    restarts = [event for event in records.read_lines(folder / records.SERVER) if event["event"] == "restarted"]
    steps = list(records.read_lines(folder / records.STEPS))
    attempts = list(records.read_lines(folder / records.ROLLOUTS))
    hit = [(kill, restart, _hit(attempts, kill)) for kill, restart in zip(kills, restarts, strict=False)]
    victims = [attempt for _, _, hits in hit for attempt in hits]
    waits = [attempt["ended_at"] - restart["ready_at"] for _, restart, hits in hit for attempt in hits]
    recoveries = [restart["ready_at"] - kill for kill, restart, _ in hit]
    last_kill = max(kills, default=0.0)
    after = [attempt for attempt in attempts if attempt["started_at"] > last_kill and attempt["outcome"] == COMPLETED]
    unearned = [one for one in attempts if one["outcome"] != COMPLETED and one["reward"] is not None]
    lost = [one for one in victims if one["outcome"] != COMPLETED]
    return [
        Verdict(
            "Killed twice, and each kill hit rollouts in flight",
            len(hit) == len(KILLS_AFTER_STEPS) and all(hits for _, _, hits in hit),
            f"{len(kills)} kills, {len(restarts)} restarts, {[len(hits) for _, _, hits in hit]} rollouts in flight",
        ),
        Verdict(
            "Training goes on",
            bool(after) and len(steps) > max(KILLS_AFTER_STEPS),
            f"{len(steps)} steps in all; {len(after)} rollouts completed that started after the last kill",
        ),
        Verdict(
            "No rollout is waited for longer than recovery takes",
            all(wait <= MARGIN_SECONDS for wait in waits) and bool(waits),
            f"recovery took {_seconds(recoveries)}; the last rollout hit ended {max(waits, default=0):.1f} s after it",
        ),
        Verdict(
            "No reward comes from a kill",
            not unearned and bool(lost) and all(one["reward"] is None for one in lost),
            f"{len(lost)} rollouts cut off, with outcomes {sorted({one['outcome'] for one in lost})} and no reward",
        ),
        Verdict(
            "Every group is whole again",
            all(step["rewarded"] == step["rollouts"] for step in steps),
            f"{sum(step['rewarded'] for step in steps)} rewards for {sum(step['rollouts'] for step in steps)} samples",
        ),
    ]


def _hit(attempts: Sequence[dict[str, Any]], kill: float) -> list[dict[str, Any]]:
    return [attempt for attempt in attempts if attempt["started_at"] < kill < attempt["ended_at"]]


def _seconds(values: Sequence[float]) -> str:
    return " and ".join(f"{value:.1f} s" for value in values) or "no time"


if __name__ == "__main__":
    sys.exit(main())
