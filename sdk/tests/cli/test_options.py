"""One table of options: a flag is the same in every command, and a wrong command line ends with 2 in each."""

import inspect
import json
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_origin, get_type_hints

import pytest

from osmosis_ai._compat.parser import build_parser, configure
from osmosis_ai.cli import journal, main, options as table, traces
from osmosis_ai.cli.app import COMMANDS
from osmosis_ai.cli.eval_compare import eval_compare

# That of another distribution, which declares its own.
OWN = {name: command for name, command in COMMANDS.items() if name != "conformance"}
ALL: dict[str, Callable[..., int]] = {
    **OWN,
    "eval compare": eval_compare,
    **{f"journal {name}": command for name, command in journal.COMMANDS.items()},
    **{f"traces {name}": command for name, command in traces.COMMANDS.items()},
}
TABLE = {name: value for name, value in vars(table).items() if get_origin(value) is Annotated}

# Command and flag -> why it differs there from what the flag is elsewhere.
EXCEPTIONS = {
    ("trainer", "--concurrency"): "16 by default: a server is made for many, and its rollouts share no client",
    ("trainer", "--model"): "a script by default: the protocol is what is tried",
    ("eval", "--model"): "required: numbers are about a model",
    ("doctor", "--model"): "that of osmosis test is examined unless another is named",
    ("trainer", "--model-api-key"): "is --api-key too in test and eval, as in 0.2; here that was the server's",
    ("trainer", "--api-key"): "the old name of --server-key, not shown",
    ("trainer", "--server-key"): "of a server that runs already, not of one to start",
    ("serve", "--api-key"): "the server's key, as in 0.2; --server-key is the clear name",
    ("doctor", "--api-key"): "as for serve",
    ("trainer", "--host"): "of the callbacks: the trainer serves those",
    ("trainer", "--port"): "of the callbacks: the trainer serves those",
    ("view", "--port"): "of the page",
    ("rescore", "--module"): "names a function: no agent runs",
    ("rescore", "--dataset"): "can be left out: the results say where it was",
    ("doctor", "--dataset"): "can be left out: then no dataset is examined",
    ("rescore", "--output"): "every run before and after, at the end",
    ("view", "--output"): "one page as a file",
    ("traces export", "--output"): "data for fine-tuning; standard output by default",
    ("traces export", "--min-reward"): "chooses what is exported; in test it fails the command",
    ("journal list", "--limit"): "20 by default: a list is read on a screen",
    ("journal salvage", "--output"): "the new journal",
    ("journal redeliver", "--timeout"): "of the delivery of one result",
    ("doctor", "--timeout"): "of all checks together",
}


class Option(NamedTuple):
    """One option of one command."""

    command: str
    name: str
    annotation: Any
    default: Any

    @property
    def info(self) -> Any:
        return self.annotation.__metadata__[0]

    @property
    def flags(self) -> tuple[str, ...]:
        # In the Annotated form, typer.Option() keeps its first flag where a default would be.
        declared = (self.info.default, *(self.info.param_decls or ()))
        return tuple(flag for flag in declared if isinstance(flag, str) and flag.startswith("-"))

    @property
    def is_exception(self) -> bool:
        return any((self.command, flag) in EXCEPTIONS for flag in self.flags)

    @property
    def facts(self) -> tuple[Any, ...]:
        info = self.info
        kind = self.annotation.__origin__
        return kind, self.flags, info.help, info.metavar, info.min, info.max, info.envvar, info.hidden, self.default


def every_option() -> Iterator[Option]:
    for name, command in ALL.items():
        hints = get_type_hints(command, include_extras=True)
        for parameter in inspect.signature(command).parameters.values():
            yield Option(name, parameter.name, hints[parameter.name], parameter.default)


OPTIONS = [option for option in every_option() if option.flags]
SHARED = defaultdict[str, list[Option]](list)
for each in OPTIONS:
    for each_flag in each.flags:
        SHARED[each_flag].append(each)


class TestTable:
    @pytest.mark.parametrize("flag", [flag for flag, options in SHARED.items() if len(options) > 1])
    def test_a_flag_is_the_same_in_every_command(self, flag: str) -> None:
        assert len({option.facts for option in SHARED[flag] if not option.is_exception}) <= 1

    @pytest.mark.parametrize(("command", "flag"), EXCEPTIONS)
    def test_an_exception_is_one(self, command: str, flag: str) -> None:
        [exception] = [option for option in SHARED[flag] if option.command == command]
        others = {option.facts for option in SHARED[flag] if not option.is_exception}
        assert exception.facts not in others

    @pytest.mark.parametrize("name", TABLE)
    def test_every_entry_is_used(self, name: str) -> None:
        assert any(option.info is TABLE[name].__metadata__[0] for option in OPTIONS)

    @pytest.mark.parametrize("flag", [flag for flag, options in SHARED.items() if len(options) > 1])
    def test_what_several_commands_have_is_stated_once(self, flag: str) -> None:
        assert len({id(option.info) for option in SHARED[flag] if not option.is_exception}) <= 1

    def test_every_option_says_what_it_is_for(self) -> None:
        assert [option.flags for option in OPTIONS if not option.info.help] == []

    @pytest.mark.parametrize(
        ("old", "new"),
        [("--n", "--repeat"), ("--batch-size", "--concurrency"), ("--agent", "--module"), ("--local-debug", "--local")],
    )
    def test_an_alias_is_one_everywhere(self, old: str, new: str) -> None:
        assert {each.command for each in SHARED[new] if not each.is_exception} <= {each.command for each in SHARED[old]}


class TestArgparse:
    @pytest.mark.parametrize("name", OWN)
    def test_it_says_the_same(self, name: str) -> None:
        parser = ArgumentParser()
        configure(parser, name)
        actions = {action.dest: action for action in parser._actions}
        for option in (option for option in OPTIONS if option.command == name and not option.info.hidden):
            action = actions[option.name]
            assert tuple(action.option_strings) == option.flags
            assert (action.help or "").replace("%%", "%") == option.info.help
            assert action.required == (option.default is inspect.Parameter.empty)
            if option.info.metavar:
                assert action.metavar == option.info.metavar


ROW = {"system_prompt": "s", "user_prompt": "What is 1 + 2?", "ground_truth": "3"}
AGENT = ["-m", "user_agent:agent_loop"]
DATA = ["-d", "rows.jsonl"]
LINES = {
    "serve": ["serve", *AGENT, "-p", "0"],
    "validate": ["validate", *AGENT],
    "trainer": ["trainer", *AGENT, *DATA],
    "test": ["test", *AGENT, *DATA, "--model", "builtin/arithmetic"],
    "eval": ["eval", *AGENT, *DATA, "--model", "builtin/arithmetic", "--eval-fn", "scores:right"],
    "eval compare": ["eval", "compare", "a.json", "b.json"],
    "rescore": ["rescore", "results.json", "-m", "scores:right"],
    "doctor": ["doctor"],
    "init": ["init", "new"],
    "view": ["view", "traces"],
    "journal list": ["journal", "list"],
    "journal show": ["journal", "show", "r"],
    "journal redeliver": ["journal", "redeliver", "r"],
    "journal purge": ["journal", "purge", "r"],
    "journal salvage": ["journal", "salvage", "gone.db", "-o", "new.db"],
    "journal move": ["journal", "move", "gone.db", "--journal", "postgresql://127.0.0.1:9/nowhere"],
    "traces export": ["traces", "export", "traces"],
}
RUNNERS = ("trainer", "test", "eval")
AGENT_COMMANDS = ("serve", "validate", *RUNNERS)

# Kind of mistake -> command lines that make it.
WRONG: dict[str, list[list[str]]] = {
    "an unknown flag": [[*line, "--frobnicate"] for line in LINES.values()],
    "a number out of range": [
        [*LINES[option.command], option.flags[0], str(option.info.min - 1)]
        for option in OPTIONS
        if option.info.min is not None
    ],
    "no number": [[*LINES[name], "--max-turns", "ten"] for name in RUNNERS],
    "something required is missing": [
        *([name] for name in ("trainer", "test", "eval", "rescore", "init", "view")),
        ["eval", "compare"],
        ["eval", "compare", "results.json"],
        ["journal", "show"],
        ["journal", "redeliver"],
        ["journal", "purge"],
        ["journal", "salvage", "gone.db"],
        ["journal", "move", "gone.db"],
        ["traces", "export"],
        ["journal"],
    ],
    "no agent": [[word for word in LINES[name] if word not in AGENT] for name in AGENT_COMMANDS],
    "two agents": [[*LINES[name], "--mcp", "tools"] for name in AGENT_COMMANDS]
    + [["doctor", *AGENT, "--mcp", "tools"]],
    "a malformed name": [
        *(
            [*LINES[name], "-m", module]
            for name in (*AGENT_COMMANDS, "rescore", "doctor")
            for module in ("nonsense", "/a/file.py:x", ".near:x", "server:")
        ),
        *([*LINES["eval"], "-m", "gone:x", "--eval-fn", fn] for fn in ("nonsense", "/a/file.py:x")),
        *([*LINES["trainer"], "--policy", policy] for policy in ("nonsense", "/a/file.py:x")),
    ],
    "a file that is not there": [
        *([*LINES[name], "-d", "gone.jsonl"] for name in (*RUNNERS, "rescore")),
        [*LINES["validate"], "--request", "gone.json"],
        ["rescore", "gone.json", "-m", "scores:right"],
        LINES["eval compare"],
        ["view", "gone"],
        ["traces", "export", "gone"],
        [*LINES["test"], "--api-key", "@gone"],
        [*LINES["eval"], "--api-key", "@gone"],
    ],
    "a file of a kind that is not read": [[*LINES[name], "-d", "user_agent.py"] for name in (*RUNNERS, "rescore")],
    "no URL": [
        *([*LINES[name], "--model", "m", "--base-url", "localhost"] for name in RUNNERS),
        ["trainer", *DATA, "--server", "localhost"],
    ],
    "no such model": [[*LINES[name], "--model", "builtin/chess"] for name in RUNNERS],
    "flags that contradict each other": [
        *([*LINES[name], "--resume"] for name in RUNNERS),
        [*LINES["serve"], "--local", "--server-key", "k"],
        [*LINES["serve"], "--local", "--reload", "--workers", "2"],
        [*LINES["trainer"], "--server", "http://127.0.0.1:1"],
        [*LINES["test"], "--row", "1"],
        [*LINES["test"], "-i", "--json"],
        [*LINES["eval"], "--baseline-api-key", "k"],
        *([*LINES["eval"], f"--score-range={text}"] for text in ("1", "1,0", "0,nan", "a,b", "0,1,2")),
        [*LINES["view"], "-o", "page.html", "--open"],
        [*LINES["traces export"], "--min-reward", "1", "--max-reward", "0"],
    ],
    "no journal": [LINES["journal list"], LINES["journal salvage"], LINES["journal move"]],
    "a password for all to read": [
        [*LINES[name], "--journal", url]
        for name in ("serve", "journal list", "journal move", "doctor")
        for url in (
            "postgresql://u:secret@127.0.0.1/x",
            "postgresql://127.0.0.1/x?password=secret",
            "postgresql://x/x?sslpassword=s",
        )
    ],
    "no MCP directory": [
        [*(word for word in LINES[name] if word not in AGENT), "--mcp", folder]
        for name in (*AGENT_COMMANDS, "doctor")
        for folder in ("gone", "rows.jsonl", "traces")
    ],
    "no SDK": [["init", "agent", "--sdk", "gone"]],
    "a value that is no choice": [
        [*LINES["serve"], "--log-level", "loud"],
        [*LINES["traces export"], "--status", "x"],
        [*LINES["traces export"], "--outcome", "bogus"],
        [*LINES["traces export"], "--outcome", "success", "--outcome", "SUCCESS"],
    ],
    "no command": [[]],
}
FAILING = {
    "an agent that cannot be imported": [
        [*LINES[name], "-m", "no_such_module:x"] for name in ("serve", "validate", "test", "eval")
    ],
    "a function that cannot be imported": [[*LINES["eval"], "--eval-fn", "scores:gone"]],
    "a row that cannot be used": [[*LINES[name], "-d", "broken.jsonl"] for name in RUNNERS],
    "no rows": [[*LINES[name], "--offset", "9"] for name in RUNNERS],
    "a place that cannot be written": [[*LINES[name], "-o", "."] for name in RUNNERS],
    "nothing to show": [["view", "traces", "-o", "page.html"], ["traces", "export", "traces"]],
}


@pytest.fixture
def project(working_directory: Path, user_agent: str) -> Path:
    """A folder that holds what the command lines above name."""
    for file, text in {
        "rows.jsonl": json.dumps(ROW),
        "broken.jsonl": "{}",
        "results.json": json.dumps({"results": []}),
        "scores.py": "def right(solution_str, ground_truth):\n    return 1.0",
    }.items():
        (working_directory / file).write_text(text + "\n")
    (working_directory / "traces").mkdir()
    return working_directory


def exit_code_of(run: Callable[[], int]) -> Any:
    try:
        return run()
    except SystemExit as exited:
        return exited.code


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **options: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr("uvicorn.Server.run", started)
    monkeypatch.setattr("osmosis_ai.rollout.trainer.server_process.ServerProcess.start", started)


@pytest.mark.usefixtures("project")
class TestExitCodes:
    @pytest.mark.parametrize("kind", WRONG)
    def test_a_wrong_command_line_ends_with_2(self, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
        for line in WRONG[kind]:
            assert exit_code_of(partial(main, line)) == 2, line
            ended = capsys.readouterr()
            # Group commands without a command show their help.
            assert "Error: " in ended.err or line in ([], ["journal"]), line
            assert "Traceback" not in ended.err, line

    @pytest.mark.parametrize("kind", WRONG)
    def test_argparse_says_so_too(self, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
        parser = build_parser()

        def parse_and_run(line: list[str]) -> int:
            namespace = parser.parse_args(line)
            code: int = namespace.handler(namespace)
            return code

        codes = {
            " ".join(line): exit_code_of(partial(parse_and_run, line))
            for line in WRONG[kind]
            if line and line[0] in COMMANDS
        }
        assert set(codes.values()) <= {2}, codes

    @pytest.mark.parametrize("kind", FAILING)
    def test_a_failure_of_the_work_ends_with_1(self, kind: str) -> None:
        codes = {" ".join(line): exit_code_of(partial(main, line)) for line in FAILING[kind]}
        assert set(codes.values()) == {1}, codes

    def test_every_command_is_tried(self) -> None:
        assert set(LINES) == set(ALL)
