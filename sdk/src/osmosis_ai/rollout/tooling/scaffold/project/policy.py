"""A script in the model's place, so that all of the agent can be tried without a model: change it with the tools.

It adds the first two numbers of the question, whatever is asked, so it is right only now and then: a reward that
spreads tells more than one that does not.
"""

import re
from typing import Any

from osmosis_ai.rollout.trainer import Reply, tool_call


def reply(messages: list[dict[str, Any]]) -> Reply:
    """What the model says after `messages`: a text, a tool call, or a list of calls for one turn."""
    last = messages[-1]
    if last["role"] == "tool":
        return f"#### {last['content']}"
    first, second = [*re.findall(r"\d+", last["content"]), "0", "0"][:2]
    return tool_call("add", a=int(first), b=int(second))
