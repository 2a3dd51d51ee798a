"""The forward pass computes what transformers computes, in all the ways it is split up."""

import torch

from training.chat import ChatFormat
from training.grpo import sampled_logprobs
from training.model import KvCache
from training.trajectory import Segment
from training.weights import Model

# Rounding in fp32, through 30 layers.
FP32_ERROR = 1e-3


def segment(prompt: list[int], sampled: list[int]) -> Segment:
    made = Segment.of_prompt(prompt)
    made.append_sampled(sampled, [0.0] * len(sampled))
    return made


def test_logprobs_with_a_shared_prefix_are_those_of_transformers(model: Model, chat: ChatFormat) -> None:
    from transformers import AutoModelForCausalLM

    start = chat.prompt([{"role": "system", "content": "Add."}])
    segments = [
        segment([*start, 300, 301], [500, 501, 502, 503]),
        segment([*start, 300], [600, 601]),
        segment([*start, 300, 310, 311], [700]),
    ]
    segments[0].append_prompt([400, 401])
    segments[0].append_sampled([510], [0.0])
    weights = {name: tensor.float() for name, tensor in model.weights.items()}
    with torch.no_grad():
        ours, entropy = sampled_logprobs(model.decoder, weights, segments, temperature=0.7)
        reference = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32)
        theirs = []
        for one in segments:
            logprobs = torch.log_softmax(reference(torch.tensor([one.ids])).logits[0] / 0.7, dim=-1)
            theirs += [logprobs[at - 1, one.ids[at]] for at, used in enumerate(one.is_sampled) if used]
    assert torch.allclose(ours, torch.stack(theirs), atol=FP32_ERROR)
    assert (entropy > 0).all()


def test_a_cache_filled_in_uneven_pieces_gives_the_same_last_state_as_one_pass(model: Model) -> None:
    weights = {name: tensor.float() for name, tensor in model.weights.items()}
    rows = [list(range(300, 330)), list(range(500, 512))]
    device = torch.device("cpu")
    cache = KvCache(model.decoder.architecture, 3, 40, torch.float32, device)
    with torch.inference_mode():
        filled = [0, 0]
        for cut in (7, 1, 22):
            pieces = [row[start : start + cut] or row[-1:] for row, start in zip(rows, filled, strict=True)]
            if not all(row[start:] for row, start in zip(rows, filled, strict=True)):
                break
            longest = max(map(len, pieces))
            padded = torch.tensor([piece + [0] * (longest - len(piece)) for piece in pieces])
            counts = torch.tensor([len(piece) for piece in pieces])
            last = model.decoder.extend(weights, cache, padded, torch.tensor(filled), counts, first=1)
            filled = [start + len(piece) for start, piece in zip(filled, pieces, strict=True)]
        assert filled == [30, 12]
        for number, row in enumerate(rows):
            fresh = KvCache(model.decoder.architecture, 1, 40, torch.float32, device)
            whole = model.decoder.extend(
                weights, fresh, torch.tensor([row]), torch.tensor([0]), torch.tensor([len(row)])
            )
            assert torch.allclose(whole[0], last[number], atol=FP32_ERROR)
