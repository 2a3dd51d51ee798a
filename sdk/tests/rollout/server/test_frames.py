"""Where a stack stands: in the author's code or in the SDK's, libraries passed over."""

import asyncio
import json
import sys
from functools import partial
from types import FrameType

from osmosis_ai.rollout.core.offload import contained
from osmosis_ai.rollout.server.frames import Place, below_the_loop, place_above


def here() -> Place | None:
    return place_above(None, sys._getframe())


def test_it_is_the_innermost_line_of_the_author() -> None:
    place = here()
    assert place is not None
    assert place.is_authors
    assert str(place).endswith("test_frames.py:14 in here")


def test_a_library_that_the_author_called_is_passed_over() -> None:
    found: list[Place | None] = []

    class Encoder(json.JSONEncoder):
        def encode(self, o: object) -> str:
            frame = sys._getframe().f_back  # in the library
            assert frame is not None
            assert "json" in frame.f_code.co_filename
            found.append(place_above(None, frame))
            return ""

    json.dumps({}, cls=Encoder)
    (place,) = found
    assert place is not None
    assert place.text.endswith("in test_a_library_that_the_author_called_is_passed_over")


def test_where_the_sdk_is_at_work_it_is_no_authors() -> None:
    frame: FrameType = contained(partial(sys._getframe))
    place = place_above(None, frame)
    assert place is not None
    assert not place.is_authors
    assert "offload.py" in place.text


async def test_what_called_the_event_loop_is_nobodys() -> None:
    bases: list[FrameType | None] = []
    asyncio.get_running_loop().call_soon(lambda: bases.append(below_the_loop(sys._getframe())))
    await asyncio.sleep(0)
    (base,) = bases
    assert base is not None
    assert place_above(base, base) is None
    place = place_above(base, sys._getframe())
    assert place is not None
    assert place.text.endswith("in test_what_called_the_event_loop_is_nobodys")
