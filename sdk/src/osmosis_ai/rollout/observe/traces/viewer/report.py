"""The page as one file that works without a network: every row, and as many rollouts whole as fit.

What is in it is compressed, in blocks of several rollouts, of which the page opens those that it shows: the rollouts of
a run are alike, and without this 500 of them would take 30 MB.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from gzip import compress
from itertools import islice
from pathlib import Path

from pydantic_core import to_json

from osmosis_ai.rollout.core.files import write_whole
from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.observe.traces.conversation import conversation_of
from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.summary import COMPLETED, Summary
from osmosis_ai.rollout.observe.traces.viewer.page import report_page
from osmosis_ai.rollout.observe.traces.viewer.rows import COLUMNS, row_of

MAX_ROWS = 50_000
MAX_REPORT_BYTES = 9 * 1024 * 1024
MAX_EVENTS = 20_000
"""Of a rollout, as many as a page can list."""
BLOCK_BYTES = 1024 * 1024
"""Of a block, before it is compressed; a rollout larger than that is a block of its own."""
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
"""Of all blocks: a search opens each of them, and what says little may be a thousandth of its size when compressed."""
MAX_ROLLOUT_BYTES = 64 * 1024 * 1024
MAX_MISSES = 4
"""How many blocks that do not fit are tried: what comes may be smaller, but all of a large folder need not be read."""
_SAMPLED = ("prompt_token_ids", "token_ids", "logprobs")


@dataclass
class Written:
    """What is in a report."""

    rows: int = 0
    """How many rollouts have a row."""
    whole: int = 0
    """How many of these are there with all that was said."""
    left_out: str = ""
    """What of them is not."""


def write_report(index: TraceIndex, path: Path, *, max_bytes: int = MAX_REPORT_BYTES) -> Written:
    """Write the report: failed rollouts first, then the newest.

    Raises:
        CLIError: ``path`` cannot be written.
    """
    order = sorted(enumerate(index.rollouts), key=lambda item: _rank(item[1]))[:MAX_ROWS]
    written = Written(rows=len(order))
    rows = _packed(to_json([row_of(key, rollout) for key, rollout in order], inf_nan_mode="null"))
    room, unpacked_room = max_bytes - len(rows), MAX_UNPACKED_BYTES
    blocks: list[str] = []
    misses = 0
    places: dict[str, tuple[int, int]] = {}
    for members, content in _blocks(_whole_ones(index, order, written)):
        block = _packed(content)
        if len(block) > room or len(content) > unpacked_room:
            misses += 1
            if misses == MAX_MISSES:
                break
            continue
        places |= {str(key): (len(blocks), place) for place, key in enumerate(members)}
        blocks.append(block)
        room -= len(block)
        unpacked_room -= len(content)
    written.whole = len(places)
    data = {
        "columns": COLUMNS,
        "rows": rows,
        "blocks": blocks,
        "places": places,
        "total": len(index.rollouts),
        "listed": written.rows,
        "whole": written.whole,
        "leftOut": written.left_out,
        "source": index.place,
        "unreadable": index.unreadable_lines,
    }
    page, _ = report_page(to_json(data).decode().replace("<", "\\u003c"))
    write_whole(path, [page])
    return written


def _whole_ones(
    index: TraceIndex, order: Iterable[tuple[int, Summary]], written: Written
) -> Iterator[tuple[int, bytes]]:
    for key, rollout in order:
        if rollout.end - rollout.start > MAX_ROLLOUT_BYTES:
            continue
        try:
            events = list(islice(index.events(key), MAX_EVENTS + 1))
        except OSError:
            continue
        if len(events) > MAX_EVENTS:
            continue
        for number, event in enumerate(events):
            for name in _SAMPLED:
                if event.pop(name, None) is not None:
                    written.left_out = "token ids and log-probabilities"
            # The page has the conversation from the turns; once more it would be half of the file.
            if event["event"] == TraceEvent.ROLLOUT_RESULT:
                said = conversation_of(events[:number]).messages
                if event.get("final_messages") == said:
                    event["final_messages"] = "as in the turns"
        yield key, to_json(events, inf_nan_mode="null")


def _blocks(rollouts: Iterable[tuple[int, bytes]]) -> Iterator[tuple[list[int], bytes]]:
    members: list[int] = []
    contents: list[bytes] = []
    for key, content in rollouts:
        if members and sum(map(len, contents)) + len(content) > BLOCK_BYTES:
            yield members, b"[" + b",".join(contents) + b"]"
            members, contents = [], []
        members.append(key)
        contents.append(content)
    if members:
        yield members, b"[" + b",".join(contents) + b"]"


def _packed(content: bytes) -> str:
    """For `DecompressionStream`; the same bytes each time."""
    return b64encode(compress(content, 6, mtime=0)).decode()


def _rank(rollout: Summary) -> tuple[bool, float]:
    return rollout.status == COMPLETED, -(rollout.last_at or 0.0)
