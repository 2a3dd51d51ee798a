"""The address to bind: whether it can be, who has it otherwise, and whether that is a rollout server."""

import errno
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from osmosis_ai.rollout.server.startup import API_KEY_VARIABLE
from osmosis_ai.rollout.tooling.doctor.case import Case, check, once
from osmosis_ai.rollout.tooling.doctor.types import Finding, not_checked, ok, problem, warning
from osmosis_ai.rollout.wire.addresses import all_interfaces, is_sendable
from osmosis_ai.rollout.wire.listening import listen
from osmosis_ai.rollout.wire.paths import INIT_PATH

MAX_PROBE_SECONDS = 1.0
MAX_SHOWN_WORDS = 4
MAX_UNPRIVILEGED = 1024

_TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"
METHOD_NOT_ALLOWED = 405
"""To a GET."""
_NOT_OURS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


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
    protocols: tuple[str, ...] = ()
    """The generations that it answers."""


@dataclass(frozen=True, slots=True)
class PortReport:
    error: OSError | UnicodeError | None = None
    """Why the address cannot be listened on; ``None``: it can."""
    listener: Listener | None = None
    server: RunningServer | None = None

    @property
    def is_taken(self) -> bool:
        """Whether somebody else listens there."""
        return getattr(self.error, "errno", None) == errno.EADDRINUSE


def find_listener(port: int) -> Listener | None:
    """Who listens on ``port``, by the tables of Linux; ``None`` elsewhere."""
    found: dict[str, bool] = {}
    for table in _TCP_TABLES:
        with suppress(OSError, ValueError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                address, _, local_port = fields[1].partition(":")
                if fields[3] == _LISTENING and int(local_port, 16) == port:
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
    return ip_address(b"".join(bytes.fromhex(word)[::-1] for word in re.findall(".{8}", hexadecimal)))


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
    headers = {"Authorization": f"Bearer {api_key}"} if api_key and is_sendable(api_key) else {}
    try:
        with httpx.Client(base_url=base, timeout=time_limit_seconds, trust_env=False) as client:
            health = client.get("/health").json()
            name = health["agent_loop"]
            without_key = client.get("/platform/health").status_code
            with_key = client.get("/platform/health", headers=headers).status_code if headers else None
            takes_inits = client.get(INIT_PATH).status_code == METHOD_NOT_ALLOWED
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    asks_for_key = {401: True, 404: False}.get(without_key)
    takes_our_key = with_key == 200 if asks_for_key and with_key is not None else None
    protocols = (*(["0.2"] if takes_inits else []), *(["0.3"] if "lifecycle" in health else []))
    return RunningServer(str(name), asks_for_key, takes_our_key, protocols)


def is_own_address(host: str) -> bool:
    """Whether ``host`` is a numeric address of this machine; no name is."""
    try:
        ip_address(host)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except (OSError, ValueError):
        return False
    return True


@once
def port_report(case: Case) -> PortReport:
    """Listen for a moment, as a server would; where that fails, find out who does."""
    host, port = case.host, case.setup.port
    try:
        listen(host, port).close()
    except (OSError, UnicodeError) as error:
        if not PortReport(error).is_taken:
            return PortReport(error)
        seconds = min(case.seconds_left / 2, MAX_PROBE_SECONDS)
        return PortReport(error, find_listener(port), ask_server(host, port, case.api_key, seconds))
    return PortReport()


@check("host", "the host is an address of this machine")
def check_host(case: Case) -> Finding:
    error = port_report(case).error
    if isinstance(error, UnicodeError | socket.gaierror):
        return problem(
            f"--host {case.host} cannot be resolved.",
            "Name an address of this machine: 127.0.0.1, 0.0.0.0 (all of them), or one that ip addr shows.",
        )
    if getattr(error, "errno", None) in _NOT_OURS:
        return problem(
            f"--host {case.host} is no address of this machine.",
            "Name one that ip addr shows, or 0.0.0.0 for all of them; a public address that is mapped to this "
            "machine goes into OSMOSIS_PUBLIC_HOST.",
        )
    return ok(f"{case.host}.")


@check("port", "the port is free")
def check_port(case: Case) -> Finding:
    report, port = port_report(case), case.setup.port
    if report.error is None:
        return ok(f"{port} is free." if port else "Any free one.")
    code = getattr(report.error, "errno", None)
    if code == errno.EACCES:
        return problem(
            f"Port {port} is below {MAX_UNPRIVILEGED}, which this user may not use."
            if port < MAX_UNPRIVILEGED
            else f"Port {port} may not be used: {os.strerror(code)}.",
            "Choose another one with -p, as in -p 9000.",
        )
    if not report.is_taken:
        return not_checked("The host cannot be listened on.")
    holder = report.listener
    by = ""
    if holder is not None and holder.process_id is not None:
        by = f" by process {holder.process_id}" + (f" ({holder.command})" if holder.command else "")
    if report.server is not None:
        by += f", a rollout server for {report.server.agent_name!r}"
    end = f"kill {holder.process_id}" if holder is not None and holder.process_id else f"lsof -i :{port} names it"
    return problem(f"Port {port} is taken{by}.", f"End what holds it ({end}), or choose another one with -p.")


@check("running-server", "a server that runs already asks for this key")
def check_running_server(case: Case) -> Finding:
    report = port_report(case)
    server, holder = report.server, report.listener
    if server is None:
        return ok("None runs at this address.")
    is_open = holder.is_open if holder is not None else case.is_open
    if server.asks_for_key is False and is_open:
        return problem(
            f"The server that runs on port {case.setup.port} takes rollouts from everybody, without a key.",
            f"Set {API_KEY_VARIABLE} and start it again, or bind it to 127.0.0.1.",
        )
    if server.takes_our_key is False:
        return problem(
            f"The server that runs on port {case.setup.port} has another key than the one given here.",
            f"Start it again with this {API_KEY_VARIABLE}, or give trainers the one it was started with.",
        )
    if server.asks_for_key is None:
        return warning(
            f"Whether the server on port {case.setup.port} asks for a key cannot be told.",
            "Send it an init without one: the answer should be 401.",
        )
    asks = "asks for a key" if server.asks_for_key else "asks for no key, on the loopback"
    takes = " and takes this one" if server.takes_our_key else ""
    speaks = f", speaks {' and '.join(server.protocols)}" if server.protocols else ""
    return ok(f"It serves {server.agent_name!r}, {asks}{takes}{speaks}.")
