"""What a model is told of a tool that failed.

What was written for it: the text of a ``ToolError``, what is wrong with its arguments, that there is no such tool. The
text of any other exception is the operator's: it may name hosts, paths and keys, and goes to the log alone.
"""

import re

from osmosis_ai.rollout.core.exceptions import ToolExecutionError

MAX_ERROR_CHARACTERS = 2000

# By name, as FastMCP may not be there, and has moved them; NotFoundError is not one of its FastMCPErrors.
_OF_THE_PROTOCOL = {"FastMCPError", "ToolError", "NotFoundError", "MCPError", "McpError"}
_PACKAGES = ("fastmcp.", "mcp.")
_WRAPPED = "Error calling tool"
_PYDANTIC_ADVICE = re.compile(r"\n\s*For further information visit \S+")


def told_to_the_model(error: Exception, tool_name: str) -> str:
    """The sentence for the model, at most ``MAX_ERROR_CHARACTERS`` long."""
    if isinstance(error.__cause__, ToolExecutionError):  # raised by a tool, and wrapped by FastMCP
        error = error.__cause__
    text = str(error) if _is_written_for_it(error) else ""
    return _PYDANTIC_ADVICE.sub("", text)[:MAX_ERROR_CHARACTERS] or f"{tool_name} failed"


def told_of_result(text: str, tool_name: str) -> str:
    """The same for a result that says it is an error: over the wire only FastMCP's prefix is left of the exception."""
    if text.startswith(_WRAPPED):
        return f"{tool_name} failed"
    return _PYDANTIC_ADVICE.sub("", text)[:MAX_ERROR_CHARACTERS]


def _is_written_for_it(error: Exception) -> bool:
    if isinstance(error, ToolExecutionError):
        return True
    if type(error).__name__ == "ValidationError" and type(error).__module__.startswith("pydantic"):
        return getattr(error, "title", "").startswith("call[")  # of the arguments: FastMCP before 4
    if not any(
        kind.__name__ in _OF_THE_PROTOCOL and kind.__module__.startswith(_PACKAGES) for kind in type(error).__mro__
    ):
        return False
    # FastMCP makes a ToolError of whatever a tool raises, with that text behind a prefix.
    return error.__cause__ is None or not str(error).startswith(_WRAPPED)
