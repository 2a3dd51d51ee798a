"""``python -m training.masks RUN [ROLLOUT_ID]``: one rollout as it was trained on, token by token; by default the last.

What carries loss is marked: the tokens the model sampled, each with the probability it had. From ``trajectories.jsonl``
and the tokenizer of the run's model.
"""

import itertools
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training import records
from training.chat import ChatFormat
from training.trajectory import Segment, Trajectory

ELIDED = 12
"""Of a long prompt, this many tokens are shown at either end."""


def trajectory_record(trajectory: Trajectory, advantage: float | None) -> dict[str, Any]:
    """The trajectory's part of its line in ``trajectories.jsonl``; ``advantage`` is ``None`` if it is not trained on.

    Each segment has ``ids``, ``sampled`` as [from, to) ranges of positions, and ``logprobs`` of the sampled positions.
    """
    return {"advantage": advantage, "segments": [_segment_record(segment) for segment in trajectory.segments]}


def _segment_record(segment: Segment) -> dict[str, Any]:
    return {
        "ids": segment.ids,
        "sampled": [[start, end] for is_sampled, start, end in _spans(segment.is_sampled) if is_sampled],
        "logprobs": [
            round(logprob, 5) for logprob, used in zip(segment.logprobs, segment.is_sampled, strict=True) if used
        ],
    }


def _spans(flags: list[bool]) -> Iterator[tuple[bool, int, int]]:
    """Runs of equal flags, each with its first position and the one after its last."""
    at = 0
    for flag, run in itertools.groupby(flags):
        length = len(list(run))
        yield flag, at, at + length
        at += length


def described(record: Mapping[str, Any], chat: ChatFormat) -> Iterator[str]:
    """The lines that show one record."""
    advantage = record["advantage"]
    shown = "none, its group had no spread" if advantage is None else f"{advantage:+.3f}"
    yield f"{record['rollout_id']}: reward {record['reward']}, advantage {shown}"
    for segment in record["segments"]:
        ids, logprobs = segment["ids"], iter(segment["logprobs"])
        sampled = [False] * len(ids)
        for start, end in segment["sampled"]:
            sampled[start:end] = [True] * (end - start)
        for is_sampled, start, end in _spans(sampled):
            pieces = [repr(piece)[1:-1] for piece in chat.pieces(ids[start:end])]
            if is_sampled:
                pieces = [f"{piece} ({math.exp(next(logprobs)):.2f})" for piece in pieces]
            elif len(pieces) > 2 * ELIDED:
                pieces[ELIDED:-ELIDED] = ["..."]
            yield f"{'loss   ' if is_sampled else 'no loss'} {end - start:4} tokens: {' | '.join(pieces)}"


def main() -> int:
    """Print one rollout; exit code 2 if there is none."""
    arguments = sys.argv[1:]
    if not 1 <= len(arguments) <= 2:
        print("Usage: python -m training.masks RUN [ROLLOUT_ID]", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    folder, wanted = Path(arguments[0]), arguments[1:]
    found = [
        record
        for record in records.read_lines(folder / records.TRAJECTORIES)
        if not wanted or record["rollout_id"] == wanted[0]
    ]
    if not found:
        print(f"Error: {folder / records.TRAJECTORIES} has no such rollout.", file=sys.stderr)  # noqa: T201
        return 2
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / records.MODEL)
    trained = [record for record in found if record["advantage"] is not None]
    lines = described((trained or found)[-1], ChatFormat(tokenizer))
    print("\n".join(lines))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
