"""httpx on the loopback: ``httpx.get(url, **PLAIN)``."""

import ssl
from typing import Any

PLAIN: dict[str, Any] = {"trust_env": False, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "timeout": 60.0}
"""No proxy, and nobody trusted: to load all that a machine trusts takes each client of httpx tens of milliseconds.

Its own five seconds are too few where the machine is busy.
"""
