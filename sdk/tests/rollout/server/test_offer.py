"""The tools an init offers: passed through as the author wrote them, or refused with the reason."""

import asyncio
import json
import math
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, strategies as st
from support.rollouts import INIT, JsonObject, ScriptedAgent, StandInClients, client_of, init_body, tool

from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema, RolloutRequest
from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.core.validator import validate_agent_loop
from osmosis_ai.rollout.server.app import create_app

NESTED: JsonObject = {
    "type": "object",
    "properties": {
        "points": {
            "type": "array",
            "items": {"type": "object", "properties": {"x": {"type": "number", "minimum": 0, "maximum": 9.5}}},
            "minItems": 1,
        },
        "mode": {"enum": ["fast", 3, None, True]},
        "limit": {"type": ["integer", "null"], "default": None, "description": "At most"},
        "either": {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"$ref": "#/$defs/b"}]},
    },
    "required": ["points"],
    "additionalProperties": False,
    "$defs": {"b": {"const": "b"}},
}


async def post_init(app: FastAPI, rollout_id: str = "rollout-1") -> httpx.Response:
    async with client_of(app) as client:
        return await client.post(INIT, json=init_body(rollout_id))


async def offered(tools: Any) -> Any:
    response = await post_init(create_app(ScriptedAgent(tools=tools)))
    assert response.status_code == 202, response.text
    return response.json()["tools"]


@pytest.mark.usefixtures("clients")
class TestReply:
    async def test_no_tools_are_an_empty_list(self) -> None:
        assert await offered([]) == []

    async def test_what_is_left_out_is_filled_in(self) -> None:
        minimal = {"type": "function", "function": {"name": "now", "description": "The time."}}
        complete = {
            "type": "function",
            "function": {
                "name": "now",
                "description": "The time.",
                "parameters": {"type": "object", "properties": {}, "required": []},
                "strict": False,
            },
        }
        assert await offered([minimal]) == [complete]
        assert await offered([OpenAIFunctionToolSchema.model_validate(minimal)]) == [complete]

    async def test_no_null_is_added_to_a_property(self) -> None:
        (reply,) = await offered(
            [tool(parameters={"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]})]
        )
        assert reply["function"]["parameters"]["properties"] == {"a": {"type": "number"}}

    @pytest.mark.parametrize("as_model", [False, True], ids=["dict", "model"])
    async def test_every_keyword_of_json_schema_passes_through(self, as_model: bool) -> None:
        definition = tool(parameters=NESTED, strict=True, x_vendor={"cache": None})
        given = OpenAIFunctionToolSchema.model_validate(definition) if as_model else definition
        assert await offered([given]) == [definition]

    async def test_the_agent_gets_its_own_tools_back(self, clients: StandInClients) -> None:
        tools = [tool("first"), OpenAIFunctionToolSchema.model_validate(tool("second"))]
        agent = ScriptedAgent(tools=tools)
        await post_init(create_app(agent))
        await clients.result()
        assert agent.runs[0].tools is tools

    async def test_the_tools_may_depend_on_the_request(self) -> None:
        agent = ScriptedAgent(tools=lambda request: [tool(request.metadata["tool"])])
        async with client_of(create_app(agent)) as client:
            response = await client.post(INIT, json=init_body(metadata={"tool": "special"}))
        assert [item["function"]["name"] for item in response.json()["tools"]] == ["special"]

    async def test_what_get_tools_does_to_the_request_changes_nothing_but_its_copy(
        self, clients: StandInClients
    ) -> None:
        def meddle(request: RolloutRequest) -> list[Any]:
            request.rollout_id = "other"
            request.server_url = "http://elsewhere"
            request.messages.clear()
            return []

        response = await post_init(create_app(ScriptedAgent(tools=meddle)))
        client, _ = await clients.result()
        assert response.json()["rollout_id"] == "rollout-1"
        assert client.fields["rollout_id"] == "rollout-1"
        assert client.fields["server_url"] == init_body()["server_url"]


def raising(error: BaseException) -> Callable[[RolloutRequest], Any]:
    def get_tools(request: RolloutRequest) -> Any:
        raise error

    return get_tools


async def awaited(request: RolloutRequest) -> list[Any]:
    return []


@pytest.mark.usefixtures("clients")
class TestRefusal:
    @pytest.mark.parametrize(
        ("tools", "said"),
        [
            (raising(KeyError("tenant")), "KeyError: 'tenant'"),
            (raising(SystemExit(3)), "SystemExit"),
            (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
            (raising(StopIteration()), "StopIteration"),
            (raising(asyncio.CancelledError()), "CancelledError"),
            (lambda request: None, "None"),
            (lambda request: (tool(),), "must return a list, got tuple"),
            (lambda request: (item for item in [tool()]), "must return a list, got generator"),
            (lambda request: {"type": "function"}, "must return a list, got dict"),
            (awaited, "async def"),
            ([tool(), "add"], "tools[1]"),
            ([tool(), {"type": "function"}], "tools[1]"),
            ([tool(name=" ")], "name"),
            ([tool(), tool()], "taken by tools[0]"),
            ([tool(parameters={"type": "object", "properties": {"a": {}}, "required": []})], "properties.a"),
            ([tool(parameters={"type": "object", "properties": {}})], "required"),
            ([tool(default=object())], "tools[0]"),
            ([tool(default="\ud800")], "tools[0]"),
        ],
    )
    async def test_tools_that_cannot_be_offered_are_a_500_that_says_why(
        self, clients: StandInClients, tools: Any, said: str
    ) -> None:
        agent = ScriptedAgent(tools=tools)
        app = create_app(agent)
        response = await post_init(app)
        assert response.status_code == 500
        body = response.json()
        assert set(body) == {"detail", "code"}
        assert body["detail"].startswith("The agent's tools cannot be offered: ")
        assert said in body["detail"]
        assert "Traceback" not in response.text
        agent.tools = []
        assert (await post_init(app)).status_code == 202
        await clients.result()
        assert len(agent.runs) == len(clients.made) == 1

    async def test_the_reason_is_bounded(self) -> None:
        response = await post_init(create_app(ScriptedAgent(tools=raising(ValueError("x" * 100_000)))))
        assert len(response.content) < 2000

    async def test_get_tools_that_hangs_is_given_up_and_the_key_is_free_again(self, clients: StandInClients) -> None:
        released = threading.Event()

        def hang(request: RolloutRequest) -> list[Any]:
            released.wait()
            return []

        settings = RolloutSettings(server=RolloutServerSettings(tools_timeout_seconds=0.1))
        agent = ScriptedAgent(tools=hang)
        app = create_app(agent, settings=settings)
        try:
            response = await post_init(app)
            assert response.status_code == 500
            assert "did not return within 0.1 s" in response.json()["detail"]
            agent.tools = []
            assert (await post_init(app)).status_code == 202
        finally:
            released.set()
        await clients.result()
        assert len(agent.runs) == 1

    async def test_get_tools_that_takes_its_time_delays_nobody_else(self) -> None:
        asked, released = threading.Event(), threading.Event()

        def slow(request: RolloutRequest) -> list[Any]:
            if request.rollout_id == "slow":
                asked.set()
                released.wait()
            return []

        app = create_app(ScriptedAgent(tools=slow))
        pending = asyncio.create_task(post_init(app, "slow"))
        await asyncio.to_thread(asked.wait)
        async with client_of(app) as client:
            assert (await client.get("/health")).json()["active_rollouts"] == 0
        assert (await post_init(app, "quick")).status_code == 202
        released.set()
        assert (await pending).status_code == 202

    async def test_everyone_who_waited_for_the_same_key_gets_the_failure(self) -> None:
        asked, released = threading.Event(), threading.Event()

        def fail(request: RolloutRequest) -> list[Any]:
            asked.set()
            released.wait()
            raise ValueError("no tools today")

        agent = ScriptedAgent(tools=fail)
        app = create_app(agent)
        pending = [asyncio.create_task(post_init(app)) for _ in range(5)]
        await asyncio.to_thread(asked.wait)
        released.set()
        responses = await asyncio.gather(*pending)
        assert {response.status_code for response in responses} == {500}
        assert all("no tools today" in response.json()["detail"] for response in responses)
        assert len(agent.tool_requests) == 1


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
good_properties: st.SearchStrategy[Any] = st.sampled_from(
    [{"type": "number"}, {"type": ["string", "null"]}, {"enum": ["a", 1, None]}, {"type": "array", "items": {}}]
)
any_properties = good_properties | json_values
good_parameters: st.SearchStrategy[Any] = st.builds(
    lambda properties: {"type": "object", "properties": properties, "required": []},
    st.dictionaries(st.text(max_size=3), good_properties, max_size=2),
)
any_parameters = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("object") | json_values,
        "properties": st.dictionaries(st.text(max_size=3), any_properties, max_size=2) | json_values,
        "required": st.lists(st.text(max_size=3), max_size=2) | json_values,
        "additionalProperties": json_values,
    },
)
good_tools: st.SearchStrategy[Any] = st.builds(
    lambda name, parameters: tool(name, parameters=parameters), st.sampled_from(["add", "sub", "mul"]), good_parameters
)
changes: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["", " ", "ä b"]) | json_values,
        "description": json_values,
        "parameters": any_parameters | json_values,
        "strict": json_values,
        "x_extra": json_values,
    },
)
any_tools: st.SearchStrategy[Any] = (
    st.builds(lambda whole, change: {**whole, "function": {**whole["function"], **change}}, good_tools, changes)
    | st.builds(
        lambda whole, change: {**whole, **change}, good_tools, st.dictionaries(st.text(max_size=4), json_values)
    )
    | st.builds(lambda function: {"type": "function", "function": function}, changes | json_values)
    | json_values
)


class TestAgreementWithValidate:
    """``osmosis validate`` says valid if and only if init answers 202."""

    @staticmethod
    async def init_status(agent: ScriptedAgent) -> tuple[int, str]:
        response = await post_init(create_app(agent))
        return response.status_code, response.text

    @given(st.lists(good_tools, max_size=3) | st.lists(good_tools | any_tools, min_size=1, max_size=2))
    def test_on_any_definition(self, definitions: list[Any]) -> None:
        agent = ScriptedAgent(tools=definitions)
        report = validate_agent_loop(agent)
        status, body = asyncio.run(self.init_status(agent))
        assert (status == 202) == report.valid, (status, report.errors)
        if status == 202:
            assert len(json.loads(body)["tools"]) == report.tool_count

    @pytest.mark.parametrize("change", [{"name": 5}, {"name": ""}, {"description": None}, {"strict": math.nan}])
    async def test_on_a_schema_object_that_was_changed_after_it_was_checked(self, change: JsonObject) -> None:
        schema = OpenAIFunctionToolSchema.model_validate(tool())
        for name, value in change.items():
            setattr(schema.function, name, value)
        agent = ScriptedAgent(tools=[schema])
        assert not validate_agent_loop(agent).valid
        assert (await self.init_status(agent))[0] == 500
