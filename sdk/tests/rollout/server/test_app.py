"""The HTTP application: its routes, its credentials, its startup and shutdown."""

import asyncio
import inspect
import logging
import sys
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from support.rollouts import (
    INIT,
    ScriptedAgent,
    StandInClients,
    client_of,
    init_body,
    lifespan_of,
    post_init,
)

import osmosis_ai
from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings, SettingsError, configure
from osmosis_ai.rollout.server import init_endpoint, registration
from osmosis_ai.rollout.server.app import create_app

KEY = "osm_rollout_test-key"
UNAUTHORIZED = {"detail": "Invalid or missing API key"}


async def get(app: FastAPI, path: str, **headers: str) -> httpx.Response:
    async with client_of(app) as client:
        return await client.get(path, headers=headers)


class TestCreateApp:
    def test_is_the_same_object_wherever_it_is_exported(self) -> None:
        assert osmosis_ai.create_app is create_app
        assert osmosis_ai.rollout.create_app is create_app
        assert osmosis_ai.rollout.server.create_app is create_app

    def test_takes_its_arguments_in_the_documented_order_by_position_or_name(self) -> None:
        parameters = inspect.signature(create_app).parameters
        assert list(parameters) == [
            "agent_loop",
            "max_concurrent",
            "record_ttl_seconds",
            "settings",
            "credentials",
            "server_host",
            "server_port",
            "api_key",
            "debug_dir",
            "on_startup",
            "on_shutdown",
            "channel",
        ]
        *old, channel = parameters.values()
        assert {parameter.kind for parameter in old} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
        assert channel.kind is inspect.Parameter.KEYWORD_ONLY
        assert {parameter.default for parameter in [*old[1:], channel]} == {None}

    def test_without_fastapi_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "fastapi", None)
        with pytest.raises(ImportError, match=r"FastAPI is required.*osmosis-ai\[server\]"):
            create_app(ScriptedAgent())

    def test_a_bad_environment_variable_surfaces_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_MAX_CONCURRENT_ROLLOUTS", "0")
        with pytest.raises(SettingsError, match="MAX_CONCURRENT_ROLLOUTS"):
            create_app(ScriptedAgent())

    def test_is_named_for_its_agent_loop_and_has_no_middleware(self) -> None:
        app = create_app(ScriptedAgent())
        assert app.title == "Osmosis RolloutServer (scripted)"
        assert app.description
        assert "\n" not in app.description
        assert app.version == "0.1.0"
        assert app.user_middleware == []

    async def test_the_state_is_private_to_the_app(self) -> None:
        app = create_app(ScriptedAgent())
        await get(app, "/health")
        assert app.state._state == {}

    @pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
    async def test_the_documentation_is_public_on_an_open_server_only(self, path: str) -> None:
        assert (await get(create_app(ScriptedAgent()), path)).status_code == 200
        guarded = await get(create_app(ScriptedAgent(), api_key=KEY), path, authorization=f"Bearer {KEY}")
        assert guarded.status_code == 404

    async def test_the_documentation_describes_init(self) -> None:
        schema = (await get(create_app(ScriptedAgent()), "/openapi.json")).json()
        init = schema["paths"][INIT]["post"]
        assert "rollout_id" in str(init["requestBody"])
        assert "202" in init["responses"]


class TestHealth:
    async def test_says_who_serves_and_how_much(self) -> None:
        response = await get(create_app(ScriptedAgent()), "/health")
        assert response.status_code == 200
        body = response.json()
        assert {name: body[name] for name in list(body)[:4]} == {
            "status": "healthy",
            "agent_loop": "scripted",
            "active_rollouts": 0,
            "completed_rollouts": 0,
        }

    @pytest.mark.parametrize("path", ["/health", "/ready"])
    async def test_never_needs_a_key(self, path: str) -> None:
        assert (await get(create_app(ScriptedAgent(), api_key=KEY), path)).status_code == 200

    async def test_the_one_for_the_platform_exists_on_a_guarded_server_only(self) -> None:
        response = await get(create_app(ScriptedAgent()), "/platform/health", authorization=f"Bearer {KEY}")
        assert response.status_code == 404
        assert response.json() == {"detail": "Not found"}

    async def test_the_one_for_the_platform_needs_the_key(self) -> None:
        app = create_app(ScriptedAgent(), api_key=KEY)
        for refused in (await get(app, "/platform/health"), await get(app, "/platform/health", authorization="x")):
            assert (refused.status_code, refused.json()) == (401, UNAUTHORIZED)
        for header in (f"Bearer {KEY}", KEY):
            allowed = await get(app, "/platform/health", authorization=header)
            assert allowed.json() == (await get(app, "/health")).json()


class TestRoutes:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("HEAD", "/health"),
            ("POST", "/health"),
            ("DELETE", "/platform/health"),
            ("GET", INIT),
            ("HEAD", INIT),
            ("PUT", INIT),
        ],
    )
    async def test_another_method_is_405(self, method: str, path: str) -> None:
        async with client_of(create_app(ScriptedAgent(), api_key=KEY)) as client:
            assert (await client.request(method, path)).status_code == 405

    @pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat/completions", "/v2/rollout/init"])
    async def test_an_unknown_path_is_404(self, path: str) -> None:
        response = await get(create_app(ScriptedAgent()), path)
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})

    @pytest.mark.parametrize("rollout_id", ["nobody", "a/b", "../x", "%00"])
    async def test_an_unknown_rollout_is_404(self, rollout_id: str) -> None:
        async with client_of(create_app(ScriptedAgent())) as client:
            for response in (
                await client.get(f"/v1/rollout/{rollout_id}"),
                await client.post(f"/v1/rollout/{rollout_id}/cancel"),
            ):
                assert response.status_code == 404
                assert "detail" in response.json()

    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/v1/rollout/x"), ("POST", "/v1/rollout/x/cancel"), ("POST", "/v1/rollout/cancel")]
    )
    async def test_the_rollouts_are_behind_the_key(self, method: str, path: str) -> None:
        async with client_of(create_app(ScriptedAgent(), api_key=KEY)) as client:
            response = await client.request(method, path)
            assert (response.status_code, response.json()) == (401, UNAUTHORIZED)
            allowed = await client.request(method, path, headers={"authorization": f"Bearer {KEY}"})
            assert allowed.status_code in (404, 422)


class TestErrors:
    async def test_a_failure_of_our_own_is_json_and_the_server_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def break_down(*args: Any) -> Any:
            raise ZeroDivisionError("secret detail")

        app = create_app(ScriptedAgent())
        with monkeypatch.context() as broken:
            broken.setattr(init_endpoint, "parse_init", break_down)
            async with client_of(app, raise_app_exceptions=False) as client:
                response = await client.post(INIT, json=init_body())
        assert response.status_code == 500
        assert response.json() == {"detail": "Internal error: ZeroDivisionError.", "code": "internal_error"}
        assert (await get(app, "/health")).status_code == 200


@pytest.mark.usefixtures("clients")
class TestLifespan:
    async def test_the_callbacks_frame_the_requests(self) -> None:
        order: list[str] = []

        async def on_startup() -> None:
            order.append("startup")

        async def on_shutdown() -> None:
            order.append("shutdown")

        app = create_app(ScriptedAgent(), on_startup=on_startup, on_shutdown=on_shutdown)
        async with lifespan_of(app):
            order.append(str((await get(app, "/health")).status_code))
        assert order == ["startup", "200", "shutdown"]

    async def test_the_last_rollout_has_ended_when_on_shutdown_is_called(self, clients: StandInClients) -> None:
        ended_before_shutdown: list[bool] = []

        async def on_shutdown() -> None:
            ended_before_shutdown.append(bool(clients.made[0].completions))

        async def never(ctx: Any) -> Any:
            await asyncio.Event().wait()

        settings = RolloutSettings(server=RolloutServerSettings(drain_seconds=0.0))
        app = create_app(ScriptedAgent(never), settings=settings, on_shutdown=on_shutdown)
        async with lifespan_of(app):
            await post_init(app)
        assert ended_before_shutdown == [True]
        (completion,) = clients.made[0].completions
        assert completion["status"] == "ERROR"
        assert "server shutting down" in completion["error_message"]

    async def test_a_startup_that_fails_is_reported_and_cleaned_up_after(self) -> None:
        stopped: list[None] = []

        async def on_startup() -> None:
            raise RuntimeError("no database")

        async def on_shutdown() -> None:
            stopped.append(None)

        app = create_app(ScriptedAgent(), on_startup=on_startup, on_shutdown=on_shutdown)
        before = asyncio.all_tasks()
        with pytest.raises(RuntimeError, match="no database"):
            async with lifespan_of(app):
                pytest.fail("It must not serve.")
        assert stopped == [None]
        assert asyncio.all_tasks() == before

    async def test_a_shutdown_that_fails_is_reported(self) -> None:
        async def on_shutdown() -> None:
            raise RuntimeError("cannot close")

        app = create_app(ScriptedAgent(), on_shutdown=on_shutdown)
        with pytest.raises(RuntimeError, match="cannot close"):
            async with lifespan_of(app):
                pass

    async def test_no_task_is_left_behind(self, clients: StandInClients) -> None:
        app = create_app(ScriptedAgent())
        before = asyncio.all_tasks()
        async with lifespan_of(app):
            await post_init(app)
            await clients.result()
        assert asyncio.all_tasks() == before

    async def test_startup_names_the_agent_and_its_limit_and_warns_of_an_open_port(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        async with lifespan_of(create_app(ScriptedAgent(), max_concurrent=3)):
            pass
        assert "'scripted', at most 3 rollouts at once" in caplog.text
        assert "No API key" in caplog.text
        caplog.clear()
        async with lifespan_of(create_app(ScriptedAgent(), api_key=KEY)):
            pass
        async with lifespan_of(create_app(ScriptedAgent(), server_host="127.0.0.1")):
            pass
        assert "No API key" not in caplog.text
        assert KEY not in caplog.text


class TestRegistration:
    ADDRESS: tuple[object, str, int] = (object(), "0.0.0.0", 9000)  # noqa: S104 - nothing is bound

    async def test_other_code_puts_its_own_registration_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[tuple[str, dict[str, Any]]] = []

        def register(**given: Any) -> str:
            calls.append(("register", given))
            return "outcome"

        monkeypatch.setattr(registration, "register_with_platform", register)
        monkeypatch.setattr(registration, "print_registration_result", lambda **given: calls.append(("print", given)))
        credentials, host, port = self.ADDRESS
        app = create_app(ScriptedAgent(), credentials=credentials, server_host=host, server_port=port, api_key=KEY)
        async with lifespan_of(app):
            pass
        about = {"host": host, "port": port, "agent_loop_name": "scripted", "api_key": KEY}
        assert calls == [
            ("register", {**about, "credentials": credentials}),
            ("print", {**about, "result": "outcome"}),
        ]

    async def test_one_that_fails_does_not_stop_the_server(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def unreachable(**given: Any) -> Any:
            raise ConnectionError("platform unreachable")

        monkeypatch.setattr(registration, "register_with_platform", unreachable)
        credentials, host, port = self.ADDRESS
        app = create_app(ScriptedAgent(), None, None, None, credentials, host, port)
        async with lifespan_of(app):
            assert (await get(app, "/health")).status_code == 200
        assert "platform unreachable" in caplog.text

    @pytest.mark.parametrize("missing", ["credentials", "server_host", "server_port"])
    async def test_needs_credentials_host_and_port(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        calls: list[Any] = []
        monkeypatch.setattr(registration, "register_with_platform", lambda **given: calls.append(given))
        given: dict[str, Any] = dict(zip(("credentials", "server_host", "server_port"), self.ADDRESS, strict=True))
        async with lifespan_of(create_app(ScriptedAgent(), **{**given, missing: None})):
            pass
        assert calls == []


def test_the_app_serves_without_a_lifespan_and_in_one_event_loop_after_another(clients: StandInClients) -> None:
    app = create_app(ScriptedAgent(), max_concurrent=1)

    async def drive(number: int) -> None:
        for index in range(3):
            assert (await post_init(app, init_body(f"{number}-{index}"))).status_code == 202
        for _ in range(3):
            await clients.result()

    for number in range(2):
        clients.results = asyncio.Queue()
        asyncio.run(drive(number))
    assert len(clients.made) == 6


def test_global_settings_apply_unless_others_are_given() -> None:
    configure(RolloutSettings(server=RolloutServerSettings(api_key=KEY)))
    assert create_app(ScriptedAgent()).openapi_url is None
    assert create_app(ScriptedAgent(), settings=RolloutSettings()).openapi_url is not None
