"""Checks of the way to the trainer and back."""

from http import HTTPStatus
from ipaddress import ip_address

from osmosis_ai.rollout.tooling.doctor.case import Case, is_loopback
from osmosis_ai.rollout.tooling.doctor.port_report import is_own_address
from osmosis_ai.rollout.tooling.doctor.trainer_report import Failure
from osmosis_ai.rollout.tooling.doctor.types import Finding, not_checked, ok, problem, warning
from osmosis_ai.rollout.wire.client import CHAT_PATH, COMPLETED_PATH
from osmosis_ai.rollout.wire.network import all_interfaces

MAX_SKEW_SECONDS = 5.0

_REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_FIXES = {
    Failure.NAME: "Correct the host name, or this machine's DNS (in a container, its --dns or network).",
    Failure.REFUSED: "Start the trainer, and correct the port; it must listen on an address that this machine reaches.",
    Failure.TIMEOUT: "Look for a firewall or security group in between, and for a wrong address.",
    Failure.SILENT: "Look whether the trainer hangs, and whether the port is really its HTTP port.",
    Failure.TLS: "Use a certificate that this machine trusts (SSL_CERT_FILE names a CA of your own), or http://.",
    Failure.OTHER: "Correct the address.",
}
_SILENT = "The trainer does not answer."


def check_url(case: Case) -> Finding:
    """The trainer's URL can be a ``server_url``."""
    report = case.trainer
    if report.bad_url is not None:
        return problem(f"--trainer is no base URL: {report.bad_url}.", "Write it as in http://10.0.0.5:8000.")
    return ok(f"{report.shown}.")


def check_reachable(case: Case) -> Finding:
    """Something answers there."""
    report = case.trainer
    if report.bad_url is not None:
        return not_checked("There is no URL to call.")
    if report.failure is not None:
        return problem(
            f"The trainer at {report.shown} cannot be reached ({report.failure}: {report.detail}).",
            _FIXES[report.failure],
        )
    return ok("It answers.")


def check_paths(case: Case) -> Finding:
    """Both paths of the protocol are there."""
    report = case.trainer
    if not report.answers:
        return not_checked(_SILENT)
    for path, status in report.statuses.items():
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return problem(
                f"The trainer answers {status} on {path}: it is not there.",
                f"Give the URL without /v1 (paths are added to it); else the trainer lacks {path}.",
            )
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return problem(
                f"The trainer redirects {path} ({status}), and callbacks follow no redirect.",
                "Give the URL that it redirects to" + (f": {report.location[:200]}" if report.location else "."),
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED:
            return problem(
                f"The trainer answers {status} on {path}.", "See its log, and that of the proxy in front of it."
            )
    return ok(f"{CHAT_PATH} and {COMPLETED_PATH} are there.")


def check_trainer_key(case: Case) -> Finding:
    """The trainer takes the key."""
    report = case.trainer
    if not report.answers:
        return not_checked(_SILENT)
    refused = next((status for status in report.statuses.values() if status in _REFUSALS), None)
    if report.key_status is None:
        if refused is None:
            return not_checked("No key was given.", "Give it with --trainer-key to have it tried.")
        if case.setup.trainer_key is None:
            return warning(
                f"The trainer asks for a key ({refused}).",
                "Its inits must bring one as api_key; give it with --trainer-key to have it tried.",
            )
    status = refused if report.key_status is None else report.key_status
    if status in _REFUSALS:
        return problem(
            f"The trainer refuses the key ({status}).",
            "Correct --trainer-key: it is the api_key of the trainer's inits.",
        )
    if report.key_status is not None and report.key_status < HTTPStatus.MULTIPLE_CHOICES:
        return warning(
            f"The trainer acknowledges an empty result ({status}): whether it looks at keys cannot be told.",
            "Let it answer 401 without its key, and 422 to what is no result.",
        )
    return ok("It is taken.")


def check_place(case: Case) -> Finding:
    """The trainer and the server can reach each other, from where they are."""
    host = case.trainer.host
    if not host:
        return not_checked("There is no URL to call.")
    if all_interfaces(host):
        return problem(
            f"{host} is no address to call.", "Name one of the trainer's machine, as in http://10.0.0.5:8000."
        )
    if is_loopback(host):
        if case.is_open:
            return warning(
                f"{host} is this machine itself, while the server listens for others ({case.host}).",
                "If the trainer runs elsewhere, or in another container, let its server_url name its own address.",
            )
        return ok("Both are on this machine.")
    if not case.is_open and not _is_own(host):
        return problem(
            f"The trainer is on {host}, and the server listens on {case.host} only: it cannot be called from there.",
            "Serve with --host 0.0.0.0 and a key, without --local.",
        )
    return ok(f"{host}.")


def _is_own(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return is_own_address(host)


def check_allowed(case: Case) -> Finding:
    """The server's own list of trainers has this one."""
    allowed = {each.strip().lower() for each in case.settings.server.allowed_trainer_hosts.split(",") if each.strip()}
    report = case.trainer
    if not allowed:
        return ok("Any host is.")
    if report.host and not {report.host, f"{report.host}:{report.port}"} & allowed:
        return problem(
            f"{report.host} is not in OSMOSIS_ROLLOUT_SERVER_ALLOWED_TRAINER_HOSTS: its inits would get a 422.",
            f"Add {report.host} to it.",
        )
    return ok("It is in the list.")


def check_proxy(case: Case) -> Finding:
    """No proxy stands in the way that is not meant to."""
    report = case.trainer
    if report.proxy is None:
        return ok("None in between.")
    return warning(
        f"Calls to {report.host} go through the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names.",
        f"If it should not see them: add {report.host} to NO_PROXY.",
    )


def check_clock(case: Case) -> Finding:
    """This machine's clock and the trainer's agree."""
    skew = case.trainer.skew_seconds
    if not case.trainer.answers:
        return not_checked(_SILENT)
    if skew is None:
        return not_checked("The trainer's answers have no Date.")
    if abs(skew) > MAX_SKEW_SECONDS:
        return warning(
            f"The trainer's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's.",
            "Set both by NTP (timedatectl set-ntp true): tokens expire, and times in traces do not match.",
        )
    return ok("It agrees with the trainer's to the second." if abs(skew) < 1 else f"{abs(skew):.0f} s off.")
