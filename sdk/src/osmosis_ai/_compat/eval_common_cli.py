"""What ``osmosis_ai.rollout.eval.common.cli`` offers: each loader gives what it loaded, or ``None`` and a sentence."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run import loading
from osmosis_ai.rollout.run.formats import format_duration, format_tokens
from osmosis_ai.rollout.run.loading import speaker
from osmosis_ai.rollout.run.options import RunOptions, build_completion_params

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop
    from osmosis_ai.rollout.core.console import Console
    from osmosis_ai.rollout.run.data.dataset import DatasetRow

__all__ = [
    "build_completion_params",
    "create_llm_client",
    "format_duration",
    "format_tokens",
    "load_agent",
    "load_dataset_rows",
]

T = TypeVar("T")


def _loaded(load: Callable[..., T], *arguments: Any) -> tuple[T | None, str | None]:
    try:
        return load(*arguments), None
    except CLIError as error:
        return None, str(error)


def load_agent(module: str, quiet: bool, console: "Console") -> "tuple[RolloutAgentLoop | None, str | None]":
    """The agent loop that ``module`` (``module:attribute``) names."""
    return _loaded(loading.load_agent, module, None, speaker(console, quiet))


def load_mcp_agent(mcp_path: str, quiet: bool, console: "Console") -> "tuple[RolloutAgentLoop | None, str | None]":
    """An agent with the MCP tools of a directory."""
    return _loaded(loading.load_agent, None, mcp_path, speaker(console, quiet))


def load_dataset_rows(
    dataset_path: str,
    limit: int | None,
    offset: int,
    quiet: bool,
    console: "Console",
    empty_error: str,
    action_label: str,
) -> "tuple[list[DatasetRow] | None, str | None]":
    """The rows of a file, in memory; ``empty_error`` if there are none."""

    def load() -> "list[DatasetRow]":
        options = RunOptions(dataset=dataset_path, limit=limit, offset=offset, strict=True)
        dataset = loading.check_dataset(options, speaker(console, quiet), empty_error, action_label)
        return [row for _, row in dataset.numbered_rows()]

    return _loaded(load)


def create_llm_client(
    model: str, api_key: str | None, base_url: str | None, quiet: bool, console: "Console"
) -> tuple[Any, str | None]:
    """A client for ``model``, checked as far as that goes without the network."""
    return _loaded(loading.create_llm_client, model, api_key, base_url, speaker(console, quiet))


async def verify_llm_client(client: Any, quiet: bool, console: "Console") -> str | None:
    """Make one tiny call; a sentence about what would fail every row, or ``None``."""
    try:
        await loading.verify_llm_client(client, speaker(console, quiet))
    except CLIError as error:
        return str(error)
    return None
