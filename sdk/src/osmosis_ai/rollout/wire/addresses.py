"""Whom a URL may name, what a key may be, and what an address is: asked at init, by the client and by every command.

One answer for all, so that no rollout is accepted whose trainer the client would refuse to call. Nothing here sends a
packet or resolves a name.
"""

import re
import socket
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.request import getproxies, proxy_bypass

from osmosis_ai.rollout.core.server_url import check_server_url

MAX_HOST_BYTES = 253
_HEADER_TEXT = re.compile(r"[!-~]([ -~]*[!-~])?")


@lru_cache(maxsize=1024)
def check_callable(server_url: str) -> None:
    """Check a base URL as the client will read it.

    Raises:
        ValueError: it cannot be called; the text says why, of ``server_url``.
    """
    import httpx

    check_server_url(server_url)
    try:
        url = httpx.URL(server_url)
        str(url.host)  # decoding the host finds malformed IDNA, which parsing lets through
        # As the resolver will: a label is empty, or longer than 63 bytes (RFC 1035, section 2.3.4).
        if len(url.raw_host.decode("ascii").encode("idna")) > MAX_HOST_BYTES:
            raise ValueError(f"the host is longer than {MAX_HOST_BYTES} bytes")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(str(error)) from error


def is_base_url(url: str) -> bool:
    """Whether ``check_callable`` has nothing to say."""
    try:
        check_callable(url)
    except ValueError:
        return False
    return True


def is_sendable(key: str) -> bool:
    """Whether a key can stand in an ``Authorization`` header as it is (RFC 9110, section 5.5): printable ASCII.

    A space at either end is refused too: the other side would take the key without it, and find it wrong.
    """
    return _HEADER_TEXT.fullmatch(key) is not None


def all_interfaces(host: str | None) -> bool:
    """Whether binding to ``host`` means every interface: ``0.0.0.0``, ``::``, empty, or another spelling."""
    if not host:
        return True
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return unmapped(ip_address(bare)).is_unspecified
    except ValueError:
        pass
    try:
        return socket.inet_aton(bare) == bytes(4)  # the resolver takes "0" and "0x0" too
    except (OSError, ValueError):
        return False


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine and reachable from it alone."""
    try:
        return unmapped(ip_address(host.strip("[]"))).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside ``::ffff:a.b.c.d``, any other address as it is."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def proxy_for(scheme: str, host: str, netloc: str) -> str | None:
    """The proxy that the environment names for a URL (``HTTPS_PROXY`` and so on); none for this machine itself."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy and not (is_loopback(host) or proxy_bypass(netloc)) else None
