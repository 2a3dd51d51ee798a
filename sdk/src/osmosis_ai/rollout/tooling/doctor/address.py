"""Checks of the address to bind, and of a rollout server that runs there already."""

import errno
import os

from osmosis_ai.rollout.server.serve import API_KEY_VARIABLE
from osmosis_ai.rollout.tooling.doctor.case import Case
from osmosis_ai.rollout.tooling.doctor.types import Finding, not_checked, ok, problem, warning

MAX_UNPRIVILEGED = 1024
_NOT_OURS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def check_host(case: Case) -> Finding:
    """The host is an address of this machine."""
    error = case.port.error
    if isinstance(error, UnicodeError) or (isinstance(error, OSError) and isinstance(error, _resolver_error())):
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


def _resolver_error() -> type[OSError]:
    import socket

    return socket.gaierror


def check_port(case: Case) -> Finding:
    """The port is free."""
    report, port = case.port, case.setup.port
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


def check_running_server(case: Case) -> Finding:
    """The server that runs there already asks for a key, and for this one."""
    report = case.port
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
    return ok(f"It serves {server.agent_name!r}, {asks}{takes}.")
