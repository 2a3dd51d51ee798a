"""The address under which others reach this machine, as far as it can tell without asking anybody.

No third party and no metadata service is asked, no name resolved, no packet sent.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path

from osmosis_ai.rollout.wire.addresses import unmapped

PUBLIC_HOST_VARIABLE = "OSMOSIS_PUBLIC_HOST"

MAX_HOST_AND_PORT_LENGTH = 260
MAX_HOSTNAME_LENGTH = 253
MAX_PORT = 65_535

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:]*):(?P<port>[0-9]{1,5})")

_LINUX_IPV4_TABLE = Path("/proc/net/fib_trie")
_LINUX_IPV6_TABLE = Path("/proc/net/if_inet6")

# Reserved for documentation (RFC 5737, RFC 3849), so nobody's: they only make the kernel choose a source address.
_UNROUTED_PEERS = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD_PORT = 9


class PublicIPDetectionError(Exception):
    """No public address is known for this machine; the text says which variable to set."""


def is_valid_hostname_or_ip(value: str) -> bool:
    """Whether ``value`` is a host name, an IPv4 or an IPv6 address, with or without a port.

    Accepted are names of up to 253 characters in labels of ``[A-Za-z0-9_-]``, with or without the final dot;
    ``10.0.0.1``; ``2001:db8::1`` and ``[2001:db8::1]``, without zone. A port, 1 to 65535, may follow a name, an IPv4
    address or a bracketed IPv6 address. A dotted name that ends in a number must be an IPv4 address, so
    ``256.1.1.1`` is refused.
    """
    if not value or len(value) > MAX_HOST_AND_PORT_LENGTH:
        return False
    if _is_ipv6(value):
        return True
    host = value
    if match := _HOST_AND_PORT.fullmatch(value):
        host = match["host"]
        if not 1 <= int(match["port"]) <= MAX_PORT:
            return False
    if host.startswith("[") and host.endswith("]"):
        return _is_ipv6(host[1:-1])
    return _is_ipv4(host) or _is_hostname(host)


def detect_public_ip() -> str:
    """The address under which others reach this machine.

    ``OSMOSIS_PUBLIC_HOST`` if it is set, taken at its word; else a global address of one of the machine's own
    interfaces, IPv4 before IPv6.

    Raises:
        PublicIPDetectionError: if the machine has no global address, or the variable holds no host.
    """
    configured = os.environ.get(PUBLIC_HOST_VARIABLE, "").strip()
    if configured:
        if is_valid_hostname_or_ip(configured):
            return configured
        raise PublicIPDetectionError(
            f"Failed to detect public IP: {PUBLIC_HOST_VARIABLE} is {configured[:100]!a}, "
            "which is neither a host name nor an IP address; correct it."
        )
    for address in _own_addresses():
        if _is_global(address):
            return str(address)
    raise PublicIPDetectionError(
        "Failed to detect public IP: no interface of this machine has a global address; "
        f"set {PUBLIC_HOST_VARIABLE} to the host name or address under which others reach it."
    )


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        return IPv6Address(text).scope_id is None
    except AddressValueError:
        return False


def _is_hostname(host: str) -> bool:
    name = host.removesuffix(".")
    if len(name) > MAX_HOSTNAME_LENGTH:
        return False
    labels = name.split(".")
    if len(labels) > 1 and labels[-1].isdecimal():
        return False
    return all(_LABEL.fullmatch(label) for label in labels)


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    address = unmapped(address)
    if isinstance(address, IPv6Address) and address.is_site_local:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _own_addresses() -> Iterator[IPv4Address | IPv6Address]:
    listed: list[IPv4Address | IPv6Address] = [*_linux_ipv4_addresses(), *_linux_ipv6_addresses()]
    yield from listed or _source_addresses()


def _linux_ipv4_addresses() -> Iterator[IPv4Address]:
    with suppress(OSError):
        # The kernel's routing tree: "|-- <address>", and on the next line "/32 host LOCAL" when it is our own.
        lines = _LINUX_IPV4_TABLE.read_text(encoding="ascii", errors="replace").splitlines()
        for node, leaf in pairwise(lines):
            if leaf.strip() == "/32 host LOCAL":
                with suppress(AddressValueError):
                    yield IPv4Address(node.strip().removeprefix("|-- "))


def _linux_ipv6_addresses() -> Iterator[IPv6Address]:
    with suppress(OSError):
        for line in _LINUX_IPV6_TABLE.read_text(encoding="ascii", errors="replace").splitlines():
            with suppress(ValueError):
                yield IPv6Address(bytes.fromhex(line[:32]))


def _source_addresses() -> Iterator[IPv4Address | IPv6Address]:
    for family, peer in _UNROUTED_PEERS:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, _DISCARD_PORT))  # on a datagram socket this picks the route and sends nothing
            yield ip_address(probe.getsockname()[0].partition("%")[0])
