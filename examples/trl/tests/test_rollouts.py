"""What TRL gets of rollouts through a real server: a script that knows its own token ids stands for the model."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.processes import ServingProgram

from examples.trl.rollouts import NOTHING, TOLD_AFTER, ServerRollouts
from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.trainer import ChatCall, RedispatchPolicy, TrainerError
from osmosis_ai.rollout.trainer.errors import TokensError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
KEY = "key-of-the-test"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The calculator's server."""
    variables = {"PYTHONPATH": str(ROOT), "OSMOSIS_ROLLOUT_SERVER_API_KEY": KEY}
    place = tmp_path_factory.mktemp("server")
    with ServingProgram(place, "-m", "server:agent_loop", "-p", "0", **variables) as server:
        yield f"http://127.0.0.1:{server.wait_until_serving().port}"


class Script:
    """Adds the two numbers of the question with the tool, then answers; ids are counted up from the question's."""

    def __init__(self, says_ids: bool = True) -> None:
        self._says_ids = says_ids
        self.said: dict[str, list[int]] = {}
        self.seeds: list[object] = []

    async def complete(self, call: ChatCall) -> CompletionsResult:
        question = next(m["content"] for m in call.messages if m["role"] == "user")
        if "boom" in question:
            raise RuntimeError("No model is here.")
        self.seeds.append(call.sampling.get("seed"))
        ids = self.said.setdefault(call.rollout_id, [len(question)])
        ids.append(ids[-1] + 1000)  # what was read: the prompt's end, or the tool's answer
        prompt = list(ids)
        if "anew" in question and len(call.messages) > 2:
            prompt[1] += 1
        sampled = [ids[-1] + 1, ids[-1] + 2]
        ids += sampled
        last = call.messages[-1]
        message: dict[str, Any] = {"role": "assistant", "content": f"#### {last['content']}"}
        if last["role"] == "user":
            a, b = question.split()[:2]
            function = {"name": "add", "arguments": f'{{"a": {a}, "b": {b}}}'}
            call_of_tool = {"id": "call_0", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call_of_tool]}
        return CompletionsResult(
            message=message,
            prompt_token_ids=prompt,
            token_ids=sampled if self._says_ids else [],
            logprobs=[-0.5, -0.25],
            usage={},
            finish_reason="stop",
        )


def problem(question: str, truth: str = "3") -> RolloutRequest:
    return RolloutRequest(
        rollout_id=f"p{abs(hash(question))}",
        server_url="http://filled-in.invalid",
        messages=[{"role": "user", "content": question}],
        completion_params={"temperature": 1.0},
        metadata={"ground_truth": truth},
        max_turns=3,
    )


def rollouts_of(url: str, problems: list[RolloutRequest], published: list[Any], **named: Any) -> ServerRollouts:
    named.setdefault("server_api_key", KEY)
    return ServerRollouts(
        named.pop("script", Script()).complete,
        problems,
        server_url=url,
        publish=published.append,
        redispatch=RedispatchPolicy(max_attempts=2),
        **named,
    )


def trl(step: int = 0) -> Any:
    return SimpleNamespace(model=f"model of step {step}", state=SimpleNamespace(global_step=step))


def test_ids_mask_and_logprobs_are_what_was_sampled_and_a_failure_is_unscorable(url: str) -> None:
    problems = [problem("1 2"), problem("2 2 wrong truth"), problem("boom")]
    published: list[Any] = []
    script = Script()
    with rollouts_of(url, problems, published, script=script, seed=7) as rollouts:
        right, wrong, failing = (row["prompt"] for row in rollouts.prompts)
        # As a prompt looks that has been a row of a table with tools in other rows.
        asked = [right, failing, [message | {"tool_calls": None} for message in right], wrong]
        got = rollouts(asked, trl())
        again = rollouts([right], trl())
        rollouts([right], trl(step=1))
    chain = [3, 1003, 1004, 1005, 2005, 2006, 2007]
    for number in (0, 2):
        assert got["prompt_ids"][number] + got["completion_ids"][number] == chain
        assert got["env_mask"][number] == [1, 1, 0, 1, 1]
        assert got["logprobs"][number] == [-0.5, -0.25, 0.0, -0.5, -0.25]
    assert got["reward"] == [1.0, None, 1.0, 0.0]
    assert rollouts.reward(reward=got["reward"], completions=[]) == [1.0, None, 1.0, 0.0]
    assert (got["completion_ids"][1], got["env_mask"][1]) == ([NOTHING], [0])
    assert again["reward"] == [1.0]
    assert published == ["model of step 0", "model of step 1"]
    assert len(set(script.seeds)) == 5  # two turns of a rollout share one


def test_a_failure_is_tried_again_and_a_step_of_nothing_else_is_an_error(url: str) -> None:
    nothing = pytest.raises(TrainerError, match=r"^No reward came of 1 rollout, .*ERROR.*No model is here")
    with rollouts_of(url, [problem("boom")], []) as rollouts:
        with nothing:
            rollouts([row["prompt"] for row in rollouts.prompts], trl())
        assert [len(attempts) for attempts in rollouts.outcomes] == [2]


def test_rollouts_without_a_reward_in_a_row_are_said_over_steps_and_a_reward_ends_the_row(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    unscored = problem("1 2 without truth").model_copy(update={"metadata": {}})
    with rollouts_of(url, [problem("1 2"), unscored], []) as rollouts:
        right, nothing = (row["prompt"] for row in rollouts.prompts)
        most = [nothing] * (TOLD_AFTER - 1)
        rollouts([right, *most, right, *most], trl())
        assert caplog.messages == []
        rollouts([nothing, right], trl())
    assert caplog.messages == [
        f"{TOLD_AFTER} rollouts in a row have no reward. The last: COMPLETED. Its reward function gave none."
    ]


def test_a_server_that_has_served_a_run_serves_the_next_over_the_same_problems(url: str) -> None:
    for _ in range(2):
        with rollouts_of(url, [problem("1 2 again")], []) as rollouts:
            assert rollouts([row["prompt"] for row in rollouts.prompts], trl())["reward"] == [1.0]


def test_what_was_tokenised_anew_is_refused(url: str) -> None:
    with rollouts_of(url, [problem("1 2 anew")], []) as rollouts, pytest.raises(TokensError, match="tokenised anew"):
        rollouts([row["prompt"] for row in rollouts.prompts], trl())


def test_wrong_use_is_one_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="same messages"):
        rollouts_of(url, [problem("1 2"), problem("1 2", truth="4")], [])
    refused = pytest.raises(TrainerError, match="refused all 2 rollouts")
    with rollouts_of(url, [problem("1 2")], [], server_api_key="another") as rollouts, refused:
        rollouts([row["prompt"] for row in rollouts.prompts * 2], trl())
    unknown = pytest.raises(TrainerError, match=r"^1 of TRL's 2 prompts are no problem's")
    with rollouts_of(url, [problem("1 2")], []) as rollouts, unknown:
        rollouts([rollouts.prompts[0]["prompt"], problem("9 9").messages], trl())
    with pytest.raises(RuntimeError, match="within their 'with'"):
        rollouts([row["prompt"] for row in rollouts.prompts], trl())


def test_a_model_server_that_says_no_ids_is_an_error_not_a_run_without_loss(url: str) -> None:
    script = Script(says_ids=False)
    with (
        rollouts_of(url, [problem("1 2 no ids")], [], script=script) as rollouts,
        pytest.raises(TokensError, match="no token ids"),
    ):
        rollouts([row["prompt"] for row in rollouts.prompts], trl())
