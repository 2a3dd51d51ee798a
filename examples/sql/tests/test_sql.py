"""The agent with a script for the model: right answers, wrong ones, a mistake, and a database to itself."""

from examples.sql.server import agent_loop
from osmosis_ai.rollout.trainer import play, tool_call

ASKED = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "Who earns most?"}]
RICHEST = tool_call("query", sql="SELECT name FROM employees ORDER BY salary DESC")


async def test_a_right_answer_is_worth_less_with_every_query_too_many() -> None:
    row = {"ground_truth": "Cleo", "queries": 1}
    for queries, reward in ((1, 1.0), (2, 0.9), (3, 0.8)):
        assert (await play(agent_loop, [RICHEST] * queries + ["Cleo"], ASKED, metadata=row)).reward == reward
    assert (await play(agent_loop, [RICHEST, "Ada"], ASKED, metadata=row)).reward == 0.0


async def test_the_model_is_told_of_its_mistakes() -> None:
    result = await play(agent_loop, [tool_call("query", sql="SELECT x FROM staff"), "?"], ASKED)
    assert result.final_messages[-2]["content"] == "Error: no such table: staff"


async def test_every_rollout_has_a_database_of_its_own() -> None:
    emptied = tool_call("query", sql="DELETE FROM employees")
    for _ in range(2):
        result = await play(agent_loop, [RICHEST, emptied, RICHEST, "?"], ASKED)
        assert [m["content"] for m in result.final_messages if m["role"] == "tool"][1:] == ["[]", "[]"]
        assert result.final_messages[3]["content"].startswith('[["Cleo"]')
