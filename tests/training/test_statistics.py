"""Statistics of averaged weights, against brute force in float64 and torch's `update_bn`."""

import copy
import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from modkit import load, players, train, use
from modkit.data import Digits
from modkit.data.loader import Loader
from modkit.engines.local import LocalEngine
from modkit.models.model import Model
from modkit.models.player import Player
from modkit.nn.trained import mark_trained
from modkit.rng import Rng
from modkit.runs import checkpoint as store
from modkit.training.ownership import collect_modules
from modkit.training.players import make_participants, prepare_player, set_modes
from modkit.training.reader import Reader
from modkit.training.statistics import PASSES, Statistics
from modkit.types import Batch, Cond, TensorType
from tests.play import MLP, spec, state, trainer
from tests.run_folders import differing

NET = use("dcgan", channels=4)
GAN = use("gan", generator=NET, discriminator=NET, regularizers={"r1": "r1"}, z_dim=4)
CRITIC = use("autoencoder", **{**MLP, "bottleneck": "vq"}, critic=NET)
KEPT = {"ema": 0.5, "steps": 4, "checkpoints": {"every": 1, "keep": 9}}
SGD = {"optimizer": use("sgd", lr=0.5, momentum=0.0)}


@pytest.fixture(autouse=True)
def all_passes(monkeypatch):
    """As many as a user's training makes."""
    monkeypatch.setattr("modkit.training.statistics.PASSES", PASSES)


def begin(model, path, engine=None, **settings):
    """A trainer, the states of its first stage and their statistics."""
    one = trainer(spec(model, **settings), path)
    engine = engine or one.engine
    players = make_participants(one.model, one.settings, one.stages, 0, one.engine)
    set_modes(one.model, players)
    reader = Reader(one.data, one.settings, engine)
    return one.model, Statistics(one.model, players, 0, one.settings, reader, engine)


def draw_noise(model, step, rank=0, num=8):
    """The noise of each pass of the generator, as the trainer's turns draw it."""
    rngs = [Rng(0, "statistics", 0, step, n, "generator").rows(rank * num) for n in range(PASSES)]
    return [rng.normal("z", torch.empty(num, model.z.numel)) for rng in rngs]


def compute_by_hand(generator, noise):
    """Means over the passes of each layer's batch mean and variance, in float64."""
    layers = copy.deepcopy(generator).double().layers
    sums = {}
    for z in noise:
        x = (z.double() @ generator.project.weight.double().T).view(len(z), *generator.start)
        for index, layer in enumerate(layers):
            if isinstance(layer, nn.BatchNorm2d):
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))  # the variance of a running statistic is unbiased
                sums[index] = [a + b / len(noise) for a, b in zip(sums.get(index, (0, 0)), (mean, var))]
                x = F.batch_norm(x, None, None, layer.weight, layer.bias, training=True)
            else:
                x = layer(x)
    return sums


def assert_measured(generator, noise):
    sums = compute_by_hand(generator, noise)
    for index, (mean, var) in sums.items():
        norm = generator.layers[index]
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-4, atol=1e-6)
        assert norm.num_batches_tracked == len(noise) and norm.momentum == 0.1
    return sums


@pytest.mark.wide
def test_what_is_stored_has_the_statistics_of_the_averaged_weights(tmp_path):
    run = train(spec(GAN, **KEPT, **SGD), tmp_path / "run")
    for step in (2, 4):
        model = load(run, checkpoint=f"step-{step:08d}")
        noise = draw_noise(model, step - 1)
        sums = assert_measured(model.generator, noise)
        oracle = copy.deepcopy(model.generator).train()
        update_bn(noise, Unconditional(oracle))
        torch.testing.assert_close(state(oracle), state(model.generator), rtol=1e-5, atol=1e-6)
        raw = store.load(run.checkpoints / f"step-{step:08d}").tensors["model"]
        for index, (mean, _) in sums.items():
            assert (raw[f"generator.layers.{index}.running_mean"] - mean).abs().max() > 1e-3


class Unconditional(nn.Module):
    """A generator of noise alone, for `update_bn`."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, z):
        return self.generator(z, Cond())


@pytest.mark.wide
def test_the_end_of_a_stage_leaves_them_in_the_model(tmp_path):
    one = trainer(spec(GAN, **KEPT, **SGD), tmp_path)
    one.fit()
    assert_measured(one.model.generator, draw_noise(one.model, 3))
    kept = store.load(one.run.checkpoints / "step-00000004").tensors
    assert all(torch.equal(value, kept["ema"].get(name, value)) for name, value in one.model.state_dict().items())
    assert {f"generator.layers.0.{name}" for name in ("running_mean", "running_var")} <= kept["ema"].keys()


@pytest.mark.wide
def test_pictures_are_drawn_with_them(tmp_path, monkeypatch):
    one, drawn = trainer(spec(GAN, **KEPT, **SGD), tmp_path), []
    draw = Model.sample

    def record(model, *args, **kwargs):
        drawn.append(copy.deepcopy(model.generator))
        return draw(model, *args, **kwargs)

    monkeypatch.setattr(Model, "sample", record)
    one.fit()
    (generator,) = drawn
    assert_measured(generator, draw_noise(one.model, 3))


@pytest.mark.wide(1)
@pytest.mark.parametrize("model", [GAN, CRITIC], ids=["gan", "critic"])
def test_training_is_the_same_however_often_they_are_measured(model, tmp_path):
    few, many = {"every": 9, "keep": 9}, {"every": 1, "keep": 9}
    a, b = (train(spec(model, ema=0.5, checkpoints=c), tmp_path / str(c["every"])) for c in (few, many))
    name = "step-00000004"
    assert store.list_names(a.checkpoints) == ["step-00000000", name]
    assert set(differing(a.checkpoints / name, b.checkpoints / name)) == {"state.json", "manifest.json"}
    states = [store.load(run.checkpoints / name).state for run in (a, b)]
    assert states[0].pop("run") != states[1].pop("run") and states[0] == states[1]  # their specs differ
    assert (a.path / "metrics.jsonl").read_bytes() == (b.path / "metrics.jsonl").read_bytes()
    off = train(spec(model, ema=0, checkpoints=many), tmp_path / "off")  # measures nothing
    raw, kept = (store.load(one.checkpoints / name).tensors["model"] for one in (off, b))
    assert all(torch.equal(value, kept[key]) for key, value in raw.items())


def test_all_else_stays_as_it_is(tmp_path):
    model, statistics = begin(CRITIC, tmp_path)
    before, seed = state(model), torch.get_rng_state()
    statistics.measure(5)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == statistics.buffers.keys() and all(name.startswith("judges.critic.") for name in moved)
    assert torch.equal(torch.get_rng_state(), seed)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_failure_leaves_the_raw_statistics(tmp_path, monkeypatch):
    model, statistics = begin(GAN, tmp_path)
    before = state(model)
    losses, calls = type(model).losses, iter(range(99))
    monkeypatch.setattr(type(model), "losses", lambda self, *args: 1 / 0 if next(calls) == 5 else losses(self, *args))
    with pytest.raises(ZeroDivisionError):
        statistics.measure(0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_models_without_batch_norm_read_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Reader, "read_microbatches", lambda *_, **__: 1 / 0)
    run = train(spec(use("autoencoder", **MLP), **KEPT), tmp_path / "run")
    kept = store.load(run.checkpoints / "step-00000002").tensors
    assert kept["ema"].keys() == kept["model"].keys()
    train(spec(GAN, **{**KEPT, "ema": 0}), tmp_path / "off")


class Normed(Model):
    """A norm that is reached in every pass, one that is never, and one that keeps no statistics."""

    def __init__(self, x):
        super().__init__()
        self.event, self.seen = x, []
        self.line = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))
        self.idle = nn.BatchNorm2d(1)

    def players(self):
        return (Player("one", ("line", "idle")),)

    def losses(self, player, batch, step):
        self.seen.append((step.index, step.training, self.line.training, batch.tensor.clone()))
        return {"loss": self.line(batch.tensor).square().mean()}

    def draw(self, num, fields, cond, rng):
        return rng.normal("x", self.allocate(num, self.event))


def test_every_reached_norm_sees_the_seeded_microbatches(tmp_path):
    model, statistics = begin(use(Normed), tmp_path, batch_size=16, accumulate=2)
    with torch.no_grad():
        model.idle.running_mean.fill_(3.0)
    statistics.measure(6)
    loader = Loader(Digits(size=8), "train", 8, Rng(0, "statistics", 0, 6))
    batches = [loader.read_batch(n).tensor for n in range(PASSES)]
    assert all(torch.equal(seen[3], x) and seen[:3] == (6, False, True) for seen, x in zip(model.seen, batches))
    assert len(model.seen) == PASSES
    mean = torch.stack([x.double().mean() for x in batches]).mean()
    var = torch.stack([x.double().var() for x in batches]).mean()
    assert model.line[0].running_mean.item() == pytest.approx(mean.item(), rel=1e-5)
    assert model.line[0].running_var.item() == pytest.approx(var.item(), rel=1e-5)
    assert model.idle.running_mean.item() == 3 and model.idle.num_batches_tracked == 0


class Half(LocalEngine):
    """One of two processes; the mean over processes is recorded, and 7."""

    def __init__(self, rank):
        super().__init__("cpu")
        self.rank, self.world, self.reduced = rank, 2, []

    def reduce(self, values):
        self.reduced += [value.clone() for value in values.values()]
        return {name: torch.full_like(value, 7.0) for name, value in values.items()}


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_measure_their_rows_and_keep_the_mean(rank, tmp_path):
    engine = Half(rank)
    model, statistics = begin(GAN, tmp_path, engine)
    statistics.measure(2)
    norms = [m for m in model.generator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.running_mean == 7).all() and (norm.running_var == 7).all() for norm in norms)
    noise = draw_noise(model, 2, rank, num=4)
    wanted = [x for pair in compute_by_hand(model.generator, noise).values() for x in pair]
    found = engine.reduced[-len(wanted) :]
    torch.testing.assert_close([x.double() for x in found], wanted, rtol=1e-4, atol=1e-6)
    assert len(engine.reduced) == len(statistics.buffers) * 2 // 3  # not the counters


@pytest.mark.wide
def test_a_checkpoint_made_before_they_were_kept_is_resumed(tmp_path):
    """The statistics of the last averages do not depend on the checkpoints before."""
    whole = train(spec(GAN, **KEPT), tmp_path / "whole")
    run = train(spec(GAN, **KEPT), tmp_path / "run", steps=4)
    for name in store.list_names(run.checkpoints):
        kept = store.load(run.checkpoints / name)
        kept.tensors["ema"] = {key: value for key, value in kept.tensors["ema"].items() if "running_" not in key}
        store.save(run.checkpoints, name, kept)
    for name in ("step-00000003", "step-00000004"):
        shutil.rmtree(run.checkpoints / name)
    train(spec(GAN, **KEPT), run.path, resume=True)
    assert not differing(run.checkpoints / "step-00000004", whole.checkpoints / "step-00000004")


def test_terms_that_are_not_due_are_computed_too(tmp_path):
    model, statistics = begin(GAN, tmp_path, terms={"adversarial": {"every": 5}})
    statistics.measure(1)
    assert_measured(model.generator, draw_noise(model, 1))


class Prepared(Model):
    """Keeps what a norm gives for the data that it is prepared with; other norms must not change."""

    def __init__(self, x):
        super().__init__()
        self.event, self.given = x, []
        self.line = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
        self.others = nn.ModuleDict({name: nn.BatchNorm1d(3) for name in ("idle", "seen", "piece", "frozen")})
        self.others["seen"].num_batches_tracked.fill_(1)
        mark_trained(self.others["piece"])

    def players(self):
        return (Player("one", ("line", *(f"others.{name}" for name in ("idle", "seen", "piece")))),)

    def losses(self, player, batch, step):
        return {"loss": self.line(batch.tensor).square().mean()}

    def prepare(self, player, batches, rng):
        for batch in batches:
            self.given.append(self.line(batch.tensor))
            for name in ("seen", "piece", "frozen"):
                torch.testing.assert_close(self.others[name](batch.tensor), batch.tensor / (1 + 1e-5) ** 0.5)


def prepare(**options):
    """A model that was prepared, and the data: of three batches, the last has one sample."""
    x = torch.randn(17, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    model = Prepared(TensorType((3,)))
    modules = collect_modules(model, *model.players())
    prepare_player(model, "one", [Batch(rows, {}) for rows in x.split(8)], modules, 0, **options)
    return model, x.double().split(8)


def test_what_is_prepared_is_given_what_training_gives():
    model, (first, second, single) = prepare()
    for given, rows in zip(model.given, (first, second)):
        torch.testing.assert_close(given.double(), F.batch_norm(rows, None, None, training=True), rtol=1e-5, atol=1e-5)
    mean, var = (first.mean(0) + second.mean(0)) / 2, (first.var(0) + second.var(0)) / 2
    torch.testing.assert_close(model.given[2].double(), (single - mean) / (var + 1e-5).sqrt(), rtol=1e-5, atol=1e-5)
    norm = model.line[1]
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-5, atol=1e-5)
    assert norm.num_batches_tracked == 2 and norm.momentum == 0.1 and norm.training
    fresh = nn.BatchNorm1d(3).state_dict()
    for name, other in model.others.items():
        assert all(torch.equal(v, fresh[k]) for k, v in other.state_dict().items() if k[:3] != "num"), name
        assert other.num_batches_tracked == (name == "seen") and other.training and other.momentum == 0.1
        assert not other._forward_pre_hooks


def test_processes_that_prepare_keep_the_mean():
    model, _ = prepare(reduce=lambda values: {name: value + 7 for name, value in values.items()})
    mine, _ = prepare()
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(model.line[1], name), getattr(mine.line[1], name) + 7)


def test_a_failure_to_prepare_leaves_norms_that_have_seen_nothing(monkeypatch):
    model = Prepared(TensorType((3,)))
    batches = [Batch(torch.randn(8, 3), {}), Batch(torch.randn(8, 4), {})]
    with pytest.raises(RuntimeError):
        players(model)[0].prepare(batches)
    assert model.line[1].num_batches_tracked == 0 and model.line[1].running_mean.tolist() == [0, 0, 0]
    assert model.line[1].momentum == 0.1 and not model.line[1]._forward_pre_hooks


QUANTIZED = use("autoencoder", encoder=NET, decoder=NET, bottleneck=use("vq", num_codes=32, tokens=4))


def test_codes_begin_with_features_that_training_gives(tmp_path):
    (one := trainer(spec(QUANTIZED, steps=0, batch_size=128), tmp_path / "run")).fit()
    x, model = Digits(size=8).read("train", range(1024), Rng(0)).tensor, one.model
    for mode in (False, True):
        model.train(mode)
        with torch.no_grad():
            z = model.bottleneck.to_continuous(model.encoder(x))
            z_q = model.bottleneck.embed(model.bottleneck.encode(z))
        assert (z - z_q).square().mean() < 0.3 * z.var()  # .9 without: features were a tenth as large
    stored = store.load(one.run.checkpoints / "step-00000000").tensors["model"]
    counts = {name: int(value) for name, value in stored.items() if name.endswith("tracked")}
    assert {name.partition(".")[0] for name, count in counts.items() if count} == {"encoder"}
    assert {name.partition(".")[0] for name, count in counts.items() if not count} == {"decoder"}
