import pytest
import torch

from modkit.decodings.categorical import sample_categorical, truncate


def test_a_draw_is_the_inverse_distribution_function():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.25, 0.0])
    uniform = torch.tensor([0.0, 0.25, 0.4999, 0.5, 0.7499, 0.75, 1 - 2**-24])
    assert sample_categorical(probabilities.expand(7, 6), uniform).tolist() == [1, 1, 1, 3, 3, 4, 4]
    assert sample_categorical(3 * probabilities.expand(7, 6), uniform).tolist() == [1, 1, 1, 3, 3, 4, 4]


def test_shapes_are_kept():
    probabilities = torch.eye(4)[torch.tensor([[0, 2, 3], [1, 1, 0]])]
    assert sample_categorical(probabilities, torch.rand(2, 3)).tolist() == [[0, 2, 3], [1, 1, 0]]


def brute(row, top_k, top_p):
    """Class by class, from the likeliest."""
    order = sorted(range(len(row)), key=lambda k: (-row[k], k))[:top_k]
    total, held, kept = sum(row[k] for k in order), 0.0, []
    for k in order:
        if held >= top_p * total:
            break
        kept.append(k)
        held += row[k]
    return [row[k] if k in kept else 0.0 for k in range(len(row))]


@pytest.mark.parametrize("top_k", [None, 1, 3, 9])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 1e-6])
def test_truncation_keeps_the_likeliest(top_k, top_p):
    logits = torch.randn(40, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probabilities = (2 * logits).softmax(-1)
    probabilities[0] = 1 / 9
    probabilities[1] = torch.tensor([0.5, 0, 0.25, 0, 0.125, 0, 0, 0.125, 0])
    got = truncate(probabilities, top_k, top_p)
    assert got.tolist() == [brute(row, top_k, top_p) for row in probabilities.tolist()]
    assert (got.sum(-1) > 0).all()
