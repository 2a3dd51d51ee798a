"""What a result from elsewhere tells of an agent that blocked the event loop."""

import math
from typing import Any

import pytest

from osmosis_ai.rollout.core.loop_blocks import LOOP_BLOCKS, known_blocks

KNOWN = {"place": "agent.py:12 in Agent.run", "seconds": 0.5}


@pytest.mark.parametrize("seconds", [10**400, -(10**400), math.inf, math.nan, "1", None, [1]], ids="{!r:.9}".format)
def test_one_without_a_number_of_seconds_is_passed_over(seconds: Any) -> None:
    assert known_blocks({LOOP_BLOCKS: [{**KNOWN, "seconds": seconds}, KNOWN]}) == [KNOWN]
