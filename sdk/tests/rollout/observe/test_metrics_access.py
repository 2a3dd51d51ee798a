"""Who may read the metrics, and that what nobody reads loads nothing."""

import subprocess
import sys

import pytest
from fastapi import FastAPI
from support.fake_trainer import FakeTrainer
from support.rollouts import (
    ScriptedAgent,
    chat_once,
    client_of,
    init_body,
    lifespan_of,
    post_init,
    settings_of,
)

from osmosis_ai.rollout.core.settings import MetricsAccess
from osmosis_ai.rollout.server.app import create_app


class TestAccess:
    @staticmethod
    async def status(app: FastAPI, key: str | None = None) -> int:
        async with client_of(app) as client:
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            return (await client.get("/metrics", headers=headers)).status_code

    async def test_is_open_on_a_server_without_a_key(self) -> None:
        assert await self.status(create_app(ScriptedAgent())) == 200

    async def test_needs_the_servers_key_by_default(self) -> None:
        app = create_app(ScriptedAgent(), api_key="server-key")
        assert await self.status(app) == 401
        assert await self.status(app, "another-key") == 401
        assert await self.status(app, "server-key") == 200

    async def test_a_key_of_its_own_is_good_for_metrics_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_METRICS_KEY", "scrape-key")
        app = create_app(ScriptedAgent(), api_key="server-key")
        assert await self.status(app) == 401
        assert await self.status(app, "scrape-key") == 200
        assert await self.status(app, "server-key") == 200
        assert (await post_init(app, authorization="Bearer scrape-key")).status_code == 401

    async def test_a_key_of_its_own_closes_a_server_without_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_METRICS_KEY", "scrape-key")
        app = create_app(ScriptedAgent())
        assert await self.status(app) == 401
        assert await self.status(app, "scrape-key") == 200

    async def test_may_be_opened_to_all(self) -> None:
        settings = settings_of(server={"metrics": MetricsAccess.OPEN})
        assert await self.status(create_app(ScriptedAgent(), settings=settings, api_key="server-key")) == 200

    async def test_may_be_switched_off(self, trainer: FakeTrainer) -> None:
        settings = settings_of(server={"metrics": MetricsAccess.OFF})
        app = create_app(ScriptedAgent(chat_once), settings=settings)
        async with lifespan_of(app):
            await post_init(app, init_body("r", server_url=trainer.url))
            await trainer.result("r")
            async with client_of(app) as client:
                answer = await client.get("/metrics")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_metrics")

    async def test_without_the_library_the_answer_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.observe.setup.find_spec", lambda name: None)
        async with client_of(create_app(ScriptedAgent())) as client:
            answer = await client.get("/metrics")
        assert answer.status_code == 404
        assert "osmosis-ai[server]" in answer.json()["detail"]


def modules_after(code: str, **environment: str) -> set[str]:
    """What is imported after ``code``, in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "OSMOSIS_NO_DOTENV": "1", **environment},
    )
    return set(done.stdout.split())


APP = """
import asyncio
from osmosis_ai.rollout import RolloutAgentLoop, create_app
class Agent(RolloutAgentLoop):
    name = "a"
    def get_tools(self, request): return []
    async def run(self, ctx): return ctx.complete([])
app = create_app(Agent())
"""


SERVED = """
async def main():
    async with app.router.lifespan_context(app): pass
asyncio.run(main())
"""


class TestImports:
    @pytest.mark.slow
    def test_neither_library_is_needed_to_make_an_app(self) -> None:
        assert not modules_after(APP) & {"prometheus_client", "opentelemetry.sdk"}

    @pytest.mark.slow
    def test_a_served_app_imports_what_it_measures_with(self) -> None:
        modules = modules_after(APP + SERVED)
        assert "prometheus_client" in modules
        assert not modules & {"opentelemetry.sdk", "osmosis_ai.rollout.observe.otel"}

    @pytest.mark.slow
    def test_metrics_that_are_off_import_nothing(self) -> None:
        assert "prometheus_client" not in modules_after(APP + SERVED, OSMOSIS_ROLLOUT_SERVER_METRICS="off")
