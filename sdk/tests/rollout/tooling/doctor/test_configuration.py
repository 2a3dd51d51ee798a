"""Settings, ``.env`` and the server's key."""

import os
from pathlib import Path

import pytest
from support.doctor import assert_names, find

from osmosis_ai.rollout.tooling.doctor.configuration import known_variables
from osmosis_ai.rollout.tooling.doctor.types import Status

KEY = "OSMOSIS_ROLLOUT_SERVER_API_KEY"
GOOD_KEY = "Zq3v_8Lr-1sT6wXb9yNd2kQe"
ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - nothing is bound


@pytest.fixture(autouse=True)
def _no_dotenv_of_the_settings_is_left(folder: Path) -> None:
    assert not (folder / ".env").exists()


class TestDotenv:
    @pytest.mark.parametrize(("content", "word"), [(b"A=\xff\xfe", "no UTF-8 text"), (b"A=a\0b", "NUL")])
    def test_that_is_no_text(self, folder: Path, content: bytes, word: str) -> None:
        (folder / ".env").write_bytes(content)
        assert_names(find("dotenv"), Status.PROBLEM, word, str(folder / ".env"), "OSMOSIS_NO_DOTENV")

    def test_with_a_key_that_others_may_read(self, folder: Path) -> None:
        file = folder / ".env"
        file.write_text(f"export {KEY}={GOOD_KEY}\n")
        file.chmod(0o644)
        finding = find("dotenv")
        assert_names(finding, Status.WARNING, f"chmod 600 {file}")
        assert GOOD_KEY not in str(finding)
        file.chmod(0o600)
        assert find("dotenv").status is Status.OK

    def test_without_a_key_may_be_read_by_all(self, folder: Path) -> None:
        (folder / ".env").write_text(f"OSMOSIS_ROLLOUT_SERVER_MAX_TURNS=1\n{KEY}=\n")
        (folder / ".env").chmod(0o644)
        assert find("dotenv").status is Status.OK

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_of_somebody_else(self, folder: Path) -> None:
        (folder / ".env").touch()
        os.chown(folder / ".env", 12345, -1)
        assert_names(find("dotenv"), Status.WARNING, "another user", "chown")

    def test_that_is_not_wanted(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / ".env").write_bytes(b"\xff")
        monkeypatch.setenv("OSMOSIS_NO_DOTENV", "1")
        assert find("dotenv").status is Status.OK


class TestSettings:
    def test_all_that_are_out_of_bounds_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_MAX_BODY_BYTES", "lots")
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_DRAIN_SECONDS", "-1")
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES", "99")
        monkeypatch.setenv("ROLLOUT_SERVER_PORT", "nine")
        assert_names(
            find("settings"),
            Status.PROBLEM,
            "SERVER_MAX_BODY_BYTES: ",
            "SERVER_DRAIN_SECONDS: ",
            "CLIENT_MAX_RETRIES: ",
            "ROLLOUT_SERVER_PORT: ",
        )

    def test_two_that_contradict_each_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_RETRY_BASE_DELAY", "50")
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_RETRY_MAX_DELAY", "5")
        assert_names(find("settings"), Status.PROBLEM, "OSMOSIS_ROLLOUT_CLIENT_RETRY_BASE_DELAY")

    def test_one_that_is_wrong_hides_no_other_finding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_MAX_BODY_BYTES", "lots")
        monkeypatch.setenv(KEY, GOOD_KEY)
        assert find("key").status is Status.OK


class TestVariables:
    def test_one_that_is_misspelt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_APIKEY", GOOD_KEY)
        monkeypatch.setenv("ROLLOUT_SERVER_PROT", "9000")
        finding = find("variables")
        assert_names(
            finding,
            Status.PROBLEM,
            "OSMOSIS_ROLLOUT_SERVER_APIKEY",
            f"{KEY} for OSMOSIS_ROLLOUT_SERVER_APIKEY",
            "ROLLOUT_SERVER_PORT for ROLLOUT_SERVER_PROT",
        )
        assert GOOD_KEY not in str(finding)

    def test_one_that_is_like_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_FROBNICATION", "1")
        assert_names(find("variables"), Status.WARNING, "OSMOSIS_ROLLOUT_FROBNICATION")

    def test_all_that_are_known_and_other_peoples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in known_variables() - {"OSMOSIS_ROLLOUT_CLIENT", "OSMOSIS_ROLLOUT_SERVER"}:
            monkeypatch.setenv(name, "1")
        monkeypatch.setenv("OSMOSIS_PLATFORM_TEAM", "1")
        assert find("variables").status is Status.OK


class TestKey:
    def test_none_where_others_may_call(self) -> None:
        assert_names(find("key"), Status.WARNING, "No key is set", KEY)

    def test_switched_off_where_others_may_call(self) -> None:
        assert_names(find("key", local=True, host=ALL_INTERFACES), Status.PROBLEM, ALL_INTERFACES, "--local", KEY)

    @pytest.mark.parametrize("setup", [{"local": True}, {"host": "127.0.0.1"}, {"host": "::1"}, {"host": "localhost"}])
    def test_none_where_nobody_else_may_call(self, setup: dict[str, object]) -> None:
        assert find("key", **setup).status is Status.OK

    @pytest.mark.parametrize("way", ["option", "variable"])
    def test_one_that_is_given(self, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if way == "variable":
            monkeypatch.setenv(KEY, GOOD_KEY)
        setup = {"api_key": GOOD_KEY} if way == "option" else {}
        for check_id in ("key", "key-strength"):
            finding = find(check_id, **setup)
            assert finding.status is Status.OK
            assert GOOD_KEY not in str(finding)

    @pytest.mark.parametrize("key", ["abc", "changeme-changeme", "your-api-key-goes-here", "x" * 20])
    def test_one_that_is_easy_to_guess(self, key: str) -> None:
        finding = find("key-strength", api_key=key)
        assert_names(finding, Status.WARNING, "easy to guess")
        assert f" {key} " not in str(finding)

    @pytest.mark.parametrize("key", [f"{GOOD_KEY} {GOOD_KEY}", f" {GOOD_KEY}", f"{GOOD_KEY}\n", f"{GOOD_KEY}é", " "])
    def test_one_that_no_header_carries(self, key: str) -> None:
        finding = find("key-strength", api_key=key)
        assert_names(finding, Status.PROBLEM, "The key")
        assert GOOD_KEY not in str(finding)
