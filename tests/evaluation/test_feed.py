import pytest
import torch

from modkit import use
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.data.splits import read_samples
from modkit.evaluation.feed import Feed
from modkit.evaluation.sources import from_data
from modkit.features.pixels import Pixels
from modkit.metrics.codebook import Codebook
from modkit.rng import Rng
from modkit.types import TensorType
from tests.play import MLP, digits, spec
from tests.refusals import check_refusal

VQ = use("vq", num_codes=5, channels=2)
CONV = {"decoder": use("conv", channels=[8, 8])}
PYRAMID = {"encoder": use("conv", channels=[8, 8], levels=[8, 4]), **CONV}


def fed(**parts):
    """A model, and how often each code stands for each of ten digits."""
    site = Site(plan(spec(use("autoencoder", **parts))), meta=False)
    data = site.data
    model = site.build_model(data.x, data.fields)
    feed, source = Feed(None, model), from_data(data, "train", "digits")
    assert "codes" in feed.list_offers(source)
    return model, feed.compute_values(source, digits(10), ["codes"])["codes"]


def brute(codes, classes):
    """Counts `b k` of codes `b ...`, one by one."""
    return torch.tensor([[row.flatten().tolist().count(k) for k in range(classes)] for row in codes])


@pytest.mark.parametrize(
    ("parts", "classes"),
    [
        ({**MLP, "bottleneck": VQ}, 5),
        ({"encoder": use("conv", channels=[8, 8]), **CONV, "bottleneck": VQ}, 5),
        ({"encoder": use("conv", channels=[8, 8]), **CONV, "bottleneck": use("fsq", levels=[3, 2])}, 6),
    ],
)
def test_codes_of_one_map_are_counted_together(parts, classes):
    model, counts = fed(**parts)
    assert torch.equal(counts, brute(model.encode(digits(10).tensor, "codes"), classes))


@pytest.mark.parametrize("encoder", ["mlp", "conv"])
def test_codes_of_a_residual_quantiser_are_counted_by_depth(encoder):
    decoder = {"decoder": "mlp"} if encoder == "mlp" else CONV
    bottleneck = use("residual-vq", num_codes=5, channels=2, depth=3)
    channels = {"channels": [8, 8]} if encoder == "conv" else {}
    model, counts = fed(encoder=use(encoder, **channels), bottleneck=bottleneck, **decoder)
    codes = model.encode(digits(10).tensor, "codes")
    assert len(counts) == 3
    assert all(torch.equal(one, brute(codes[:, depth], 5)) for depth, one in enumerate(counts))


def test_codes_of_a_hierarchy_are_counted_by_level():
    model, counts = fed(**PYRAMID, bottleneck=use("top-down", level=VQ))
    codes = model.encode(digits(10).tensor, "codes")
    assert [one.sum().item() for one in counts] == [160, 640]
    assert all(torch.equal(one, brute(level, 5)) for one, level in zip(counts, codes, strict=True))


def test_a_hierarchy_of_residual_quantisers_has_a_codebook_a_depth_of_each_level():
    level = use("residual-vq", num_codes=5, channels=2, depth=2)
    model, counts = fed(**PYRAMID, bottleneck=use("top-down", level=level))
    upper, lower = model.encode(digits(10).tensor, "codes")
    each = [upper[:, 0], upper[:, 1], lower[:, 0], lower[:, 1]]
    assert all(torch.equal(one, brute(codes, 5)) for one, codes in zip(counts, each, strict=True))
    state = Codebook().update({}, "real", {"codes": counts}, torch.arange(10))
    scores = Codebook().result(state, Rng(0))
    assert [name for name in scores if "perplexity" in name] == [f"perplexity, level {i}" for i in range(4)]


@pytest.mark.parametrize(
    "prior", [None, use("gan", **{one: use("mlp", width=4) for one in ("generator", "discriminator")})]
)
def test_moments_of_a_gaussian_posterior_and_its_means_are_those_of_the_bottleneck(prior):
    autoencoder = use("autoencoder", **MLP, bottleneck=use("gaussian", channels=3))
    model = autoencoder if prior is None else use("latent", autoencoder=autoencoder, prior=prior)
    site = Site(plan(spec(model, use("sprites", size=8, num_test=20))), meta=False)
    data = site.data
    model = site.build_model(data.x, data.fields)
    feed, source = Feed(None, model), from_data(data, "test", "sprites")
    assert {"posterior", "latents", "factors"} <= feed.list_offers(source)
    batch = read_samples(data, "test", range(20), Rng(0))
    values = feed.compute_values(source, batch, ["posterior", "latents", "factors"])
    many = batch.tensor.repeat(2000, 1, 1, 1)
    draws = model.coder.encode(many, "continuous", Rng(0)).detach().view(2000, 20, 3)
    assert torch.equal(values["latents"], model.coder.encode(batch.tensor, "continuous"))
    assert torch.equal(values["posterior"][:, 0], values["latents"])
    torch.testing.assert_close(values["posterior"][:, 1], draws.std(0), rtol=0.08, atol=0)  # 5 sd: 5 / sqrt(4000)
    assert torch.equal(values["factors"], torch.stack(list(data.read_fields("test", range(20)).values()), 1))


@pytest.mark.parametrize(
    ("shape", "rounded"), [((4,), False), ((1, 4), False), ((1, 4, 4), True), ((1, 2, 4, 4), True)]
)
def test_pictures_are_rounded_to_bytes_and_signals_are_not(shape, rounded):
    x = 0.002 * Rng(0).normal("x", torch.empty(9, *shape))
    found = Feed(Pixels(TensorType(shape))).round_to_bytes(x, TensorType(shape, range=(-1.0, 1.0)))
    levels = (found + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-3) == rounded and torch.equal(found, x) != rounded


def test_what_samples_do_not_offer_is_named():
    site = Site(plan(spec(use("autoencoder", **MLP, bottleneck=VQ))), meta=False)
    data = site.data
    feed, source = Feed(None, site.build_model(data.x, data.fields)), from_data(data, "train", "digits")
    assert {"posterior", "factors"}.isdisjoint(feed.list_offers(source))
    for need, message in (("posterior", "no latent whose posterior"), ("factors", "digits: .* factors of variation")):
        check_refusal(message, feed.compute_values, source, digits(2), [need])
