"""``--policy``: an agent that needs replies of its own is judged by what the user's policy says."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from servers.judging import judged
from servers.serving import serving, serving_in_a_thread
from servers.small import Json, Rollout, SmallServer

from rollout_conformance import KitOptions, Report, Status, run, select
from rollout_conformance.command import main
from rollout_conformance.policy import Policy
from rollout_conformance.vocabulary import ConformanceError, UsageError

MESSAGES = [{"role": "user", "content": "?"}]
NEXT = [*MESSAGES, {"role": "assistant", "content": "first"}]
CALL = {"function": {"name": "add", "arguments": "{}"}}


class ParsesItsReplies(SmallServer):
    """Fails on any reply that is not in its own words."""

    async def turn(self, rollout: Rollout) -> Json:
        message = await super().turn(rollout)
        if not str(message["content"]).startswith("SQL:"):
            raise ValueError(f"no query in {message['content']}")
        return message


class BreaksOnANullUsage(SmallServer):
    """Fails where a reply has a null that every agent has to do with."""

    async def chat(self, rollout: Rollout) -> Json:
        completion = await super().chat(rollout)
        if completion.get("usage", {}) is None:
            raise ValueError("no usage")
        return completion


class AsksTheUser:
    """Of the shape of the SDK's ``ScriptedPolicy``, with a method that is not ``async``."""

    def set_tools(self, tools: list[Any]) -> None:
        self.names = [tool["function"]["name"] for tool in tools]

    def chat_completions(self, messages: list[Any], **fields: Any) -> Any:
        said = f"{len(messages)} {self.names} {sorted(fields)}"
        return SimpleNamespace(message={"role": "assistant", "content": said})


async def _async(messages: list[Any]) -> str:
    return f"{len(messages)}"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (lambda messages: f"{len(messages)}", {"content": "2"}),
        (_async, {"content": "2"}),
        (["first", "second"], {"content": "second"}),
        (lambda _: {"content": "x", "reasoning_content": "y"}, {"content": "x", "reasoning_content": "y"}),
        (lambda _: CALL, {"content": None, "tool_calls": [{"id": "call_1_0", "type": "function", **CALL}]}),
        (AsksTheUser, {"content": "2 ['add'] ['top_p']"}),
        (AsksTheUser(), {"content": "2 ['add'] ['top_p']"}),
    ],
    ids=["function", "async function", "list", "message", "tool call", "class", "object"],
)
async def test_each_form_gives_a_message(named: Any, said: dict[str, Any]) -> None:
    fields = {"messages": NEXT, "rollout_id": "a", "top_p": 1.0}
    assert await Policy(named).reply(fields, [CALL]) == {"role": "assistant", **said}


@pytest.mark.parametrize("named", [7, "text", dict])
def test_what_can_be_none_is_refused(named: Any) -> None:
    with pytest.raises(UsageError, match=r"--policy names a (value|class)"):
        Policy(named)


@pytest.mark.parametrize(("named", "told"), [(["one"], "was asked for number 2"), (lambda _: 7, "it gave int")])
async def test_a_policy_without_a_reply_says_so(named: Any, told: str) -> None:
    with pytest.raises(ConformanceError, match=told):
        await Policy(named).reply({"messages": NEXT}, [])


async def _judged(policy: Any) -> Report:
    async with serving(ParsesItsReplies()) as url:
        checks = select(["chat.no_finish_reason", "chat.cut_off_reply", "load.concurrent", "retries.cut"])
        return await run(KitOptions(url, policy=policy), checks)


@pytest.mark.slow
async def test_an_agent_that_needs_its_own_replies_passes_with_them_and_not_without() -> None:
    with_policy, without = await _judged(["SQL: select 1"]), await _judged(None)
    assert [result.reason for result in with_policy.results if result.status is not Status.PASSED] == []
    assert all(result.status is Status.FAILED for result in without.results)
    assert without.agent_failure.startswith("ValueError: no query in ")


async def test_an_agent_that_breaks_on_one_odd_reply_is_not_said_to_need_its_own() -> None:
    checks = select(["chat.null_fields", "chat.no_finish_reason"])
    report = await judged(BreaksOnANullUsage(), checks, timeout_seconds=30.0)
    [failure] = report.failures
    assert failure.check.id == "chat.null_fields"
    assert report.agent_failure == ""


def test_what_a_policy_raises_is_told_once_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raising_policy.py").write_text("def reply(messages):\n    return {}['query']\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with serving_in_a_thread(SmallServer()) as url, pytest.raises(SystemExit) as ended:
        main(["--server", url, "--policy", "raising_policy:reply", "--only", "init", "--only", "load.concurrent"])
    output = capsys.readouterr()
    assert ended.value.code == 1
    assert output.err == "Error: The policy failed: KeyError: 'query' (raising_policy.py:2 in reply).\n"
    assert output.out == ""


@pytest.mark.parametrize("path", ["nonsense", "json:no_such_thing", "json:__name__"])
def test_a_path_that_names_no_policy_is_exit_code_2(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--server", "http://127.0.0.1:1", "--policy", path])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: --policy")
