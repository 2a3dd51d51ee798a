"""Addresses and host names, and the machine's own public address without asking anybody."""

import ipaddress
import socket
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.server import public_address
from osmosis_ai.rollout.server.public_address import PublicIPDetectionError, detect_public_ip, is_valid_hostname_or_ip


@pytest.mark.parametrize(
    "value",
    [
        "localhost",
        "a",
        "1",
        "my_host.example.com",
        "example.com.",
        "192.168.1.1",
        "192.168.1.1:8080",
        "example.com:1",
        "example.com:65535",
        "::1",
        "2001:db8::1",
        "[2001:db8::1]",
        "[2001:db8::1]:9000",
        "x" * 63 + ".com",
        ".".join(["x" * 49] * 5) + ".com",
    ],
)
def test_host_names_and_addresses_are_valid(value: str) -> None:
    assert is_valid_hostname_or_ip(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "my host",
        "host:abc",
        "host:",
        ":80",
        "a..b",
        ".",
        "-a",
        "a-",
        "256.1.1.1",
        "1.2.3",
        "1.2.3.4.5",
        "host:0",
        "host:65536",
        "host:99999",
        "host:123456789",
        "host:80\n",
        "host\n",
        "192.168.1.1\n",
        "h\N{ARABIC-INDIC DIGIT ONE}",
        "host:\N{ARABIC-INDIC DIGIT ONE}",
        "hôte",
        "[::1",
        "[::1]80",
        "[host]",
        "fe80::1%eth0",
        "fe80::1%e\n",
        "x" * 64,
        "x" * 254,
        "x." * 140,
    ],
)
def test_malformed_hosts_are_not(value: str) -> None:
    assert not is_valid_hostname_or_ip(value)


@given(st.text(max_size=300))
def test_no_text_makes_the_check_raise(text: str) -> None:
    assert is_valid_hostname_or_ip(text) in (True, False)


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_every_address_is_valid_with_and_without_port(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    assert is_valid_hostname_or_ip(str(address))
    assert is_valid_hostname_or_ip(f"{host}:{port}")


@pytest.fixture
def interfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Interfaces":
    return Interfaces(tmp_path, monkeypatch)


class Interfaces:
    """Stands for the kernel's address tables, which a test cannot fill without being root."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ipv4_table, self.ipv6_table = directory / "fib_trie", directory / "if_inet6"
        monkeypatch.setattr(public_address, "_LINUX_IPV4_TABLE", self.ipv4_table)
        monkeypatch.setattr(public_address, "_LINUX_IPV6_TABLE", self.ipv6_table)
        monkeypatch.delenv("OSMOSIS_PUBLIC_HOST", raising=False)

    def have(self, *addresses: str) -> None:
        ipv4, ipv6 = ["Main:", "  +-- 0.0.0.0/0 3 0 5", "     |-- 9.9.9.0", "        /24 link UNICAST"], []
        for address in map(ipaddress.ip_address, addresses):
            if isinstance(address, ipaddress.IPv4Address):
                ipv4 += [f"           |-- {address}", "              /32 host LOCAL"]
            else:
                ipv6.append(f"{address.packed.hex()} 02 40 00 80     eth0")
        self.ipv4_table.write_text("\n".join(ipv4) + "\n")
        self.ipv6_table.write_text("\n".join(ipv6) + "\n")


def refuse_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_variable_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSMOSIS_PUBLIC_HOST", " rollouts.internal ")
    assert detect_public_ip() == "rollouts.internal"


def test_a_variable_that_is_no_host_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSMOSIS_PUBLIC_HOST", "http://host/\x1b[2J")
    with pytest.raises(PublicIPDetectionError) as caught:
        detect_public_ip()
    assert "Failed to detect public IP: OSMOSIS_PUBLIC_HOST is" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["127.0.0.1", "10.0.0.5", "8.8.4.4"], "8.8.4.4"),
        (["127.0.0.1", "::1", "fe80::1", "2606:4700::1111"], "2606:4700::1111"),
        (["2606:4700::1111", "8.8.4.4"], "8.8.4.4"),
    ],
)
def test_a_global_address_of_an_interface_is_found_without_a_socket(
    interfaces: Interfaces, monkeypatch: pytest.MonkeyPatch, addresses: list[str], expected: str
) -> None:
    refuse_sockets(monkeypatch)
    interfaces.have(*addresses)
    assert detect_public_ip() == expected


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "192.168.1.5", "100.64.0.1", "169.254.0.1", "192.0.2.2", "240.0.0.1", "fd00::2", "fec0::1"]
)
def test_without_a_global_address_the_error_names_the_variable(
    interfaces: Interfaces, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    refuse_sockets(monkeypatch)
    interfaces.have(address)
    with pytest.raises(PublicIPDetectionError, match=r"Failed to detect public IP: .*OSMOSIS_PUBLIC_HOST"):
        detect_public_ip()


class RoutedSocket:
    """A datagram socket of a machine with these source addresses; it has no way to send."""

    sources: ClassVar[dict[int, str]] = {}

    def __init__(self, family: int, kind: int) -> None:
        assert kind == socket.SOCK_DGRAM
        self.family = family

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def connect(self, peer: tuple[str, int]) -> None:
        assert ipaddress.ip_address(peer[0]).is_private, "the peer must be an address that is nobody's"
        if self.family not in self.sources:
            raise OSError("Network is unreachable")

    def getsockname(self) -> tuple[str, int]:
        return self.sources[self.family], 40_000


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({socket.AF_INET: "8.8.4.4", socket.AF_INET6: "2606:4700::1111"}, "8.8.4.4"),
        ({socket.AF_INET: "10.0.0.5", socket.AF_INET6: "2606:4700::1111"}, "2606:4700::1111"),
        ({socket.AF_INET6: "fe80::1%eth0"}, None),
        ({}, None),
    ],
)
def test_without_kernel_tables_the_source_address_of_a_route_is_taken(
    interfaces: Interfaces, monkeypatch: pytest.MonkeyPatch, sources: dict[int, str], expected: str | None
) -> None:
    monkeypatch.setattr(RoutedSocket, "sources", sources)
    monkeypatch.setattr(socket, "socket", RoutedSocket)
    if expected is None:
        with pytest.raises(PublicIPDetectionError):
            detect_public_ip()
    else:
        assert detect_public_ip() == expected
