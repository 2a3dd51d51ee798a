"""Whom a URL may name and what a key may be: one answer at init, in the client and on the command line."""

import asyncio
import ipaddress
import json
import socket
from contextlib import suppress

import pytest
from hypothesis import example, given, strategies as st
from support.http_peer import CHAT_REPLY
from support.rollout_client import QUESTION, Scripted
from support.rollouts import init_body

from osmosis_ai.rollout import OsmosisLLMClient, OsmosisTransportError
from osmosis_ai.rollout.server.requests import RefusedError, parse_init
from osmosis_ai.rollout.wire.addresses import all_interfaces, check_callable, is_base_url, is_loopback, is_sendable
from osmosis_ai.rollout.wire.channel import Reply, target_of

ANY_IPV4 = str(ipaddress.IPv4Address(0))


def is_accepted_at_init(server_url: str, api_key: str | None) -> bool:
    try:
        parse_init(json.dumps(init_body(server_url=server_url, api_key=api_key)).encode(), frozenset())
    except RefusedError:
        return False
    return True


def is_called_by_the_client(server_url: str, api_key: str | None) -> bool:
    channel = Scripted(Reply(200, json.dumps(CHAT_REPLY).encode()))
    client = OsmosisLLMClient(server_url, "r", api_key, max_retries=0, channel=channel)
    with suppress(OsmosisTransportError):
        asyncio.run(client.chat_completions(QUESTION))
    return bool(channel.sent)


class TestOneAnswer:
    @pytest.mark.parametrize(
        ("url", "callable_"),
        [
            ("http://trainer", True),
            ("https://[::1]:8443/base/", True),
            ("http://xn--", False),
            ("http://xn--.test", False),
            ("http://a..b", False),
            ("http://.a", False),
            (f"http://{'a' * 63}.test", True),
            (f"http://{'a' * 64}.test", False),
            (f"http://{'a.' * 130}test", False),
            ("http://trainer.", True),
            ("http://\N{INVERTED EXCLAMATION MARK}", False),
            ("http://trainer:99999", False),
            ("http://u:p@trainer", False),
            ("http://trai ner", False),
            ("ftp://trainer", False),
            ("trainer", False),
            ("", False),
        ],
    )
    def test_a_url_is_accepted_where_the_client_would_call_it(self, url: str, *, callable_: bool) -> None:
        assert is_base_url(url) is callable_
        assert is_accepted_at_init(url, None) is callable_
        assert is_called_by_the_client(url, None) is callable_

    @pytest.mark.parametrize(
        ("key", "sendable"),
        [
            ("cb-token-1", True),
            ("two words", True),
            (" leading", False),
            ("trailing ", False),
            (" ", False),
            ("a\r\nX: y", False),
            ("cl\N{LATIN SMALL LETTER E WITH ACUTE}", False),
            ("\x7f", False),
        ],
    )
    def test_a_key_is_accepted_where_the_client_would_send_it(self, key: str, *, sendable: bool) -> None:
        assert is_sendable(key) is sendable
        assert is_accepted_at_init("http://trainer", key) is sendable
        assert is_called_by_the_client("http://trainer", key) is sendable

    @pytest.mark.parametrize("key", [None, ""])
    def test_no_key_is_no_header(self, key: str | None) -> None:
        assert is_accepted_at_init("http://trainer", key)
        assert is_called_by_the_client("http://trainer", key)

    @given(st.text(max_size=20).map("http://{}".format) | st.text(max_size=20))
    @example("http://xn--a-")
    def test_of_any_url(self, url: str) -> None:
        assert is_accepted_at_init(url, None) is is_called_by_the_client(url, None)

    @given(st.from_regex(r"[a-zA-Z0-9\-._\u00df\u0661\u3002]{1,70}", fullmatch=True))
    @example("xn--a")
    @example("a.xn--")
    def test_a_host_that_is_accepted_can_be_looked_up(self, host: str) -> None:
        url = f"http://{host}"
        if is_accepted_at_init(url, None):
            origin = target_of(url).origin
            with suppress(socket.gaierror):  # it is no address; but it was a host, and no UnicodeError
                socket.getaddrinfo(origin.host, origin.port, flags=socket.AI_NUMERICHOST)

    @given(st.text(min_size=1, max_size=20, alphabet=st.characters(max_codepoint=300)))
    def test_of_any_key(self, key: str) -> None:
        assert is_accepted_at_init("http://trainer", key) is is_called_by_the_client("http://trainer", key)

    def test_the_reason_is_told(self) -> None:
        with pytest.raises(ValueError, match="must use http or https"):
            check_callable("ftp://trainer")


@pytest.mark.parametrize(
    "host", [ANY_IPV4, "::", "", None, "[::]", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0", "0", "0x0", "000.000.000.000"]
)
def test_every_spelling_of_all_interfaces_is_known(host: str | None) -> None:
    assert all_interfaces(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "10.0.0.1", "1", "[::1]", "no host", "\0"])
def test_a_single_interface_is_not_all(host: str) -> None:
    assert not all_interfaces(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_the_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", [ANY_IPV4, "10.0.0.1", "localhost.example", ""])
def test_anything_else_is_reachable_from_elsewhere(host: str) -> None:
    assert not is_loopback(host)


@given(st.text(max_size=300))
def test_no_text_makes_the_checks_raise(text: str) -> None:
    for check in (all_interfaces, is_loopback, is_sendable, is_base_url):
        assert check(text) in (True, False)
