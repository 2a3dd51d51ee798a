"""What a dead process has left and cannot be read as a whole: its trainer hears of it all the same."""

from pathlib import Path

import pytest
from support.fake_trainer import FakeTrainer
from support.rollouts import ScriptedAgent, chat_once, lifespan_of, settings_of

from osmosis_ai.rollout.journal import SqliteJournal
from osmosis_ai.rollout.journal.types import Acceptance
from osmosis_ai.rollout.server.app import create_app


@pytest.mark.parametrize("request_body", [b"", b"\xff", b"[]", b"{}", b'{"messages": [', b"[" * 100_000, b"null"])
async def test_a_rollout_whose_messages_cannot_be_read_is_reported_without_them(
    tmp_path: Path, trainer: FakeTrainer, request_body: bytes
) -> None:
    path = tmp_path / "journal.db"
    async with SqliteJournal(path) as journal:
        await journal.accept(
            Acceptance(
                key="id:rollout-1",
                rollout_id="rollout-1",
                fingerprint="f",
                server_url=trainer.url,
                api_key=None,
                init_reply=b"{}",
                request=request_body,
            )
        )
    settings = settings_of(server={"journal": str(path)})
    async with lifespan_of(create_app(ScriptedAgent(chat_once), settings=settings)):
        result = await trainer.result("rollout-1")
    assert (result["status"], result["final_messages"]) == ("ERROR", [])
    assert result["extra_fields"]["outcome"] == "interrupted"
