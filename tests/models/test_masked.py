import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import modkit
from modkit import build, use
from modkit.decodings import MaskGIT
from modkit.models.masked import Masked
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType
from tests.models.codes import LABEL, NETWORK, over_codes
from tests.play import shake, spec, turn

TINY = TensorType((1, 3), classes=2)
ALL = torch.tensor(list(itertools.product(range(2), repeat=3))).view(8, 1, 3)


def tiny(event=TINY, cond=CondType(), network=NETWORK):  # noqa: B008
    model = Masked(event, cond, network=network, sampler=use(MaskGIT, steps=2))
    return shake(model.double(), 0.7, seed=2).eval()


class Uniform(nn.Module):
    """Logits that tell how many codes are masked, kept to be looked at."""

    def __init__(self, codes, cond, causal):
        super().__init__()
        self.type, self.seen = codes, []
        assert not causal

    def forward(self, codes, cond):
        self.seen.append(codes)
        logits = torch.zeros(len(codes), self.type.numel, self.type.classes)
        logits[..., 0] = (codes == self.type.classes).flatten(1).sum(1)[:, None].float()
        return logits


@pytest.mark.wide
def test_codes_are_masked_as_the_cosine_says_and_the_loss_is_of_those():
    event = TensorType((4, 5), classes=3)
    model = tiny(event, network=Uniform).float()
    codes = torch.randint(3, (4000, 4, 5), generator=torch.Generator().manual_seed(0))
    loss = model.losses("network", Batch(codes, {}), turn("a"))["masked"]
    seen = model.network.seen[0]
    masked = seen == 3
    count = masked.flatten(1).sum(1)
    assert torch.equal(seen[~masked], codes[~masked])
    assert count.min() == 1 and count.max() == 20
    # P(count <= m) = P(cos(pi u / 2) <= m / n) = 1 - 2/pi arccos(m / n)
    for m in (1, 5, 10, 15, 19):
        want = 1 - 2 / math.pi * math.acos(m / 20)
        assert abs((count <= m).double().mean() - want) < 4 * math.sqrt(want * (1 - want) / 4000)
    shares = masked.double().mean(0)
    assert (shares - shares.mean()).abs().max() < 0.03  # every position alike
    each = torch.stack([F.cross_entropy(torch.tensor([float(c), 0, 0]).expand(int(c), 3), x[m]) for c, x, m in
                        zip(count, codes, masked)])  # fmt: skip
    torch.testing.assert_close(loss, each.mean(), rtol=1e-5, atol=0)


def test_smoothing_is_of_the_loss_only():
    """The loss with targets that are written out in float64; the bound knows of no smoothing."""
    model, batch, s = tiny(), Batch(ALL, {}), 0.1
    bound = model.bound(batch, 1, Rng(0))
    hard = model.losses("network", batch, turn("a"))["masked"]
    model.smoothing, seen = s, []
    handle = model.network.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    got = model.losses("network", batch, turn("a"))["masked"]
    handle.remove()
    (codes, logits), target = seen[0], (1 - s) * F.one_hot(ALL.flatten(1), 2).double() + s / 2
    masked = (codes == 2).flatten(1)
    each = -(target * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(got, ((each * masked).sum(1) / masked.sum(1)).mean(), rtol=1e-12, atol=0)
    assert abs(got - hard) > 1e-3
    assert torch.equal(model.bound(batch, 1, Rng(0)), bound)
    with pytest.raises(ValueError, match=r"Masked expects smoothing to be in \[0, 1\), got 1.0"):
        Masked(TINY, network=NETWORK, smoothing=1.0)


def exact_bound(model):
    """-n times the mean over m and over the masks of m codes of the mean cross-entropy: all masks, float64."""
    total = torch.zeros(8, dtype=torch.float64)
    for m in (1, 2, 3):
        masks = list(itertools.combinations(range(3), m))
        for mask in masks:
            chosen = torch.zeros(3, dtype=torch.bool)
            chosen[list(mask)] = True
            log_p = model.network(ALL.masked_fill(chosen.view(1, 3), 2), Cond()).log_softmax(-1)
            each = log_p.gather(-1, ALL.flatten(1)[..., None])[..., 0]
            total += 3 / 3 * each[:, chosen].mean(1) / len(masks)
    return total


def ordered(model):
    """log p(x) of codes revealed one by one in random order, by brute force over orders."""
    paths = []
    for order in itertools.permutations(range(3)):
        codes, log_p = torch.full_like(ALL, 2), torch.zeros(8, dtype=torch.float64)
        for position in order:
            given = model.network(codes, Cond()).log_softmax(-1)[:, position]
            log_p = log_p + given.gather(-1, ALL[:, 0, position, None])[:, 0]
            codes = codes.clone()
            codes[:, 0, position] = ALL[:, 0, position]
        paths.append(log_p)
    return torch.stack(paths)


@pytest.mark.wide
def test_the_bound_is_that_of_random_orders():
    model = tiny()
    with torch.no_grad():
        orders, exact = ordered(model), exact_bound(model)
        torch.testing.assert_close(orders.mean(0), exact, rtol=1e-12, atol=0)  # both forms of eq. 2 and 3
        marginal = orders.logsumexp(0) - math.log(6)
        assert (exact < marginal).all() and marginal.exp().sum().item() == pytest.approx(1)
        many = Batch(ALL.repeat_interleave(2000, 0), {})
        drawn = model.bound(many, 1, Rng(0)).view(8, 2000)
        assert ((drawn.mean(1) - exact).abs() < 4 * drawn.std(1) / math.sqrt(2000)).all()
        averaged = model.bound(many, 4, Rng(0)).view(8, 2000)
        assert (averaged.std(1) < 0.6 * drawn.std(1)).all()


def test_a_draw_is_the_decoding_of_the_network_s_logits():
    model = tiny(TensorType((2, 2), classes=3))
    codes = model.sample(40, seed=0)
    assert codes.shape == (40, 2, 2) and codes.dtype == torch.int64 and set(codes.unique().tolist()) == {0, 1, 2}
    with torch.no_grad():
        want = model.sampler(
            lambda x, i, known: model.network(x.view(-1, 2, 2), Cond()), 40, Rng("sample", 0).at("sampler")
        )
    assert torch.equal(codes.flatten(1), want)
    for size in (1, 3, 7):
        assert torch.equal(model.sample(40, seed=0, batch_size=size), codes)


def test_outer_conditions_reach_the_network():
    model = tiny(cond=CondType(vector=2))
    vectors = torch.randn(2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(2, 8, 2)
    losses = [model.losses("network", Batch(ALL, {}, Cond(vector=v)), turn("a"))["masked"] for v in vectors]
    bounds = [model.bound(Batch(ALL, {}, Cond(vector=v)), 1, Rng(0)) for v in vectors]
    draws = [model.draw(8, {}, Cond(vector=5 * v), Rng(0)) for v in vectors]
    assert losses[0] != losses[1] and not torch.equal(*bounds) and not torch.equal(*draws)


@pytest.mark.parametrize(("scale", "calls"), [(1.0, 1), (3.0, 2)])
def test_guidance_combines_logits_at_the_share_of_masked_codes(scale, calls):
    seen, times = [], []

    class Watched(modkit.find("guidance", "cfg").load()):
        def __call__(self, sides):
            inner = super().__call__(sides)
            return lambda x_t, t: times.append(float(t)) or inner(x_t, t)

    slots = {**LABEL, "guidance": use(Watched, scale=scale), "sampler": use(MaskGIT, steps=2)}
    model = build(spec(over_codes(use(Masked, network=NETWORK, **slots)))).prior
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[1].vector))
    model.sample(2, seed=0, labels=3)
    embedding = model.conditioner.embedding.weight
    assert torch.equal(torch.stack(seen)[:, 0], embedding[[3, 10][:calls] * 2])
    assert times[-2:] == [1.0, math.floor(16 * math.cos(math.pi / 4)) / 16]
