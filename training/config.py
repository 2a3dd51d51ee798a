"""Every number of a training run: a flag of the command line, or a line of a TOML file given with ``--config``."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.chat import ToolPrompt
from training.errors import TrainingError
from training.problems import Level
from training.weights import SMOLLM2, NumberType

SETTINGS_FILE = "config.json"
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - named, not bound


class TrainingConfig(BaseModel):
    """One run. The description of each field is its line in ``--help``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minutes: Annotated[
        float, Field(gt=0, description="How long to train, in minutes; the evaluations come on top.")
    ] = 10
    steps: Annotated[int | None, Field(ge=0, description="Stop after this many steps, whatever the time.")] = None
    seed: Annotated[int, Field(description="Seed of the training problems, their order and the sampling.")] = 0
    level: Annotated[Level, Field(description="Which problems are generated.")] = Level.ONE_STEP
    output: Annotated[Path, Field(description="Folder of the run.")] = Path("runs/train")

    agent: Annotated[str, Field(description="The agent to train, as module:attribute; a server is started for it.")] = (
        "server:agent_loop"
    )
    server: Annotated[
        str | None,
        Field(
            description="URL of a rollout server that runs already; its key comes from OSMOSIS_ROLLOUT_SERVER_API_KEY."
        ),
    ] = None
    callback_host: Annotated[str, Field(description="Address that --server calls back to, on this machine.")] = (
        "127.0.0.1"
    )
    callback_port: Annotated[int, Field(ge=0, le=65535, description="Its port; 0 takes a free one.")] = 0
    callback_url: Annotated[
        str | None, Field(description="How --server reaches that address, if not by its name and port.")
    ] = None
    dataset: Annotated[Path | None, Field(description="Train on this dataset instead of generated problems.")] = None
    eval_dataset: Annotated[Path | None, Field(description="Evaluate on this one; required with --dataset.")] = None
    examples: Annotated[
        Path | None,
        Field(description="JSON list of chat messages to put behind the system prompt; '[]' in the file for none."),
    ] = None

    model: Annotated[str, Field(description="Model folder, or the start model by its name.")] = SMOLLM2
    model_cache: Annotated[Path, Field(description="Where the dequantised start model is kept.")] = Path("runs/models")
    device: Annotated[str, Field(description="cpu or cuda.")] = "cpu"
    dtype: Annotated[NumberType, Field(description="What the weights in use are made of; auto asks the processor.")] = (
        NumberType.AUTO
    )
    threads: Annotated[int | None, Field(ge=1, description="CPU threads; by default what PyTorch takes.")] = None
    tool_prompt: Annotated[ToolPrompt, Field(description="How the tools are shown to the model.")] = ToolPrompt.NONE

    problems_per_step: Annotated[int, Field(ge=1, description="Groups of a step.")] = 4
    samples: Annotated[int, Field(ge=2, description="Rollouts of a group.")] = 8
    temperature: Annotated[float, Field(gt=0, description="Sampling temperature, in training and evaluation.")] = 1.0
    max_tokens_turn: Annotated[int, Field(ge=1, description="Most tokens sampled in one turn.")] = 44
    max_tokens_rollout: Annotated[
        int | None, Field(ge=1, description="Most tokens sampled in a rollout; by default 14 more a further turn.")
    ] = None
    max_turns: Annotated[
        int | None, Field(ge=1, description="Model calls of a rollout; by default from the level.")
    ] = None

    learning_rate: Annotated[float, Field(gt=0, description="Of AdamW.")] = 2e-5
    warmup_steps: Annotated[int, Field(ge=0, description="Steps over which the learning rate rises from 0.")] = 0
    beta1: Annotated[float, Field(ge=0, lt=1, description="Of AdamW.")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="Of AdamW.")] = 0.95
    weight_decay: Annotated[float, Field(ge=0, description="Of AdamW.")] = 0.0
    clip_norm: Annotated[float, Field(gt=0, description="Largest norm of the gradient.")] = 1.0
    clip_ratio: Annotated[float, Field(gt=0, description="How far the probability ratio may move.")] = 0.2
    kl: Annotated[
        float, Field(ge=0, description="Weight of the KL divergence from the start model; 0 leaves it out.")
    ] = 0

    eval_problems: Annotated[int, Field(ge=0, description="Problems of each held-out set.")] = 100
    eval_greedy: Annotated[bool, Field(description="Evaluate at temperature 0 too.")] = True
    concurrency: Annotated[int, Field(ge=1, description="Rollouts in flight; also rows of the KV cache.")] = 64
    context: Annotated[int, Field(ge=32, description="Tokens of the longest conversation.")] = 512
    attempts: Annotated[int, Field(ge=1, description="Rollouts started for one sample, while they fail.")] = 3
    rollout_timeout_seconds: Annotated[float, Field(gt=0, description="Limit of one rollout.")] = 180
    checkpoint_steps: Annotated[int, Field(ge=0, description="Steps between checkpoints; 0 for only the last one.")] = (
        20
    )

    @property
    def turns(self) -> int:
        """Model calls a rollout may make."""
        return self.max_turns or (3 if self.level is Level.TWO_STEP else 2)

    @property
    def rollout_tokens(self) -> int:
        """Tokens a rollout may sample."""
        if self.max_tokens_rollout is not None:
            return self.max_tokens_rollout
        return self.max_tokens_turn * max(1, self.turns - 1) + 14


def read_config(path: Path | None, flags: dict[str, Any]) -> TrainingConfig:
    """The settings of a TOML file, with ``flags`` over them.

    Raises:
        TrainingError: naming the field that is wrong.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"Cannot read {path}: {error}.") from None
    try:
        config = TrainingConfig.model_validate(settings | flags)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"])).replace("_", "-")
        raise TrainingError(f"--{field}: {problem['msg']}.") from None
    if config.dataset is not None and config.eval_dataset is None:
        raise TrainingError("--dataset needs --eval-dataset: rows to measure on that are not trained on.")
    if config.server is not None and config.callback_host in ANY_ADDRESS and config.callback_url is None:
        raise TrainingError(f"--callback-host {config.callback_host} is no address to call back: give --callback-url.")
    return config


def saved_settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in ``folder``, as ``read_config`` takes them.

    Raises:
        TrainingError: if there is none, or none that can be read.
    """
    try:
        saved: dict[str, Any] = TrainingConfig.model_validate_json((folder / SETTINGS_FILE).read_bytes()).model_dump()
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "not the settings of a run"
        raise TrainingError(f"{folder} holds no run to resume: {SETTINGS_FILE}: {why}.") from None
    return saved
