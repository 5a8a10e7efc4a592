import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modkit import SpecError, build, use
from modkit.decodings import MaskGIT, Raster
from modkit.models.autoregressive import Autoregressive
from modkit.models.masked import Masked
from modkit.models.model import evaluate_mode
from modkit.nn.transformer import Transformer
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType
from tests.models.codes import LABEL, NETWORK, over_codes
from tests.play import MLP, digits, shake, spec, turn
from tests.refusals import refusals

TINY = TensorType((2, 2), classes=3)
ALL = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)
VQ = use("autoencoder", **MLP, bottleneck=use("vq", num_codes=8, channels=2, tokens=1))


def prior(**slots):
    return use(Autoregressive, **{"network": NETWORK, "sampler": use(Raster), **slots})


def latent(**slots):
    return use("latent", autoencoder=VQ, prior=prior(**slots))


def tiny(cond=CondType(), event=TINY, window=None, scale=0.7, **options):  # noqa: B008
    """A model of 2×2 codes of 3 classes with weights far from where they start, in float64."""
    model = Autoregressive(event, cond, network=NETWORK, sampler=use(Raster, **options), window=window)
    return shake(model.double(), scale).eval()


def test_the_likelihood_is_exact_and_sums_to_one():
    log_p = tiny().bound(Batch(ALL, {}), 1, Rng(0))
    assert log_p.shape == (81,) and log_p.std() > 0.5
    torch.testing.assert_close(log_p.exp().sum(), torch.ones((), dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_loss_is_nats_a_code():
    model = tiny()
    want = -model.bound(Batch(ALL, {}), 1, Rng(0)).mean() / 4
    losses = model.losses("network", Batch(ALL, {}), turn("a"))
    assert list(losses) == ["nll"]
    torch.testing.assert_close(losses["nll"], want, rtol=1e-12, atol=0)
    logits = model.network(ALL, Cond())
    torch.testing.assert_close(want, F.cross_entropy(logits.flatten(0, 1), ALL.flatten()), rtol=1e-12, atol=0)


def chi_square(codes, probabilities):
    counts = torch.bincount(codes.flatten(1) @ torch.tensor([27, 9, 3, 1]), minlength=81)
    expected = len(codes) * probabilities
    return float(((counts - expected) ** 2 / expected).sum())


def test_samples_come_as_often_as_the_likelihood_says():
    model = tiny(scale=0.4)
    probabilities = model.bound(Batch(ALL, {}), 1, Rng(0)).exp().detach()
    codes = model.sample(8000, seed=0, batch_size=8000)
    assert codes.shape == (8000, 2, 2) and codes.dtype == torch.int64
    assert chi_square(codes, probabilities) < 124.8 < chi_square(codes.flip(1), probabilities)  # 80 df, p = 0.001


def test_truncated_samples_come_from_the_likeliest_codes():
    model = tiny(top_k=2)
    codes = model.sample(200, seed=0)
    logits = model.network(codes, Cond())
    rank = (logits > logits.gather(-1, codes.flatten(1)[..., None])).sum(-1)
    assert rank.max() == 1


def test_samples_of_a_seed_are_the_same_in_any_batches():
    model = shake(build(spec(latent())).prior, 0.3)
    whole = model.sample(9, seed=4)
    assert len(whole.unique()) > 2
    for size in (1, 2, 5):
        assert torch.equal(model.sample(9, seed=4, batch_size=size), whole)
    assert not torch.equal(model.sample(9, seed=5), whole)


def test_outer_conditions_reach_the_network_in_training_sampling_and_the_bound():
    model = tiny(CondType(concat=TensorType((1, 1), classes=2)))
    zero, one = torch.zeros(81, 1, 1, dtype=torch.int64), torch.ones(81, 1, 1, dtype=torch.int64)
    bounds = [model.bound(Batch(ALL, {}, Cond(concat=map)), 1, Rng(0)) for map in (zero, one)]
    assert (bounds[0] - bounds[1]).abs().max() > 0.1
    for bound in bounds:
        assert bound.exp().sum().item() == pytest.approx(1)
    for bound, map in zip(bounds, (zero, one)):
        loss = model.losses("network", Batch(ALL, {}, Cond(concat=map)), turn("a"))["nll"]
        torch.testing.assert_close(loss, -bound.mean() / 4, rtol=1e-12, atol=0)
    with evaluate_mode(model):
        codes = model.draw(4000, {}, Cond(concat=torch.ones(4000, 1, 1, dtype=torch.int64)), Rng(0))
    assert chi_square(codes, bounds[1].exp().detach()) < 124.8 < chi_square(codes, bounds[0].exp().detach())


def conditional(**slots):
    return shake(build(spec(latent(**LABEL, **slots))).prior, 0.4)


def test_labels_are_dropped_in_training_and_belong_to_the_network_s_player():
    model = conditional()
    assert [(p.name, p.modules) for p in model.players()] == [("network", ("network", "conditioner"))]
    seen = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[1].vector))
    batch = digits(64)
    model.losses("network", Batch(torch.zeros(64, 1, dtype=torch.int64), batch.fields), turn("a"))
    null = (seen[0] == model.conditioner.embedding.weight[10]).all(1)
    assert 16 < null.sum() < 48
    assert not torch.equal(model.sample(20, seed=0, labels=3), model.sample(20, seed=0, labels=4))


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_combines_the_label_s_logits_with_those_of_none(scale):
    model = conditional(guidance=use("cfg", scale=scale), sampler=use(Raster, temperature=0.0))
    embedding = model.conditioner.embedding.weight

    def logits(label):
        return model.network(torch.zeros(1, 1, dtype=torch.int64), Cond(vector=embedding[label : label + 1]))[0, 0]

    for label in range(10):
        want = logits(10) + scale * (logits(label) - logits(10))
        assert model.sample(1, seed=0, labels=label).item() == want.argmax()


def test_the_bound_of_a_latent_is_the_autoencoder_s_plus_the_exact_one():
    model, batch = build(spec(over_codes(prior()))).double(), digits(4, torch.float64)
    codes = model.autoencoder.encode(batch.tensor, "codes")
    _, log_weight = model.autoencoder.weigh(batch.tensor, "codes", Rng(0))
    want = log_weight + model.prior.bound(Batch(codes, {}), 1, Rng(0))
    torch.testing.assert_close(model.bound(batch, 1, Rng(0)), want, rtol=1e-12, atol=0)
    assert model.prior.bound(Batch(codes, {}), 1, Rng(0)).mean().item() == pytest.approx(-16 * math.log(8), rel=0.1)


@pytest.mark.parametrize("model", [Autoregressive, Masked])
def test_both_accept_one_map_of_codes(model):
    assert model.accepts(TINY) is None
    assert "expects codes, got 1×8×8" in model.accepts(TensorType((1, 8, 8)))
    assert "expects one map of codes, got a hierarchy of 2 levels" in model.accepts((TINY, TINY))


def masked(**slots):
    return use(Masked, **{"network": NETWORK, "sampler": use(MaskGIT), **slots})


test_what_does_not_fit_is_refused = refusals(
    (prior(), "Autoregressive expects codes, got 1×8×8"),
    (masked(), "Masked expects codes, got 1×8×8"),
    (latent(sampler=use(MaskGIT)), "Autoregressive expects a decoding in raster order .* got .*sampler"),
    (
        over_codes(masked(sampler=use(Raster))),
        "Masked expects a decoding of masked codes .* got .*sampler.* in raster order",
    ),
    of=lambda model: build(spec(model)),
    error=SpecError,
)


def test_it_learns_codes_that_follow_one_another():
    model = tiny(scale=0.0).float().train()
    start = torch.randint(3, (64,), generator=torch.Generator().manual_seed(0))
    codes = ((start[:, None] + torch.arange(4)) % 3).view(64, 2, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.losses("network", Batch(codes, {}), turn("a"))["nll"]
        loss.backward()
        optimizer.step()
    assert loss < 1.05 * math.log(3) / 4
    assert ((model.sample(20, seed=0).flatten(1).diff(dim=1) % 3) == 1).all()


WIDE = TensorType((2, 3), classes=2)
ALL_WIDE = torch.tensor(list(itertools.product(range(2), repeat=6))).view(64, 2, 3)


def test_with_a_window_the_likelihood_is_exact_and_samples_follow_it():
    model = tiny(event=WIDE, window=[2, 2], scale=0.5)
    with torch.no_grad():
        log_p = model.bound(Batch(ALL_WIDE, {}), 1, Rng(0))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12) and log_p.std() > 0.3
    codes = model.sample(4000, seed=0, batch_size=4000)
    counts = torch.bincount(codes.flatten(1) @ 2 ** torch.arange(5, -1, -1), minlength=64)
    expected = 4000 * log_p.exp()
    assert ((counts - expected) ** 2 / expected).sum() < 103.4  # 63 df, p = 0.001
    assert torch.equal(model.sample(20, seed=0, batch_size=3), codes[:20])


def test_a_code_sees_those_before_it_in_its_window_alone():
    model = tiny(event=TensorType((3, 5), classes=3), window=[2, 3])
    codes = torch.randint(3, (4, 15), generator=torch.Generator().manual_seed(0))
    with evaluate_mode(model):
        predict = model.predict(Cond())
        for i in range(15):
            (top, left), _ = model.windows.locate(i)
            logits = predict(codes, i)
            for j in range(15):
                other = codes.clone()
                other[:, j] = (other[:, j] + 1) % 3
                inside = top <= j // 5 < top + 2 and left <= j % 5 < left + 3
                assert torch.equal(predict(other, i), logits) == (not (inside and j < i))


def test_training_reads_random_windows_of_codes_and_their_places():
    model = tiny(event=TensorType((3, 4), classes=12), window=[2, 3])
    seen = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append((args[0], args[1].concat)))
    codes = torch.arange(12).view(3, 4).expand(200, 3, 4)
    loss = model.losses("network", Batch(codes, {}), turn("a"))["nll"]
    window, places = seen[0]
    assert torch.equal(window, places)  # the codes are their own numbers
    starts = window[:, 0, 0]
    assert torch.equal(window - starts[:, None, None], torch.tensor([[0, 1, 2], [4, 5, 6]]).expand(200, 2, 3))
    counts = starts.bincount(minlength=12)
    assert set(starts.tolist()) == {0, 1, 4, 5} and counts[counts > 0].min() > 30
    want = F.cross_entropy(model.network(window, Cond(concat=places)).flatten(0, 1), window.flatten())
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)


def test_only_one_position_can_be_asked_for_at_a_time():
    with pytest.raises(ValueError, match="Autoregressive predicts one position at a time, got None"):
        tiny().predict(Cond())(ALL.flatten(1), None)


class MapAndVector(nn.Module):
    """A condition of either sort, the same for every sample."""

    type = CondType(vector=2, concat=TensorType((1, 2, 2)))
    reads = ()

    def __init__(self, fields):
        super().__init__()

    def forward(self, fields, rng):
        return Cond(vector=torch.ones(3, 2), concat=torch.ones(3, 1, 2, 2))

    def null(self, num):
        return Cond(vector=torch.zeros(num, 2))

    def draw(self, num, rng):
        return {}

    def prepare(self, batches): ...


class Unstepped(nn.Module):
    """A network of codes that computes all logits at once alone."""

    def __init__(self, codes: TensorType, cond: CondType, causal: bool) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(codes.numel, codes.classes))

    def forward(self, codes, cond):
        return self.logits.expand(len(codes), -1, -1)


def test_a_causal_network_without_step_is_for_windows_alone():
    """The fault: it was known when samples were first drawn, in the middle of training."""
    with pytest.raises(SpecError, match=r"model\.network: expected a causal network with `step`, got Unstepped"):
        Autoregressive(TensorType((2, 2), classes=2), network=Unstepped)
    for model in (
        Autoregressive(TensorType((4, 2), classes=2), network=Unstepped, window=[2, 2]),
        Masked(TensorType((2, 2), classes=2), network=Unstepped),
    ):
        assert model.sample(2, seed=0).shape[0] == 2


@pytest.mark.parametrize(("model", "sampler"), [(Autoregressive, Raster), (Masked, MaskGIT)])
def test_guidance_clears_the_vector_and_keeps_the_map(model, sampler, monkeypatch):
    seen = []

    def spy(own):
        return lambda self, *args: seen.append(next(a for a in args if isinstance(a, Cond))) or own(self, *args)

    for name in ("step", "forward"):
        monkeypatch.setattr(Transformer, name, spy(getattr(Transformer, name)))
    made = use(model, network=NETWORK, sampler=use(sampler), conditioner=use(MapAndVector), guidance=use("cfg"))
    prior = build(spec(over_codes(made))).prior
    seen.clear()
    prior.sample(3, seed=0)
    assert [float(cond.vector.mean()) for cond in seen] == [1.0, 0.0] * (len(seen) // 2)
    assert len(seen) >= 16 and all(torch.equal(cond.concat, torch.ones(3, 1, 2, 2)) for cond in seen)


LEVELLED = TensorType((1, 2, 2), range=(-1.0, 3.0))
VALUES = (-1.0 + 2.0 * ALL.double())[:, None]  # of the three levels


@pytest.mark.parametrize(
    "make",
    [lambda x: Autoregressive(x, network=NETWORK, levels=3), lambda x: Masked(x, network=NETWORK, levels=3)],
    ids=["autoregressive", "masked"],
)
def test_values_of_levels_are_modelled_as_the_codes_that_number_them(make):
    model = shake(make(LEVELLED).double(), 0.7).eval()
    plain = type(model)(TINY, network=NETWORK).double().eval()
    plain.load_state_dict(model.state_dict())
    assert model.discrete and model.single == LEVELLED and model.codes == TINY
    (player,) = model.players()
    for name, of_codes in plain.losses(player.name, Batch(ALL, {}), turn("a")).items():
        found = model.losses(player.name, Batch(VALUES, {}), turn("a"))[name]
        torch.testing.assert_close(found, of_codes, rtol=1e-12, atol=0)
    expected = plain.bound(Batch(ALL, {}), 1, Rng(0))
    torch.testing.assert_close(model.bound(Batch(VALUES, {}), 1, Rng(0)), expected, rtol=1e-12, atol=0)
    drawn = model.sample(50, seed=0)
    assert drawn.dtype == torch.float64
    assert torch.equal(drawn, -1.0 + 2.0 * plain.sample(50, seed=0)[:, None])


def test_the_likelihood_of_levels_of_several_channels_sums_to_one():
    model = shake(Autoregressive(TensorType((2, 2), (0, 1)), network=NETWORK, levels=3).double(), 0.7).eval()
    assert model.codes.shape == (2, 2)
    log_p = model.bound(Batch(ALL.double() / 2, {}), 1, Rng(0))
    torch.testing.assert_close(log_p.exp().sum(), torch.ones((), dtype=torch.float64), rtol=0, atol=1e-12)


test_mistakes_of_levels_are_refused = refusals(
    (lambda: Autoregressive(LEVELLED, network=NETWORK), "Autoregressive expects codes, got 1×2×2 in"),
    (lambda: Masked(TINY, network=NETWORK, levels=3), "Masked expects a continuous type, got 2×2 codes of 3 classes"),
    (
        lambda: Autoregressive(TensorType((1, 2, 2)), network=NETWORK, levels=3),
        "Autoregressive expects continuous x with channels and a range, whose levels it has, got 1×2×2 unbounded",
    ),
    (lambda: Autoregressive(LEVELLED, network=NETWORK, levels=1), "levels .*1"),
    (
        lambda: Autoregressive(LEVELLED, network=NETWORK, levels=3).bound(Batch(VALUES + 0.1, {}), 1, Rng(0)),
        "no bound on log p.x.: expected data of the 3 values of `levels`, evenly spaced .*, got others",
    ),
)
