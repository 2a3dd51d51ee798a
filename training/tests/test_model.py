"""The forward pass computes what transformers computes, in all the ways it is split up."""

import torch

from training.model import KvCache
from training.weights import Model

# Rounding in fp32, through 30 layers.
FP32_ERROR = 1e-3


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
