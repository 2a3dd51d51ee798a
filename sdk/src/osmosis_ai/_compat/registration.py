"""Platform registration, which this SDK does not have; the names stay for code that reaches into them."""

import logging
from dataclasses import dataclass
from typing import Any

from osmosis_ai.rollout.server.public_address import PublicIPDetectionError, detect_public_ip
from osmosis_ai.rollout.wire.addresses import all_interfaces

logger = logging.getLogger(__name__)

NOT_AVAILABLE = "Registration is not available in this SDK: give the trainer this server's address and key yourself."


@dataclass
class RegistrationResult:
    """What came of a registration."""

    success: bool
    server_id: str | None = None
    status: str = "unknown"
    error: str | None = None
    server_info: dict[str, Any] | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether the platform could reach the server."""
        return self.status == "healthy"


def get_public_ip() -> str:
    """As ``detect_public_ip``."""
    return detect_public_ip()


def get_report_host(host: str) -> str:
    """The address others reach ``host`` under, as far as this machine knows it."""
    if not all_interfaces(host):
        return host
    try:
        return get_public_ip()
    except PublicIPDetectionError:
        return host


def register_with_platform(
    host: str, port: int, agent_loop_name: str, credentials: Any, api_key: str | None = None
) -> RegistrationResult:
    """Never registers; says so."""
    return RegistrationResult(success=False, error=NOT_AVAILABLE)


def print_registration_result(
    result: RegistrationResult, host: str, port: int, agent_loop_name: str, api_key: str | None = None
) -> None:
    """Log the outcome."""
    if result.success:
        logger.info("Registered %s at %s:%d.", agent_loop_name, host, port)
    else:
        logger.warning("%s", result.error)
