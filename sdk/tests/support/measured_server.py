"""``osmosis serve`` with ``measured_agent``, in a process of its own."""

from pathlib import Path

from support.processes import ServingProgram

TESTS = Path(__file__).parents[1]


def measured_server(directory: Path, *options: str, **variables: str) -> ServingProgram:
    """Serves on a free loopback port, without a key; ``variables`` are of its environment."""
    command = ["-m", "support.measured_agent:agent_loop", "--local", "-p", "0", *options]
    return ServingProgram(directory, *command, PYTHONPATH=str(TESTS), OSMOSIS_NO_DOTENV="1", **variables)
