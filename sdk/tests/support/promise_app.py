"""``promise_agent`` as an app, for servers that are given one."""

from osmosis_ai.rollout.server.app import create_app
from support.promise_agent import agent_loop

app = create_app(agent_loop)
