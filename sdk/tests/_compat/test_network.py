"""`osmosis_ai.rollout.network` of 0.2: what of it the SDK itself does not use."""

import ipaddress

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout import is_private_ip, validate_ipv4

ANY_IPV4 = str(ipaddress.IPv4Address(0))


@pytest.mark.parametrize("ip", [ANY_IPV4, "192.168.1.1", "8.8.8.8", "255.255.255.255"])
def test_a_dotted_quad_is_an_ipv4_address(ip: str) -> None:
    assert validate_ipv4(ip)


@pytest.mark.parametrize(
    "ip",
    [
        "",
        " ",
        "1.2.3",
        "256.1.1.1",
        "01.2.3.4",
        " 1.2.3.4",
        "1.2.3.4\n",
        "::1",
        "1.2.3.4/8",
        "\N{ARABIC-INDIC DIGIT ONE}.2.3.4",
        "a.b.c.d",
    ],
)
def test_anything_else_is_not(ip: str) -> None:
    assert not validate_ipv4(ip)


@pytest.mark.parametrize(
    "ip", ["10.0.0.1", "172.16.0.1", "192.168.0.1", "127.0.0.1", "169.254.1.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
)
def test_private_addresses_are_private(ip: str) -> None:
    assert is_private_ip(ip)


@pytest.mark.parametrize("ip", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "", "localhost", "10.0.0.1:80"])
def test_public_addresses_and_other_text_are_not_private(ip: str) -> None:
    assert not is_private_ip(ip)


@given(st.text(max_size=300))
def test_no_text_makes_the_checks_raise(text: str) -> None:
    for check in (validate_ipv4, is_private_ip):
        assert check(text) in (True, False)
