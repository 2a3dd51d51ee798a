"""What the commands load before they run, each with a line about it: agent, dataset, model.

Whatever cannot be used is a `CLIError` of one sentence; a `UsageError` where the command line is wrong.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core import answers
from osmosis_ai.rollout.core.text import counted
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.run import agents
from osmosis_ai.rollout.run.data.columns import parsed
from osmosis_ai.rollout.run.data.dataset import DatasetReader, DatasetRow
from osmosis_ai.rollout.run.driver import RunPlan
from osmosis_ai.rollout.run.errors import DatasetParseError
from osmosis_ai.rollout.run.models import choice
from osmosis_ai.rollout.run.models.routes import provider_of
from osmosis_ai.rollout.run.options import RunOptions
from osmosis_ai.rollout.run.results.results_file import ResultsFile

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop
    from osmosis_ai.rollout.core.console import Console

Say = Callable[..., None]


def speaker(console: "Console", is_silent: bool) -> Say:
    """Prints foreign text, in a style if one is given, or nothing if ``is_silent``."""

    def say(text: str = "", style: str | None = None) -> None:
        if not is_silent:
            console.print(console.escape(text), style=style, highlight=False, soft_wrap=True)

    return say


def load_agent(module: str | None, mcp: str | None, say: Say, reward: str | None = None) -> "RolloutAgentLoop":
    """As ``agents.load_agent``."""
    say(f"Loading MCP tools: {mcp}" if mcp else f"Loading agent: {module}")
    agent: Any = agents.load_agent(module, mcp, reward)
    if mcp:
        names = [tool.function.name for tool in agent.get_default_tools()]
        say(f"  Discovered {len(names)} tool(s): {', '.join(names)}")
    else:
        say(f"  Agent name: {agent.name}")
    loaded: RolloutAgentLoop = agent
    return loaded


def open_dataset(path: str | Path, columns: str | None = None) -> DatasetReader:
    """A reader of the file; ``columns`` as in ``--columns``.

    Raises:
        UsageError: there is no such file, its suffix promises no format that can be read, or ``columns`` says nothing.
    """
    try:
        return DatasetReader(path, parsed(columns))
    except (FileNotFoundError, DatasetParseError, ValueError) as error:
        raise UsageError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that was looked through: what can be run of it, and what was left out."""

    reader: DatasetReader
    limit: int | None
    offset: int
    rows: int
    """That can be used."""
    left_out: str | None = None
    """Every row that cannot be used, with its place and the reason."""

    def numbered_rows(self) -> Iterator[tuple[int, DatasetRow]]:
        """The usable rows with their numbers in the file."""
        return self.reader.usable_rows(self.limit, self.offset)

    def tell_what_was_left_out(self) -> None:
        """Say it at the end of a command, as its exit code.

        Raises:
            CLIError: there are rows that cannot be used.
        """
        if self.left_out is not None:
            raise CLIError(f"Rows were left out: {self.left_out}")


def check_dataset(options: RunOptions, say: Say, empty_error: str, action_label: str) -> Dataset:
    """Look the dataset through before anything runs; nothing is kept of it.

    Raises:
        CLIError: no row can be used, the file cannot be read to its end, or ``--strict`` and a row cannot be used or
            scored.
    """
    say(f"Loading dataset: {options.dataset}")
    reader = open_dataset(options.dataset, options.columns)
    try:
        is_comparable = answers.is_comparable if options.scores_by_is_right else None
        check = reader.check(options.limit, options.offset, is_comparable)
        total = len(reader)
    except OSError as error:
        raise CLIError(str(error)) from error
    usable, problem = check.rows - check.bad_rows, check.error() or (empty_error if check.rows == 0 else None)
    if problem and (check.is_broken or options.runs_all_or_none or usable <= 0):
        raise CLIError(problem)
    warning = check.warning()
    if warning and options.strict:
        raise CLIError(warning)
    part = f" ({action_label} {usable})" if options.limit or usable != total else ""
    say(f"  Total rows: {total}{part}")
    if problem:
        sys.stderr.write(f"{problem}\nWhat is left to run: {counted(usable, 'row')}; --strict runs none then.\n")
    if warning:
        sys.stderr.write(f"{warning}\nThey are run all the same; --strict runs nothing then.\n")
    return Dataset(reader, options.limit, options.offset, usable, problem)


def create_llm_client(
    model: str, api_key: str | None, base_url: str | None, say: Say, policy: str | None = None
) -> Any:
    """A client for ``model``, checked as far as that goes without the network; see ``choice.make_llm_client``.

    ``policy`` names a script in its place; see ``load_policy``.
    """
    if policy is not None:
        from osmosis_ai.rollout.run.policies.named import load_policy

        client = load_policy(policy)
        say(f"  Policy: {client.display_name}, a script and no language model")
        return client
    model = model.strip()
    choice.check(model, api_key, base_url)
    if base_url:
        say(f"Connecting to endpoint: {base_url}")
    elif not choice.is_builtin(model, base_url):
        say(f"Initializing provider: {provider_of(model)}")
    client = choice.make_llm_client(model, api_key, base_url)
    say(f"  Model: {client.display_name}")
    return client


def open_results(
    options: RunOptions, command: str, plan: RunPlan, config: dict[str, Any], inputs: dict[str, Any] | None = None
) -> ResultsFile:
    """The results of ``-o``, to go on with or new; they go nowhere if nobody asks for them.

    Raises:
        CLIError: the file cannot be written, or not be gone on with.
    """
    path, is_read = Path(options.output) if options.output else None, options.reads_results
    inputs = (options.inputs() if is_read else {}) if inputs is None else inputs
    return ResultsFile(path, command, plan, inputs, config, resume=options.resume, is_read=is_read)


async def verify_llm_client(client: Any, say: Say) -> None:
    """Make one tiny call.

    Raises:
        SystemicProviderError: what would fail every row.
    """
    check = getattr(client, "preflight_check", None)
    if not callable(check):
        return
    say("Verifying provider connectivity...")
    await check()
    warning = getattr(client, "preflight_warning", None)
    if isinstance(warning, str):
        say(f"  Warning: the provider refused a test call, so rows may fail: {warning}", "yellow")


def read_api_key(given: str | None) -> str | None:
    """The key of ``--api-key``: itself, the first line of standard input for ``-``, or of a file for ``@FILE``.

    Raises:
        UsageError: the file cannot be read, or there is no key in it.
    """
    if given == "-":
        key = sys.stdin.readline().strip()
    elif given is not None and given.startswith("@"):
        try:
            key = Path(given[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--api-key {given}: the file cannot be read ({error}).") from error
    else:
        return given
    if not key:
        raise UsageError(f"--api-key {given}: there is no key in it.")
    return key
