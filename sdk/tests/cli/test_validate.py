"""``osmosis validate``: says valid or why not, and exits accordingly."""

import json
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.cli import main

WriteModule = Any
Captured = pytest.CaptureFixture[str]

AGENT = """
    from osmosis_ai.rollout import RolloutAgentLoop

    class Agent(RolloutAgentLoop):
        name = "agent"

        def get_tools(self, request):
            {body}

        async def run(self, ctx):
            return ctx.complete([])

    agent_loop = Agent()
"""


@pytest.fixture
def write_agent(write_module: WriteModule) -> Any:
    """Writes ``picky_agent.py``, whose ``get_tools`` has this body."""

    def write(body: str) -> list[str]:
        write_module("picky_agent.py", AGENT.format(body=body))
        return ["validate", "-m", "picky_agent:agent_loop"]

    return write


def test_a_valid_agent_loop_is_0(user_agent: str, capsys: Captured) -> None:
    assert main(["validate", "-m", user_agent]) == 0
    assert capsys.readouterr() == ("Agent loop 'agent' validated successfully.\n  - Tools: 1\n", "")


def test_a_class_will_do(user_agent: str) -> None:
    assert main(["validate", "--module", user_agent.replace("agent_loop", "Agent")]) == 0


def test_warnings_are_counted_and_listed_on_request(write_agent: Any, capsys: Captured) -> None:
    command = write_agent("return [{'type': 'gadget', 'function': {'name': 'add', 'description': 'Adds.'}}]")
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  - Tools: 1",
        "  - Warnings: 1 (osmosis validate --verbose lists them)",
    ]
    for flag in ("-v", "--verbose"):
        assert main([*command, flag]) == 0
        assert "    - [UNKNOWN_TOOL_TYPE] tools[0].type: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return None", "GET_TOOLS_RETURNS_NONE"),
        ("return ()", "GET_TOOLS_INVALID_TYPE"),
        ("raise SystemExit(7)", "GET_TOOLS_EXCEPTION"),
        ("return [{'type': 'function', 'function': {'name': 'add'}}]", "INVALID_TOOL_SCHEMA"),
    ],
)
def test_an_invalid_agent_loop_is_1_and_says_why(write_agent: Any, capsys: Captured, body: str, code: str) -> None:
    assert main(write_agent(body)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Agent loop validation failed with 1 error(s):\n  - [")
    assert err.count(code) == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = (", "SyntaxError: '(' was never closed (broken.py, line 1)"),
        ("import no_such_dependency", "No module named 'no_such_dependency' (broken.py, line 1); install it"),
        ("1 / 0", "ZeroDivisionError: division by zero (broken.py, line 1)"),
        ("raise SystemExit(5)", "it exits on import, with code 5"),
        ("agent_loop = 7", "must be a RolloutAgentLoop instance or subclass, got int"),
        ("agent = 7", "has no attribute 'agent_loop'; did you mean 'agent'?"),
        ("class agent_loop: pass", "not a RolloutAgentLoop subclass"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "serve"])
def test_a_module_that_cannot_be_used_is_one_sentence(
    write_module: WriteModule, capsys: Captured, command: str, source: str, said: str
) -> None:
    write_module("broken.py", source)
    assert main([command, "-m", "broken:agent_loop"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("path", ["server", ":agent_loop", "server:", ".server:agent_loop"])
def test_a_malformed_path_is_one_sentence(working_directory: Path, capsys: Captured, path: str) -> None:
    assert main(["validate", "-m", path]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"Error: Invalid module path '{path}'")
    assert "Expected format: 'module.path:attribute_name'" in err


class TestJson:
    def test_a_valid_agent_loop(self, user_agent: str, capsys: Captured) -> None:
        assert main(["validate", "-m", user_agent, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {
            "valid": True,
            "errors": [],
            "warnings": [],
            "agent_name": "agent",
            "tool_count": 1,
            "tools_at": None,
        }

    def test_an_invalid_agent_loop(self, write_agent: Any, capsys: Captured) -> None:
        assert main([*write_agent("return [1]"), "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert not report["valid"]
        assert [(error["code"], error["field"]) for error in report["errors"]] == [("INVALID_TOOL_TYPE", "tools[0]")]


class TestRequest:
    @pytest.fixture
    def command(self, write_agent: Any) -> list[str]:
        """Validates an agent loop whose tools depend on the metadata."""
        arguments: list[str] = write_agent("return [{}] if request.metadata['tenant'] == 'broken' else []")
        return arguments

    def write_request(self, **metadata: str) -> None:
        request = {"rollout_id": "r", "server_url": "http://t", "messages": [], "completion_params": {}}
        Path("request.json").write_text(json.dumps({**request, "metadata": metadata}))

    def test_an_agent_loop_that_needs_one_can_have_it(self, command: list[str]) -> None:
        assert main(command) == 1
        self.write_request(tenant="a")
        assert main([*command, "--request", "request.json"]) == 0
        self.write_request(tenant="broken")
        assert main([*command, "--request", "request.json"]) == 1

    @pytest.mark.parametrize(
        ("content", "code", "said"),
        [
            (None, 2, "Cannot read request.json: No such file or directory."),
            ("{", 1, "request.json is no init request: the file: Invalid JSON"),
            ('{"rollout_id": "r"}', 1, "request.json is no init request: server_url: Field required."),
        ],
    )
    def test_one_that_is_none_is_one_sentence(
        self, command: list[str], capsys: Captured, content: str | None, code: int, said: str
    ) -> None:
        if content is not None:
            Path("request.json").write_text(content)
        assert main([*command, "--request", "request.json"]) == code
        err = capsys.readouterr().err
        assert err.startswith(f"Error: {said}")
        assert err.count("\n") == 1
