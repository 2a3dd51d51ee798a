"""Registration is not there; the names others reach for are, and say so."""

import logging

import pytest

from osmosis_ai._compat import registration
from osmosis_ai._compat.registration import (
    RegistrationResult,
    get_public_ip,
    get_report_host,
    print_registration_result,
    register_with_platform,
)
from osmosis_ai.rollout.server.public_address import PublicIPDetectionError

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - nothing is bound


def test_it_never_registers_and_says_what_to_do_instead(caplog: pytest.LogCaptureFixture) -> None:
    result = register_with_platform(
        host="h", port=9000, agent_loop_name="calculator", credentials=object(), api_key="secret-key"
    )
    assert not result.success
    assert not result.is_healthy
    assert result.error is not None
    assert "not available" in result.error
    print_registration_result(result=result, host="h", port=9000, agent_loop_name="calculator", api_key="secret-key")
    assert "not available" in caplog.text
    assert "secret-key" not in caplog.text


def test_a_result_is_healthy_by_its_status(caplog: pytest.LogCaptureFixture) -> None:
    assert RegistrationResult(success=True, status="healthy").is_healthy
    assert RegistrationResult(True) == RegistrationResult(True, None, "unknown", None, None)
    caplog.set_level(logging.INFO)
    print_registration_result(RegistrationResult(True), "h", 9000, "calculator")
    assert "calculator" in caplog.text


class TestReportHost:
    def test_a_definite_host_is_reported_as_it_is(self) -> None:
        assert get_report_host("10.0.0.5") == "10.0.0.5"

    def test_all_interfaces_are_reported_as_the_public_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_PUBLIC_HOST", "rollouts.example")
        assert get_public_ip() == "rollouts.example"
        assert get_report_host(ALL_INTERFACES) == "rollouts.example"

    @pytest.mark.parametrize("name", ["detect_public_ip", "get_public_ip"])
    def test_either_detection_may_be_replaced(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr(registration, name, lambda: "203.0.113.7")
        assert get_report_host(ALL_INTERFACES) == "203.0.113.7"

    def test_without_a_public_address_the_host_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> str:
            raise PublicIPDetectionError("none")

        monkeypatch.setattr(registration, "detect_public_ip", fail)
        assert get_report_host(ALL_INTERFACES) == ALL_INTERFACES
