"""What the commands ``test`` and ``eval`` share: loading things, with a line about each, and formats for numbers.

A loader gives what it loaded, or a sentence about what is wrong; one of the two is ``None``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.data.dataset import DatasetReader, DatasetRow
from osmosis_ai.rollout.run.errors import DatasetParseError, ProviderError, SystemicProviderError
from osmosis_ai.rollout.run.models import models

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop
    from osmosis_ai.rollout.core.console import Console

__all__ = [
    "build_completion_params",
    "create_llm_client",
    "format_duration",
    "format_tokens",
    "load_agent",
    "load_dataset_rows",
    "load_mcp_agent",
    "verify_llm_client",
]


def format_duration(milliseconds: float) -> str:
    """``850ms``, ``12.3s`` or ``75m5.0s``, rounded before the unit is chosen."""
    if round(milliseconds) < 1000:
        return f"{milliseconds:.0f}ms"
    tenths = round(milliseconds / 100)
    if tenths < 600:
        return f"{tenths / 10:.1f}s"
    minutes, rest = divmod(tenths, 600)
    return f"{minutes}m{rest / 10:.1f}s"


def format_tokens(count: int) -> str:
    """With commas between thousands."""
    return f"{count:,}"


def build_completion_params(temperature: float | None, max_tokens: int | None) -> dict[str, Any]:
    """Sampling settings for the model: what is not ``None``."""
    given = {"temperature": temperature, "max_tokens": max_tokens}
    return {name: value for name, value in given.items() if value is not None}


def load_agent(module: str, quiet: bool, console: "Console") -> "tuple[RolloutAgentLoop | None, str | None]":
    """The agent loop that ``module`` (``module:attribute``) names."""
    from osmosis_ai.rollout.core.loading import load_agent_loop

    _say(console, quiet, f"Loading agent: {module}")
    try:
        agent = load_agent_loop(module)
    except CLIError as error:
        return None, str(error)
    _say(console, quiet, f"  Agent name: {agent.name}")
    return agent, None


def load_mcp_agent(mcp_path: str, quiet: bool, console: "Console") -> "tuple[RolloutAgentLoop | None, str | None]":
    """An agent with the MCP tools of a directory."""
    from osmosis_ai.rollout.mcp import agent_loop as mcp

    _say(console, quiet, f"Loading MCP tools: {mcp_path}")
    try:
        agent: RolloutAgentLoop = mcp.load_mcp_agent(mcp_path)
        names = [tool.function.name for tool in agent.get_default_tools()]
    except mcp.MCPLoadError as error:
        return None, str(error)
    _say(console, quiet, f"  Discovered {len(names)} tool(s): {', '.join(names)}")
    return agent, None


def load_dataset_rows(
    dataset_path: str,
    limit: int | None,
    offset: int,
    quiet: bool,
    console: "Console",
    empty_error: str,
    action_label: str,
) -> tuple[list[DatasetRow] | None, str | None]:
    """The rows of a file, in memory; ``empty_error`` if there are none. All bad rows are told together."""
    reader, count, error = check_dataset(dataset_path, limit, offset, quiet, console, empty_error, action_label)
    if reader is None or error is not None:
        return None, error
    return reader.read(limit=limit, offset=offset)[:count], None


def check_dataset(
    dataset_path: str,
    limit: int | None,
    offset: int,
    quiet: bool,
    console: "Console",
    empty_error: str,
    action_label: str,
) -> tuple[DatasetReader | None, int, str | None]:
    """A reader whose rows from ``offset`` on are known to be good, and how many there are: nothing is kept of them."""
    _say(console, quiet, f"Loading dataset: {dataset_path}")
    try:
        reader = DatasetReader(dataset_path)
        check = reader.check(limit=limit, offset=offset)
        total = len(reader)
    except FileNotFoundError as error:
        return None, 0, str(error)
    except (DatasetParseError, OSError) as error:
        return None, 0, str(error)
    if problem := check.error():
        return None, 0, problem
    if check.rows == 0:
        return None, 0, empty_error
    part = f" ({action_label} {check.rows})" if limit or check.rows != total else ""
    _say(console, quiet, f"  Total rows: {total}{part}")
    return reader, check.rows, None


def create_llm_client(
    model: str, api_key: str | None, base_url: str | None, quiet: bool, console: "Console"
) -> tuple[Any, str | None]:
    """A client for ``model``, checked as far as that goes without the network."""
    model = model.strip()
    if problem := models.model_problem(model, base_url) or _key_problem(model, api_key, base_url):
        return None, problem
    if base_url:
        _say(console, quiet, f"Connecting to endpoint: {base_url}")
    elif not models.is_builtin(model, base_url):
        _say(console, quiet, f"Initializing provider: {models.provider_of(model)}")
    try:
        client = models.make_llm_client(model, api_key, base_url)
    except ProviderError as error:
        return None, str(error)
    _say(console, quiet, f"  Model: {client.display_name}")
    return client, None


def _key_problem(model: str, api_key: str | None, base_url: str | None) -> str | None:
    return None if models.is_builtin(model, base_url) else models.key_problem(model, api_key, base_url)


async def verify_llm_client(client: Any, quiet: bool, console: "Console") -> str | None:
    """Make one tiny call; a sentence about what would fail every row, or ``None``."""
    check = getattr(client, "preflight_check", None)
    if not callable(check):
        return None
    _say(console, quiet, "Verifying provider connectivity...")
    try:
        await check()
    except SystemicProviderError as error:
        return str(error)
    warning = getattr(client, "preflight_warning", None)
    if isinstance(warning, str):
        _say(console, quiet, f"  Warning: the provider refused a test call, so rows may fail: {warning}", "yellow")
    return None


def read_api_key(given: str | None) -> str | None:
    """The key of ``--api-key``: itself, the first line of standard input for ``-``, or of a file for ``@FILE``.

    Raises:
        CLIError: the file cannot be read, or there is no key in it.
    """
    if given == "-":
        import sys

        key = sys.stdin.readline().strip()
    elif given is not None and given.startswith("@"):
        try:
            key = Path(given[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CLIError(f"--api-key {given}: the file cannot be read ({error}).") from error
    else:
        return given
    if not key:
        raise CLIError(f"--api-key {given}: there is no key in it.")
    return key


def _say(console: "Console", quiet: bool, text: str, style: str | None = None) -> None:
    if not quiet:
        console.print(console.escape(text), style=style, highlight=False, soft_wrap=True)
