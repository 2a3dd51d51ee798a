import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.scripted_server import Rollout, ScriptedServer, succeed

from osmosis_ai.cli import main

DEADLINE_SECONDS = 60.0

AGENT = """
import asyncio
import os
from pathlib import Path

from osmosis_ai.rollout import RolloutAgentLoop, execute_tool_calls, create_tool_result, get_tool_call_info
from osmosis_ai.rollout import OpenAIFunctionToolSchema

Path("server.pid").write_text(str(os.getpid()))

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    },
}


class Adder(RolloutAgentLoop):
    name = "adder"

    def get_tools(self, request):
        return [OpenAIFunctionToolSchema.model_validate(ADD)]

    async def run(self, ctx):
        if "fail" in ctx.request.metadata:
            raise RuntimeError(f"cannot do {ctx.request.metadata['fail']}")
        messages = list(ctx.request.messages)
        while True:
            reply = await ctx.chat(messages, **ctx.request.completion_params)
            messages.append(reply.message)
            if not reply.has_tool_calls:
                break
            messages += await execute_tool_calls(reply.tool_calls, self.add)
        answer = messages[-1]["content"].rpartition("#### ")[2]
        return ctx.complete(messages, reward=float(answer == ctx.request.metadata["ground_truth"]))

    async def add(self, call):
        call_id, _, arguments = get_tool_call_info(call)
        return create_tool_result(call_id, str(arguments["a"] + arguments["b"]))


class Hanging(Adder):
    async def run(self, ctx):
        if ctx.request.metadata["row_index"] == 0:
            return await super().run(ctx)
        Path("hanging").touch()
        await asyncio.Event().wait()


class Dying(Adder):
    async def run(self, ctx):
        print("about to die", flush=True)
        os._exit(7)


adder, hanging, dying = Adder(), Hanging(), Dying()
"""


def row(a: int, b: int, **extra: Any) -> dict[str, Any]:
    return {"system_prompt": "Use add.", "user_prompt": f"What is {a} + {b}?", "ground_truth": str(a + b), **extra}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an agent module and three solvable rows, as current directory."""
    (tmp_path / "agent.py").write_text(AGENT)
    write_rows(tmp_path, row(1, 2), row(30, 4), row(-5, 5))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OSMOSIS_ROLLOUT_SERVER_API_KEY", raising=False)
    return tmp_path


def write_rows(folder: Path, *rows: dict[str, Any]) -> None:
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@dataclass(frozen=True)
class Ended:
    """What a finished command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def trainer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs ``osmosis trainer`` on the rows, in this process."""

    def run(*arguments: str) -> Ended:
        code = main(["trainer", "-d", "rows.jsonl", *arguments])
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def trainer_against(trainer: Callable[..., Ended]) -> Callable[..., Awaitable[Ended]]:
    """The same in a thread, beside the scripted server that it uses."""

    async def run(server: ScriptedServer, *arguments: str) -> Ended:
        return await asyncio.to_thread(trainer, "--server", server.url, *arguments)

    return run


Command = Callable[..., Ended]
CommandAgainst = Callable[..., Awaitable[Ended]]


def wait_until_gone(process_id: int) -> None:
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline_seconds:
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail(f"process {process_id} is still there")


def wait_for_file(path: Path) -> None:
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline_seconds, f"{path} did not appear"
        time.sleep(0.01)


class TestWithItsOwnServer:
    def test_it_runs_every_row_and_leaves_nothing_behind(self, project: Path, trainer: Command) -> None:
        ended = trainer("-m", "agent:adder", "--repeat", "2", "-o", "out/results.json", "--log", "traces")
        assert (ended.code, ended.err) == (0, "")
        assert "a script and no language model" in ended.out
        shown = re.findall(
            r"^\[(\d)/6\] Row (\d run \d): OK \([\d.ms]+, [\d,]+ tokens\) reward 1\.00, 2 turns, 1 tool call$",
            ended.out,
            re.M,
        )  # as `osmosis test` has them
        assert [place for place, _ in shown] == list("123456")
        assert {which for _, which in shown} == {f"{row} run {repeat}" for row in range(3) for repeat in (0, 1)}
        assert "Rollouts: 6 of 6 completed" in ended.out
        assert "Mean reward: 1.00 (over 6 rollouts)" in ended.out
        wait_until_gone(int((project / "server.pid").read_text()))

        document = json.loads((project / "out" / "results.json").read_bytes())
        assert [(result["row_index"], result["repeat"], result["reward"]) for result in document["results"]] == [
            (number, repeat, 1.0) for number in range(3) for repeat in range(2)
        ]
        assert document["results"][1]["messages"][-1]["content"] == "The answer is 3.\n#### 3"
        assert document["config"]["module"] == "agent:adder"
        assert not (project / ".osmosis").exists(), "no journal is kept for a server of this kind"

    @pytest.mark.slow
    def test_an_agent_that_fails_on_some_rows_is_told_and_the_exit_code_is_1(
        self, project: Path, trainer: Command
    ) -> None:
        write_rows(project, row(1, 2), row(1, 2, fail="this"), row(1, 2, fail="this"))
        ended = trainer("-m", "agent:adder")
        assert ended.code == 1
        assert "Rollouts: 1 of 3 completed, 2 error" in ended.out
        assert "Mean reward: 1.00 (over 1 rollout)" in ended.out
        assert "2 x agent_error: " in ended.out
        assert "cannot do this" in ended.out
        assert ended.err == "Error: 2 of 3 rollouts did not reach a COMPLETED result.\n"

    @pytest.mark.slow
    def test_a_module_that_cannot_be_served_is_one_sentence(self, project: Path, trainer: Command) -> None:
        (project / "broken.py").write_text("def agent(:\n")
        ended = trainer("-m", "broken:agent")
        assert (ended.code, ended.err.startswith("Error: "), ended.err.count("\n")) == (1, True, 1)
        assert "broken.py" in ended.err

    @pytest.mark.slow
    def test_a_server_that_dies_ends_the_run_with_its_last_words(self, project: Path, trainer: Command) -> None:
        ended = trainer("-m", "agent:dying")
        assert ended.code == 1
        assert "  | about to die\n" in ended.err
        assert "Error: The rollout server for agent:dying ended by itself with exit code 7.\n" in ended.err

    @pytest.mark.slow
    @pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_ends_it_with_what_it_has_and_stops_the_server(
        self, project: Path, number: signal.Signals, exit_code: int
    ) -> None:
        options = ["-d", "rows.jsonl", "-m", "agent:hanging", "-o", "results.json", "--concurrency", "1"]
        command = [sys.executable, "-m", "osmosis_ai", "trainer", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_for_file(project / "hanging")
                process.send_signal(number)
                out, err = process.communicate(timeout=DEADLINE_SECONDS)
            finally:
                process.kill()
        assert process.returncode == exit_code
        assert "Rollouts: 1 of 3 completed, 2 not finished" in out
        assert err == "Interrupted: 1 of 3 rollouts had ended.\n"
        wait_until_gone(int((project / "server.pid").read_text()))
        summary = json.loads((project / "results.json").read_bytes())["summary"]
        assert (summary["completed"], summary["interrupted"]) == (1, True)


@pytest.mark.usefixtures("project")
class TestWithAnotherServer:
    @pytest.mark.parametrize("flag", ["--server-key", "--api-key"])
    async def test_it_sends_the_key_and_takes_the_results(self, trainer_against: CommandAgainst, flag: str) -> None:
        async with ScriptedServer() as server:
            ended = await trainer_against(server, flag, "k")
        assert (ended.code, ended.err) == (0, "")
        assert set(server.keys) == {"Bearer k"}
        assert "Rollouts: 3 of 3 completed" in ended.out
        assert len({init["rollout_id"] for init in server.inits}) == 3
        assert [init["metadata"]["ground_truth"] for init in server.inits] == ["3", "34", "0"]

    async def test_rows_are_chosen_and_their_limits_and_sampling_passed_on(
        self, trainer_against: CommandAgainst
    ) -> None:
        window = ["--offset", "1", "--limit", "1", "--repeat", "2"]
        options = ["--max-turns", "3", "--max-tokens-total", "77", "--temperature", "0.5", "--max-tokens", "99"]
        async with ScriptedServer() as server:
            ended = await trainer_against(server, "-q", *window, *options)
        assert ended == Ended(0, "", "")
        assert [init["metadata"]["row_index"] for init in server.inits] == [1, 1]
        for init in server.inits:
            assert init["completion_params"] == {"temperature": 0.5, "max_tokens": 99}
            assert (init["max_turns"], init["max_tokens_total"]) == (3, 77)

    async def test_json_is_all_that_is_printed(self, trainer_against: CommandAgainst) -> None:
        async with ScriptedServer() as server:
            ended = await trainer_against(server, "--json")
        document = json.loads(ended.out)
        assert (ended.code, ended.err) == (0, "")
        assert (document["summary"]["completed"], len(document["results"])) == (3, 3)

    async def test_the_key_may_come_from_the_environment(
        self, trainer_against: CommandAgainst, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_API_KEY", "from-environment")
        async with ScriptedServer() as server:
            ended = await trainer_against(server, "-q")
        assert ended.code == 0
        assert set(server.keys) == {"Bearer from-environment"}

    async def test_a_wrong_key_is_one_sentence(self, trainer_against: CommandAgainst) -> None:
        async with ScriptedServer(answers=[401] * 3) as server:
            ended = await trainer_against(server, "-q")
        sentence = "The rollout server refused the key (401): give its key with --server-key."
        assert ended == Ended(1, "", f"Error: {sentence}\n")

    async def test_a_server_that_is_not_there_is_one_sentence(self, trainer: Command) -> None:
        async with ScriptedServer() as server:
            pass
        ended = await asyncio.to_thread(trainer, "-q", "--server", server.url)
        assert ended.code == 1
        assert ended.err.startswith(f"Error: No rollout server answers at {server.url} ")

    @pytest.mark.slow
    async def test_a_missing_callback_is_a_failure(self, trainer_against: CommandAgainst) -> None:
        async def agent(rollout: Rollout) -> None:
            if not rollout.id.endswith("-1-0"):
                await succeed(rollout)

        async with ScriptedServer(agent) as server:
            ended = await trainer_against(server, "--timeout", "1")
        assert ended.code == 1
        assert "Rollouts: 2 of 3 completed, 1 timed out" in ended.out
        assert re.search(r"Row 1: FAILED \(\S+, 0 tokens\) - timed_out\n", ended.out)
        assert "1 x timed_out: No result within 1 s; still waiting for its terminal callback. (row 1)" in ended.out

    async def test_contradicting_results_are_a_failure_though_all_completed(
        self, trainer_against: CommandAgainst
    ) -> None:
        contradicted = asyncio.Event()

        async def agent(rollout: Rollout) -> None:
            if rollout.id.endswith("-0-0"):
                await succeed(rollout)
                await rollout.complete("ERROR")
                contradicted.set()
            else:
                await contradicted.wait()
                await succeed(rollout)

        async with ScriptedServer(agent) as server:
            ended = await trainer_against(server)
        assert ended.code == 1
        assert "Rollouts: 3 of 3 completed" in ended.out
        assert "contradicting results" in ended.err


class TestChecksBeforeAnythingStarts:
    @pytest.fixture(autouse=True)
    def _nothing_may_start(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        def refuse(*_: object) -> None:
            raise AssertionError("something was started")

        monkeypatch.setattr("osmosis_ai.rollout.run.train.session.Session.run", refuse)
        yield
        assert not (project / "server.pid").exists()

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ([], "either -m module:attribute"),
            (["-m", "agent:adder", "--server", "http://127.0.0.1:1"], "either -m module:attribute"),
            (["-m", "agent"], "Invalid module path 'agent': it has no ':'"),
            (["-m", "agent:adder", "-d", "gone.jsonl"], "Dataset file not found: gone.jsonl"),
            (["-m", "agent:adder", "-d", "agent.py"], "Unsupported file format '.py'"),
            (["-m", "agent:adder", "--temperature", "inf"], "--temperature must be a finite number"),
            (["-m", "agent:adder", "--callback-url", "trainer"], "--callback-url 'trainer' is not a base URL"),
            (["--server", "127.0.0.1:9000"], "--server '127.0.0.1:9000' is not a base URL"),
            (["--server", "http://127.0.0.1:99999"], "is not a base URL"),
            (["--server", "http://u:p@127.0.0.1"], "is not a base URL"),
            (["--server", "http://127.0.0.1:1", "--log", "traces"], "--log goes with -m"),
            (["--server", "http://127.0.0.1:1", "--api-key", "caf\xe9"], "must be printable ASCII"),
            (["--server", "http://127.0.0.1:1", "--host", "::"], "give --callback-url too"),
            (["-m", "agent:adder", "--model", "gpt-4o", "--api-key", "k"], "write --server-key or --model-api-key"),
        ],
    )
    def test_a_wrong_argument_is_one_sentence_and_exit_code_2(
        self, arguments: list[str], sentence: str, trainer: Command
    ) -> None:
        ended = trainer(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert (ended.err.startswith("Error: "), ended.err.count("\n")) == (True, 1)
        assert sentence in ended.err

    @pytest.mark.parametrize(
        "arguments",
        [["--concurrency", "0"], ["--repeat", "0"], ["--limit", "0"], ["--offset", "-1"], ["--port", "70000"]],
    )
    def test_a_number_out_of_range_is_a_usage_error(
        self, arguments: list[str], trainer: Command, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ending:
            trainer("-m", "agent:adder", *arguments)
        assert ending.value.code == 2
        assert arguments[0] in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("rows", "arguments", "sentence"),
        [
            ([row(1, 2), {"user_prompt": "q"}], ["--strict"], "Row 1: Missing required columns"),
            ([{"user_prompt": "q"}], [], "Row 0: Missing required columns"),
            ([row(1, 2)], ["--offset", "5"], "rows.jsonl has no rows to run"),
            ([row(1, 2)], ["-o", "."], "Cannot write .: it is not a regular file"),
        ],
    )
    def test_a_dataset_or_output_that_cannot_be_used_is_one_sentence_and_exit_code_1(
        self, project: Path, rows: list[dict[str, Any]], arguments: list[str], sentence: str, trainer: Command
    ) -> None:
        write_rows(project, *rows)
        ended = trainer("-m", "agent:adder", *arguments)
        assert (ended.code, ended.out) == (1, "")
        assert (ended.err.startswith("Error: "), ended.err.count("\n")) == (True, 1)
        assert sentence in ended.err


def test_its_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from osmosis_ai.cli import main\n"
        "try: main(['trainer', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('fastapi', 'httpx', 'rich', 'starlette', 'uvicorn') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--concurrency" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"
