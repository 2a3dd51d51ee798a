"""A model's folder and a model server, both tiny: what verl's real classes need of a model on a CPU."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

END = "<|im_end|>"
TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' ~ message.role ~ '\\n' ~ (message.content or '') }}
{%- if loop.first and tools %}{{ '\\n' ~ (tools | tojson) }}{% endif -%}
{%- for call in message.tool_calls or [] %}{{ '<tool_call>' ~ (call.function | tojson) ~ '</tool_call>' }}{% endfor -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""


def save_model(folder: Path) -> Path:
    """One token a byte; ``na`` is one too, so that what was sampled as two is seen where it is tokenised anew."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate([*alphabet, "na"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("n", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=TEMPLATE,
    )
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    Qwen2Config(vocab_size=len(fast), architectures=["Qwen2ForCausalLM"], **sizes).save_pretrained(folder)
    return folder


class FakeModelServer:
    """Says what ``reply`` makes of the prompt's text, a token a character; no two log-probabilities are equal."""

    def __init__(self, tokenizer: Any, reply: Callable[[str], str]) -> None:
        self._tokenizer = tokenizer
        self._reply = reply
        self._numbers = itertools.count(1)
        self.calls: list[tuple[list[int], TokenOutput, dict[str, Any]]] = []
        """Prompt, answer, sampling parameters."""
        self.aborts = 0
        """So many calls are broken off."""

    async def _generate(self, *, prompt_ids: list[int], sampling_params: dict[str, Any], **rest: Any) -> TokenOutput:
        text = self._reply(self._tokenizer.decode(prompt_ids))
        symbols = [symbol for character in text for symbol in self._tokenizer.tokenize(character)]
        ids = [*self._tokenizer.convert_tokens_to_ids(symbols), self._tokenizer.eos_token_id]
        ids = ids[: sampling_params["max_tokens"]]
        output = TokenOutput(
            token_ids=ids,
            log_probs=[-next(self._numbers) / 1024 for _ in ids],
            stop_reason="completed",
            extra_fields={"global_steps": 7},
        )
        if self.aborts:
            self.aborts -= 1
            return output.model_copy(update={"stop_reason": "aborted", "token_ids": ids[:3]})
        self.calls.append((prompt_ids, output, sampling_params))
        return output

    def client(self, config: Any) -> LLMServerClient:
        """verl's own client, whose load balancer knows this server alone."""

        async def nothing(**rest: Any) -> list[str]:
            return []

        async def acquire(**rest: Any) -> tuple[str, Any]:
            return "fake", SimpleNamespace(generate=SimpleNamespace(remote=self._generate))

        balancer = {"require_acquire_fields": nothing, "require_release_fields": nothing, "acquire_server": acquire}
        remotes = {name: SimpleNamespace(remote=call) for name, call in balancer.items()}
        release = SimpleNamespace(remote=lambda **rest: None)
        return LLMServerClient(config, SimpleNamespace(**remotes, release_server=release))
