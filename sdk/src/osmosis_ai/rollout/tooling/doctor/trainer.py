"""The way to the trainer and back, asked in a way that does it no harm.

Without a key, only GET on the two paths of the protocol: a safe method (RFC 9110, section 9.2.1), which a trainer
answers with 405 or 501 where the path exists. With a key, also one POST of ``{}`` to the path of results: it names no
rollout, so no trainer can take it for a result, and one that checks keys refuses a wrong one before it reads the body.
No completion is asked for, so no model computes anything. The way is that of the server's own calls: the same
proxy, the same certificates, no redirects followed.
"""

import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

import httpx

from osmosis_ai.rollout.core.offload import DaemonThreads
from osmosis_ai.rollout.core.text import bare_url
from osmosis_ai.rollout.tooling.doctor.address import is_own_address
from osmosis_ai.rollout.tooling.doctor.case import Case, check, once
from osmosis_ai.rollout.tooling.doctor.types import Finding, Need, not_checked, ok, problem, warning
from osmosis_ai.rollout.wire.addresses import all_interfaces, check_callable, is_loopback, proxy_for
from osmosis_ai.rollout.wire.channels import tls_context
from osmosis_ai.rollout.wire.paths import CHAT_PATH, COMPLETED_PATH
from osmosis_ai.rollout.wire.policy_client import PolicyClient

MAX_STEP_SECONDS = 1.2
SHARE_OF_A_STEP = 0.7
MAX_SKEW_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443}


class Failure(StrEnum):
    """Why no answer came, with what to do."""

    fix: str

    def __new__(cls, value: str, fix: str) -> Self:
        failure = str.__new__(cls, value)
        failure._value_, failure.fix = value, fix
        return failure

    NAME = "name", "Correct the host name, or this machine's DNS (in a container, its --dns or network)."
    REFUSED = (
        "refused",
        "Start the trainer, and correct the port; it must listen on an address that this machine reaches.",
    )
    TIMEOUT = "timeout", "Look for a firewall or security group in between, and for a wrong address."
    SILENT = "silent", "Look whether the trainer hangs, and whether the port is really its HTTP port."
    TLS = "tls", "Use a certificate that this machine trusts (SSL_CERT_FILE names a CA of your own), or http://."
    OTHER = "other", "Correct the address."


_REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_ABSENT = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_THERE = frozenset(
    {
        HTTPStatus.OK,
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
"""What a path answers to a GET that is for POSTs."""
PULL_CHAT_PATH = PolicyClient.chat_path
_NO_ANSWER = "The trainer does not answer."


@dataclass(frozen=True, slots=True)
class TrainerReport:
    shown: str = ""
    """The URL without what might be secret in it."""
    host: str = ""
    port: int = 0
    bad_url: str | None = None
    proxy: str | None = field(default=None, repr=False)
    failure: tuple[Failure, str] | None = None
    """And the detail."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    """By path."""
    location: str | None = None
    """Where it redirects to."""
    key_status: int | None = None
    """Of the empty result sent with the key."""
    skew_seconds: float | None = None
    """How far its clock is ahead of this machine's; ``None``: it sends no date."""

    @property
    def is_pulling(self) -> bool:
        """Whether it takes no results, but chat calls: it speaks 0.3, and fetches."""
        if PULL_CHAT_PATH not in self.statuses:
            return False
        return any(self.statuses.get(path, HTTPStatus.NOT_FOUND) in _THERE for path in (PULL_CHAT_PATH, CHAT_PATH))

    @property
    def answers(self) -> bool:
        """Whether something speaks HTTP there."""
        return bool(self.statuses)


@once
def trainer_report(case: Case) -> TrainerReport:
    """What the trainer answers; see the module for what is sent."""
    url = case.setup.trainer or ""
    try:
        check_callable(url)
    except ValueError as error:
        return TrainerReport(bad_url=str(error).replace("server_url", "it"))
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    proxy = proxy_for(parts.scheme, host, parts.netloc)
    report = TrainerReport(shown=(bare_url(url) or "").rstrip("/"), host=host, port=port, proxy=proxy)
    step_seconds = min(case.seconds_left * SHARE_OF_A_STEP, MAX_STEP_SECONDS)
    if proxy is None and (trouble := _resolve(host, port, step_seconds)) is not None:
        return replace(report, failure=trouble)
    try:
        client = httpx.Client(
            verify=tls_context() if parts.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            proxy=proxy,
            trust_env=False,
            timeout=httpx.Timeout(step_seconds),
        )
    except (ImportError, ValueError, httpx.InvalidURL):
        return replace(report, failure=(Failure.OTHER, "the proxy that the environment names cannot be used"))
    with closing(client):
        try:
            return _ask(client, url.rstrip("/"), case.setup.trainer_key, report)
        except httpx.HTTPError as error:
            return replace(report, failure=_classified(error, proxy))


def _resolve(host: str, port: int, time_limit_seconds: float) -> tuple[Failure, str] | None:
    looked_up = DaemonThreads(1).submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        looked_up.result(time_limit_seconds)
    except FutureTimeoutError:
        return Failure.NAME, f"no answer within {time_limit_seconds:.1f} s"
    except (OSError, UnicodeError) as error:
        return Failure.NAME, getattr(error, "strerror", None) or "it is no host name"
    return None


def _ask(client: httpx.Client, base: str, key: str | None, report: TrainerReport) -> TrainerReport:
    statuses: dict[str, int] = {}
    location = skew_seconds = key_status = None
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def look(path: str) -> int:
        nonlocal location, skew_seconds
        sent_at = time.time()
        # Left unread: how long a body is, is the other side's choice.
        with client.stream("GET", path, headers=headers) as response:
            location = response.headers.get("location") or location
            skew_seconds = _skew(response.headers.get("date"), sent_at, time.time())
            return response.status_code

    for path in (CHAT_PATH, COMPLETED_PATH):
        statuses[path] = look(base + path)
    # Whoever takes results speaks 0.2, also where the URL has a /v1 that it should not have.
    taken_elsewhere = base.endswith("/v1") and look(base.removesuffix("/v1") + COMPLETED_PATH) not in _ABSENT
    if statuses[COMPLETED_PATH] in _ABSENT and not taken_elsewhere:
        statuses[PULL_CHAT_PATH] = look(base + PULL_CHAT_PATH)
    if key and statuses[COMPLETED_PATH] not in _ABSENT:
        with client.stream("POST", base + COMPLETED_PATH, headers=headers, json={}) as response:
            key_status = response.status_code
    return replace(report, statuses=statuses, location=location, key_status=key_status, skew_seconds=skew_seconds)


def _skew(date: str | None, sent_at: float, received_at: float) -> float | None:
    """Between a ``Date`` header, which counts whole seconds, and the time in between which it was written."""
    if date is None:
        return None
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    if theirs > received_at:
        return theirs - received_at
    return min(theirs + 1 - sent_at, 0.0)


def _classified(error: httpx.HTTPError, proxy: str | None) -> tuple[Failure, str]:
    causes = _causes(error)
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None:
        return Failure.TLS, getattr(tls, "verify_message", None) or tls.reason or "TLS failed"
    through = " through the proxy" if proxy else ""
    if isinstance(error, httpx.ConnectTimeout):
        return Failure.TIMEOUT, f"no connection{through}"
    if isinstance(error, httpx.TimeoutException):
        return Failure.SILENT, f"no answer{through}"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return Failure.REFUSED, f"connection refused{' by the proxy' if proxy else ''}"
    reason = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    return Failure.OTHER, (reason or str(error) or type(error).__name__) + through


def _causes(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_causes(error.__cause__ or error.__context__)]


@check("trainer-url", "the trainer's URL is a base URL", Need.TRAINER)
def check_url(case: Case) -> Finding:
    report = trainer_report(case)
    if report.bad_url is not None:
        return problem(f"--trainer is no base URL: {report.bad_url}.", "Write it as in http://10.0.0.5:8000.")
    for doubled in (CHAT_PATH, COMPLETED_PATH, "/v1"):
        if not report.is_pulling and report.shown.endswith(doubled):
            # A server that answers every path alike, as one that asks for a key does, would not show it.
            return warning(
                f"Calls would go to {report.shown}{CHAT_PATH}: the protocol's paths begin with /v1 themselves.",
                f"Give it, and the trainer its server_url, as {report.shown.removesuffix(doubled)}.",
            )
    return ok(f"{report.shown}.")


@check("trainer-place", "trainer and server can reach each other", Need.TRAINER)
def check_place(case: Case) -> Finding:
    host = trainer_report(case).host
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
    if not case.is_open and not is_own_address(host):
        return problem(
            f"The trainer is on {host}, and the server listens on {case.host} only: it cannot be called from there.",
            "Serve with --host 0.0.0.0 and a key, without --local.",
        )
    return ok(f"{host}.")


@check("trainer-allowed", "the trainer is one that the server allows", Need.TRAINER)
def check_allowed(case: Case) -> Finding:
    allowed = {each.strip().lower() for each in case.settings.server.allowed_trainer_hosts.split(",") if each.strip()}
    report = trainer_report(case)
    if not allowed:
        return ok("Any host is.")
    if report.host and not {report.host, f"{report.host}:{report.port}"} & allowed:
        return problem(
            f"{report.host} is not in OSMOSIS_ROLLOUT_SERVER_ALLOWED_TRAINER_HOSTS: its inits would get a 422.",
            f"Add {report.host} to it.",
        )
    return ok("It is in the list.")


@check("trainer-proxy", "no proxy stands in between", Need.TRAINER)
def check_proxy(case: Case) -> Finding:
    report = trainer_report(case)
    if report.proxy is None:
        return ok("None in between.")
    return warning(
        f"Calls to {report.host} go through the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names.",
        f"If it should not see them: add {report.host} to NO_PROXY.",
    )


@check("trainer-reachable", "the trainer answers", Need.TRAINER)
def check_reachable(case: Case) -> Finding:
    report = trainer_report(case)
    if report.bad_url is not None:
        return not_checked("There is no URL to call.")
    if report.failure is not None:
        failure, detail = report.failure
        return problem(f"The trainer at {report.shown} cannot be reached ({failure}: {detail}).", failure.fix)
    return ok("It answers.")


@check("trainer-paths", "the trainer has the protocol's paths", Need.TRAINER)
def check_paths(case: Case) -> Finding:
    report = trainer_report(case)
    if not report.answers:
        return not_checked(_NO_ANSWER)
    if report.is_pulling:
        asked = PULL_CHAT_PATH if report.statuses.get(PULL_CHAT_PATH) in _THERE else CHAT_PATH
        return ok(f"It speaks 0.3: chat is at {report.shown}{asked}, and it fetches results.")
    for path, status in report.statuses.items():
        if path != PULL_CHAT_PATH and status in _ABSENT:
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
    return ok(f"It speaks 0.2: {CHAT_PATH} and {COMPLETED_PATH} are there.")


@check("trainer-key", "the trainer takes its key", Need.TRAINER)
def check_trainer_key(case: Case) -> Finding:
    report = trainer_report(case)
    if not report.answers:
        return not_checked(_NO_ANSWER)
    refused = next((status for status in report.statuses.values() if status in _REFUSALS), None)
    if report.key_status is None:
        if refused is None:
            return not_checked("No key was given.", fix="Give it with --trainer-key to have it tried.")
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


@check("clock", "this machine's clock is right", Need.TRAINER)
def check_clock(case: Case) -> Finding:
    skew = trainer_report(case).skew_seconds
    if not trainer_report(case).answers:
        return not_checked(_NO_ANSWER)
    if skew is None:
        return not_checked("The trainer's answers have no Date.")
    if abs(skew) > MAX_SKEW_SECONDS:
        return warning(
            f"The trainer's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's.",
            "Set both by NTP (timedatectl set-ntp true): tokens expire, and times in traces do not match.",
        )
    return ok("It agrees with the trainer's to the second." if abs(skew) < 1 else f"{abs(skew):.0f} s off.")
