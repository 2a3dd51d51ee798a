"""The kit's own trainer: routes callbacks to the rollout they belong to, and keeps all of them.

Each rollout has a ``server_url`` with a path of its own, so a call that lacks or garbles the rollout id is still known;
those of a group have one, as all of a real trainer's have, and are told apart by their ids.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rollout_conformance.endpoint import Answer, Request
from rollout_conformance.played import Call, Patience, PlayedRollout
from rollout_conformance.policy import Policy
from rollout_conformance.vocabulary import ConformanceError

if TYPE_CHECKING:
    from rollout_conformance.checks.limits import Limited
    from rollout_conformance.checks.restart import Restart
    from rollout_conformance.checks.stop import Stop

CHAT_PATH = "/v1/chat/completions"
COMPLETED_PATH = "/v1/rollout/completed"
Play = Callable[[], Coroutine[Any, Any, None]]


class KitTrainer:
    """Answers callbacks by the scripts of the rollouts it knows.

    Args:
        base_url: where the server under test reaches the endpoint.
        timeout_seconds: the longest wait for any one thing the server has to do.
        policy: says the replies that need not be the kit's own.
    """

    def __init__(self, base_url: str, timeout_seconds: float, policy: Policy | None = None) -> None:
        self.policy = policy
        self.failure: asyncio.Future[ConformanceError] = asyncio.get_running_loop().create_future()
        """Why the run cannot go on: the policy failed."""
        self.base_url = base_url.rstrip("/")
        self.patience = Patience(timeout_seconds)
        self.rollouts: list[PlayedRollout] = []
        self.strays: list[str] = []
        """Calls that belong to no rollout of ours or go to no known path."""
        self.ended: asyncio.Future[list[PlayedRollout]] | None = None
        """All that are played before the server is stopped, once they have ended."""
        self.audited: asyncio.Future[list[PlayedRollout]] | None = None
        """Those that the audits look at, when they may."""
        self.restart: asyncio.Task[Restart] | None = None
        self.stop: asyncio.Task[Stop] | None = None
        """The end of the server, which several checks look at."""
        self.has_short_limit: bool | None = None
        """Whether the server runs with the limit that ``limits`` needs; ``None`` before it was started with it."""
        self.limited: asyncio.Task[Limited] | None = None
        self._plain: asyncio.Task[None] | None = None
        self._next_plain: asyncio.Task[None] | None = None
        self._base_path = urlsplit(self.base_url).path
        self._by_token: dict[str, list[PlayedRollout]] = {}

    async def next_plain(self, play: Play) -> None:
        """Wait for a plain rollout that begins after now: one for all who ask while the one before it runs."""
        before = self._plain
        if self._next_plain is None:
            self._next_plain = asyncio.create_task(self._play_next(before, play))
        await asyncio.shield(self._next_plain)

    async def _play_next(self, before: "asyncio.Task[None] | None", play: Play) -> None:
        if before is not None:
            await asyncio.wait({before})
        self._plain, self._next_plain = self._next_plain, None
        await play()

    @property
    def refused_for_room(self) -> int:
        """How often an init was."""
        return sum(status in (429, 503) for rollout in self.rollouts for status in rollout.statuses)

    def add(self, rollout: PlayedRollout, *, trailing: str = "", at: str = "", group: str = "") -> None:
        """Make the rollout known, and give it its ``server_url``: one for all of a ``group``."""
        token = group or secrets.token_hex(6)
        self._by_token.setdefault(token, []).append(rollout)
        self.rollouts.append(rollout)
        rollout.policy = self.policy
        rollout.init["server_url"] = f"{at or self.base_url}/{token}{trailing}"

    def of_init(self, init: Mapping[str, Any]) -> PlayedRollout | None:
        """The rollout that was given the ``server_url`` of this init: of several the one of its id, or the latest."""
        for names in (("rollout_id", "server_url"), ("server_url",)):
            for one in reversed(self.rollouts):
                if all(one.init.get(name) == init.get(name) for name in names):
                    return one
        return None

    def of_id(self, rollout_id: object, among: Sequence[PlayedRollout] | None = None) -> PlayedRollout | None:
        """The latest rollout of this id: two of one id are played one after the other."""
        rollouts = self.rollouts if among is None else among
        return next((rollout for rollout in reversed(rollouts) if rollout.rollout_id == rollout_id), None)

    def forget_strays(self, below: str) -> None:
        """Those below a path of the kit's own, where a check has sent the server."""
        self.strays = [stray for stray in self.strays if f" {self._base_path}{below}" not in stray]

    def strays_to(self, rollout: PlayedRollout) -> list[str]:
        """What went below the ``server_url`` of a rollout and was no POST to a path of the protocol; no strays then."""
        own = f" {urlsplit(str(rollout.init['server_url'])).path}/"
        found = [stray for stray in self.strays if own in stray]
        self.strays = [stray for stray in self.strays if own not in stray]
        return found

    async def handle(self, request: Request) -> Answer | None:
        """Answer one callback."""
        path = request.path.partition("?")[0]
        kind = next((known for known in (CHAT_PATH, COMPLETED_PATH) if path.endswith(known)), None)
        if kind is None or request.method != "POST":
            self.strays.append(f"{request.method} {path}")
            return Answer(404)
        token = path.removesuffix(kind).removeprefix(self._base_path).strip("/").partition("/")[0]
        there = self._by_token.get(token, [])
        # By its id, so that a server which drops the path fails the check that says so, not every check.
        rollout = there[0] if len(there) == 1 else self.of_id(_id_in(request), there or self.rollouts)
        if rollout is None and there:
            rollout = there[-1]
        if rollout is None:
            self.strays.append(f"{request.method} {path}, for a rollout that was never started")
            return Answer(404)
        try:
            return await _answer(Call(rollout, request, was_routed=bool(there)), is_chat=kind == CHAT_PATH)
        except ConformanceError as error:
            if not self.failure.done():
                self.failure.set_result(error)
            return Answer(400)


def _id_in(request: Request) -> object:
    return Call(_NOBODY, request, was_routed=False).fields.get("rollout_id")


async def _answer(call: Call, *, is_chat: bool) -> Answer | None:
    rollout = call.rollout
    (rollout.chats if is_chat else rollout.completions).append(call)
    if is_chat:
        rollout.patience.last_call = call
    # On record before it is answered: a script may hold the answer back, and checks wait for the call to come.
    rollout.changed()
    answer = await (rollout.on_chat if is_chat else rollout.on_completed)(call)
    call.answer = answer
    call.answered_at = time.monotonic()
    rollout.changed()
    return answer


async def _never(call: Call) -> Answer | None:
    return None


_NOBODY = PlayedRollout("", {"rollout_id": ""}, _never, _never, Patience(0))
