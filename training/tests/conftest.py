"""The real start model, the real agent behind the real server, and one small run that several tests look at."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.chat import ChatFormat
from training.engine import Engine
from training.weights import SMOLLM2, Model, NumberType, load_model, number_type

ROOT = Path(__file__).parents[2]
# Dequantising takes 20 s, so the folder is kept between sessions where it is named.
CACHE_VARIABLE = "TRAINING_MODEL_CACHE"


@pytest.fixture(scope="session", autouse=True)
def _at_the_root() -> Iterator[None]:
    """The server finds ``server:agent_loop`` in the directory it starts in."""
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the start model is, or will be."""
    return Path(os.environ.get(CACHE_VARIABLE) or tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def model(model_cache: Path) -> Model:
    """The start model, in what the processor multiplies fast."""
    device = torch.device("cpu")
    return load_model(SMOLLM2, model_cache, device, number_type(NumberType.AUTO, device)[0])


@pytest.fixture(scope="session")
def chat(model: Model) -> ChatFormat:
    """Its chat format."""
    return ChatFormat(model.tokenizer)


@pytest.fixture
def engine(model: Model, chat: ChatFormat) -> Iterator[Engine]:
    """An engine over the start model."""
    engine = Engine(model.decoder, model.weights, chat, rows=16, max_length=400)
    yield engine
    engine.close()
