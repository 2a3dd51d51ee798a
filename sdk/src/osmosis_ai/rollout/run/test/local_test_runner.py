"""The local runner as test mode has it."""

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.run.errors import ProviderError as ProviderError
from osmosis_ai.rollout.run.local_runner import (
    LocalBatchResult as LocalTestBatchResult,
    LocalRolloutRunner,
    LocalRunResult as LocalTestRunResult,
    validate_tools,
)
from osmosis_ai.rollout.run.models.llm_client import ExternalLLMClient as ExternalLLMClient
from osmosis_ai.rollout.run.models.protocol import LocalLLMClientProtocol

__all__ = ["LocalTestBatchResult", "LocalTestRunResult", "LocalTestRunner", "validate_tools"]

ROLLOUT_ID_PREFIX = "test"
REQUEST_METADATA = {"execution_mode": "test", "test_mode": True}
DEBUG_DIRECTORY = "./test_debug"


class LocalTestRunner(LocalRolloutRunner):
    """Runs rows with ids ``test-<row index>``; with ``debug``, event files go to ``./test_debug`` by default."""

    __test__ = False

    def __init__(
        self,
        agent_loop: RolloutAgentLoop,
        llm_client: LocalLLMClientProtocol,
        debug: bool = False,
        debug_dir: str | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> None:
        super().__init__(
            agent_loop,
            llm_client,
            debug,
            debug_dir or (DEBUG_DIRECTORY if debug else None),
            ROLLOUT_ID_PREFIX,
            REQUEST_METADATA,
            timeout_seconds=timeout_seconds,
        )
