"""The agent loop as a server would find it, loaded in a child process that is killed when its time is up."""

from collections.abc import Sequence

from osmosis_ai.rollout.core.text import counted
from osmosis_ai.rollout.tooling.doctor.agent_child import AgentChild, AgentReport
from osmosis_ai.rollout.tooling.doctor.case import Case, check, once
from osmosis_ai.rollout.tooling.doctor.types import MORE_TIME, Finding, Need, not_checked, ok, problem, warning

SLOW_SECONDS = 1.0
ENOUGH_SECONDS = 1.5
"""Given less than this, an agent that is cut off may just be on a busy machine."""
MAX_SHOWN_ERRORS = 3

_TOOLS, _GET_TOOLS = "tools[", "get_tools"


@once
def agent_report(case: Case) -> AgentReport:
    """The agent loop, loaded in a process of its own."""
    if case.agent_child is None:
        case.agent_child = AgentChild(case.setup.module, case.setup.mcp)
    return case.agent_child.report(case.agent_seconds_left)


@check("agent-import", "the agent's module can be imported", Need.AGENT)
def check_import(case: Case) -> Finding:
    agent = agent_report(case)
    if agent.no_import is not None:
        fix = "Correct that, and run osmosis doctor again."
        if agent.missing_module is not None:
            fix = f"Install what holds {agent.missing_module} (uv add NAME), or run from the folder that has it."
        return problem(agent.no_import, fix)
    is_cut_off = agent.stage in ("start", "import")
    if is_cut_off and agent.timed_out:
        return problem(
            f"The module was not imported within {agent.time_limit_seconds:.1f} s: it does slow work, or it hangs.",
            f"Move slow work out of the import. {MORE_TIME}",
        )
    if is_cut_off:
        return problem(
            "The process that imported the module was ended from within (a crash, or os._exit).",
            "Look for it with python3 -X faulthandler -c 'import MODULE'.",
        )
    if agent.import_seconds is not None and agent.import_seconds > SLOW_SECONDS:
        return ok(f"Imported, in {agent.import_seconds:.1f} s.")
    return ok("Imported.")


@check("agent-loop", "the attribute is an agent loop", Need.AGENT)
def check_loop(case: Case) -> Finding:
    agent = agent_report(case)
    if agent.no_loop is not None:
        return problem(agent.no_loop, "Name an instance of your RolloutAgentLoop subclass, as in -m server:agent_loop.")
    if not agent.is_loop:
        return _not_reached(agent)
    return ok("It is an agent loop.")


@check("agent-valid", "the agent loop is valid", Need.AGENT)
def check_valid(case: Case) -> Finding:
    agent = agent_report(case)
    if agent.stage != "done" or not agent.is_loop:
        return _not_reached(agent)
    if errors := [text for place, text in agent.errors if not place.startswith(_TOOLS)]:
        return problem(_joined(errors), "Correct it; osmosis validate -v tells everything.")
    return ok(f"{agent.name!r} is valid.")


@check("tool-schemas", "the tools can be sent to a trainer", Need.AGENT)
def check_tool_schemas(case: Case) -> Finding:
    agent = agent_report(case)
    if agent.stage != "done" or not agent.is_loop:
        return _not_reached(agent)
    if any(place == _GET_TOOLS for place, _ in agent.errors):
        return not_checked("get_tools gave no list of tools.")
    if errors := [text for place, text in agent.errors if place.startswith(_TOOLS)]:
        return problem(_joined(errors), "Correct the schema; every init would get a 500 with it.")
    if agent.warnings:
        return warning(_joined(agent.warnings), "Correct it: some model providers refuse it.")
    return ok(f"{counted(agent.tool_count, 'tool')}.")


@check("get-tools", "get_tools answers at once", Need.AGENT)
def check_get_tools(case: Case) -> Finding:
    agent = agent_report(case)
    if agent.timed_out and agent.stage == "tools" and agent.time_limit_seconds >= ENOUGH_SECONDS:
        return problem(
            "get_tools did not return in the time there was: every init would wait for it.",
            f"Do slow work once, in __init__ or at import. {MORE_TIME}",
        )
    if agent.tools_seconds is None:
        return _not_reached(agent)
    if agent.tools_seconds > SLOW_SECONDS:
        return warning(
            f"get_tools took {agent.tools_seconds:.1f} s, and every init waits for it.",
            "Do slow work once, in __init__ or at import, and keep what it gave.",
        )
    return ok(f"It took {agent.tools_seconds * 1000:.0f} ms.")


def _not_reached(agent: AgentReport) -> Finding:
    if agent.no_import is not None:
        return not_checked("The module cannot be imported.")
    if agent.no_loop is not None:
        return not_checked("There is no agent loop.")
    if agent.timed_out:
        return not_checked("The time was up before.", fix=MORE_TIME)
    return not_checked("The process that loaded the agent was ended from within.")


def _joined(texts: Sequence[str]) -> str:
    shown = "; ".join(texts[:MAX_SHOWN_ERRORS])
    more = len(texts) - MAX_SHOWN_ERRORS
    return f"{shown}; and {more} more" if more > 0 else shown
