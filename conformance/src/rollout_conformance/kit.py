"""What a check works with: inits on their way to the server, and the rollouts that come of them."""

import asyncio
import contextlib
import re
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from rollout_conformance.door import Door
from rollout_conformance.endpoint import PIECE_SECONDS, cut_within_character
from rollout_conformance.evidence import looked_at, sending
from rollout_conformance.kit_trainer import KitTrainer
from rollout_conformance.options import KitOptions
from rollout_conformance.played import PlayedRollout, Script, init_in_words, objects_of
from rollout_conformance.scripts import acknowledge, answering, encoded
from rollout_conformance.strict_json import parse_object
from rollout_conformance.text import MAX_QUOTED_CHARACTERS, quoted, shortened
from rollout_conformance.tool_schemas import usable_tools
from rollout_conformance.usual_causes import NO_ANSWER, cause_of_refusal
from rollout_conformance.vocabulary import Failed, Skipped

if TYPE_CHECKING:
    from rollout_conformance.server_command import ServerCommand

INIT_PATH = "/v1/rollout/init"
LEAST_PAUSE_SECONDS = 0.1
BODY_SECONDS = 5.0
"""How long a server that wants the body first is given."""
MAX_SERVERS_ASKED = 30


class Kit:
    """One check's hold on the server and the trainer; the judge makes one for each.

    Args:
        check_id: the check that rollouts are played for.
        command: the server's process, if the kit started it.
    """

    def __init__(
        self,
        options: KitOptions,
        http: httpx.AsyncClient,
        trainer: KitTrainer,
        check_id: str = "",
        command: "ServerCommand | None" = None,
    ) -> None:
        self.options = options
        self.http = http
        self.trainer = trainer
        self.command = command
        self._check_id = check_id
        self._holds: list[asyncio.Event] = []

    def of_check(self, check_id: str) -> "Kit":
        """The same run, for another check."""
        return Kit(self.options, self.http, self.trainer, check_id, self.command)

    def with_key(self, key: str | None) -> "Kit":
        """The same, with another key for the server's, or none."""
        return Kit(replace(self.options, api_key=key), self.http, self.trainer, self._check_id, self.command)

    def hold(self) -> asyncio.Event:
        """An event for ``scripts.waiting_for``; set at the latest when the check is over."""
        event = asyncio.Event()
        self._holds.append(event)
        return event

    def release(self) -> None:
        """Set every event that ``hold`` gave."""
        for event in self._holds:
            event.set()

    def door(self, host: str | None = None) -> Door:
        """An address, of the kit's ``host`` or another, at which nobody listens until it is opened, for ``at``.

        Raises:
            Skipped: the server reaches the kit at an address that was given.
            OSError: this machine has no such host.
        """
        if self.options.callback_url:
            raise Skipped("the kit has one address, --callback-url, and cannot be away there")
        return Door(self.trainer.handle, self.options.callback_host if host is None else host)

    def play(
        self,
        on_chat: Script | None = None,
        on_completed: Script | None = None,
        *,
        trailing: str = "",
        at: str = "",
        **fields: Any,
    ) -> PlayedRollout:
        """A rollout that is not sent yet; ``fields`` replace those of the init, ``...`` takes one out.

        ``trailing`` is put behind its ``server_url``, ``at`` is the address that this begins with.
        """
        init = {
            "rollout_id": f"kit-{secrets.token_hex(5)}",
            "messages": [
                {"role": "system", "content": "Use the tools. Put the result on the last line, as in: #### 4"},
                {"role": "user", "content": f"What is 2 + 2? (case {secrets.token_hex(3)})"},
            ],
            "completion_params": {"temperature": 0.7, "top_p": 0.9, "max_tokens": 300},
            "max_turns": 8,
            "max_tokens_total": 100_000,
            "metadata": {"ground_truth": "4"},
            **self.options.init_fields,
            **fields,
        }
        rollout = PlayedRollout(
            self._check_id,
            {name: value for name, value in init.items() if value is not ...},
            on_chat or answering(),
            on_completed or acknowledge,
            self.options.timeout_seconds,
        )
        self.trainer.add(rollout, trailing=trailing, at=at)
        return rollout

    async def start(
        self, on_chat: Script | None = None, on_completed: Script | None = None, **more: Any
    ) -> PlayedRollout:
        """Send an init that must be accepted. Arguments as for ``play``.

        Raises:
            Failed: the answer is no 202 with an object.
        """
        rollout = self.play(on_chat, on_completed, **more)
        await self.send(rollout)
        return rollout

    async def send(self, rollout: PlayedRollout) -> httpx.Response:
        """Send the rollout's init, which must be accepted.

        Raises:
            Failed: the answer is no 202 with an object.
        """
        response = await self.post(rollout.init)
        self.took(rollout, response)
        return response

    async def is_taken(self, rollout: PlayedRollout, what: str) -> bool:
        """Send an init that may be refused: whether it was accepted. ``what`` describes it.

        Raises:
            Failed: the answer is neither a 202 nor a 4xx.
        """
        response = await self.post(rollout.init)
        if 400 <= response.status_code < 500:
            return False
        if response.status_code != 202:
            raise Failed(f"202 or a 4xx to {what}", describe(response))
        self.took(rollout, response)
        return True

    def took(self, rollout: PlayedRollout, response: httpx.Response) -> None:
        """Note what the server answered to the rollout's init.

        Raises:
            Failed: it is no 202 with an object.
        """
        if response.status_code != 202:
            raise Failed("202 to an init", describe(response), usually=cause_of_refusal(response.status_code))
        looked_at(rollout)
        # Before the body is read: whatever it holds, a 202 is owed a result.
        rollout.is_accepted = True
        try:
            answer = parse_object(response.content)
        except ValueError as error:
            raise Failed("a JSON object with the 202", str(error)) from None
        rollout.tools = usable_tools(objects_of(answer.get("tools"))) if self.options.call_tools else []
        rollout.accepted.set()

    async def post(
        self,
        body: Mapping[str, Any] | bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        insist: bool = True,
        in_chunks: bool = False,
    ) -> httpx.Response:
        """POST an init with the server's key (or ``key``; an empty one sends none), whatever the answer.

        Args:
            insist: send it again while the server is full: 429 or 503 with Retry-After.
            in_chunks: send the body without a Content-Length.

        Raises:
            Failed: there is no answer.
        """
        content = body if isinstance(body, bytes) else encoded(body)
        key = self.options.api_key if key is None else key
        sent: dict[str, str | bytes] = {"Content-Type": "application/json"}
        sent |= {"Authorization": f"Bearer {key}"} if key else {}
        sent |= headers or {}
        pairs = [(name.encode(), v if isinstance(v, bytes) else v.encode("latin-1")) for name, v in sent.items()]
        deadline = time.monotonic() + self.options.timeout_seconds
        rollout = None if isinstance(body, bytes) else self.trainer.of_url(body.get("server_url"))
        told = quoted(body) if isinstance(body, bytes) else init_in_words(body)
        sending(f"POST {INIT_PATH} {told}{_headers_in_words(sent, self.options.api_key)}", rollout)
        # The checks open more rollouts at once than a small server need take, so being full is no fault of its.
        while True:
            sent_as = _halves(content) if in_chunks else content
            response = await self._answered("POST", INIT_PATH, content=sent_as, headers=pairs)
            if rollout is not None:
                rollout.statuses.append(response.status_code)
            pause_seconds = retry_after_seconds(response)
            if response.status_code not in (429, 503) or pause_seconds is None or not insist:
                break
            if time.monotonic() + pause_seconds > deadline:
                break
            await asyncio.sleep(max(pause_seconds, LEAST_PAUSE_SECONDS))
        return response

    async def post_and_hang_up(self, init: Mapping[str, Any]) -> None:
        """Send an init over a connection that is closed at once, whatever is answered.

        Raises:
            Failed: no connection came about.
        """
        body = encoded(init)
        try:
            async with self.own_connection() as (_, writer):
                writer.write(self._head_of_init(len(body)) + body)
                await writer.drain()
        except OSError as error:
            raise Failed(f"a connection for POST {INIT_PATH}", str(error)) from None

    async def post_head(self, body_bytes: int) -> int | None:
        """The status that the head of an init gets whose body never comes; ``None`` if that is waited for."""
        sending(f"POST {INIT_PATH}, the head alone")
        with contextlib.suppress(OSError, TimeoutError, IndexError, ValueError):
            async with asyncio.timeout(min(BODY_SECONDS, self.options.timeout_seconds)), self.own_connection() as own:
                own[1].write(self._head_of_init(body_bytes))
                return int((await own[0].readline()).split()[1])
        return None

    def _head_of_init(self, body_bytes: int) -> bytes:
        url = httpx.URL(f"{self.options.server_url}{INIT_PATH}")
        headers = {"Host": url.netloc.decode(), "Content-Type": "application/json", **self._own_key}
        lines = [f"POST {url.raw_path.decode()} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, f"Content-Length: {body_bytes}", "", ""]).encode("latin-1")

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to the server that nothing has been sent over."""
        url = httpx.URL(self.options.server_url)
        tls = ssl.create_default_context() if url.scheme == "https" else None
        reader, writer = await asyncio.open_connection(url.host, url.port or (443 if tls else 80), ssl=tls)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def get(self, path: str) -> httpx.Response:
        """GET a path without a key, whatever the answer.

        Raises:
            Failed: there is no answer.
        """
        return await self._answered("GET", path)

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Ask, with the server's key, whatever the answer.

        Raises:
            Failed: there is no answer.
        """
        sending(f"{method} {path}")
        content = None if body is None else encoded(body)
        headers = {**self._own_key, "Content-Type": "application/json"}
        return await self._answered(method, path, headers=headers, content=content)

    async def status(self, rollout_id: str) -> httpx.Response:
        """Ask, with the server's key, how a rollout stands.

        Raises:
            Failed: there is no answer.
        """
        return await self._answered("GET", path_of(rollout_id), headers=self._own_key)

    async def cancel(self, rollout_id: str) -> httpx.Response:
        """Ask, with the server's key, for the end of a rollout.

        Raises:
            Failed: there is no answer.
        """
        path = f"{path_of(rollout_id)}/cancel"
        sending(f"POST {path}")
        return await self._answered("POST", path, headers=self._own_key)

    async def cancel_where_it_runs(self, rollout_id: str) -> httpx.Response:
        """As ``cancel``, again while the answer is 409: behind one address there may be several servers.

        Raises:
            Failed: there is no answer.
        """
        answer = await self.cancel(rollout_id)
        for _ in range(MAX_SERVERS_ASKED):
            if answer.status_code == 409:
                answer = await self.cancel(rollout_id)
        return answer

    @property
    def _own_key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.options.api_key}"} if self.options.api_key else {}

    async def _answered(self, method: str, path: str, **request: Any) -> httpx.Response:
        if method != "POST":
            sending(f"{method} {path}")
        try:
            return await self.http.request(method, f"{self.options.server_url}{path}", **request)
        except httpx.TimeoutException:
            got = f"none within {self.options.timeout_seconds:g} s"
            raise Failed(f"an answer to {method} {path}", got, usually=NO_ANSWER) from None
        except httpx.TransportError as error:
            got = f"{type(error).__name__}: {shortened(str(error))}"
            raise Failed(f"an answer to {method} {path}", got, usually=NO_ANSWER) from None

    async def must_serve(self) -> None:
        """The server goes on: a plain rollout ends in a result.

        Raises:
            Failed: it does not.
        """
        await (await self.start()).result()

    async def results(self, rollouts: Iterable[PlayedRollout]) -> list[dict[str, Any]]:
        """The results of all, as they come."""
        return list(await asyncio.gather(*(rollout.result() for rollout in rollouts)))

    async def settle(self) -> None:
        """Leave time for what must not come: a while, and as long as a rollout takes from its init to its result."""

        async def another() -> None:
            # A machine that is busy is waited for; a server that does not serve is another check's matter.
            with contextlib.suppress(Failed):
                await self.must_serve()

        await asyncio.gather(asyncio.sleep(self.options.settle_seconds), another())


async def _halves(content: bytes) -> AsyncIterator[bytes]:
    first, second = cut_within_character(content)
    yield first
    await asyncio.sleep(PIECE_SECONDS)
    yield second


def _headers_in_words(headers: Mapping[str, str | bytes], own_key: str | None) -> str:
    """Those that are not as always; the server's own key is not shown."""
    plain = {"Content-Type": "application/json", "Authorization": f"Bearer {own_key}"}
    odd = {name: value for name, value in headers.items() if plain.get(name) != value}
    return f" with {quoted(odd)}" if odd else " without a key" if own_key and "Authorization" not in headers else ""


def path_of(rollout_id: str) -> str:
    """Where a rollout's state is asked for."""
    return f"/v1/rollout/{quote(rollout_id, safe='')}"


def retry_after_seconds(answer: httpx.Response) -> float | None:
    """What Retry-After asks for (RFC 9110, 10.2.3); ``None`` if it is not there or means nothing."""
    value = answer.headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,6}", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def describe(response: httpx.Response) -> str:
    """A response, short and printable."""
    text = shortened(response.text, MAX_QUOTED_CHARACTERS)
    return f"{response.status_code}: {text}" if text else f"{response.status_code} without a body"
