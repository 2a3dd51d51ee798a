"""An app around ``measured_agent``, as a user's module has one."""

from osmosis_ai.rollout.server.app import create_app
from support.measured_agent import agent_loop

app = create_app(agent_loop)
