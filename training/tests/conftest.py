"""The start model, and a pupil that is a thousand times smaller; both are made once in a process.

What is true of any model is tested with the pupil.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.chat import ChatFormat
from training.weights import SMOLLM2, Model, NumberType, load_model, number_type

ROOT = Path(__file__).parents[2]
# Dequantising takes 20 s, so the folder is kept between sessions where it is named.
CACHE_VARIABLE = "TRAINING_MODEL_CACHE"
CPU = torch.device("cpu")


def pytest_configure() -> None:
    """One thread in each process, here and in those that are started: there are others on the other core."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


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
    return load_model(SMOLLM2, model_cache, CPU, number_type(NumberType.AUTO, CPU)[0])


@pytest.fixture(scope="session")
def chat(model: Model) -> ChatFormat:
    """Its chat format."""
    return ChatFormat(model.tokenizer)


@pytest.fixture(scope="session")
def pupil(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The small model, in fp32."""
    from training.tests.pupil import save_pupil  # imports TRL, which takes long where only tests are handed out

    folder = tmp_path_factory.mktemp("pupil")
    save_pupil(folder)
    return load_model(str(folder), folder, CPU, torch.float32)
