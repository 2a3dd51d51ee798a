"""Whose code the event loop is at: the line its author would look at, not the library that was called there."""

import asyncio.base_events
import asyncio.events
from dataclasses import dataclass
from types import FrameType

from osmosis_ai.rollout.core.consts import PACKAGE_FOLDER
from osmosis_ai.rollout.core.where import is_foreign, place_at

_OF_ONE_ROUND = {"_run", "_run_once"}
_EVENT_LOOP = {asyncio.events.__file__, asyncio.base_events.__file__}


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code; ``is_authors``: of an agent's author, not of this SDK."""

    text: str
    is_authors: bool

    def __str__(self) -> str:
        return self.text


def below_the_loop(callback: FrameType) -> FrameType | None:
    """Of a ``callback`` of the event loop: the frame that called the loop, and lasts as long as it runs."""
    frame = callback.f_back
    while frame is not None and frame.f_code.co_filename in _EVENT_LOOP and frame.f_code.co_name in _OF_ONE_ROUND:
        frame = frame.f_back
    return frame


def place_above(base: FrameType | None, frame: FrameType | None) -> Place | None:
    """Where the stack of ``frame`` stands above ``base``: at its innermost line that is no library's.

    ``None`` if there are only libraries.
    """
    while frame is not None and frame is not base:
        file = frame.f_code.co_filename
        is_sdks = file.startswith(PACKAGE_FOLDER)
        if is_sdks or not is_foreign(file):
            return Place(place_at(frame.f_code, frame.f_lineno), not is_sdks)
        frame = frame.f_back
    return None
