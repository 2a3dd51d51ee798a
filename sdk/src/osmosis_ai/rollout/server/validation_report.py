"""What is printed of a validation, for a user, for a trainer, and as JSON."""

import dataclasses
import json

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.console import console
from osmosis_ai.rollout.core.json_document import write_document
from osmosis_ai.rollout.core.validator import BLOCKING_CALL, ValidationResult, validate_agent_loop


def validate_and_report(agent_loop: RolloutAgentLoop, *, verbose: bool = False) -> ValidationResult:
    """Validate ``agent_loop`` and print the result: to stdout if it is valid, else to stderr."""
    result = validate_agent_loop(agent_loop)
    print_report(result, verbose=verbose)
    return result


def print_report(result: ValidationResult, *, verbose: bool = False) -> None:
    """Print a validation result; ``verbose`` lists all warnings, not only those that concern every rollout."""
    told = [warning for warning in result.warnings if verbose or warning.code == BLOCKING_CALL]
    warnings = [f"    - {warning}" for warning in told]
    if result.valid:
        console.print(f"Agent loop '{result.agent_name}' validated successfully.", markup=False)
        console.print(f"  - Tools: {result.tool_count}")
        if result.warnings:
            untold = "" if len(told) == len(result.warnings) else " (osmosis validate --verbose lists them)"
            console.print(f"  - Warnings: {len(result.warnings)}{untold}")
        for line in warnings:
            console.print(line, markup=False)
        return
    console.print_error(f"Agent loop validation failed with {len(result.errors)} error(s):")
    for error in result.errors:
        console.print_error(f"  - {error}")
    if result.tools_at:
        console.print_error(f"    The tools come from {result.tools_at}.")
    if warnings:
        console.print_error("")
        console.print_error(f"Warnings ({len(warnings)}):")
        for line in warnings:
            console.print_error(line)


def print_for_trainer(result: ValidationResult) -> None:
    """Print what a trainer tells its user of the server that it started: what blocks, and one line of errors."""
    for warning in result.warnings:
        if warning.code == BLOCKING_CALL:
            console.print(f"Warning: {warning}", markup=False)
    if not result.valid:
        at = f" ({result.tools_at})" if result.tools_at else ""
        console.print_error(f"Error: The agent cannot be served{at}: {' '.join(map(str, result.errors))}")


def print_report_json(result: ValidationResult) -> None:
    """Print a validation result to stdout as one JSON object."""
    write_document([json.dumps(dataclasses.asdict(result), indent=2), "\n"])
