"""``osmosis conformance`` is the command of another distribution, wherever that is installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.live_server import LiveServer
from support.rollouts import ScriptedAgent

from osmosis_ai.cli import main
from osmosis_ai.cli.app import COMMANDS
from osmosis_ai.rollout.core.base import RolloutContext, RolloutResult
from osmosis_ai.rollout.core.schemas import MessageDict
from osmosis_ai.rollout.server.app import create_app
from osmosis_ai.rollout.trainer.policy import Reply, ScriptedPolicy, tool_call
from rollout_conformance.command import conformance
from rollout_conformance.policy import Policy


def test_it_is_the_kits_own_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMANDS["conformance"] is conformance
    assert main(["conformance", "--list", "--only", "drain"]) == 0
    assert "drain.stopped" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--server", "http://127.0.0.1:1"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_command_line_that_makes_no_sense_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["conformance", "--server", "nonsense"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: --server 'nonsense'")


def test_with_json_there_is_a_document_of_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--json", "--list", "--only", "drain.stopped"]) == 0
    [listed] = json.loads(capsys.readouterr().out)["checks"]
    assert (listed["id"], listed["level"]) == ("drain.stopped", "MUST")
    assert main(["conformance", "--json", "--server", "http://127.0.0.1:1"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 1
    assert "does not answer" in told["error"]
    with pytest.raises(SystemExit):
        main(["conformance", "--json"])
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_where_the_agent_itself_fails_it_says_that_it_may_need_inits_of_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def run(ctx: RolloutContext) -> RolloutResult:
        return ctx.complete([], reward=ctx.request.metadata["weight"])

    (tmp_path / "init.json").write_text('{"metadata": {"weight": 1.0}}')
    with LiveServer(create_app(ScriptedAgent(run))) as server:
        command = ["conformance", "--server", server.url, "--only", "chat.cut_off_reply", "--timeout", "10"]
        assert main(command) == 1
        out = capsys.readouterr().out
        assert "The agent itself failed (KeyError: 'weight'): if it needs metadata" in out
        assert "give --init FILE; if it needs replies of its own, --policy MODULE:ATTR." in out
        main([*command, "--init", str(tmp_path / "init.json")])
        assert "The agent itself failed" not in capsys.readouterr().out


async def test_a_scripted_policy_of_the_sdk_is_one_of_the_kits() -> None:
    class Adding(ScriptedPolicy):
        def reply(self, messages: list[MessageDict]) -> Reply:
            return tool_call(self.tools[0]["function"]["name"], a=len(messages))

    offered = {"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}}
    for named in (Adding, Adding()):
        said = await Policy(named).reply({"messages": [{"role": "user", "content": "?"}], "top_p": 1.0}, [offered])
        assert said["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *(pytest.param(line, marks=pytest.mark.slow) for line in ([], ["--server", "http://127.0.0.1:1"]))],
    ids=" ".join,
)
def test_where_the_kit_is_not_installed_it_says_what_to_install(arguments: list[str]) -> None:
    program = "import sys; sys.modules['rollout_conformance'] = None; from osmosis_ai.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "conformance", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == "Error: The conformance kit is not installed: pip install rollout-conformance.\n"
