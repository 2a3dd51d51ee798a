"""``tools_of``: what each framework knows of its tools. Those that are not installed are skipped."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from osmosis_ai.rollout import Toolbox, tools_of


def add(a: float, b: float = 1.0) -> float:
    """Add two numbers."""
    return a + b


def names(source: Any) -> list[str]:
    return [tool.function.name for tool in tools_of(source)]


class TestWithoutAFramework:
    def test_functions_schemas_and_toolboxes_are_tools_and_a_name_is_one_tool(self) -> None:
        schema = {"type": "function", "function": {"name": "burn", "description": "Burn"}}
        assert names([add, Toolbox(add), schema, [tools_of(schema)]]) == ["add", "burn"]
        assert tools_of([]) == []

    @pytest.mark.parametrize("source", [None, 7, "add", {}, int])
    def test_what_has_no_tools_is_refused(self, source: Any) -> None:
        with pytest.raises(TypeError, match="has no tools that could be read"):
            tools_of(source)

    def test_an_argument_of_any_type_has_all_of_them(self) -> None:
        definition = SimpleNamespace(
            name="take", description=None, parameters_json_schema={"properties": {"x": {"title": "X"}}}, strict=None
        )
        (tool,) = tools_of(SimpleNamespace(tool_def=definition))
        assert (tool.function.description, tool.function.strict) == ("take", False)
        assert "string" in (tool.function.parameters.properties["x"].type or "")


@pytest.mark.slow
class TestOpenAIAgents:
    @pytest.fixture(autouse=True)
    def agents(self) -> Any:
        return pytest.importorskip("agents", reason="needs the dependency group 'frameworks'")

    def test_handoffs_and_what_they_lead_to_are_its_tools(self, agents: Any) -> None:
        other = agents.Agent(name="Other One", tools=[agents.function_tool(add)])
        third = agents.Agent(name="third", handoffs=[other])
        other.handoffs = [third]
        agent = agents.Agent(name="first", handoffs=[agents.handoff(other), third])
        assert sorted(names(agent)) == ["add", "transfer_to_other_one", "transfer_to_third"]

    def test_hosted_tools_are_refused(self, agents: Any) -> None:
        with pytest.raises(TypeError, match="WebSearchTool has no tools"):
            tools_of(agents.Agent(name="first", tools=[agents.WebSearchTool()]))

    def test_tools_of_an_mcp_server_are_known_too_late(self, agents: Any) -> None:
        with pytest.raises(TypeError, match="known only when it runs"):
            tools_of(agents.Agent(name="first", mcp_servers=[object()]))


@pytest.mark.slow
class TestPydanticAI:
    @pytest.fixture(autouse=True)
    def pydantic_ai(self) -> Any:
        return pytest.importorskip("pydantic_ai", reason="needs the dependency group 'frameworks'")

    def test_a_typed_answer_is_a_tool_too(self, pydantic_ai: Any) -> None:
        class Answer(BaseModel):
            number: float

        agent = pydantic_ai.Agent(tools=[add], output_type=Answer)
        assert names(agent) == ["add", "final_result"]
        assert tools_of(agent)[0].function.parameters.required == ["a"]

    def test_a_toolset_that_is_known_too_late_is_refused(self, pydantic_ai: Any) -> None:
        agent = pydantic_ai.Agent(toolsets=[pydantic_ai.FunctionToolset([add]).prefixed("x")])
        with pytest.raises(TypeError, match="known only when it runs"):
            tools_of(agent)


@pytest.mark.slow
class TestLangChain:
    def test_tools_and_the_agent_that_has_them(self) -> None:
        langchain_tools = pytest.importorskip("langchain_core.tools", reason="needs the group 'frameworks'")
        agents = pytest.importorskip("langchain.agents", reason="needs the group 'frameworks'")
        models = pytest.importorskip("langchain_openai", reason="needs the group 'frameworks'")
        tool = langchain_tools.tool(add)
        graph = agents.create_agent(models.ChatOpenAI(model="policy", api_key="x"), [tool])
        assert names([tool]) == names(graph) == ["add"]
        assert tools_of(graph)[0].function.description == "Add two numbers."
