from typing import Any

from support.model_endpoint import ModelEndpoint, refuse
from support.rollouts import tool

from osmosis_ai.rollout.run.models.choice import make_llm_client
from osmosis_ai.rollout.run.models.completer import ModelCompleter
from osmosis_ai.rollout.trainer import ChatCall

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "What is 1 + 2?"}]
NUMBERS = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}


async def test_a_model_plays_the_policy_with_the_tools_and_the_sampling_of_each_call() -> None:
    sampling = {"model": "default", "temperature": 0.5, "logprobs": True, "stop": None, "seed": 3}
    call = ChatCall("rollout-1", MESSAGES, [tool("add", parameters=NUMBERS)], sampling)
    with ModelEndpoint(refuse(429, Retry_After="0.001")) as endpoint:
        client = make_llm_client("m", None, endpoint.url)
        result = await ModelCompleter(client)(call)
        await client.close()
    assert result.tool_calls[0]["function"]["name"] == "add"
    body = endpoint.calls[-1].body
    sampled = {"temperature": 0.5, "seed": 3, "logprobs": True}
    assert body == {"model": "m", "messages": MESSAGES, "tools": call.tools, **sampled}
    assert len(endpoint.calls) == 2


async def test_token_fields_go_to_an_endpoint_until_it_refuses_them_and_come_back() -> None:
    sampling = {"logprobs": True, "return_token_ids": True, "seed": 3}
    call = ChatCall("rollout-1", MESSAGES, [tool("add", parameters=NUMBERS)], sampling)
    with ModelEndpoint() as endpoint:
        async with make_llm_client("m", None, endpoint.url) as client:
            await ModelCompleter(client)(call)
    assert {name: endpoint.calls[0].body[name] for name in sampling} == sampling
    with ModelEndpoint(refuse(400, "logprobs: not supported")) as endpoint:
        async with make_llm_client("m", None, endpoint.url) as client:
            for _ in range(2):
                await ModelCompleter(client)(call)
    assert ["logprobs" in made.body for made in endpoint.calls] == [True, False, False]
    assert [made.body["seed"] for made in endpoint.calls] == [3, 3, 3]


async def test_a_script_plays_it_too() -> None:
    result = await ModelCompleter(make_llm_client("builtin/arithmetic"))(ChatCall("rollout-1", MESSAGES, [], {}))
    assert "no tool is offered to add" in (result.content or "")
