"""What the packages offer, that it is the same object everywhere, and that offering it costs nothing."""

import ast
import importlib
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

import osmosis_ai
import osmosis_ai.rollout
import osmosis_ai.rollout.core

TOP_LEVEL = {
    "consts": "",
    "utils": "osmosis_reward osmosis_rubric",
    "rubric_eval": "evaluate_rubric MissingAPIKeyError",
    "rubric_types": "ModelNotFoundError ProviderRequestError",
    "rollout": """CompletionsResult OsmosisLLMClient
        InitResponse OpenAIFunctionToolSchema RolloutMetrics RolloutRequest RolloutResponse
        OsmosisRolloutError OsmosisServerError OsmosisTimeoutError OsmosisTransportError OsmosisValidationError
        RolloutAgentLoop RolloutContext RolloutResult
        create_app register_agent_loop get_agent_loop list_agent_loops""",
}
CORE = {
    "base": "RolloutAgentLoop RolloutContext RolloutResult",
    "exceptions": """AgentLoopNotFoundError JudgeError OsmosisRolloutError OsmosisServerError OsmosisTimeoutError
        OsmosisTransportError OsmosisValidationError RewardError ToolArgumentError ToolExecutionError""",
    "llm_client": "LLMClientProtocol",
    "schemas": """DEFAULT_MAX_METADATA_SIZE_BYTES CompletionsChoice CompletionsRequest CompletionsResponse
        CompletionUsage InitResponse MessageDict OpenAIFunctionCallSchema OpenAIFunctionParametersSchema
        OpenAIFunctionParsedSchema OpenAIFunctionPropertySchema OpenAIFunctionSchema OpenAIFunctionToolCall
        OpenAIFunctionToolSchema RolloutMetrics RolloutRequest RolloutResponse RolloutStatus SamplingParamsDict
        ToolResponse get_max_metadata_size_bytes set_max_metadata_size_bytes""",
}
ROLLOUT = {
    **{f"core.{module}": names for module, names in CORE.items()},
    "client": "CompletionsResult OsmosisLLMClient",
    "config": """RolloutClientSettings RolloutJudgeSettings RolloutServerSettings RolloutSettings configure get_settings
        reset_settings""",
    "network": "PublicIPDetectionError detect_public_ip is_private_ip is_valid_hostname_or_ip validate_ipv4",
    "registry": "AgentLoopRegistry get_agent_loop list_agent_loops register_agent_loop unregister_agent_loop",
    "server.app": "create_app",
    "server.serve": "DEFAULT_HOST DEFAULT_PORT ServeError run_app serve_agent_loop validate_and_report",
    "tools": """create_tool_error_result create_tool_result execute_tool_calls get_tool_call_info parse_tool_arguments
        serialize_tool_result""",
    "utils": """count_messages_by_role get_message_content get_message_role is_assistant_message is_tool_message
        is_user_message normalize_stop parse_tool_calls""",
    "validator": "AgentLoopValidationError ValidationError ValidationResult validate_agent_loop",
    # What the 0.2 line did not have.
    "core.answers": "final_number is_close is_comparable is_right read_number",
    "core.framework_tools": "tools_of",
    "core.judge": "Judge",
    "core.messages": "summarize",
    "core.tool_arguments": "EXACT",
    "core.toolbox": "Toolbox tool",
}
PACKAGES: dict[ModuleType, tuple[dict[str, str], int]] = {
    osmosis_ai: (TOP_LEVEL, 26),
    osmosis_ai.rollout: (ROLLOUT, 91),
    osmosis_ai.rollout.core: (CORE, 36),
}
every_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)

MODULES_WITH_ALL = {
    "rollout.client": ROLLOUT["client"],
    "rollout.config": ROLLOUT["config"],
    "rollout.config.settings": ROLLOUT["config"],
    "rollout.core.llm_client": CORE["llm_client"],
    "rollout.network": ROLLOUT["network"],
    "rollout.server.serve": ROLLOUT["server.serve"],
    "rollout.testing": """RolloutCompletionTracker create_mock_trainer_app fake_prompt_token_ids fake_token_ids
        patch_httpx_for_mock_trainer""",
    "rollout.tools": ROLLOUT["tools"],
    "rollout.utils": ROLLOUT["utils"],
    "rollout.validator": ROLLOUT["validator"],
}
MODULES_WITHOUT_ALL = ["rollout.registry", "rollout.core.base", "rollout.core.exceptions", "rollout.core.schemas"]

# Nothing that an import may not load: weight, and whatever is optional.
HEAVY = ["fastapi", "litellm", "openai", "pyarrow", "rich", "starlette", "typer", "uvicorn"]
OPTIONAL = ["fastapi", "litellm", "mcp", "pyarrow", "rich", "uvicorn", "uvloop"]

WITHOUT_NETWORK = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("an import used the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""


def run(code: str) -> str:
    """What ``code`` prints in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@every_package
class TestNames:
    def test_all_is_as_documented(self, package: ModuleType) -> None:
        table, count = PACKAGES[package]
        names = [name for row in table.values() for name in row.split()]
        names += ["__version__"] if package is osmosis_ai else []
        assert sorted(package.__all__) == sorted(names)
        assert len(set(package.__all__)) == len(package.__all__) == count

    def test_every_name_is_the_object_of_its_module(self, package: ModuleType) -> None:
        for module, names in PACKAGES[package][0].items():
            home = importlib.import_module(f"{package.__name__}.{module}")
            for name in names.split():
                assert getattr(package, name) is getattr(home, name), name
                assert name in vars(package), f"{name} is looked up again each time"

    def test_type_checkers_see_the_same_table(self, package: ModuleType) -> None:
        tree = ast.parse(Path(package.__file__ or "").read_text(encoding="utf-8"))
        (block,) = (node for node in tree.body if isinstance(node, ast.If))
        table = {f"{module}.{name}" for module, names in package._EXPORTS.items() for name in names.split()}
        seen = set()
        for node in block.body:
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                if node.names[0].name == "*":
                    offered = {f"{node.module}.{name}" for name in vars(importlib.import_module(node.module))}
                    seen |= offered & table
                else:
                    seen |= {f"{node.module}.{alias.name}" for alias in node.names if alias.asname == alias.name}
        assert seen == table

    def test_it_lists_its_names_and_knows_no_others(self, package: ModuleType) -> None:
        assert set(dir(package)) >= set(package.__all__)
        with pytest.raises(AttributeError, match=rf"module '{package.__name__}' has no attribute 'no_such_name'"):
            package.no_such_name  # noqa: B018 - the access is what is tested

    @pytest.mark.slow
    def test_its_modules_are_attributes_without_an_import_and_import_star_gives_its_names(
        self, package: ModuleType
    ) -> None:
        modules = sorted({module.split(".")[0] for module in PACKAGES[package][0]})
        code = (
            f"import importlib, {package.__name__} as p\n"
            f"print(*[getattr(p, m) is importlib.import_module(f'{package.__name__}.{{m}}') for m in {modules}])\n"
            "names = {}\n"
            f"exec('from {package.__name__} import *', names)\n"
            "print(*sorted(set(names) - {'__builtins__'}))"
        )
        attributes, names = run(code).splitlines()
        assert attributes.split() == ["True"] * len(modules)
        assert names.split() == sorted(package.__all__)


class TestModules:
    @pytest.mark.parametrize("module", MODULES_WITH_ALL)
    def test_a_module_that_names_its_exports_names_the_documented_ones(self, module: str) -> None:
        imported = importlib.import_module(f"osmosis_ai.{module}")
        assert sorted(imported.__all__) == sorted(MODULES_WITH_ALL[module].split())
        assert all(hasattr(imported, name) for name in imported.__all__)

    @pytest.mark.parametrize("module", MODULES_WITHOUT_ALL)
    def test_the_others_name_none(self, module: str) -> None:
        assert not hasattr(importlib.import_module(f"osmosis_ai.{module}"), "__all__")

    def test_names_that_are_not_at_the_top_are_not_there(self) -> None:
        for name in ("unregister_agent_loop", "create_tool_result", "RolloutStatus"):
            assert hasattr(osmosis_ai.rollout, name)
            assert not hasattr(osmosis_ai, name)
        assert "testing" not in osmosis_ai.rollout.__all__

    def test_the_version_is_stated_once(self) -> None:
        consts = importlib.import_module("osmosis_ai.consts")
        assert consts.package_name == "osmosis-ai"
        assert osmosis_ai.__version__ is consts.PACKAGE_VERSION
        assert osmosis_ai.__version__.startswith("0.2.17")

    @pytest.mark.parametrize("module", ["client", "core.base", "registry", "tools", "server.app"])
    def test_log_records_go_to_a_logger_named_after_the_module(self, module: str) -> None:
        imported = importlib.import_module(f"osmosis_ai.rollout.{module}")
        if hasattr(imported, "logger"):
            assert imported.logger.name == imported.__name__

    def test_the_package_says_that_it_is_typed(self) -> None:
        assert files("osmosis_ai").joinpath("py.typed").is_file()


class TestCost:
    @pytest.mark.parametrize("module", ["osmosis_ai", "osmosis_ai.rollout", "osmosis_ai.rollout.core"])
    def test_a_bare_import_loads_nothing_but_itself_and_stays_offline(self, module: str) -> None:
        loaded = run(
            "import sys; before = set(sys.modules)\n"
            f"{WITHOUT_NETWORK}import {module}\n"
            "print(*set(sys.modules) - before)"
        )
        packages = {name for name in loaded.split() if "." not in name} - sys.stdlib_module_names
        assert packages == {"osmosis_ai"}

    def test_no_export_loads_what_is_heavy_or_uses_the_network(self) -> None:
        loaded = run(
            f"{WITHOUT_NETWORK}"
            "from osmosis_ai import *\nfrom osmosis_ai.rollout import *\nimport osmosis_ai.rollout.testing\n"
            f"print(*[m for m in {HEAVY} if m in sys.modules])"
        )
        assert loaded == ""

    @pytest.mark.slow
    def test_an_agent_and_a_reward_need_no_http_library(self) -> None:
        code = (
            "import sys\n"
            "from osmosis_ai import osmosis_reward\n"
            "from osmosis_ai.rollout import RolloutAgentLoop, RolloutContext, RolloutRequest, RolloutResult\n"
            "from osmosis_ai.rollout.tools import execute_tool_calls\n"
            "print('httpx' in sys.modules)"
        )
        assert run(code) == "False"

    @pytest.mark.slow
    def test_every_export_exists_without_the_optional_packages(self) -> None:
        code = (
            f"import sys\nfor name in {OPTIONAL}: sys.modules[name] = None\n"
            "from osmosis_ai import *\nfrom osmosis_ai.rollout import *\nprint(create_app.__name__)"
        )
        assert run(code) == "create_app"
