"""A script in the model's place: it looks at the tables, asks, and answers with the first value it gets."""

import json
from typing import Any

from osmosis_ai.rollout.trainer import Reply, tool_call

QUERIES = {
    "How many employees are there?": "SELECT count(*) FROM employees",
    "Who earns most?": "SELECT name FROM employees ORDER BY salary DESC",
    "In which city do the Boats work?": "SELECT city FROM teams WHERE name = 'Boats'",
}


def reply(messages: list[dict[str, Any]]) -> Reply:
    """What the model says after `messages`."""
    question, last = messages[1]["content"], messages[-1]
    if last["role"] == "user":
        return tool_call("tables")
    if len(messages) == 4:  # prompt, question, call, tables
        return tool_call("query", sql=QUERIES[question])
    return str(json.loads(last["content"])[0][0])
