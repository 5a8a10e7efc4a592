import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import modkit
from modkit import build, use
from modkit.bottlenecks.top_down import TopDown
from modkit.building.builder import Factory, Site
from modkit.building.plan import plan
from modkit.models.cascade import Cascade
from modkit.models.model import Model
from modkit.models.player import Player
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType
from tests.play import digits, spec, turn
from tests.refusals import refusals


class Table(Model):
    """Codes that are independent given the sum of those above: the whole distribution can be counted."""

    def __init__(self, x, cond):
        super().__init__()
        self.event, self.concat = x, cond.concat
        above = 1 if cond.concat is None else cond.concat.numel * (cond.concat.classes - 1) + 1
        self.table = nn.Parameter(torch.randn(above, x.numel, x.classes))

    @classmethod
    def accepts(cls, event, **slots):
        return None if event.classes else f"Table expects codes, got {event}"

    def players(self):
        return (Player("table", ()), Player("rest", ()))  # its parameter is the Model's own: no module holds it

    def logits(self, num, cond):
        above = torch.zeros(num, dtype=torch.long) if self.concat is None else cond.concat.flatten(1).sum(1)
        return self.table[above].log_softmax(-1)

    def losses(self, player, batch, step):
        return {"nll": -self.bound(batch, 1, step.rng).mean()}

    def bound(self, batch, num, rng, *, grain=0.0):
        logits = self.logits(len(batch), batch.cond)
        return logits.gather(-1, batch.tensor.flatten(1)[..., None]).sum((1, 2))

    def draw(self, num, fields, cond, rng):
        logits = self.logits(num, cond)
        uniform = rng.uniform("codes", torch.empty(num, self.event.numel))[..., None]
        return (uniform > logits.exp().cumsum(-1)[..., :-1]).sum(-1).view(num, *self.event.shape)


class Recorder(Model):
    """A conditional Model of anything that keeps what it is shown."""

    def __init__(self, x, cond, fields):
        super().__init__()
        self.event, self.told, self.reads = x, cond, ("labels",)
        self.seen, self.calls, self.drawn = [], [], []

    @classmethod
    def accepts(cls, event, **slots):
        return None

    def players(self):
        own = Player("own", (), against=("other",), last_layer="out.weight")
        return (own, Player("other", ("net",), every=2))

    def stages(self):
        return (("own",), ("other", "own"))[: 2 if len(self.event.shape) == 1 else 1]

    def weights(self, player):
        return {player: 2.0}

    def losses(self, player, batch, step):
        self.seen.append((player, batch, step))
        return {"loss": torch.zeros(()), player: torch.ones(())}

    def update(self, player, step):
        self.calls.append((player, step))

    def prepare(self, player, batches, rng):
        self.seen += [(player, batch, rng) for _ in range(2) for batch in batches]

    def draw(self, num, fields, cond, rng):
        self.drawn.append((dict(fields), cond, rng))
        return rng.normal("x", self.allocate(num, self.event))


class Drawing(Recorder):
    """Draws labels where none are given."""

    def complete(self, num, fields, rng, *, drawn=()):
        return {"labels": rng.integers("labels", torch.empty(num), 0, 100), **dict(drawn), **fields}


CODES = (TensorType((2,), classes=2), TensorType((1, 3), classes=3), TensorType((2,), classes=2))
MAPS = (TensorType((1, 2, 2)), TensorType((3,)))
AUTOENCODER = use(
    "autoencoder",
    encoder=use("conv", channels=[4, 8], levels=[8, 4]),
    bottleneck=use(TopDown, level=use("vq", num_codes=16, channels=2)),
    decoder=use("conv", channels=[8, 4]),
)
DENOISER = use("diffusion", network=use("unet", channels=[4], blocks=1), sampler=use("ddim", steps=2))


def made(x, fields=None, **options):
    return Site(plan(spec(use(Cascade, **options))), meta=False).build_model(x, fields or {})


def hierarchies(x):
    """Every value of some codes."""
    each = [list(itertools.product(range(one.classes), repeat=one.numel)) for one in x]
    rows = list(itertools.product(*each))
    return tuple(torch.tensor([row[i] for row in rows]).view(-1, *one.shape) for i, one in enumerate(x))


def test_the_bounds_add_up_to_a_distribution_and_samples_follow_it():
    model = made(CODES, level=use(Table)).double()
    every = hierarchies(CODES)
    assert len(every[0]) == 4 * 27 * 4
    log_p = model.bound(Batch(every, {}), 1, Rng(0))
    torch.testing.assert_close(log_p.exp().sum(), torch.ones((), dtype=torch.float64))
    one, two, three = (getattr(model, f"level[{i}]").table.log_softmax(-1) for i in range(3))
    row = 100
    z = [value[row].flatten() for value in every]
    by_hand = sum(
        table[z[i - 1].sum() if i else 0, j, code]
        for i, table in enumerate((one, two, three))
        for j, code in enumerate(z[i])
    )
    torch.testing.assert_close(log_p[row], by_hand)
    drawn = model.sample(8000, seed=0, batch_size=8000)
    index = sum(
        value.flatten(1)[:, j] * weight
        for value, weights in zip(drawn, ([216, 108], [36, 12, 4], [2, 1]))
        for j, weight in enumerate(weights)
    )
    counts = torch.bincount(index, minlength=432) / 8000
    p = log_p.exp().detach()
    assert ((counts - p).abs() < 5 * (p * (1 - p) / 8000).sqrt() + 1e-4).all()


def test_each_level_is_told_and_shown_the_one_above():
    x = (*MAPS, TensorType((5,)))
    model = made(x, levels=[use(Recorder)] * 3)
    levels = [getattr(model, f"levels[{i}]") for i in range(3)]
    assert [level.told for level in levels] == [CondType(), CondType(concat=x[0]), CondType(concat=x[1])]
    assert [level.event for level in levels] == list(x)
    assert model.event == x and model.latents == {} and model.coder is None and model.reads == ("labels",)
    values = tuple(torch.randn(4, *one.shape) for one in x)
    labels, vector = torch.arange(4), torch.randn(4, 2)
    batch = Batch(values, {"labels": labels}, Cond(vector=vector))
    model.losses("level-2/other", batch, turn(0))
    model.prepare("level-1/own", [batch, batch], Rng(0))
    ((player, seen, step),) = levels[2].seen
    assert player == "other" and torch.equal(seen.tensor, values[2]) and torch.equal(seen.fields["labels"], labels)
    assert torch.equal(seen.cond.concat, values[1]) and torch.equal(seen.cond.vector, vector)
    assert len(levels[1].seen) == 4 and not levels[0].seen
    assert all(torch.equal(one.cond.concat, values[0]) for _, one, _ in levels[1].seen)
    assert model.select_level(batch, 0).cond.concat is None
    with pytest.raises(ValueError, match="Cascade expects a hierarchy of 3 levels, got one tensor"):
        model.losses("level-0/own", Batch(values[0], {}), turn(0))


def test_draws_go_down_from_the_top_under_the_same_fields():
    model = made(MAPS, level=use(Drawing))
    upper, lower = (getattr(model, f"level[{i}]") for i in range(2))
    drawn = model.sample(3, seed=0)
    (fields, cond, _), (fields_2, cond_2, _) = upper.drawn[0], lower.drawn[0]
    assert cond.concat is None and torch.equal(cond_2.concat, drawn[0])
    assert torch.equal(fields["labels"], fields_2["labels"])
    assert not torch.isclose(drawn[0].flatten(1)[:, :3], drawn[1]).any()
    model.sample(3, seed=0, labels=[1, 2, 3])
    assert lower.drawn[1][0]["labels"].tolist() == upper.drawn[1][0]["labels"].tolist() == [1, 2, 3]
    parts = [model.sample(3, seed=0, batch_size=2)[i] for i in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(parts, drawn))
    kept = model.draw(2, {"labels": torch.zeros(2)}, Cond(vector=torch.ones(2, 1)), Rng(0))
    assert torch.equal(lower.drawn[-1][1].vector, torch.ones(2, 1)) and torch.equal(lower.drawn[-1][1].concat, kept[0])


def test_players_stages_terms_and_weights_stand_under_their_level():
    model = made(MAPS, level=use(Recorder))
    assert model.players() == (
        Player("level-0/own", (), against=("level-0/other",), last_layer="level[0].out.weight"),
        Player("level-0/other", ("level[0].net",), every=2),
        Player("level-1/own", (), against=("level-1/other",), last_layer="level[1].out.weight"),
        Player("level-1/other", ("level[1].net",), every=2),
    )
    assert model.stages() == (("level-0/own", "level-1/own"), ("level-1/other", "level-1/own"))
    assert model.weights("level-1/other") == {"level-1/other": 2.0}
    batch = Batch(tuple(torch.zeros(2, *one.shape) for one in MAPS), {})
    assert list(model.losses("level-1/other", batch, turn(0))) == ["level-1/loss", "level-1/other"]
    step = turn(3)
    model.update("level-0/own", step)
    ((player, nested),) = getattr(model, "level[0]").calls
    assert player == "own" and repr(nested.rng) == repr(step.rng.at("level-0")) and nested.training
    assert not getattr(model, "level[1]").calls


def test_a_frozen_level_has_no_players():
    model = made(MAPS, level=use(Recorder))
    getattr(model, "level[0]").frozen = True
    assert {player.name for player in model.players()} == {"level-1/own", "level-1/other"}
    assert model.stages() == (("level-1/own",), ("level-1/other", "level-1/own"))


def test_it_accepts_what_its_levels_accept():
    both = use(Cascade, levels=[use(Table), DENOISER])
    slot = Factory(Site(plan(spec(use("latent", autoencoder=AUTOENCODER, prior=both))), meta=False), "model.prior")
    mixed = (CODES[0], TensorType((2, 4, 4)))
    assert slot.accepts(mixed) is None
    assert slot.accepts(mixed[::-1]) == "level 0: Table expects codes, got 2×4×4 unbounded"
    assert slot.accepts(CODES[:2]) == "level 1: Diffusion expects a continuous type, got 1×3 codes of 3 classes"
    assert slot.accepts(CODES) == "Cascade of 2 Models expects a hierarchy of as many levels, got one of 3"
    assert slot.accepts(CODES[0]) == "Cascade expects a hierarchy, got 2 codes of 2 classes"


PLAIN = use("autoencoder", encoder=use("mlp", width=4, depth=1), decoder=use("mlp", width=4, depth=1))
test_refusals_name_expected_and_received = refusals(
    (use(Cascade, level=DENOISER), "model: the model [cC]ascade .* Cascade expects a hierarchy, got 1×8×8 in"),
    (
        use("latent", autoencoder=AUTOENCODER, prior=use(Cascade, levels=[DENOISER] * 3)),
        "codes: Cascade of 3 Models expects a hierarchy of as many levels",
    ),
    (
        use("latent", autoencoder=AUTOENCODER, prior=use(Cascade, level=DENOISER, levels=[use(Table), DENOISER])),
        "prior.level: got 'level' beside 'levels', which replaces it, expected one of them .change model.prior.levels",
    ),
    (
        use("latent", autoencoder=PLAIN, prior=use(Cascade, level=DENOISER)),
        "continuous: Cascade expects a hierarchy, got 4 unbounded",
    ),
    of=lambda model: build(spec(model)),
)


@pytest.mark.wide
def test_latent_prior_trains_stage_by_stage(tmp_path):
    toy = spec(use("latent", autoencoder=AUTOENCODER, prior=use(Cascade, level=DENOISER)), steps=3)
    report = modkit.check(toy)
    assert report.unchecked == {}
    names = [player.name for player in report.players]
    assert names == ["autoencoder/autoencoder", "prior/level-0/denoiser", "prior/level-1/denoiser"]
    assert [[player.name for player in one.players] for one in report.stages] == [names[:1], names[1:]]
    before = build(toy).state_dict()
    run = modkit.train(toy, tmp_path / "run")
    model = modkit.load(run, spec=toy)
    assert model.at == "continuous"
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    for level in range(2):
        assert any(name.startswith(f"prior.level[{level}].") for name in moved)
        with torch.no_grad():
            z = model.autoencoder.encode(digits(400).tensor, "continuous")[level]
        assert 0.5 < float(model.get_buffer(f"std_{level}") / z.std()) < 2


@pytest.mark.parametrize("level", [0, 1])
def test_every_level_shapes_the_samples_and_the_lower_hears_of_the_upper(level):
    model = build(spec(use("latent", autoencoder=AUTOENCODER, prior=use(Cascade, level=DENOISER), scale=1.0)))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.prior.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    before = model.prior.sample(4, seed=0)
    for parameter in getattr(model.prior, f"level[{level}]").parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    after = model.prior.sample(4, seed=0)
    changed = [bool(((a - b).abs().flatten(1).amax(1) > 1e-3).all()) for a, b in zip(before, after)]
    assert changed == [level == 0, True]


def test_codes_reach_a_lower_network_with_their_classes():
    x = (TensorType((2, 2), classes=3), TensorType((1, 4, 4)))
    model = made(x, levels=[use(Table), use("diffusion", network=use("unet", channels=[4], blocks=1))])
    lower = getattr(model, "levels[1]")
    assert lower.cond == CondType(concat=x[0], time=True)
    codes = torch.randint(3, (6, 2, 2))
    values = F.interpolate(codes[:, None].float(), size=(4, 4)) - 1
    loss = model.losses("level-1/denoiser", Batch((codes, values), {}), turn(0))["level-1/denoising"]
    loss.backward()
    assert lower.network.join.codes.weight.grad is not None
    assert getattr(model, "levels[0]").table.grad is None


@pytest.mark.wide
def test_levels_draw_missing_labels_once_whatever_they_are():
    """A diffusion model over maps and a latent one below it agree on what they draw."""
    labelled = use("diffusion", **DENOISER.params, conditioner="label")
    coder = use("autoencoder", encoder=use("conv", channels=[4]), decoder=use("conv", channels=[4]))
    x = (TensorType((1, 2, 2)), TensorType((1, 4, 4)))
    fields = {"labels": TensorType((), classes=10)}
    model = made(x, fields, levels=[labelled, use("latent", autoencoder=coder, prior=labelled, scale=1.0)])
    assert model.reads == ("labels",)
    seen = []
    for level in (getattr(model, "levels[0]"), getattr(model, "levels[1]").prior):
        level.conditioner.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]["labels"]))
    drawn = model.sample(16, seed=0)
    assert len(seen) == 2 and torch.equal(*seen) and len(seen[0].unique()) > 3
    assert [tuple(one.shape) for one in drawn] == [(16, 1, 2, 2), (16, 1, 4, 4)]


def test_fields_that_a_level_reads_together_are_drawn_by_it():
    """The fault: a mask drawn for an upper level counted as given, and the lower one refused it alone."""
    x = (TensorType((1, 4, 4)), TensorType((1, 8, 8)))
    fields = {name: TensorType((1, 8, 8)) for name in ("mask", "masked")}
    given = [use("vector", names=names, keep=64) for names in (["mask"], ["mask", "masked"])]
    levels = [use("diffusion", network="unet", sampler=use("ddim", steps=2), conditioner=one) for one in given]
    model = made(x, fields, levels=levels)
    numbers = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 1, 8, 8)
    for level in model._levels:
        level.conditioner.prepare([Batch(numbers, {"mask": numbers, "masked": numbers})])
    drawn = model.complete(9, {}, Rng(0))
    assert torch.equal(drawn["mask"], drawn["masked"]) and len(drawn["mask"].unique()) > 4
    assert [len(one) for one in model.sample(2, seed=0)] == [2, 2]


def test_a_latent_s_bound_over_codes_is_the_decoder_s_and_every_level_s():
    model = build(spec(use("latent", autoencoder=AUTOENCODER, prior=use(Cascade, level=use(Table)))))
    assert model.at == "codes"
    x = digits(3).tensor
    with torch.no_grad():
        bound = model.bound(Batch(x, {}), 1, Rng(0))
        coder = model.autoencoder
        codes = coder.encode(x, "codes")
        nll = coder.likelihood.nll(coder.decoder(coder.bottleneck.to_z("codes", codes)), x)
        upper, lower = (getattr(model.prior, f"level[{i}]").table.log_softmax(-1) for i in range(2))
    top, low = (value.flatten(1) for value in codes)
    prior = [
        sum(upper[0, i, k] for i, k in enumerate(a)) + sum(lower[a.sum(), i, k] for i, k in enumerate(b))
        for a, b in zip(top, low)
    ]
    expected = torch.stack(prior) - nll - coder.likelihood.constant * 64
    torch.testing.assert_close(bound, expected, rtol=1e-5, atol=0.0)
    drawn = model.sample(2, seed=0)
    again = coder.decode(model.prior.draw(2, {}, Cond(), Rng("sample", 0).at("prior")), "codes")
    torch.testing.assert_close(drawn, again.detach())
