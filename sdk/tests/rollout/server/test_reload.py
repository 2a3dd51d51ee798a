"""What a reloading server's child needs: the plan its parent left, and an agent loop it can import again."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import SecretStr
from support.rollouts import ScriptedAgent, client_of, init_body

from osmosis_ai.rollout.core.loading import CLIError
from osmosis_ai.rollout.core.settings import RolloutClientSettings, RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.plan import PLAN_VARIABLE, Plan, app as child_app, import_string_of

KEY = "osm_rollout_reload-key"

AGENT = """
from osmosis_ai.rollout import RolloutAgentLoop

class Agent(RolloutAgentLoop):
    name = "reloaded"

    def get_tools(self, request):
        return []

    async def run(self, ctx):
        return ctx.complete([])

agent_loop = Agent()
"""


def plan(module_path: str = "some_agent:agent_loop", **server: object) -> Plan:
    settings = RolloutSettings(
        client=RolloutClientSettings(max_retries=1),
        server=RolloutServerSettings.model_validate({"api_key": KEY, "max_concurrent_rollouts": 3, **server}),
    )
    return Plan(module_path, "traces/1", settings)


class TestPlan:
    def test_survives_the_way_to_the_child(self) -> None:
        assert Plan.from_json(plan().to_json()) == plan()

    def test_wins_over_the_childs_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = plan(api_key=None).to_json()
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_API_KEY", "from-environment")
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_MAX_CONCURRENT_ROLLOUTS", "7")
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES", "9")
        settings = Plan.from_json(text).settings
        assert settings.server.api_key is None
        assert settings.server.max_concurrent_rollouts == 3
        assert settings.client.max_retries == 1

    def test_does_not_show_the_key(self) -> None:
        assert plan().settings.server.api_key == SecretStr(KEY)
        assert KEY not in repr(plan())


class TestChild:
    @pytest.fixture
    def working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return tmp_path

    async def test_serves_as_its_parent_was_asked_to(
        self, working_directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (working_directory / "reloaded_agent.py").write_text(AGENT)
        monkeypatch.setenv(PLAN_VARIABLE, plan("reloaded_agent:agent_loop").to_json())
        try:
            app = child_app()
        finally:
            sys.modules.pop("reloaded_agent", None)
        assert app.title == "Osmosis RolloutServer (reloaded)"
        async with client_of(app) as client:
            assert (await client.post("/v1/rollout/init", json=init_body())).status_code == 401

    def test_ends_with_one_sentence_if_its_module_is_broken(
        self, working_directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (working_directory / "broken_agent.py").write_text("x = (")
        monkeypatch.setenv(PLAN_VARIABLE, plan("broken_agent:agent_loop").to_json())
        with pytest.raises(SystemExit, match=r"^Error: Cannot import module 'broken_agent': SyntaxError"):
            child_app()


class TestImportString:
    def test_is_where_a_module_keeps_the_agent_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("kept_here")
        agent = ScriptedAgent()
        vars(module)["my_loop"] = agent
        monkeypatch.setitem(sys.modules, "kept_here", module)
        assert import_string_of(agent) == "kept_here:my_loop"

    def test_there_is_none_for_an_object_of_the_script_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        agent = ScriptedAgent()
        script = ModuleType("__main__")
        vars(script)["agent_loop"] = agent
        monkeypatch.setitem(sys.modules, "__main__", script)
        with pytest.raises(CLIError, match="module_path='module:attribute'"):
            import_string_of(agent)
