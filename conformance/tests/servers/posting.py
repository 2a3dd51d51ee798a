"""One request of the small server to its trainer, and how what came back is read."""

import json
import re
import ssl
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from servers.model import MAX_REFUSAL_BYTES, TRACE, Json, Rollout

NO_PATH = re.compile(r'"(404 )?((page|route) )?not found\.?"|"no route matched with those values\.?"', re.IGNORECASE)
MAX_REPLY_BYTES = 16 * 1024 * 1024
IN_A_CODING = b"x-coding"
"""Of a reply that is unpacked: what it came in."""
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The kit speaks plain HTTP, and to load all that a server may trust takes as long as to judge one."""


class Posting:
    """Each step is a method, so that a mutant replaces one at a time."""

    max_connections: int | None = None
    keeps_connections = 0
    max_reply_bytes = MAX_REPLY_BYTES

    def __init__(self) -> None:
        limits = httpx.Limits(max_connections=self.max_connections, max_keepalive_connections=self.keeps_connections)
        headers = {"Accept-Encoding": "identity"}
        self.http = httpx.AsyncClient(trust_env=False, timeout=30, limits=limits, headers=headers, verify=TRUSTS_NOBODY)

    async def post(self, rollout: Rollout, path: str, body: Json, key: str) -> httpx.Response:
        headers = {"Content-Type": "application/json", **self.credentials(rollout, path), **self.trace(path)}
        headers |= {"Idempotency-Key": key} if key else {}
        request = self.http.build_request(
            "POST", self.callback_url(rollout, path), content=self.encode(body), headers=headers
        )
        response = await self.http.send(request, stream=True)
        try:
            packed = bytearray()
            async for chunk in response.aiter_raw():
                packed += chunk
                if len(packed) > self.max_reply_bytes:
                    raise httpx.ReadError("The reply is too large")
        finally:
            await response.aclose()
        coding = response.headers.get("content-encoding", "identity")
        content = self.unpacked(bytes(packed), coding)
        told = [(name, value) for name, value in response.headers.raw if self.is_read(name)]
        told += [] if coding == "identity" else [(IN_A_CODING, coding.encode())]
        return httpx.Response(response.status_code, headers=told, content=content)

    def is_read(self, name: bytes) -> bool:
        return name.lower() in (b"retry-after", b"content-type")

    def unpacked(self, packed: bytes, coding: str) -> bytes:
        if coding == "identity" or not packed:
            return packed
        unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            content = unpacking.decompress(packed, self.max_reply_bytes + 1)
        except zlib.error as error:
            raise httpx.ReadError(f"The reply cannot be unpacked: {error}") from error
        if not unpacking.eof or unpacking.unused_data:
            raise httpx.ReadError("The reply is cut off, or too large")
        return content

    def encode(self, body: Json) -> bytes:
        return json.dumps(body).encode()

    def callback_url(self, rollout: Rollout, path: str) -> str:
        return f"{rollout.url}{path}"

    def credentials(self, rollout: Rollout, path: str) -> dict[str, str]:
        key = rollout.init.get("api_key")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def trace(self, path: str) -> dict[str, str]:
        return TRACE.get()

    # What came back

    def is_nobody(self, error: Exception) -> bool:
        """Whether no connection came about."""
        return isinstance(error, httpx.ConnectError)

    def is_retried(self, status: int) -> bool:
        return status >= 500 or status in (408, 425, 429)

    def is_absent(self, response: httpx.Response) -> bool:
        """Whether somebody else answers in the trainer's place."""
        is_object = response.text.startswith("{") and response.text != "{}" and len(response.text) <= MAX_REFUSAL_BYTES
        return response.status_code in (404, 405) and not is_object

    def is_no_path(self, response: httpx.Response) -> bool:
        """Whether the path is not served."""
        return response.status_code == 405 or (
            response.status_code == 404
            and NO_PATH.search(response.text) is not None
            and "rollout" not in re.sub(r'/[^\s"]*', "", response.text.lower())
        )

    def is_page(self, response: httpx.Response) -> bool:
        """Whether somebody else answers, in HTML."""
        is_html = "text/html" in response.headers.get("content-type", "").lower() and self.begins_as_page(response.text)
        return is_html and not self.is_no_page(response)

    def is_no_page(self, response: httpx.Response) -> bool:
        """Whether it is none though it reads like one: a 2xx that came in a coding."""
        return response.is_success and IN_A_CODING.decode() in response.headers

    def begins_as_page(self, text: str) -> bool:
        return text.lstrip("\ufeff \t\r\n").lower().startswith(("<!doctype html", "<html"))

    def told_seconds(self, response: httpx.Response) -> float:
        told = response.headers.get("retry-after", "0")
        if told.isdigit():
            return float(told)
        try:
            return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
        except ValueError:
            return 0.0
