"""The registry of agent loops."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from osmosis_ai.rollout import (
    AgentLoopNotFoundError,
    AgentLoopRegistry,
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    get_agent_loop,
    list_agent_loops,
    register_agent_loop,
    registry as registry_module,
    unregister_agent_loop,
)


class Calculator(RolloutAgentLoop):
    name = "calculator"

    def __init__(self, name: Any = None) -> None:
        if name is not None:
            self.name = name

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return []

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        return ctx.complete([])


class Impostor(Calculator):
    """Inherits the name of its parent."""


@pytest.fixture
def registry() -> AgentLoopRegistry:
    return AgentLoopRegistry()


@pytest.fixture
def global_registry() -> Iterator[AgentLoopRegistry]:
    registry_module._REGISTRY.clear()
    yield registry_module._REGISTRY
    registry_module._REGISTRY.clear()


def test_a_new_registry_is_empty(registry: AgentLoopRegistry) -> None:
    assert registry.list_names() == []


def test_a_registered_loop_is_found_by_its_name(registry: AgentLoopRegistry) -> None:
    loop = Calculator()
    registry.register(loop)
    assert registry.get("calculator") is loop


def test_an_unknown_name_gives_nothing(registry: AgentLoopRegistry) -> None:
    assert registry.get("calculator") is None


def test_names_are_listed_in_order_of_registration(registry: AgentLoopRegistry) -> None:
    for name in ("b", "c", "a"):
        registry.register(Calculator(name))
    assert registry.list_names() == ["b", "c", "a"]


def test_the_list_of_names_is_a_copy(registry: AgentLoopRegistry) -> None:
    registry.register(Calculator())
    registry.list_names().clear()
    assert registry.list_names() == ["calculator"]


def test_the_same_object_cannot_be_registered_twice(registry: AgentLoopRegistry) -> None:
    loop = Calculator()
    registry.register(loop)
    with pytest.raises(ValueError, match="'calculator' is already registered"):
        registry.register(loop)


def test_a_collision_names_both_classes_and_keeps_the_first(registry: AgentLoopRegistry) -> None:
    loop = Calculator()
    registry.register(loop)
    with pytest.raises(ValueError, match=r"already registered by .*Calculator, so .*Impostor cannot"):
        registry.register(Impostor())
    assert registry.get("calculator") is loop


def test_unregistering_says_whether_the_name_was_known(registry: AgentLoopRegistry) -> None:
    registry.register(Calculator())
    assert registry.unregister("calculator") is True
    assert registry.unregister("calculator") is False
    assert registry.get("calculator") is None


def test_an_unregistered_name_is_free_again(registry: AgentLoopRegistry) -> None:
    registry.register(Calculator())
    registry.unregister("calculator")
    registry.register(Impostor())
    assert isinstance(registry.get("calculator"), Impostor)


def test_clearing_forgets_every_loop(registry: AgentLoopRegistry) -> None:
    registry.register(Calculator())
    registry.clear()
    assert registry.list_names() == []


def test_a_loop_renamed_later_stays_under_its_old_name(registry: AgentLoopRegistry) -> None:
    loop = Calculator()
    registry.register(loop)
    loop.name = "renamed"
    assert registry.get("calculator") is loop
    assert registry.unregister("calculator") is True


def test_a_class_is_refused_with_the_remedy(registry: AgentLoopRegistry) -> None:
    with pytest.raises(TypeError, match=r"register an instance, Calculator\(\)"):
        registry.register(Calculator)  # type: ignore[arg-type] # the mistake under test


@pytest.mark.parametrize("impostor", [None, "calculator", 3])
def test_anything_but_an_agent_loop_is_refused(registry: AgentLoopRegistry, impostor: Any) -> None:
    with pytest.raises(TypeError, match=f"Cannot register a {type(impostor).__name__}"):
        registry.register(impostor)


def test_something_that_merely_has_a_name_is_refused(registry: AgentLoopRegistry) -> None:
    class Named:
        name = "named"

    loop: Any = Named()
    with pytest.raises(TypeError, match="RolloutAgentLoop"):
        registry.register(loop)
    assert registry.list_names() == []


@pytest.mark.parametrize(("name", "error"), [(" \t", ValueError), ("", ValueError), (7, TypeError), (["a"], TypeError)])
def test_a_name_that_is_blank_or_no_string_is_refused(
    registry: AgentLoopRegistry, name: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="Calculator"):
        registry.register(Calculator(name))


def test_of_many_threads_one_gets_the_name(registry: AgentLoopRegistry) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(16)

    def register() -> None:
        start.wait()
        try:
            registry.register(Calculator())
            outcomes.append("registered")
        except ValueError:
            outcomes.append("refused")

    threads = [threading.Thread(target=register) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 15 + ["registered"]


def test_the_global_functions_share_one_registry(global_registry: AgentLoopRegistry) -> None:
    loop = Calculator()
    register_agent_loop(loop)
    assert get_agent_loop("calculator") is loop is global_registry.get("calculator")
    assert list_agent_loops() == ["calculator"]
    assert unregister_agent_loop("calculator") is True
    assert unregister_agent_loop("calculator") is False


def test_a_missing_loop_is_reported_with_the_names_there_are(global_registry: AgentLoopRegistry) -> None:
    global_registry.register(Calculator("a"))
    with pytest.raises(AgentLoopNotFoundError) as caught:
        get_agent_loop("b")
    assert (caught.value.name, caught.value.available) == ("b", ["a"])
