"""The address to bind: whether it can be, who has it otherwise, and whether that is a rollout server."""

import errno
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from osmosis_ai.rollout.wire.listening import listen
from osmosis_ai.rollout.wire.network import all_interfaces

MAX_PROBE_SECONDS = 1.0
MAX_SHOWN_WORDS = 4

_TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"
_TAKEN = frozenset({errno.EADDRINUSE})


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens on the port."""

    is_open: bool
    """Whether it is bound to more than the loopback."""
    process_id: int | None
    """``None``: another user's, or not to be told on this system."""
    command: str
    """The beginning of its command line, up to the first option that may carry a secret."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A rollout server that answers at the address."""

    agent_name: str
    asks_for_key: bool | None
    """``None``: it cannot be told."""
    takes_our_key: bool | None
    """``None``: we have none, or it asks for none."""


@dataclass(frozen=True, slots=True)
class PortReport:
    error: OSError | UnicodeError | None = None
    """Why the address cannot be listened on; ``None``: it can."""
    listener: Listener | None = None
    server: RunningServer | None = None

    @property
    def is_taken(self) -> bool:
        """Whether somebody else listens there."""
        return getattr(self.error, "errno", None) in _TAKEN


def look_at_port(host: str, port: int, api_key: str | None, time_limit_seconds: float) -> PortReport:
    """Listen for a moment, as a server would; where that fails, find out who does."""
    try:
        listen(host, port).close()
    except (OSError, UnicodeError) as error:
        report = PortReport(error)
        if not report.is_taken:
            return report
        seconds = min(time_limit_seconds / 2, MAX_PROBE_SECONDS)
        return PortReport(error, find_listener(port), ask_server(host, port, api_key, seconds))
    return PortReport()


def find_listener(port: int) -> Listener | None:
    """Who listens on ``port``, by the tables of Linux; ``None`` elsewhere."""
    found: dict[str, bool] = {}
    for table in _TCP_TABLES:
        with suppress(OSError, ValueError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                (
                    _,
                    local,
                    _,
                    state,
                    *_,
                ) = fields = line.split()
                address, _, local_port = local.partition(":")
                if state == _LISTENING and int(local_port, 16) == port:
                    found[fields[9]] = not _address(address).is_loopback
    if not found:
        return None
    is_open = any(found.values())
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    target = str(descriptor.readlink())
                    if target.startswith("socket:[") and target[8:-1] in found:
                        return Listener(is_open, int(process.name), command_of(int(process.name)))
    return Listener(is_open, None, "")


def _address(hexadecimal: str) -> IPv4Address | IPv6Address:
    # Words of four bytes in the order of this machine, which is little-endian wherever this runs.
    words = [bytes.fromhex(word)[::-1] for word in re.findall(".{8}", hexadecimal)]
    raw = b"".join(words)
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


def command_of(process_id: int) -> str:
    """What runs as ``process_id``, in a few words; ``""`` if that cannot be told."""
    try:
        words = Path(f"/proc/{process_id}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return ""
    shown = [Path(words[0]).name]
    for word in words[1:]:
        # Anything behind another option may be a secret.
        if (word != "-m" and (word.startswith("-") or not word)) or len(shown) == MAX_SHOWN_WORDS:
            break
        shown.append(Path(word).name)
    return " ".join(shown).removesuffix(" -m")


def ask_server(host: str, port: int, api_key: str | None, time_limit_seconds: float) -> RunningServer | None:
    """The rollout server at the address, if there is one."""
    import httpx

    address = "127.0.0.1" if all_interfaces(host) else host
    base = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key and api_key.isascii() and api_key.isprintable() else {}
    try:
        with httpx.Client(base_url=base, timeout=time_limit_seconds, trust_env=False) as client:
            health = client.get("/health").json()
            name = health["agent_loop"]
            without_key = client.get("/platform/health").status_code
            with_key = client.get("/platform/health", headers=headers).status_code if headers else None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    asks_for_key = {401: True, 404: False}.get(without_key)
    takes_our_key = with_key == 200 if asks_for_key and with_key is not None else None
    return RunningServer(str(name), asks_for_key, takes_our_key)


def is_own_address(host: str) -> bool:
    """Whether the numeric address ``host`` belongs to this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
