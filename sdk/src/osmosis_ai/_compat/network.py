"""``osmosis_ai.rollout.network`` of 0.2: checks on the text of addresses, some of which the SDK uses itself."""

from ipaddress import AddressValueError, IPv4Address, ip_address

from osmosis_ai.rollout.server.public_address import PublicIPDetectionError, detect_public_ip, is_valid_hostname_or_ip
from osmosis_ai.rollout.wire.addresses import unmapped

__all__ = [
    "PublicIPDetectionError",
    "detect_public_ip",
    "is_private_ip",
    "is_valid_hostname_or_ip",
    "validate_ipv4",
]


def validate_ipv4(ip: str) -> bool:
    """Whether ``ip`` is a strict dotted quad: no leading zeros, no whitespace, no port."""
    try:
        IPv4Address(ip)
    except AddressValueError:
        return False
    return True


def is_private_ip(ip: str) -> bool:
    """Whether ``ip`` is private in the sense of ``ipaddress``; ``False`` for what is no address.

    That is wider than RFC 1918: loopback, link-local and documentation ranges count, in IPv4 and IPv6.
    """
    try:
        return unmapped(ip_address(ip)).is_private
    except ValueError:
        return False
