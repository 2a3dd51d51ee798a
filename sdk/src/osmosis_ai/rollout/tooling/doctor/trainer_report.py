"""What a trainer answers, asked in a way that does it no harm.

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
from urllib.parse import urlsplit

import httpx

from osmosis_ai.rollout.core.offload import DaemonThreads
from osmosis_ai.rollout.core.schemas import check_server_url
from osmosis_ai.rollout.wire.client import CHAT_PATH, COMPLETED_PATH
from osmosis_ai.rollout.wire.transport import proxy_for, tls_context

MAX_STEP_SECONDS = 1.2
SHARE_OF_A_STEP = 0.7
_PORTS = {"http": 80, "https": 443}


class Failure(StrEnum):
    """Why no answer came."""

    NAME = "name"
    """The host name cannot be resolved."""
    REFUSED = "refused"
    TIMEOUT = "timeout"
    SILENT = "silent"
    """It took the connection and did not answer."""
    TLS = "tls"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class TrainerReport:
    shown: str = ""
    """The URL without what might be secret in it."""
    host: str = ""
    port: int = 0
    bad_url: str | None = None
    proxy: str | None = field(default=None, repr=False)
    failure: Failure | None = None
    detail: str = ""
    statuses: Mapping[str, int] = field(default_factory=dict)
    """By path."""
    location: str | None = None
    """Where it redirects to."""
    key_status: int | None = None
    """Of the empty result sent with the key."""
    skew_seconds: float | None = None
    """How far its clock is ahead of this machine's; ``None``: it sends no date."""

    @property
    def answers(self) -> bool:
        """Whether something speaks HTTP there."""
        return bool(self.statuses)


def call_trainer(url: str, key: str | None, time_limit_seconds: float) -> TrainerReport:
    """Ask the trainer at ``url``; see the module for what is sent."""
    try:
        check_server_url(url)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        return TrainerReport(bad_url=str(error).replace("server_url", "it"))
    proxy = proxy_for(parts.scheme, host, parts.netloc)
    shown = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    report = TrainerReport(shown=shown, host=host, port=port, proxy=proxy)
    step_seconds = min(time_limit_seconds * SHARE_OF_A_STEP, MAX_STEP_SECONDS)
    if proxy is None and (trouble := _resolve(host, port, step_seconds)) is not None:
        return _failed(report, *trouble)
    try:
        client = httpx.Client(
            verify=tls_context() if parts.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            proxy=proxy,
            trust_env=False,
            timeout=httpx.Timeout(step_seconds),
        )
    except (ImportError, ValueError, httpx.InvalidURL):
        return _failed(report, Failure.OTHER, "the proxy that the environment names cannot be used")
    with closing(client):
        try:
            return _ask(client, url.rstrip("/"), key, report)
        except httpx.HTTPError as error:
            return _failed(report, *_classified(error, proxy))


def _failed(report: TrainerReport, failure: Failure, detail: str) -> TrainerReport:
    return replace(report, failure=failure, detail=detail)


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
    for path in (CHAT_PATH, COMPLETED_PATH):
        sent_at = time.time()
        # Left unread: how long a body is, is the other side's choice.
        with client.stream("GET", base + path, headers=headers) as response:
            statuses[path] = response.status_code
            location = response.headers.get("location") or location
            skew_seconds = _skew(response.headers.get("date"), sent_at, time.time())
    if key and statuses[COMPLETED_PATH] != httpx.codes.NOT_FOUND:
        with client.stream("POST", base + COMPLETED_PATH, headers=headers, json={}) as response:
            key_status = response.status_code
    return replace(
        report,
        statuses=statuses,
        location=location,
        key_status=key_status,
        skew_seconds=skew_seconds,
    )


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
    causes = list(_causes(error))
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


def _causes(error: BaseException | None) -> "list[BaseException]":
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
