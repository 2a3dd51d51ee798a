"""``osmosis validate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.schemas import RolloutRequest


def validate(
    module: table.Module = None,
    mcp: table.Mcp = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List the warnings too.")] = False,
    request: Annotated[
        str | None,
        typer.Option("--request", metavar="FILE", help="JSON file of an init request to ask the agent's tools with."),
    ] = None,
    as_json: table.AsJson = False,
) -> int:
    """Check that an agent loop can be served."""
    from osmosis_ai.rollout.core.validator import validate_agent_loop
    from osmosis_ai.rollout.run.agents import load_agent
    from osmosis_ai.rollout.server.validation_report import print_report, print_report_json

    sample = _read_request(Path(request)) if request is not None else None
    result = validate_agent_loop(load_agent(module, mcp), request=sample)
    if as_json:
        print_report_json(result)
    else:
        print_report(result, verbose=verbose)
    return 0 if result.valid else 1


def _read_request(file: Path) -> "RolloutRequest":
    from pydantic import ValidationError

    from osmosis_ai.rollout.core.schemas import RolloutRequest

    try:
        return RolloutRequest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UsageError(f"Cannot read {file}: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise CLIError(f"{file} is no init request: {field}: {first['msg']}.") from error
