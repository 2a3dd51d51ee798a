"""Generation, with the pupil: what an engine does with turns is the same for any model."""

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from osmosis_ai.rollout.trainer import CallRefusedError
from training.chat import ChatFormat
from training.engine import Engine, Generated, StaleTurnError, StopCause
from training.problems import Level, worked_examples
from training.sampling import SamplingParams
from training.weights import Model

EXAMPLES = worked_examples(Level.ONE_STEP)
GREEDY = SamplingParams(temperature=0.0, max_tokens=40)
MAX_LENGTH = 400


@pytest.fixture
def chat(pupil: Model) -> ChatFormat:
    """The pupil's."""
    return ChatFormat(pupil.tokenizer)


@pytest.fixture
def engine(pupil: Model, chat: ChatFormat) -> Iterator[Engine]:
    """An engine over the pupil."""
    with closing(engine_of(pupil, chat)) as engine:
        yield engine


def engine_of(model: Model, chat: ChatFormat) -> Engine:
    return Engine(model.decoder, model.weights, chat, rows=16, max_length=MAX_LENGTH)


def prompt_of(chat: ChatFormat, question: str) -> list[int]:
    return chat.prompt([{"role": "system", "content": "Use tools."}, *EXAMPLES, {"role": "user", "content": question}])


async def alone(engine: Engine, name: str, prompt: list[int], params: SamplingParams = GREEDY) -> Generated:
    return await engine.generate(name, prompt, params)


async def test_turns_decoded_together_say_what_they_say_alone(engine: Engine, chat: ChatFormat) -> None:
    prompts = [prompt_of(chat, f"What is {number} plus 5?") for number in (3, 14, 3, 60, 71)]
    together = await asyncio.gather(*(alone(engine, f"t{at}", prompt) for at, prompt in enumerate(prompts)))
    steps_together = engine.stats.decode_steps
    one_by_one = [await alone(engine, f"a{at}", prompt) for at, prompt in enumerate(prompts)]
    # Rounding differs with the batch, so a tie may fall the other way late in a turn; it does not here.
    assert [chat.text(one.tokens) for one in together] == [chat.text(one.tokens) for one in one_by_one]
    assert steps_together < (engine.stats.decode_steps - steps_together) / 2
    assert engine.stats.reused_tokens > engine.stats.prompt_tokens / 2


async def test_a_later_turn_computes_only_what_is_new(engine: Engine, chat: ChatFormat) -> None:
    prompt = prompt_of(chat, "What is 3 plus 5?")
    first = await alone(engine, "one", prompt)
    reused_before = engine.stats.reused_tokens
    second = [*prompt, *first.tokens, *chat.continuation([{"role": "tool", "content": "8"}], turn_was_ended=True)]
    answer = await alone(engine, "one", second)
    assert engine.stats.reused_tokens - reused_before >= len(prompt) + len(first.tokens) - 1
    fresh = await alone(engine, "another", second)
    assert answer.tokens == fresh.tokens


async def test_a_seed_gives_the_same_turn_and_another_gives_another(engine: Engine, chat: ChatFormat) -> None:
    prompt = prompt_of(chat, "Tell me a story.")
    one, again, other = [
        await alone(engine, name, prompt, SamplingParams(seed=seed, max_tokens=12, temperature=3.0))
        for name, seed in (("x", 7), ("y", 7), ("z", 8))
    ]
    assert one.tokens[:4] == again.tokens[:4]
    assert one.tokens != other.tokens


async def test_limits_and_stop_texts_end_a_turn(engine: Engine, chat: ChatFormat) -> None:
    prompt = prompt_of(chat, "What is 3 plus 5?")
    short = await alone(engine, "s", prompt, SamplingParams(temperature=0.0, max_tokens=3))
    assert (len(short.tokens), short.cause) == (3, StopCause.LENGTH)
    stopped = await alone(engine, "t", prompt, SamplingParams(temperature=0.0, max_tokens=40, stop=("name",)))
    assert stopped.cause is StopCause.STOP
    assert chat.text(stopped.tokens).endswith("name")
    ended = await alone(engine, "u", prompt)
    assert ended.cause is StopCause.END
    full = await alone(engine, "v", prompt * (MAX_LENGTH // len(prompt) + 1))
    assert (full.tokens, full.cause) == ([], StopCause.LENGTH)


async def test_top_k_of_one_is_greedy(engine: Engine, chat: ChatFormat) -> None:
    prompt = prompt_of(chat, "What is 3 plus 5?")
    greedy = await alone(engine, "g", prompt)
    likeliest = [
        SamplingParams(top_k=1, max_tokens=40),
        SamplingParams(top_p=1e-6, max_tokens=40),
        SamplingParams(min_p=1.0, max_tokens=40),
    ]
    for number, params in enumerate(likeliest):
        assert (await alone(engine, f"k{number}", prompt, params)).tokens == greedy.tokens


async def test_more_rollouts_than_rows_are_all_served(engine: Engine, chat: ChatFormat) -> None:
    prompt = prompt_of(chat, "What is 3 plus 5?")
    params = SamplingParams(temperature=0.0, max_tokens=2)
    results = await asyncio.gather(*(alone(engine, f"m{number}", prompt, params) for number in range(40)))
    assert {tuple(result.tokens) for result in results} == {tuple(results[0].tokens)}


async def test_new_weights_fail_what_was_being_decoded_and_forget_what_was_cached(model: Model) -> None:
    chat = ChatFormat(model.tokenizer)
    prompt = prompt_of(chat, "What is 3 plus 5?")
    # The start model is slow enough to be met in the middle of a turn.
    with closing(engine_of(model, chat)) as engine:
        endless = asyncio.create_task(alone(engine, "e", prompt, SamplingParams(max_tokens=150, seed=1)))
        while engine.stats.decode_steps < 2:  # noqa: ASYNC110 - the engine's thread counts them
            await asyncio.sleep(0.01)
        await asyncio.to_thread(engine.update, lambda: None)
        with pytest.raises(StaleTurnError):
            await endless
        assert (await alone(engine, "e", prompt)).cause is StopCause.END


@pytest.mark.parametrize(
    "fields",
    [{"n": 2}, {"temperature": -1}, {"temperature": "hot"}, {"top_p": 0}, {"stop": [1]}, {"max_tokens": 0}],
)
def test_a_field_that_cannot_be_honoured_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(CallRefusedError):
        SamplingParams.of(fields)
