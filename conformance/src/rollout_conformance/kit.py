"""What a check works with: inits on their way to the server, and the rollouts that come of them."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx

from rollout_conformance.asking import Asking, describe
from rollout_conformance.door import Door
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit_trainer import KitTrainer
from rollout_conformance.options import KitOptions
from rollout_conformance.own_connections import OwnConnections
from rollout_conformance.played import PlayedRollout, Script, objects_of
from rollout_conformance.scripts import acknowledge, answering
from rollout_conformance.strict_json import parse_object
from rollout_conformance.tool_schemas import usable_tools
from rollout_conformance.usual_causes import KEY_KEPT, cause_of_refusal
from rollout_conformance.vocabulary import Failed, Skipped

if TYPE_CHECKING:
    from rollout_conformance.server_command import ServerCommand


class Kit(Asking):
    """One check's hold on the server and the trainer; the judge makes one for each.

    Args:
        check_id: the check that rollouts are played for.
        command: the server's process, if the kit started it.
    """

    def __init__(
        self,
        options: KitOptions,
        http: OwnConnections,
        trainer: KitTrainer,
        check_id: str = "",
        command: "ServerCommand | None" = None,
    ) -> None:
        super().__init__(options, http, trainer)
        self.command = command
        self._check_id = check_id
        self._holds: list[asyncio.Event] = []
        self._group = self._case = ""

    def of_check(self, check_id: str) -> "Kit":
        """The same run, for another check."""
        return Kit(self.options, self.http, self.trainer, check_id, self.command)

    def with_key(self, key: str | None) -> "Kit":
        """The same, with another key for the server's, or none."""
        return Kit(replace(self.options, api_key=key), self.http, self.trainer, self._check_id, self.command)

    def group(self) -> None:
        """From here on rollouts are of one ``server_url`` and one prompt, as the samples of a group are."""
        self._group, self._case = secrets.token_hex(6), secrets.token_hex(3)

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
                {"role": "user", "content": f"What is 2 + 2? (case {self._case or secrets.token_hex(3)})"},
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
            self.trainer.patience,
        )
        self.trainer.add(rollout, trailing=trailing, at=at, group=self._group)
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
        if response.status_code == 409 and any(status in (429, 503) for status in rollout.statuses):
            raise Failed("202 to an init that had been refused for want of room", describe(response), usually=KEY_KEPT)
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

        # A machine that is busy is waited for; a server that does not serve is another check's matter.
        await asyncio.gather(asyncio.sleep(self.options.settle_seconds), self.trainer.next_plain(self._play_plain))

    async def _play_plain(self) -> None:
        with contextlib.suppress(Failed):
            await self.must_serve()
