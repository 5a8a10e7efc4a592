import math
import re

import pytest
import torch

import modkit
from modkit import build, use
from modkit.bottlenecks import Deterministic, Gaussian, Identity, VectorQuantizer
from modkit.bottlenecks.top_down import TopDown
from modkit.models.posterior import Posterior
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import TensorType
from tests.nn.modules import Written
from tests.play import digits, spec, turn
from tests.refusals import refusals

H = (TensorType((6, 2, 3)), TensorType((4, 4, 5)))
CONV = {"encoder": use("conv", channels=[4, 8], levels=[8, 4]), "decoder": use("conv", channels=[8, 4])}


class Slot:
    """A slot of bottlenecks, made by a function of h."""

    def __init__(self, make):
        self.make = make

    def repeat(self, num):
        return [self.make] * num


def quantizing(h=H, **options):
    part = TopDown(h, level=Slot(lambda h: VectorQuantizer(h, num_codes=7, channels=3, **options))).double()
    for name, parameter in part.named_parameters():
        if name.startswith("joins"):
            torch.nn.init.normal_(parameter, std=0.5)  # the last convolution of a block starts at zero
    return part


def gaussian(h=H):
    return TopDown(h, level=Slot(lambda h: Gaussian(h, channels=2))).double()


def maps(num=3, h=H):
    return tuple(torch.randn(num, *one.shape, dtype=torch.float64) for one in h)


def codes(part, index):
    return getattr(part, f"level[{index}]").codebook.codes


def joined(part, h, upper, index=0):
    """The nets between, written out."""
    written = Written(part.joins[index])
    y = written.block(written.conv(upper, "conv_in"), "block")
    rows, columns = ([i * n // m for i in range(m)] for n, m in zip(y.shape[2:], h.shape[2:]))
    return written.conv(torch.cat([h, y[:, :, rows][:, :, :, columns]], 1), "conv_out")


def test_each_level_quantises_what_the_one_above_leaves():
    part, h = quantizing(), maps()
    assert part.latents == {
        "codes": (TensorType((2, 3), classes=7), TensorType((4, 5), classes=7)),
        "continuous": (TensorType((3, 2, 3)), TensorType((3, 4, 5))),
        "quantized": (TensorType((3, 2, 3)), TensorType((3, 4, 5))),
    }
    upper, lower = (getattr(part, f"level[{i}]") for i in range(2))
    top = upper(h[0], None)
    low = lower(joined(part, h[1], top.values["quantized"]), None)
    made = part(h, None)
    for name, value in made.values.items():
        assert len(value) == 2
        torch.testing.assert_close(value, (top.values[name], low.values[name]))
        torch.testing.assert_close(part.to_z(name, value), (top.values["quantized"], low.values["quantized"]))
    assert made.kl is None and set(made.losses) == {"commitment"}
    torch.testing.assert_close(made.losses["commitment"], top.losses["commitment"] + low.losses["commitment"])


def test_the_lower_codes_change_when_only_the_upper_codebook_does():
    part, h = quantizing(), maps(16)
    before = part(h, None).values["codes"]
    codes(part, 0).mul_(-3)
    after = part(h, None).values["codes"]
    assert (before[1] != after[1]).any()
    part.joins[0].conv_out.weight.data[:, 4:] = 0  # the path from above, cut
    alone = part(h, None).values["codes"][1]
    codes(part, 0).mul_(-3)
    assert torch.equal(part(h, None).values["codes"][1], alone)


def test_gradients_of_the_lower_level_reach_the_upper_features():
    part, h = quantizing(), tuple(one.requires_grad_() for one in maps())
    made = part(h, None)
    gradient = torch.autograd.grad(made.values["quantized"][1].square().sum(), h)
    assert all(one.any() for one in gradient)
    made = part(h, None)
    (made.values["quantized"][1].square().sum() + made.losses["commitment"]).backward()
    assert all(p.grad is not None and p.grad.any() for p in part.parameters())


def test_kl_and_densities_are_sums_over_levels():
    part, h = gaussian(), maps()
    made = part(h, StepContext(Rng(0)))
    upper, lower = (getattr(part, f"level[{i}]") for i in range(2))
    top = upper(h[0], StepContext(Rng(0).at("level-0")))
    reach = joined(part, h[1], top.values["continuous"])
    low = lower(reach, StepContext(Rng(0).at("level-1")))
    torch.testing.assert_close(made.values["continuous"], (top.values["continuous"], low.values["continuous"]))
    torch.testing.assert_close(made.kl, torch.stack([top.kl.sum(1), low.kl.sum(1)], 1))
    latent, log_q = part.posterior("continuous", h, Rng(0))
    torch.testing.assert_close(latent, made.values["continuous"])
    expected = upper.posterior("continuous", h[0], Rng(0).at("level-0"))[1]
    torch.testing.assert_close(log_q, expected + lower.posterior("continuous", reach, Rng(0).at("level-1"))[1])
    normal = torch.distributions.Normal(0, 1)
    prior = sum(normal.log_prob(one).flatten(1).sum(1) for one in latent)
    torch.testing.assert_close(part.log_prior("continuous", latent), prior)
    drawn = part.sample(4, Rng(0))
    assert [tuple(one.shape) for one in drawn] == [(4, 2, 2, 3), (4, 2, 4, 5)]
    assert not torch.isclose(drawn[0].flatten(1)[:, :8], drawn[1].flatten(1)[:, :8]).any()


def test_it_has_a_density_where_every_level_has_one():
    """The fault: it claimed densities that `deterministic` lacks, and a bound failed after the whole training."""

    class Unweighed(Gaussian):
        log_prior = None

    for level, known in ((Gaussian, True), (Unweighed, True), (Deterministic, False), (Identity, False)):
        part = TopDown(H, level=Slot(level))
        assert (part.posterior is not None) == known and (part.log_prior is not None) == (level is Gaussian)
        assert Posterior(part, part).entropic == (("continuous",) if known else ())


@pytest.mark.parametrize("level", ["deterministic", "identity"])
def test_an_autoencoder_over_levels_without_densities_has_none(level):
    autoencoder = use("autoencoder", **CONV, bottleneck=use(TopDown, level=level))
    model = build(spec(autoencoder))
    lack = "Autoencoder has no bound on log p(x): its bottleneck TopDown has no densities"
    assert model.explain_lack("bound") == model.explain_lack("weigh") == lack
    with pytest.raises(ValueError, match=re.escape(lack)):
        model.bound(digits(2), 1, Rng(0))
    with pytest.raises(modkit.SpecError, match="a bottleneck with densities of its latent"):
        build(spec({**autoencoder, "draws": 3}))


def test_codes_have_the_uniform_prior_of_all_levels():
    part, h = quantizing(), maps()
    latent, log_q = part.posterior("codes", h, Rng(0))
    assert all(torch.equal(a, b) for a, b in zip(latent, part(h, None).values["codes"]))
    assert torch.equal(log_q, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(
        part.log_prior("codes", latent), torch.full((3,), -26 * math.log(7), dtype=torch.float64)
    )
    with pytest.raises(ValueError, match="VectorQuantizer has no prior"):
        part.sample(2, Rng(0))


def test_the_lower_level_is_prepared_under_the_upper_one_as_prepared():
    part, data = quantizing(), [maps(8), maps(8)]
    alone = VectorQuantizer(H[0], num_codes=7, channels=3).double()
    lower = VectorQuantizer(H[1], num_codes=7, channels=3).double()
    alone.load_state_dict(getattr(part, "level[0]").state_dict())
    lower.load_state_dict(getattr(part, "level[1]").state_dict())
    alone.prepare([h[0] for h in data], Rng(3).at("level-0"))
    reach = [joined(part, h[1], alone(h[0], None).values["quantized"]) for h in data]
    lower.prepare(reach, Rng(3).at("level-1"))
    before = codes(part, 0).clone()
    part.prepare(data, Rng(3))
    torch.testing.assert_close(codes(part, 0), alone.codebook.codes)
    torch.testing.assert_close(codes(part, 1), lower.codebook.codes)
    assert not torch.equal(before, alone.codebook.codes)


def test_update_moves_every_level_by_what_it_has_seen():
    part, h = quantizing(revive=0.0), maps(8)
    before = [codes(part, i).clone() for i in range(2)]
    for step in (None, StepContext(Rng(0))):
        part(h, step)
    part.update(StepContext(Rng(0)))
    assert all(torch.equal(codes(part, i), before[i]) for i in range(2))
    part(h, turn())
    part.update(turn())
    assert not any(torch.equal(codes(part, i), before[i]) for i in range(2))


def test_three_levels_and_other_ranks():
    h = (TensorType((4, 2)), TensorType((4, 2)), TensorType((8, 7)))
    part = quantizing(h)
    made = part(maps(2, h), turn())
    assert [tuple(one.shape) for one in made.values["codes"]] == [(2, 2), (2, 2), (2, 7)]


def test_an_autoencoder_over_it_encodes_and_decodes_each_level():
    toy = spec(use("autoencoder", **CONV, bottleneck=use(TopDown, level=use("vq", num_codes=16, channels=4))))
    report = modkit.check(toy)
    assert report.unchecked == {} and report.terms["autoencoder"] == ("nll", "commitment")
    model, x = build(toy), digits(5).tensor
    assert not torch.equal(codes(model.bottleneck, 0), codes(model.bottleneck, 1))  # each is a part of its own
    latent = model.encode(x, "codes")
    assert [tuple(one.shape) for one in latent] == [(5, 4, 4), (5, 8, 8)]
    torch.testing.assert_close(model.reconstruct(x), model.decode(latent, "codes"))


def test_a_hierarchical_vae_samples_and_has_a_bound():
    autoencoder = use("autoencoder", **CONV, bottleneck=use(TopDown, level=use("gaussian", channels=2)))
    model = build(spec(autoencoder))
    assert model.sample(3, seed=0).shape == (3, 1, 8, 8)
    batch = digits(2)
    losses = model.losses("autoencoder", batch, turn())
    assert set(losses) == {"nll", "kl"}
    one = model.bound(batch, 1, Rng(0))
    made = model.bottleneck(model.encoder(batch.tensor), StepContext(Rng(0).at(0)))
    nll = model.likelihood.nll(model.decoder(made.values["continuous"]), batch.tensor)
    torch.testing.assert_close(one, -nll - model.likelihood.constant * 64 - made.total_kl)
    assert model.bound(batch, 3, Rng(0)).isfinite().all()


test_refusals_name_expected_and_received = refusals(
    (TensorType((4, 4, 4)), "TopDown expects a hierarchy of two or more maps, got 4×4×4 unbounded"),
    ((TensorType((4, 2, 2)), TensorType((6,))), "TopDown expects continuous maps .*, got 6 unbounded"),
    (H[::-1], "TopDown expects maps of one rank, coarsest first, got 4×4×5 unbounded, 6×2"),
    of=lambda h: TopDown(h, level=Slot(VectorQuantizer)),
)


def test_another_latent_is_refused():
    with pytest.raises(ValueError, match=r"TopDown expects one of the latents \['codes', .*\], got 'z'"):
        quantizing().to_z("z", maps())
