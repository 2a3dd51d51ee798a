"""The viewer over HTTP: for this machine's browser alone, and nothing can be written."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.plain_http import PLAIN
from support.processes import Program, own_environment
from support.traces import TraceMaker, answer, call, calling, saying

from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.store import Store
from osmosis_ai.rollout.observe.traces.viewer.app import viewer_app
from osmosis_ai.rollout.observe.traces.viewer.page import SCRIPTS

PORT = 4567


def client_of(folder: Path, host: str = f"127.0.0.1:{PORT}") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=viewer_app(TraceIndex(folder)))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


def rollout(name: str) -> TraceMaker:
    return TraceMaker(name).start("1 + 2?").turn(1, saying("#### 3"))


def rows(answer: httpx.Response) -> list[dict[str, Any]]:
    document = answer.json()
    return [dict(zip(document["columns"], row, strict=True)) for row in document["rows"]]


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"[::1]:{PORT}", f"LOCALHOST:{PORT}"])
async def test_it_answers_to_the_names_of_this_machine(tmp_path: Path, host: str) -> None:
    async with client_of(tmp_path, host) as client:
        assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1.evil", "localhost.evil", "0"])
@pytest.mark.parametrize("path", ["/", "/api/rollouts", "/api/rollouts/0", "/static/main.js"])
async def test_a_name_bound_to_this_machine_by_somebody_else_gets_nothing(tmp_path: Path, host: str, path: str) -> None:
    rollout("secret").end().write(tmp_path)
    async with client_of(tmp_path, host) as client:
        answer = await client.get(path)
    assert answer.status_code == 403
    assert "secret" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/api/rollouts", "/api/rollouts/0"])
async def test_nothing_can_be_written(tmp_path: Path, method: str, path: str) -> None:
    async with client_of(tmp_path) as client:
        assert (await client.request(method, path)).status_code == 405


async def test_no_script_but_its_own_runs_on_the_page(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        page = await client.get("/")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in page.headers
        assert "style=" not in page.text
        for name in SCRIPTS:
            script = await client.get(f"/static/{name}")
            assert script.headers["content-type"].startswith("text/javascript")
            assert "innerHTML" not in script.text


@pytest.mark.parametrize("name", ["../app.py", "%2e%2e/app.py", "index.html", "..%2f..%2fapp.py", "nothing.js"])
async def test_only_the_pages_files_are_served(tmp_path: Path, name: str) -> None:
    async with client_of(tmp_path) as client:
        assert (await client.get(f"/static/{name}")).status_code == 404


async def test_rows_come_once_and_then_only_what_changed(tmp_path: Path) -> None:
    maker = rollout("r1")
    maker.write(tmp_path)
    rollout("r2").end(reward=1.0).delivered().write(tmp_path)
    async with client_of(tmp_path) as client:
        first = await client.get("/api/rollouts")
        assert {(row["id"], row["status"]) for row in rows(first)} == {("r1", "UNFINISHED"), ("r2", "COMPLETED")}
        version = first.json()["version"]
        assert (await client.get(f"/api/rollouts?since={version}")).json()["rows"] == []
        maker.end(status="ERROR", error_message="boom", extra_fields={"outcome": "agent_error"}).write(tmp_path)
        [row] = (await client.get(f"/api/rollouts?since={version}")).json()["rows"]
        assert (row[1], row[5], row[6]) == ("r1", "ERROR", "agent_error")
        assert (await client.get("/api/rollouts?since=999")).json()["whole"]
        assert (await client.get("/api/rollouts?since=x")).status_code == 200


async def test_a_rollout_comes_with_all_its_events(tmp_path: Path) -> None:
    maker = rollout("r1").end()
    path = maker.write(tmp_path)
    async with client_of(tmp_path) as client:
        assert (await client.get("/api/rollouts/0")).status_code == 404  # not read yet
        await client.get("/api/rollouts")
        answer = (await client.get("/api/rollouts/0")).json()
        assert answer["events"] == [json.loads(line) for line in maker.lines]
        assert not answer["cut"]
        for key in ("1", "-1", "x", "99999999999999999999"):
            assert (await client.get(f"/api/rollouts/{key}")).status_code == 404
        path.unlink()
        assert (await client.get("/api/rollouts/0")).status_code == 410


async def test_a_page_of_another_start_gets_all_anew_and_no_rollout_by_its_key(tmp_path: Path) -> None:
    rollout("r1").end().write(tmp_path)
    async with client_of(tmp_path) as client:
        first = (await client.get("/api/rollouts")).json()
        version, epoch = first["version"], first["epoch"]
        same = (await client.get(f"/api/rollouts?since={version}&epoch={epoch}")).json()
        assert (same["rows"], same["whole"]) == ([], False)
        other = (await client.get(f"/api/rollouts?since={version}&epoch=other")).json()
        assert (len(other["rows"]), other["whole"], other["epoch"]) == (1, True, epoch)
        assert (await client.get(f"/api/rollouts/0?epoch={epoch}")).status_code == 200
        assert (await client.get("/api/rollouts/0?epoch=other")).status_code == 409


async def test_the_search_finds_what_tools_were_called_with_and_said(tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("1 + 2?").turn(1, calling(call(1, "Add", a=17)), [answer(1, "Three <b>")])
    maker.turn(2, saying("#### 3")).end().write(tmp_path)
    last = TraceMaker("r2").start("1 + 2?").turn(1, calling(call(1, "add", a=18)), [answer(1, "Cut off")])
    last.end(finish_reason="max_turns").write(tmp_path)
    async with client_of(tmp_path) as client:
        document = (await client.get("/api/rollouts")).json()
        keys = {row[1]: row[0] for row in document["rows"]}
        words = ["THREE <B>", "add", "17", "cut off", "nothing", ""]
        found = (await client.get("/api/search", params={"word": words})).json()["found"]
        both = sorted(keys.values())
        assert found == [[keys["r1"]], both, [keys["r1"]], [keys["r2"]], [], both]
        assert (await client.get("/api/search")).json()["found"] == []
        many = await client.get("/api/search", params={"word": ["x" * 500] * 20})
        assert len(many.json()["found"]) == 8


def test_it_starts_without_what_it_does_not_need(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from osmosis_ai.rollout.observe.traces.index import TraceIndex\n"
        "from osmosis_ai.rollout.observe.traces.viewer.serve import serve_viewer\n"
        "serve_viewer(TraceIndex('.'), 0, lambda _: sys.exit(print({'httpx', 'websockets'} & sys.modules.keys())))"
    )
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, cwd=tmp_path, env=own_environment(), capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


class WithoutPowers(Program):
    """As somebody to whom the rights of files apply, though it be root."""

    COMMAND = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", *Program.COMMAND)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_shown_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    rollout("kept-by-another").end(reward=1.0).write(folder / "run")
    folder.chmod(0o555)
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv here")
    program = WithoutPowers if os.geteuid() == 0 else Program
    try:
        for _ in range(2):  # nothing is kept: the second time it is read again
            with program(tmp_path, "view", str(folder)) as viewer:
                url = viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0]
                found = rows(httpx.get(f"{url}api/rollouts", **PLAIN))
                assert [(row["id"], row["reward"]) for row in found] == [("kept-by-another", 1.0)]
                assert httpx.get(url, **PLAIN).status_code == 200
        assert [entry.name for entry in folder.iterdir()] == ["run"]
    finally:
        folder.chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["folder", "trace"])
def test_what_can_no_longer_be_reached_is_shown_as_it_was(tmp_path: Path, what: str) -> None:
    above = tmp_path / "above"
    trace = rollout("r1").end(reward=1.0).write(above / "traces")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may read everywhere, and there is no setpriv here")
    program = WithoutPowers if os.geteuid() == 0 else Program
    with program(tmp_path, "view", str(trace if what == "trace" else trace.parent)) as viewer:
        url = viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0]
        assert len(rows(httpx.get(f"{url}api/rollouts", **PLAIN))) == 1
        above.chmod(0)
        try:
            assert len(rows(httpx.get(f"{url}api/rollouts", **PLAIN))) == 1
            assert httpx.get(f"{url}api/rollouts/0", **PLAIN).status_code == 410
        finally:
            above.chmod(0o700)
        assert httpx.get(f"{url}api/rollouts/0", **PLAIN).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_it_has_read_is_kept_though_it_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "traces"
    rollout("r1").end(reward=1.0).write(folder / "run")
    with Program(tmp_path, "view", str(folder)) as viewer:
        url = viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0]
        assert len(rows(httpx.get(f"{url}api/rollouts", **PLAIN))) == 1
        viewer.signal(number)
    assert len(Store(folder).load()) == 1
