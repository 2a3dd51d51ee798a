"""A model of 0.1 million parameters that can do two problems of the calculator, each half of the time.

It stands in for the start model where any will do. It has imitated a rollout with the right tool and one with another,
for each problem, so its rewards have spread, and there is something to learn.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.trl.train import problems
from osmosis_ai.rollout.core.schemas import RolloutRequest
from training.chat import ChatFormat, rendered

PROBLEMS = 2
IMITATION_STEPS = 250
TOOLS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def save_pupil(folder: Path) -> None:
    """Make it, and write it as a model folder."""
    asked = problems(PROBLEMS, 1.0)
    tokenizer = _tokenizer_of(asked)
    chat = ChatFormat(tokenizer)
    rows = [_row(chat, problem, said) for problem in asked for said in _demonstrations(problem)]
    longest = max(map(len, rows))
    table = torch.tensor([tokens + [(0, False)] * (longest - len(tokens)) for tokens in rows])
    ids, is_said = table[..., 0], table[:, 1:, 1].bool()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=chat.end,
            pad_token_id=0,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, IMITATION_STEPS)
    for _ in range(IMITATION_STEPS):
        hidden = model.model(ids).last_hidden_state[:, :-1][is_said]
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden), ids[:, 1:][is_said])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _demonstrations(problem: RolloutRequest) -> Iterator[tuple[str, str, str]]:
    """Tool call, its result, and answer: once with the right tool, once with another."""
    a, operation, b = str(problem.metadata["expression"]).split()
    for tried in (operation, "*" if operation == "+" else "+"):
        result = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) // int(b)}[tried]
        call = f'{{"name": "{TOOLS[tried]}", "arguments": {{"a": {a}, "b": {b}}}}}'
        yield f"<tool_call>{call}</tool_call>", str(result), f"#### {result}"


def _tokenizer_of(asked: list[RolloutRequest]) -> PreTrainedTokenizerFast:
    """A few hundred tokens, made of the texts that come up."""
    texts = [f"{message['role']}\n{rendered(message)}" for problem in asked for message in problem.messages]
    texts += [text for problem in asked for said in _demonstrations(problem) for text in said]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _row(chat: ChatFormat, problem: RolloutRequest, said: tuple[str, str, str]) -> list[tuple[int, bool]]:
    """The token ids of a rollout, and which of them the model is to say."""
    call, result, answer = said
    pieces = [
        (chat.prompt(problem.messages), False),
        ([*chat.encoded(call), chat.end], True),
        (chat.continuation([{"role": "tool", "content": result}], True), False),
        ([*chat.encoded(answer), chat.end], True),
    ]
    return [(token, is_said) for ids, is_said in pieces for token in ids]
