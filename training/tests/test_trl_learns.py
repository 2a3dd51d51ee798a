"""TRL raises the reward of the calculator through a real server, in a run short enough for any processor.

The start model needs many minutes for that, so one of 0.1 million parameters stands in its place. It has first imitated
a rollout with the right tool and one with another, for each of two problems, so that it is right about half of the
time. What raises that is TRL alone, from what the server says of its rollouts.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.trl.train import problems
from osmosis_ai.rollout.core.schemas import RolloutRequest
from training.chat import ChatFormat, rendered
from training.tests.test_trl import train

PROBLEMS = 2
IMITATION_STEPS = 500
STEPS = 48
QUARTER = STEPS // 4
LEAST_RISE = 0.1
"""Other seeds rose by 0.22 and more. A quarter is 384 rollouts, so its mean is good to 0.03."""
TOOLS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def demonstrations(problem: RolloutRequest) -> Iterator[tuple[str, str, str]]:
    """Tool call, its result, and answer: once with the right tool, once with another."""
    a, operation, b = str(problem.metadata["expression"]).split()
    for tried in (operation, "*" if operation == "+" else "+"):
        result = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) // int(b)}[tried]
        call = f'{{"name": "{TOOLS[tried]}", "arguments": {{"a": {a}, "b": {b}}}}}'
        yield f"<tool_call>{call}</tool_call>", str(result), f"#### {result}"


def tokenizer_of(asked: list[RolloutRequest]) -> PreTrainedTokenizerFast:
    """A few hundred tokens, made of the texts that come up."""
    texts = [f"{message['role']}\n{rendered(message)}" for problem in asked for message in problem.messages]
    texts += [text for problem in asked for said in demonstrations(problem) for text in said]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def row(chat: ChatFormat, problem: RolloutRequest, said: tuple[str, str, str]) -> list[tuple[int, bool]]:
    """The token ids of a rollout, and which of them the model is to say."""
    call, result, answer = said
    pieces = [
        (chat.prompt(problem.messages), False),
        ([*chat.encoded(call), chat.end], True),
        (chat.continuation([{"role": "tool", "content": result}], True), False),
        ([*chat.encoded(answer), chat.end], True),
    ]
    return [(token, is_said) for ids, is_said in pieces for token in ids]


@pytest.fixture
def pupil(tmp_path: Path) -> Path:
    """The folder of the small model."""
    asked = problems(PROBLEMS, 1.0)
    tokenizer = tokenizer_of(asked)
    chat = ChatFormat(tokenizer)
    rows = [row(chat, problem, said) for problem in asked for said in demonstrations(problem)]
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
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, IMITATION_STEPS)
    for _ in range(IMITATION_STEPS):
        hidden = model.model(ids).last_hidden_state[:, :-1][is_said]
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden), ids[:, 1:][is_said])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(tmp_path / "pupil")
    tokenizer.save_pretrained(tmp_path / "pupil")
    return tmp_path / "pupil"


@pytest.mark.timeout(1800)  # a minute on idle cores
def test_the_reward_goes_up(tmp_path: Path, pupil: Path) -> None:
    shape = ("--problems", PROBLEMS, "--problems-per-step", PROBLEMS, "--samples", 16, "--threads", 1)
    steps = train(tmp_path, "--model", pupil, "--steps", STEPS, "--learning-rate", 5e-4, *shape)
    rewards = [step["reward"] for step in steps]
    assert len(rewards) == STEPS
    assert fmean(rewards[-QUARTER:]) - fmean(rewards[:QUARTER]) >= LEAST_RISE, rewards
