"""The way to the trainer: real sockets, which refuse, hang, redirect, or have another clock."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from support.doctor import assert_names, find
from support.trainer_peer import TrainerPeer

from osmosis_ai.rollout.tooling.doctor.examination import CHECKS, examine
from osmosis_ai.rollout.tooling.doctor.types import Setup, Status

KEY = "the-key-of-the-callbacks"
CHAT, COMPLETED = "/v1/chat/completions", "/v1/rollout/completed"
TRAINER_CHECKS = tuple(check.id for check in CHECKS if check.id.startswith("trainer-") or check.id == "clock")


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A URL whose connections are neither taken nor refused: the listener's queue is full."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_healthy_one_is_asked_nothing_that_could_harm() -> None:
    with TrainerPeer(key=KEY) as trainer:
        for check_id in TRAINER_CHECKS:
            finding = find(check_id, trainer=trainer.url, trainer_key=KEY, local=True)
            assert finding.status is Status.OK, finding
        assert set(trainer.requests) == {("GET", CHAT, b""), ("GET", COMPLETED, b""), ("POST", COMPLETED, b"{}")}


def test_without_a_key_it_is_only_asked_by_get() -> None:
    with TrainerPeer() as trainer:
        assert find("trainer-key", trainer=trainer.url).status is Status.NOT_CHECKED
        assert {method for method, _, _ in trainer.requests} == {"GET"}


class _Policy(BaseHTTPRequestHandler):
    """A trainer of 0.3: an OpenAI chat API, and nothing that takes results."""

    def do_GET(self) -> None:
        self.send_response(405 if self.path == "/v1/chat/completions" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.mark.slow
@pytest.mark.parametrize("path", ["", "/v1"])
def test_the_generation_of_a_caller_is_named(path: str) -> None:
    with TrainerPeer(key=KEY) as trainer:
        assert "It speaks 0.2" in find("trainer-paths", trainer=trainer.url, trainer_key=KEY).message
    with ThreadingHTTPServer(("127.0.0.1", 0), _Policy) as policy:
        threading.Thread(target=policy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{policy.server_address[1]}{path}"
        asked = f"It speaks 0.3: chat is at {url.removesuffix('/v1')}/v1/chat/completions, and it fetches results."
        assert find("trainer-paths", trainer=url).message == asked
        assert find("trainer-url", trainer=url).status is Status.OK
        policy.shutdown()


def test_no_trainer_named() -> None:
    for check_id in TRAINER_CHECKS:
        assert find(check_id).status is Status.NOT_CHECKED


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/chat/completions", "/v1/rollout/completed"])
def test_a_url_with_the_protocols_own_path_is_told_though_something_answers_there(path: str) -> None:
    with TrainerPeer(key=KEY) as trainer:
        finding = find("trainer-url", trainer=trainer.url + path)
        assert_names(finding, Status.WARNING, f"{trainer.url}{path.rstrip('/')}{CHAT}", f"as {trainer.url}")


@pytest.mark.parametrize(
    "url", ["10.0.0.5:8000", "ftp://10.0.0.5", "http://", "http://user:hunter2@10.0.0.5", "http://10.0.0.5:99999"]
)
def test_a_url_that_is_none(url: str) -> None:
    finding = find("trainer-url", trainer=url)
    assert_names(finding, Status.PROBLEM, "http://10.0.0.5:8000")
    assert "hunter2" not in str(finding)
    assert find("trainer-reachable", trainer=url).status is Status.NOT_CHECKED


class TestReaching:
    def test_a_name_that_does_not_resolve(self) -> None:
        finding = find("trainer-reachable", trainer="http://no-such-host.invalid:8000")
        assert_names(finding, Status.PROBLEM, "no-such-host.invalid", "name", "DNS")

    def test_a_port_that_nobody_listens_on(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        finding = find("trainer-reachable", trainer=f"http://127.0.0.1:{port}")
        assert_names(finding, Status.PROBLEM, "refused", "Start the trainer")
        assert find("trainer-paths", trainer=f"http://127.0.0.1:{port}").status is Status.NOT_CHECKED

    @pytest.mark.slow
    def test_a_black_hole(self, black_hole: str) -> None:
        assert_names(find("trainer-reachable", trainer=black_hole), Status.PROBLEM, "timeout", "firewall")

    @pytest.mark.slow
    def test_a_listener_that_never_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert_names(find("trainer-reachable", trainer=url), Status.PROBLEM, "silent", "hangs")

    def test_tls_where_there_is_none(self) -> None:
        with TrainerPeer() as trainer:
            url = trainer.url.replace("http://", "https://")
            assert_names(find("trainer-reachable", trainer=url), Status.PROBLEM, "tls", "http://")

    @pytest.mark.slow
    def test_all_of_it_in_time(self, black_hole: str) -> None:
        checks = [check for check in CHECKS if check.id in TRAINER_CHECKS]
        started = time.monotonic()
        examine(Setup(trainer=black_hole), checks=checks)
        assert time.monotonic() - started < 15.0


class TestPaths:
    def test_that_are_not_there(self) -> None:
        with TrainerPeer(get=404) as trainer:
            finding = find("trainer-paths", trainer=trainer.url + "/v1")
            assert_names(finding, Status.PROBLEM, "404", CHAT, "without /v1")

    def test_that_are_elsewhere(self) -> None:
        with TrainerPeer(get=307, location="https://trainer.example/") as trainer:
            finding = find("trainer-paths", trainer=trainer.url)
            assert_names(finding, Status.PROBLEM, "307", "https://trainer.example/")

    def test_of_a_trainer_that_is_down(self) -> None:
        with TrainerPeer(get=502) as trainer:
            assert_names(find("trainer-paths", trainer=trainer.url), Status.PROBLEM, "502")

    @pytest.mark.parametrize("status", [200, 400, 401, 405, 422, 429, 501])
    def test_that_are_there(self, status: int) -> None:
        with TrainerPeer(get=status) as trainer:
            assert find("trainer-paths", trainer=trainer.url).status is Status.OK


class TestKey:
    def test_that_is_refused(self) -> None:
        with TrainerPeer(key="another-one") as trainer:
            finding = find("trainer-key", trainer=trainer.url, trainer_key=KEY)
        assert_names(finding, Status.PROBLEM, "401", "--trainer-key")
        assert KEY not in str(finding)

    @pytest.mark.parametrize("status", [401, 403])
    def test_that_is_missing(self, status: int) -> None:
        with TrainerPeer(get=status) as trainer:
            finding = find("trainer-key", trainer=trainer.url)
        assert_names(finding, Status.WARNING, str(status), "api_key")

    def test_of_a_trainer_that_takes_anything_for_a_result(self) -> None:
        with TrainerPeer(post=200) as trainer:
            finding = find("trainer-key", trainer=trainer.url, trainer_key=KEY)
        assert_names(finding, Status.WARNING, "empty result")


class TestPlace:
    def test_a_trainer_on_the_loopback_of_a_server_for_others(self) -> None:
        with TrainerPeer() as trainer:
            finding = find("trainer-place", trainer=trainer.url)
        assert_names(finding, Status.WARNING, "127.0.0.1 is this machine itself", "server_url")

    @pytest.mark.slow
    def test_a_trainer_elsewhere_and_a_server_on_the_loopback(self) -> None:
        finding = find("trainer-place", trainer="http://192.0.2.7:8000", local=True)
        assert_names(finding, Status.PROBLEM, "192.0.2.7", "--host 0.0.0.0")

    def test_an_address_that_is_every_interface(self) -> None:
        with TrainerPeer() as trainer:
            url = trainer.url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - called, not bound
            assert_names(find("trainer-place", trainer=url), Status.PROBLEM, "no address to call")

    @pytest.mark.slow
    def test_a_trainer_elsewhere_and_a_server_for_others(self) -> None:
        assert find("trainer-place", trainer="http://192.0.2.7:8000").status is Status.OK


class TestAllowed:
    def test_a_trainer_that_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_ALLOWED_TRAINER_HOSTS", "10.0.0.5, trainer.example:8000")
        with TrainerPeer() as trainer:
            finding = find("trainer-allowed", trainer=trainer.url)
        assert_names(finding, Status.PROBLEM, "127.0.0.1", "ALLOWED_TRAINER_HOSTS", "422")

    def test_a_trainer_that_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_ALLOWED_TRAINER_HOSTS", "10.0.0.5, 127.0.0.1")
        with TrainerPeer() as trainer:
            assert find("trainer-allowed", trainer=trainer.url).status is Status.OK


class TestProxy:
    def test_in_between(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with TrainerPeer() as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://user:hunter2@"))
            finding = find("trainer-proxy", trainer="http://192.0.2.7:8000")
            assert proxy.requests[0][1] == f"http://192.0.2.7:8000{CHAT}"
        assert_names(finding, Status.WARNING, "192.0.2.7", "NO_PROXY")
        assert "hunter2" not in str(finding)

    def test_that_refuses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
        finding = find("trainer-reachable", trainer="http://192.0.2.7:8000")
        assert_names(finding, Status.PROBLEM, "by the proxy")


class TestClock:
    @pytest.mark.parametrize(("ahead_seconds", "word"), [(3600.0, "ahead of"), (-90.0, "behind")])
    def test_that_is_wrong(self, ahead_seconds: float, word: str) -> None:
        with TrainerPeer(clock_ahead_seconds=ahead_seconds) as trainer:
            finding = find("clock", trainer=trainer.url)
        assert_names(finding, Status.WARNING, word, "NTP")
        seconds = int(finding.message.split(" s ")[0].rpartition(" ")[2])
        assert abs(seconds - abs(ahead_seconds)) <= 2

    @pytest.mark.parametrize("ahead_seconds", [0.0, 3.0, -3.0])
    def test_that_is_about_right(self, ahead_seconds: float) -> None:
        with TrainerPeer(clock_ahead_seconds=ahead_seconds) as trainer:
            assert find("clock", trainer=trainer.url).status is Status.OK

    def test_that_is_not_told(self) -> None:
        with TrainerPeer(sends_date=False) as trainer:
            assert find("clock", trainer=trainer.url).status is Status.NOT_CHECKED
