import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modkit import use
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.conditioners import Encoded
from modkit.data.corrupted import Corrupted
from modkit.data.corruptions import Mask
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.training.ownership import collect_modules
from modkit.types import Batch, Cond, CondType, TensorType
from tests.play import spec, state, trainer
from tests.refusals import refusals

IMAGE = TensorType((1, 8, 8), range=(-1.0, 1.0))
FIELDS = {"masked": IMAGE, "mask": TensorType((1, 8, 8), range=(0.0, 1.0)), "labels": TensorType((), classes=3)}
UNET = use("unet", channels=[8], blocks=1)


class Coder(Model):
    """Means over areas of 4, times 1, 2 and 3; or the mean, as a vector."""

    def __init__(self, x, cond, fields, vector=False):
        super().__init__()
        assert (x, bool(cond), fields) == (IMAGE, False, FIELDS)
        self.event, self.by = x, nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.vector = vector
        continuous = TensorType((3,)) if vector else TensorType((3, 2, 2))
        self.latents = {"codes": TensorType((2, 2), classes=4), "continuous": continuous, "other": continuous}

    def encode(self, x, name, rng=None, *, fields=()):
        z = F.avg_pool2d(x, 4) * self.by.view(-1, 1, 1)
        z = z if name == "continuous" else -z
        return z.mean((2, 3)) if self.vector else z


def made(vector=False, **options):
    return Encoded(FIELDS, autoencoder=lambda **types: Coder.assemble(**types, vector=vector), **options)


def fields(num):
    g = torch.Generator().manual_seed(0)
    return {
        "masked": torch.randn(num, 1, 8, 8, generator=g),
        "mask": torch.rand(num, 1, 8, 8, generator=g).round(),
    }


def test_a_map_is_the_latent_and_what_stands_beside_it_averaged_to_its_grid():
    part, given = made(beside=["mask"]), fields(5)
    assert part.type == CondType(concat=TensorType((4, 2, 2))) and part.reads == ("masked", "mask")
    z = part.autoencoder.encode(given["masked"], "continuous")
    want = torch.cat([z, given["mask"].unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean((3, 5))], 1)
    for rng in (None, Rng(0)):  # never dropped
        got = part(given, rng).concat
        torch.testing.assert_close(got, want)
        assert not got.requires_grad
    assert part.null(5) == Cond()
    torch.testing.assert_close(made(at="other")(given, None).concat, -z)


def test_tokens_are_positions_with_their_coordinates():
    part, given = made(to="context"), fields(3)
    assert part.type == CondType(context=(4, 5))
    tokens = part(given, None).context
    z = part.autoencoder.encode(given["masked"], "continuous")
    for row, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        torch.testing.assert_close(tokens[:, row, :3], z[:, :, i, j])
        assert torch.equal(tokens[:, row, 3:], torch.tensor([2.0 * i - 1, 2.0 * j - 1]).expand(3, 2))
    assert torch.equal(part.null(2).context, torch.zeros(2, 4, 5))


def test_a_vector_is_one_token():
    part, given = made(vector=True, to="context"), fields(3)
    assert part.type == CondType(context=(1, 3))
    torch.testing.assert_close(part(given, None).context[:, 0], part.autoencoder.encode(given["masked"], "continuous"))


def test_tokens_are_dropped_whole_with_the_probability_and_by_row():
    part, given = made(to="context", drop=0.3), fields(6000)
    drawn, whole = part(given, Rng(0)).context, part(given, None).context
    dropped = (drawn == 0).flatten(1).all(1)
    assert abs(dropped.float().mean() - 0.3) < 0.03  # sd .006
    assert torch.equal(drawn[~dropped], whole[~dropped])
    tail = part({name: value[7:20] for name, value in given.items()}, Rng(0).rows(7)).context
    torch.testing.assert_close(tail, drawn[7:20])


def test_fields_are_drawn_together():
    part, given = made(beside=["mask"], keep=3), fields(4)
    part.prepare([Batch(torch.zeros(4, 1), given)])
    drawn = part.draw(40, Rng(0))
    rows = (drawn["mask"][:, None] == given["mask"]).flatten(2).all(2).int().argmax(1)
    assert torch.equal(drawn["masked"], given["masked"][rows]) and set(rows.tolist()) == {0, 1, 2}


def in_painting(**options):
    data = use(Corrupted, data=use("digits", size=8), corruption=use(Mask))
    encoded = use(Encoded, **{"autoencoder": {"ref": "model.autoencoder"}, **options})
    coder = use(
        "autoencoder",
        encoder=use("conv", channels=[8, 8]),
        decoder=use("conv", channels=[8, 8]),
        bottleneck=use("gaussian", channels=2),
    )
    prior = use("diffusion", network=UNET, conditioner=encoded, sampler=use("ddim", steps=2))
    stages = [{"players": ["autoencoder/*"], "steps": 2, "ema": 0.5}, {"players": ["prior/*"], "steps": 3, "ema": 0.5}]
    return spec(use("latent", autoencoder=coder, prior=prior), data, stages=stages)


def test_by_ref_it_is_the_model_s_own_autoencoder_and_belongs_to_it():
    site = Site(plan(in_painting(beside=["mask"])), meta=False)
    data = site.data
    model = site.build_model(data.x, data.fields)
    site.check()
    assert model.prior.conditioner.autoencoder is model.autoencoder
    assert model.prior.cond.concat == TensorType((3, 4, 4))
    coder, denoiser = (collect_modules(model, player) for player in model.players())
    assert model.autoencoder.encoder in coder and model.prior.network in denoiser
    assert not {*model.autoencoder.modules()} & {*denoiser}


def test_an_autoencoder_of_its_own_is_nobody_s_to_train():
    own = use("autoencoder", encoder=use("conv", channels=[4]), decoder=use("conv", channels=[4]))
    site = Site(plan(in_painting(autoencoder=own)), meta=True)
    data = site.data
    model = site.build_model(data.x, data.fields)
    site.check()
    inside = {*model.prior.conditioner.modules()}
    assert model.autoencoder not in inside
    assert not [module for player in model.players() for module in collect_modules(model, player) if module in inside]


def test_under_other_types_a_ref_is_refused():
    wrong = in_painting(field="mask")
    with pytest.raises(ValueError, match="the part at model.autoencoder is shared under other types"):
        site = Site(plan(wrong), meta=True)
        data = site.data
        site.build_model(data.x, data.fields)
        site.check()


@pytest.mark.wide(1)
@pytest.mark.parametrize("options", [{"beside": ["mask"]}, {"to": "context"}])
def test_a_latent_diffusion_in_paints_and_its_autoencoder_stays_as_it_is(options, tmp_path):
    trained = trainer(in_painting(**options), tmp_path / "run")
    seen = []
    train = trained._train_stage
    trained._train_stage = lambda *args: (train(*args), seen.append(state(trained.model)))
    trained.fit()
    first, second = seen
    still = [name for name in first if torch.equal(first[name], second[name])]
    assert {name for name in first if name.startswith("autoencoder")} <= {*still}
    assert not {name for name, _ in trained.model.prior.network.named_parameters(prefix="prior.network")} & {*still}
    model = trained.model
    batch = trained.data.read("test", range(4), Rng(0))
    given = {name: batch.fields[name] for name in model.reads}
    x = model.sample(4, seed=0, **given)
    assert x.shape == (4, 1, 8, 8)
    torch.testing.assert_close(model.sample(4, seed=0, batch_size=3, **given), x)
    other = trained.data.read("test", range(4, 8), Rng(0))
    assert not torch.equal(x, model.sample(4, seed=0, **{name: other.fields[name] for name in model.reads}))
    assert model.sample(2, seed=0).shape == (2, 1, 8, 8)


test_refuses = refusals(
    ({"field": "picture"}, r"Encoded expects the data's field 'picture', got fields \['labels', 'mask', 'masked'\]"),
    ({"at": "codes"}, "Encoded expects a continuous latent of one level, 'codes', got an autoencoder with codes"),
    ({"to": "context", "beside": ["mask"]}, r"Encoded expects no maps in `beside` with tokens, got \['mask'\]"),
    (
        {"beside": ["labels"]},
        "a latent that is a map, and continuous maps of its rank .*, got 3×2×2 .*, scalar",
    ),
    ({"vector": True}, "Encoded expects a latent that is a map, .*, got 3 unbounded"),
    ({"drop": 2.0}, r"Encoded expects drop to be in \[0, 1\], got 2.0"),
    of=lambda options: made(**options),
)
