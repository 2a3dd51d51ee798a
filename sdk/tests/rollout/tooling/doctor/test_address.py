"""The host, the port, and who is there already."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agent_files import write_agent
from support.doctor import assert_names, find, find_elsewhere
from support.live_server import LiveServer
from support.processes import ServingProgram

from osmosis_ai.rollout import create_app
from osmosis_ai.rollout.core.loading import load_agent_loop
from osmosis_ai.rollout.core.settings import RolloutSettings
from osmosis_ai.rollout.tooling.doctor.address import command_of
from osmosis_ai.rollout.tooling.doctor.types import Status

pytestmark = pytest.mark.slow

LOOPBACK = "127.0.0.1"
KEY = "Zq3v_8Lr-1sT6wXb9yNd2kQe"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("host", [LOOPBACK, "0.0.0.0"])  # noqa: S104 - it is asked for what is taken
def test_a_port_that_is_taken_and_by_whom(host: str, taken: int) -> None:
    finding = find("port", host=host, port=taken)
    assert_names(finding, Status.PROBLEM, f"Port {taken} is taken by process {os.getpid()} (python", "-p")
    assert find("host", host=host, port=taken).status is Status.OK


def test_a_port_that_is_free(taken: int) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        free = listener.getsockname()[1]
    for port in (free, 0):
        assert find("port", host=LOOPBACK, port=port).status is Status.OK
        assert find("running-server", host=LOOPBACK, port=port).status is Status.OK


def test_a_port_that_only_root_may_use() -> None:
    finding = find_elsewhere("port", "setpriv", "--bounding-set=-all", "--inh-caps=-all", host=LOOPBACK, port=80)
    if finding.status is Status.OK:
        pytest.skip("this system lets everybody use port 80")
    assert_names(finding, Status.PROBLEM, "below 1024", "-p 9000")


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_a_host_that_is_another_machine(host: str) -> None:
    assert_names(find("host", host=host, port=0), Status.PROBLEM, host, "no address of this machine", "0.0.0.0")  # noqa: S104 - it is asked for what is taken
    assert find("port", host=host, port=9000).status is Status.NOT_CHECKED


@pytest.mark.parametrize("host", ["no-such-host.invalid", "not a host"])
def test_a_host_that_is_nowhere(host: str) -> None:
    assert_names(find("host", host=host, port=0), Status.PROBLEM, f"--host {host} cannot be resolved")


@pytest.mark.parametrize("host", [LOOPBACK, "localhost", "0.0.0.0"])  # noqa: S104 - for a moment
def test_a_host_that_is_this_machine(host: str) -> None:
    assert find("host", host=host, port=0).status is Status.OK


def test_a_server_that_everybody_may_use(folder: Path) -> None:
    write_agent(folder)
    arguments = ["-m", "user_agent:agent_loop", "--local", "--host", "0.0.0.0", "-p", "0", "--journal", "off"]  # noqa: S104 - it is asked for what is taken
    with ServingProgram(folder, *arguments) as server:
        server.wait_until_serving()
        assert_names(find("running-server", port=server.port), Status.PROBLEM, "without a key", "127.0.0.1")
        finding = find("port", port=server.port)
        assert_names(finding, Status.PROBLEM, "a rollout server for 'agent'", "python -m osmosis_ai serve")


@pytest.fixture
def keyed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server whose key is ``KEY``."""
    write_agent(folder)
    monkeypatch.syspath_prepend(str(folder))
    agent = load_agent_loop("user_agent:agent_loop")
    del sys.modules["user_agent"]  # other tests have one of that name too
    with LiveServer(create_app(agent, settings=RolloutSettings(), api_key=KEY)) as server:
        yield server.port


def test_a_server_with_another_key(keyed: int) -> None:
    finding = find("running-server", host=LOOPBACK, port=keyed, api_key="another-key-than-it-has")
    assert_names(finding, Status.PROBLEM, "another key", "OSMOSIS_ROLLOUT_SERVER_API_KEY")


def test_a_server_with_this_key(keyed: int) -> None:
    finding = find("running-server", host=LOOPBACK, port=keyed, api_key=KEY)
    assert finding.status is Status.OK
    assert "takes this one, speaks 0.2 and 0.3" in finding.message


def test_what_is_no_rollout_server_is_none(taken: int) -> None:
    assert find("running-server", host=LOOPBACK, port=taken).status is Status.OK


@pytest.mark.slow
def test_a_command_line_is_shown_up_to_its_first_option(folder: Path) -> None:
    write_agent(folder)
    arguments = ["-m", "user_agent:agent_loop", "-p", "0", "-H", LOOPBACK, "--api-key", KEY, "--journal", "off"]
    with ServingProgram(folder, *arguments) as server:
        server.wait_until_serving()
        shown = command_of(server._process.pid)
    assert shown.endswith("-m osmosis_ai serve")
    assert KEY not in shown
