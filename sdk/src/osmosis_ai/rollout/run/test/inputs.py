"""What the results of a batch depend on, and all that it can be repeated from."""

import sys
from typing import Any

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.run.results import inputs
from osmosis_ai.rollout.run.test.options import Options


def inputs_of(options: Options) -> dict[str, Any]:
    """Digests of the dataset and of the agent's source files, the model, and the settings."""
    return inputs.inputs_of(
        options.dataset,
        modules=[options.module],
        mcp=options.mcp,
        model={"name": options.model.strip(), "base_url": options.base_url},
        settings={
            "module": options.module,
            "mcp": options.mcp,
            "limit": options.limit,
            "offset": options.offset,
            "repeat": options.repeat,
            "max_turns": options.max_turns,
            "completion_params": options.completion_params,
        },
    )


def config_of(options: Options, inputs: dict[str, Any]) -> dict[str, Any]:
    """All that a run can be repeated from; no keys."""
    return {
        "sdk_version": PACKAGE_VERSION,
        "python_version": sys.version.split()[0],
        "model": options.model.strip(),
        "base_url": options.base_url,
        "dataset": options.dataset,
        **inputs["settings"],
        "concurrency": options.concurrency,
        "timeout_seconds": options.timeout,
        "digests": {"dataset": inputs["dataset"], "agent": inputs["agent"]},
    }
