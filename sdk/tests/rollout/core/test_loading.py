"""Loading `module:attribute`: what works, and the one sentence for everything that does not."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from osmosis_ai.rollout.core import user_errors as cli_services
from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.loading import CLIError, import_module_attribute, load_agent_loop

WriteModule = Callable[..., None]

AGENT = """
    from osmosis_ai.rollout import RolloutAgentLoop

    class Agent(RolloutAgentLoop):
        name = "agent"

        def get_tools(self, request):
            return []

        async def run(self, ctx):
            return ctx.complete([])

    class NeedsArgument(Agent):
        def __init__(self, key):
            self.key = key

    class Fails(Agent):
        def __init__(self):
            raise ValueError("no\\nkey")

    class Exits(Agent):
        def __init__(self):
            raise SystemExit(3)

    class Unrelated:
        pass

    agent_loop = Agent()
    number = 7
"""


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Writes modules into the working directory, an empty one; they are forgotten after the test."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(file: str, source: str | bytes) -> None:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else dedent(source).strip().encode())

    yield write
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def agent_module(write_module: WriteModule) -> str:
    write_module("user_agent.py", AGENT)
    return "user_agent"


def error_for(path: str) -> str:
    with pytest.raises(CLIError) as caught:
        load_agent_loop(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestWhatWorks:
    @pytest.mark.parametrize("attribute", ["agent_loop", "Agent"])
    def test_an_instance_or_a_class_without_arguments_is_loaded(self, agent_module: str, attribute: str) -> None:
        loop = load_agent_loop(f"{agent_module}:{attribute}")
        assert isinstance(loop, RolloutAgentLoop)
        assert loop.name == "agent"

    def test_a_module_in_a_package_is_found(self, write_module: WriteModule) -> None:
        write_module("user_package/__init__.py", "")
        write_module("user_package/agent.py", AGENT)
        assert load_agent_loop("user_package.agent:agent_loop").name == "agent"

    def test_the_working_directory_is_put_on_the_path_once(self, agent_module: str) -> None:
        for _ in range(2):
            load_agent_loop(f"{agent_module}:agent_loop")
        assert sys.path.count(str(Path.cwd())) == 1
        assert sys.path[0] == str(Path.cwd())

    def test_any_attribute_can_be_named(self, agent_module: str) -> None:
        assert import_module_attribute(f"{agent_module}:number") == 7


class TestPath:
    @pytest.mark.parametrize(
        "path", ["", "server", ":agent", "server:", " :agent", ".server:agent", "..:agent", "a/server.py:x", "a\\b:x"]
    )
    def test_a_malformed_path_is_refused_with_the_format(self, path: str) -> None:
        message = error_for(path)
        assert f"Invalid module path {path!r}" in message
        assert "Expected format: 'module.path:attribute_name'" in message

    def test_the_last_colon_splits(self, write_module: WriteModule) -> None:
        assert "Cannot import module 'server:agent_loop'" in error_for("server:agent_loop:name")

    def test_a_vanished_working_directory_is_one_sentence(self, write_module: WriteModule, tmp_path: Path) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        assert "working directory no longer exists" in error_for("server:agent_loop")


class TestImport:
    def test_a_missing_module_is_named(self, write_module: WriteModule) -> None:
        assert "Cannot import module 'no_such_agent': No module named 'no_such_agent'" in error_for("no_such_agent:x")

    def test_a_file_name_in_place_of_a_module_is_explained(self, agent_module: str) -> None:
        assert "write 'user_agent'" in error_for("user_agent.py:agent_loop")

    @pytest.mark.parametrize("typo", ["usr_agent", "user_agents", "useragent"])
    def test_a_module_that_is_nearly_there_is_suggested(self, agent_module: str, typo: str) -> None:
        assert error_for(f"{typo}:agent_loop").endswith("did you mean 'user_agent'?")

    def test_so_is_one_of_a_package_and_one_that_a_module_imports(self, write_module: WriteModule) -> None:
        write_module("package/agent.py", AGENT)
        write_module("broken.py", "import packag")
        assert error_for("package.agnt:agent_loop").endswith("did you mean 'package.agent'?")
        assert error_for("packge.agent:agent_loop").endswith("did you mean 'package.agent'?")
        assert error_for("broken:agent_loop").endswith("(broken.py, line 1); did you mean 'package'?")

    def test_a_layout_with_src_has_a_remedy(self, write_module: WriteModule) -> None:
        write_module("src/laid_out.py", AGENT)
        assert error_for("laid_out:agent_loop").endswith(
            "it lies in src: set PYTHONPATH=src, or install the project (uv pip install -e .)"
        )

    def test_a_relative_import_without_a_package_has_a_remedy(self, write_module: WriteModule, tmp_path: Path) -> None:
        write_module("lonely.py", "from .tools import TOOLS")
        assert error_for("lonely:agent_loop").endswith(
            f"(lonely.py, line 1); import without the dot, or go one folder up and name it '{tmp_path.name}.lonely'"
        )

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("x = 1\ny = (", "SyntaxError: '(' was never closed (broken.py, line 2)"),
            ("if True:\nx = 1", "IndentationError: expected an indented block"),
            ("x = 1\nx.missing", "AttributeError: 'int' object has no attribute 'missing' (broken.py, line 2)"),
            ("import json\n\njson.loads('{')", "(broken.py, line 3)"),
            ("def f():\n    raise ValueError\nf()", "ValueError (broken.py, line 2)"),
            ("raise ValueError('two\\nlines' + 'x' * 5000)", "ValueError: two lines"),
            ("import ast\nast.literal_eval('(')", "(broken.py, line 2)"),
            ("import sys\nsys.exit(3)", "it exits on import, with code 3 (broken.py, line 2)"),
            ("import asyncio\nraise asyncio.CancelledError", "CancelledError (broken.py, line 2)"),
            (
                "x = 1\n\nimport no_such_dependency",
                "No module named 'no_such_dependency' (broken.py, line 3); install it",
            ),
            ("from json import nope", "cannot import name 'nope' from 'json'"),
            (b"\xff\xfe = 1", "(unicode error)"),
            (b"x = 1\0", "null bytes"),
            (
                """
                from osmosis_ai.rollout import RolloutAgentLoop

                class Nameless(RolloutAgentLoop):
                    def get_tools(self, request): ...
                    async def run(self, ctx): ...
                """,
                "must define a 'name' class attribute. (broken.py, line 3)",
            ),
        ],
    )
    def test_whatever_goes_wrong_is_one_sentence_with_the_place(
        self, write_module: WriteModule, source: str | bytes, expected: str
    ) -> None:
        write_module("broken.py", source)
        message = error_for("broken:agent_loop")
        assert message.startswith("Cannot import module 'broken': ")
        assert expected in message
        assert len(message) < 500
        assert str(Path.cwd()) not in message

    @pytest.mark.parametrize(
        ("tools", "expected"),
        [
            ("import no_such_dependency", "No module named 'no_such_dependency' (helper_tools.py, line 1)"),
            ("x = )", "SyntaxError: unmatched ')' (helper_tools.py, line 1)"),
            ("1 / 0", "ZeroDivisionError: division by zero (helper_tools.py, line 1)"),
        ],
    )
    def test_the_place_is_the_file_that_fails_not_the_one_that_was_named(
        self, write_module: WriteModule, tools: str, expected: str
    ) -> None:
        write_module("helper_tools.py", tools)
        write_module("broken.py", "import helper_tools")
        assert expected in error_for("broken:agent_loop")

    def test_the_original_error_is_kept_as_the_cause(self, write_module: WriteModule) -> None:
        write_module("broken.py", "import no_such_dependency")
        with pytest.raises(CLIError) as caught:
            load_agent_loop("broken:agent_loop")
        assert isinstance(caught.value.__cause__, ImportError)

    def test_an_error_that_cannot_be_printed_is_still_a_sentence(self, write_module: WriteModule) -> None:
        write_module(
            "broken.py",
            """
            class Unprintable(Exception):
                def __str__(self):
                    raise RuntimeError

            raise Unprintable
            """,
        )
        assert "Unprintable" in error_for("broken:agent_loop")

    def test_an_interrupt_passes(self, write_module: WriteModule) -> None:
        write_module("broken.py", "raise KeyboardInterrupt")
        with pytest.raises(KeyboardInterrupt):
            load_agent_loop("broken:agent_loop")

    def test_a_repaired_module_can_be_loaded_afterwards(self, write_module: WriteModule) -> None:
        write_module("repaired.py", "x = (")
        error_for("repaired:agent_loop")
        write_module("repaired.py", AGENT)
        assert load_agent_loop("repaired:agent_loop").name == "agent"


class TestAttribute:
    def test_a_missing_one_is_named_with_what_there_is(self, agent_module: str) -> None:
        message = error_for(f"{agent_module}:agent_lop")
        assert "Module 'user_agent' (user_agent.py) has no attribute 'agent_lop'" in message
        assert "did you mean 'agent_loop'?" in message
        assert message.endswith("Available agent loops: Agent, Exits, Fails, NeedsArgument, agent_loop")

    def test_one_that_need_be_no_agent_loop_is_named_with_all_there_are(self, agent_module: str) -> None:
        with pytest.raises(CLIError, match=r"Available attributes: Agent, .*, Unrelated, agent_loop, number"):
            import_module_attribute(f"{agent_module}:numbr")

    def test_dots_do_not_lead_further(self, agent_module: str) -> None:
        assert "has no attribute 'agent_loop.name'" in error_for(f"{agent_module}:agent_loop.name")

    def test_the_list_of_attributes_is_bounded(self, write_module: WriteModule) -> None:
        write_module("crowded.py", "for i in range(1000): globals()[f'value_{i:04}'] = i\nagent = 1\n_hidden = 1")
        with pytest.raises(CLIError) as caught:
            import_module_attribute("crowded:agnt")
        message = str(caught.value)
        assert "and 972 more" in message
        assert "did you mean 'agent'?" in message
        assert "_hidden" not in message
        assert len(message) < 1000

    def test_an_empty_module_has_none(self, write_module: WriteModule) -> None:
        write_module("nothing.py", "")
        assert error_for("nothing:agent_loop").endswith("Available agent loops: none")

    def test_one_that_fails_to_load_is_reported_with_the_place(self, write_module: WriteModule) -> None:
        write_module("lazy.py", "def __getattr__(name):\n    raise ValueError('later')")
        assert "Cannot load 'agent_loop' from module 'lazy': ValueError: later (lazy.py, line 2)" in error_for(
            "lazy:agent_loop"
        )


class TestAgentLoop:
    @pytest.mark.parametrize(
        ("attribute", "expected"),
        [
            ("Unrelated", "not a RolloutAgentLoop subclass"),
            ("number", "must be a RolloutAgentLoop instance or subclass, got int"),
            ("NeedsArgument", "Cannot instantiate 'NeedsArgument': TypeError: "),
            ("RolloutAgentLoop", "Cannot instantiate 'RolloutAgentLoop': TypeError: Can't instantiate abstract class"),
            ("Fails", "Cannot instantiate 'Fails': ValueError: no key (user_agent.py, line 18)"),
            ("Exits", "Cannot instantiate 'Exits': SystemExit: 3 (user_agent.py, line 22)"),
        ],
    )
    def test_anything_but_one_is_refused(self, agent_module: str, attribute: str, expected: str) -> None:
        assert expected in error_for(f"{agent_module}:{attribute}")


def test_there_is_one_family_of_command_line_errors() -> None:
    assert issubclass(CLIError, cli_services.CLIError)
