"""Reading an init request: everything that is refused is refused here, before anything is remembered.

Order: credentials, size and time (``bodies``), encoding, JSON, schema, limits. A refusal is one JSON object whose
``detail`` names what was wrong, and never echoes a secret.
"""

import hashlib
import json
from codecs import BOM_UTF8
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from osmosis_ai.rollout.core.schemas import CancelRequest, CompletionParams, RolloutRequest
from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.wire.addresses import check_callable, is_sendable

if TYPE_CHECKING:
    from starlette.requests import Request

Model = TypeVar("Model", bound=BaseModel)

MAX_IDEMPOTENCY_KEY_LENGTH = 256
MAX_API_KEY_LENGTH = 4096
MAX_SERVER_URL_LENGTH = 2048
MAX_TURNS = 100_000
MAX_TOKENS_TOTAL = 1_000_000_000

# They would collide with the arguments of the chat call itself.
_RESERVED_COMPLETION_PARAMS = ("messages", "rollout_id", "self")

KEY_SPACES = ("key:", "id:")
"""What keys of inits begin with: those of explicit keys, those of ids."""

UNREACHABLE_IDS = frozenset({"init", ".", ".."})

_NOT_ASKED = frozenset({"api_key", "rollout_id", "idempotency_key"})
_CANONICAL = json.JSONEncoder(sort_keys=True, allow_nan=False)


class RefusedError(Exception):
    """A request that is answered with an error and leaves no trace.

    ``detail`` is a sentence, or the list FastAPI uses for validation errors. ``code`` is stable, for programs.
    """

    def __init__(
        self,
        status_code: int,
        detail: str | list[dict[str, Any]],
        code: str | None = None,
        *,
        retry_after_seconds: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status_code = status_code
        self.detail = detail
        self.code = code
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["Retry-After"] = str(retry_after_seconds)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {"detail": self.detail} if self.code is None else {"detail": self.detail, "code": self.code}


def unknown_rollout() -> RefusedError:
    """404 to a question about a rollout that nobody knows."""
    return RefusedError(HTTPStatus.NOT_FOUND, "No rollout of that id is known.", "unknown_rollout")


_REASON_OF_STATUS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "unauthorized",
    HTTPStatus.UNPROCESSABLE_ENTITY: "invalid",
}


def reason_of(error: Exception) -> str:
    """Why an init was refused, in a word: the ``code`` of the answer, or what its status or the error says."""
    if isinstance(error, RefusedError):
        return error.code or _REASON_OF_STATUS.get(error.status_code, "other")
    return "journal_unavailable" if isinstance(error, JournalError) else "internal_error"


def invalid_field(field: str, problem: str) -> RefusedError:
    """A 422 that names one field of the body, in FastAPI's form."""
    detail = [{"type": "value_error", "loc": ["body", field], "msg": f"Value error, {problem}"}]
    return RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def parse_init(body: bytes, allowed_trainer_hosts: frozenset[str]) -> RolloutRequest:
    """The request in ``body``; completion parameters that would collide with the chat call are taken out.

    Raises:
        RefusedError: 422 with FastAPI's ``detail`` list, which names the field and leaves the input out.
    """
    return _checked(parsed(RolloutRequest, body), allowed_trainer_hosts)


def check_request(fields: dict[str, Any], allowed_trainer_hosts: frozenset[str]) -> RolloutRequest:
    """The same for an init that did not come as one.

    Raises:
        RefusedError: 422, in the names of an init.
    """
    return _checked(_validated(RolloutRequest, fields), allowed_trainer_hosts)


def _checked(request: RolloutRequest, allowed_trainer_hosts: frozenset[str]) -> RolloutRequest:
    try:
        CompletionParams.model_validate(request.completion_params)
    except ValidationError as error:
        details = _details(error, "body", "completion_params")
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, details) from None
    _check_limits(request)
    _check_trainer(request, allowed_trainer_hosts)
    for name in _RESERVED_COMPLETION_PARAMS:
        request.completion_params.pop(name, None)
    return request


def parse_cancel(body: bytes) -> CancelRequest:
    """The request in ``body``.

    Raises:
        RefusedError: 422, as for an init.
    """
    return parsed(CancelRequest, body)


def parsed(model: type[Model], body: bytes) -> Model:
    """``body`` as JSON, validated.

    Raises:
        RefusedError: 422, as for an init.
    """
    try:
        # A byte order mark is no part of the text (RFC 8259, section 8.1, lets a parser ignore it).
        fields = from_json(body.removeprefix(BOM_UTF8), allow_inf_nan=False)
    except ValueError as error:
        detail = [{"type": "json_invalid", "loc": ["body"], "msg": f"JSON decode error: {error}"}]
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from None
    return _validated(model, fields)


def _validated(model: type[Model], fields: Any) -> Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, _details(error, "body")) from None


def idempotency_key(request: RolloutRequest) -> str:
    """The key under which a request is accepted once: its explicit key, or else its rollout id, in separate spaces."""
    explicit, implicit = KEY_SPACES
    return f"{explicit}{request.idempotency_key}" if request.idempotency_key else f"{implicit}{request.rollout_id}"


def fingerprint(request: RolloutRequest) -> str:
    """SHA-256 of what the request asks for. The callback key may rotate, and two ids may share an explicit key.

    Raises:
        RefusedError: 422, there is a number such as 1e999, which nothing could send on as JSON.
    """
    asked = dict(request.__dict__)
    for name in _NOT_ASKED:
        del asked[name]
    try:
        return hashlib.sha256(_CANONICAL.encode(asked).encode()).hexdigest()
    except ValueError as error:  # found here, where all of it is walked anyway
        detail = [{"type": "json_invalid", "loc": ["body"], "msg": f"A number is too large: {error}"}]
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from None


def headers_of(request: "Request") -> dict[bytes, bytes]:
    """The headers as they came, names in lower case (ASGI); of several of one name the first."""
    # Starlette's object decodes them all for each that is asked for.
    return dict(reversed(request.scope["headers"]))


def require_json(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that says it is something else, or that it is compressed: 415."""
    # A browser sends other types across origins without asking; a missing type is a program's, unless Origin is there.
    media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    is_json = media_type == b"application/json" or media_type.endswith(b"+json")
    if not is_json and (media_type or b"origin" in headers):
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as Content-Type: application/json.", "not_json"
        )
    if headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send the body as it is, without Content-Encoding.",
            "not_json",
            headers={"Accept-Encoding": "identity"},  # RFC 9110, section 15.5.16
        )


def _details(error: ValidationError, *where: str) -> list[dict[str, Any]]:
    # Without the input, which may be a key.
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{"type": item["type"], "loc": [*where, *item["loc"]], "msg": item["msg"]} for item in found]


def _check_limits(request: RolloutRequest) -> None:
    # Their status would have no path: that of the first is another route's, the dots are steps to whoever joins paths,
    # and a router's patterns end at a line break.
    if request.rollout_id in UNREACHABLE_IDS or "\n" in request.rollout_id:
        raise invalid_field("rollout_id", "rollout_id must not be init, . or .., nor have a line break")
    if not 1 <= request.max_turns <= MAX_TURNS:
        raise invalid_field("max_turns", f"max_turns must be between 1 and {MAX_TURNS}")
    if not 1 <= request.max_tokens_total <= MAX_TOKENS_TOTAL:
        raise invalid_field("max_tokens_total", f"max_tokens_total must be between 1 and {MAX_TOKENS_TOTAL}")
    if len(request.idempotency_key or "") > MAX_IDEMPOTENCY_KEY_LENGTH:
        raise invalid_field(
            "idempotency_key", f"idempotency_key must have at most {MAX_IDEMPOTENCY_KEY_LENGTH} characters"
        )
    key = request.api_key
    if key and (len(key) > MAX_API_KEY_LENGTH or not is_sendable(key)):
        raise invalid_field("api_key", f"api_key must be printable ASCII of at most {MAX_API_KEY_LENGTH} characters")


def _check_trainer(request: RolloutRequest, allowed_hosts: frozenset[str]) -> None:
    if len(request.server_url) > MAX_SERVER_URL_LENGTH:
        raise invalid_field("server_url", f"server_url must have at most {MAX_SERVER_URL_LENGTH} characters")
    try:
        check_callable(request.server_url)
    except ValueError as error:
        raise invalid_field("server_url", f"server_url cannot be called ({error})") from None
    if not allowed_hosts:
        return
    trainer = urlsplit(request.server_url)
    if not {trainer.hostname, trainer.netloc.lower()} & allowed_hosts:
        raise invalid_field("server_url", "server_url names a host that is not in this server's allowed_trainer_hosts")
