import math

import pytest
import torch

from modkit.decodings.maskgit import MaskGIT
from modkit.rng import Rng
from modkit.types import TensorType

CODES = TensorType((2, 3), classes=4)
MARGINALS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)


def independent(codes, i, known):
    return MARGINALS.expand(len(codes), 6, 4)


def frequencies(codes):
    return torch.nn.functional.one_hot(codes, 4).double().mean(0)


@pytest.mark.parametrize("options", [{"steps": 1}, {"steps": 4, "temperature": 1e9}], ids=["once", "random-order"])
def test_independent_marginals_are_reproduced(options):
    num, want = 4000, MARGINALS.double().exp()
    got = frequencies(MaskGIT(CODES, **options)(independent, num, Rng(0)))
    chi_square = (num * (got - want) ** 2 / want).sum(-1)
    assert (chi_square < 16.3).all()  # three degrees of freedom, p = 0.001


def test_without_noise_what_is_likely_becomes_likelier():
    """Of two codes the more confident is kept, the other drawn again: brute force over both draws."""
    p = torch.tensor([0.8, 0.2], dtype=torch.float64)
    codes = MaskGIT(TensorType((2,), classes=2), steps=2, temperature=0.0)(
        lambda x, i, known: p.log().expand(len(x), 2, 2), 8000, Rng(0)
    )
    # the first is redrawn where it is the less confident, or where both are alike (the sort is stable)
    first = {(a, b): (a == 0 and b == 1) for a in (0, 1) for b in (0, 1)}
    want = torch.zeros(2, 2, dtype=torch.float64)
    for (a, b), keeps_first in first.items():
        for again in (0, 1):
            drawn = (a, again) if keeps_first else (again, b)
            want[drawn] += p[a] * p[b] * p[again]
    got = torch.bincount(codes[:, 0] * 2 + codes[:, 1], minlength=4).view(2, 2) / 8000
    assert ((got - want).abs() < 4 * (want * (1 - want) / 8000).sqrt()).all()
    assert want[0, 0] > 0.64


@pytest.mark.parametrize(("shape", "steps"), [((4, 4), 8), ((2, 3), 12), ((1,), 3), ((16, 16), 12)])
def test_as_many_stay_masked_as_the_cosine_says_and_none_at_last(shape, steps):
    type = TensorType(shape, classes=4)
    seen = []

    def predict(codes, i, known):
        assert i is None
        seen.append((codes == 4).sum(1).tolist())
        return torch.zeros(len(codes), type.numel, 4)

    codes = MaskGIT(type, steps=steps)(predict, 3, Rng(0))
    assert codes.min() >= 0 and codes.max() < 4 and codes.dtype == torch.int64
    masked = [counts[0] for counts in seen]
    assert all(counts == [masked[0]] * 3 for counts in seen for masked in [counts])
    assert masked[0] == type.numel and len(masked) == min(steps, type.numel)
    assert all(after < before for before, after in zip(masked, masked[1:]))
    if steps < type.numel:
        want = [math.floor(type.numel * math.cos(math.pi / 2 * s / steps)) for s in range(steps)]
        assert masked == [max(count, steps - s) for s, count in enumerate(want)]


def test_what_was_kept_is_never_drawn_again():
    seen = []

    def predict(codes, i, known):
        seen.append(codes.clone())
        return independent(codes, i, known)

    last = MaskGIT(CODES, steps=4)(predict, 50, Rng(0))
    for before, after in zip(seen, [*seen[1:], last]):
        assert torch.equal(after[before < 4], before[before < 4])


def test_the_noise_on_confidence_is_annealed_gumbel():
    """One certain code among equals: kept at once unless the noise says otherwise, as often as softmax has it."""
    logits = torch.zeros(2, 2)
    logits[0, 0] = 1e9
    kept = []

    def predict(codes, i, known):
        kept.append((codes < 2)[:, 0].double().mean())
        return logits.expand(len(codes), 2, 2)

    MaskGIT(TensorType((2,), classes=2), steps=2, temperature=3.0)(predict, 8000, Rng(0))
    # confidence 0 against -log 2, noise of scale 3 (1 - 1/2): the first is kept with odds exp(log 2 / 1.5)
    want = 1 / (1 + math.exp(-math.log(2) / 1.5))
    assert abs(kept[1] - want) < 4 * math.sqrt(want * (1 - want) / 8000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps to be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature to be at least 0, got -1.0"),
        ({"codes": TensorType((1, 2, 2))}, "codes, got 1×2×2 unbounded"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=f"MaskGIT expects {message}"):
        MaskGIT(**{"codes": CODES, **options})
