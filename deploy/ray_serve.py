"""The agent as replicas of Ray Serve: ``serve run ray_serve:app``."""

from fastapi import FastAPI
from ray import serve

from osmosis_ai.rollout import create_app


def build() -> FastAPI:
    """A replica's own application; each process makes one."""
    from server import agent_loop

    return create_app(agent_loop)


@serve.deployment(num_replicas=2, max_ongoing_requests=1000, graceful_shutdown_timeout_s=60)
@serve.ingress(build)
class RolloutServer:
    """One replica. What it needs to know of the others is in the journal."""


app = RolloutServer.bind()
