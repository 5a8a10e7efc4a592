import os
import shutil
import signal
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from modkit import TensorType, build, check, use
from modkit.data.digits import Digits
from modkit.data.loader import Loader
from modkit.engines.local import LocalEngine
from modkit.errors import SpecError
from modkit.models import Autoencoder
from modkit.progress import Silent
from modkit.rng import Rng
from modkit.runs.hold import Hold
from modkit.specs.settings import Settings
from modkit.training import stored_view
from modkit.training.reader import Reader
from modkit.training.stage_cache import StageCache
from modkit.training.stored_view import ViewWriter
from modkit.training.trainer import Trainer
from modkit.types import Batch
from tests.play import LINEAR, MLP, spec, state, trainer

TINY = {"width": 8, "depth": 1}
DENOISER = use("diffusion", network=use("mlp", **TINY), conditioner=use("label"), sampler=use("ddim", steps=2))
CODES = use("autoregressive", network=use("transformer", width=8, depth=1, heads=2), conditioner=use("label"))
CONV = {"encoder": use("conv", channels=[4, 4], levels=[8, 4]), "decoder": use("conv", channels=[4, 4])}


def use_latent(bottleneck, prior=DENOISER, coder=MLP, **more):
    return use("latent", autoencoder=use("autoencoder", **{**coder, "bottleneck": bottleneck}), prior=prior, **more)


class Normed(nn.Module):
    """An encoder whose mode matters, and whose code may change."""

    factor = 1.0

    def __init__(self, x):
        super().__init__()
        self.h, self.norm = TensorType((64,)), nn.BatchNorm1d(64)

    def forward(self, x):
        return self.factor * self.norm(x.flatten(1))


SYSTEMS = {
    "gaussian": use_latent(use("gaussian", channels=3)),
    "deterministic": use_latent("identity", coder={**MLP, "encoder": use(Normed)}),
    "codes": use_latent(use("vq", num_codes=8, tokens=3), CODES),
    "before quantization": use_latent(use("fsq", levels=[3, 3])),
    "after quantization": use_latent(use("vq", num_codes=8, gradient="rotation"), at="quantized"),
    "drawn codes": use_latent(use("gumbel", num_codes=8, tokens=3), CODES),
    "hierarchy": use_latent(use("top-down", level=use("gumbel", num_codes=8)), use("cascade", level=CODES), CONV),
    "nested": use("latent", autoencoder=use_latent("gaussian", use("autoencoder", **MLP)), prior=DENOISER),
}


class Few(Digits):
    """Twenty digits in float64, some of them negated anew in each epoch; `.read_from` has the splits that were read."""

    def __init__(self, *, negate: bool = False):
        self.negate, self.read_from = negate, []
        super().__init__(size=8)
        self.splits = {"train": 20, "test": 4}

    def read(self, split, indices, rng):
        self.read_from += [split] * len(indices)
        batch = super().read(split, indices, rng)
        if not self.negate:
            return Batch(batch.tensor.double(), batch.fields)
        draws = torch.stack([rng.at(index).uniform("negate", torch.empty(1, 1, 1)) for index in indices])
        return Batch((batch.tensor * (draws - 0.5).sign()).double(), batch.fields)


class Counter(Silent):
    """A `Progress` that counts the samples read before each step, and keeps what is said of the cache."""

    def __init__(self, data):
        self.data, self.counts, self.computed = data, [], []

    def step(self, losses):
        self.counts.append(len(self.data.read_from))

    def note(self, text):
        self.computed += [text] if "cache" in text else []


def make(model, path, cache, num=1, kind=Few, **settings):
    """The trainer of a system in float64: 2 steps of the autoencoder, and 8 of the prior, which are 3.2 epochs."""
    last = {"players": ["prior/*"], "steps": 8, **({"cache": cache} if cache else {})}
    given = {"stages": [{"players": ["autoencoder/*"], "steps": 2}, last], **settings}
    one = trainer(spec(model, use(kind, negate=num > 1), **given), path)
    one.model.double()
    one.progress = one._cache._progress = Counter(one.data)
    return one


def fit(*arguments, **settings):
    one = make(*arguments, **settings)
    with one.run:
        one.fit()
    return one


def measure_difference(one, other):
    """The largest difference between the losses and the last weights of two runs."""
    rows, others = one.run.read_metrics(), other.run.read_metrics()
    assert [row["losses"].keys() for row in rows] == [row["losses"].keys() for row in others] and len(rows) >= 10
    found = [abs(row["losses"][key] - o["losses"][key]) for row, o in zip(rows, others) for key in row["losses"]]
    weights, same = state(one.model), state(other.model)
    return max(*found, *(float((weights[key].double() - same[key].double()).abs().max()) for key in weights))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The cache folder of a test."""
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stages"


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_stage_with_a_cache_trains_what_one_without_does_and_its_steps_read_no_picture(name, tmp_path, folder):
    plain = fit(SYSTEMS[name], tmp_path / "plain", None)
    cached = fit(SYSTEMS[name], tmp_path / "cached", 1)
    assert measure_difference(plain, cached) < 1e-8
    assert len(set(cached.progress.counts[-8:])) == 1 < len(set(plain.progress.counts[-8:]))
    assert [path.parts[-1] for path in folder.glob("*/view*")] == ["view-0"]


@pytest.mark.wide
def test_microbatches_workers_and_bf16_change_nothing(tmp_path):
    for settings in ({"accumulate": 2, "workers": 1}, {"precision": "bf16"}):
        runs = [fit(SYSTEMS["gaussian"], tmp_path / f"{len(settings)}-{n}", n, **settings) for n in (None, 1)]
        assert measure_difference(*runs) < 1e-8


def test_under_bf16_the_parameters_of_a_posterior_take_two_bytes_each(tmp_path, folder):
    model = use_latent("gaussian", use("diffusion", network=use("mlp", **TINY)))
    one = trainer(spec(model, stages=[{"players": ["prior/*"], "cache": 1}], precision="bf16"), tmp_path / "run")
    one.fit()
    (view,) = folder.glob("*/view-0")
    assert (view / "0.bin").stat().st_size == 1437 * 2 * one.model.prior.event.numel * 2


def test_epochs_see_the_views_in_turn(tmp_path):
    settings, data, engine = Settings(batch_size=6, seed=3), Few(negate=True), LocalEngine("cpu")
    reader = Reader(data, settings, engine)
    model = build(spec(use_latent("identity", coder=LINEAR))).double()
    views = StageCache(model, data, settings, reader, engine, Silent()).open(1, 2, 20)
    plain = Loader(data, "train", 6, Rng(3, "data", 1))
    seen = [value for batch in reader.read_stage(1, 0, 20, views) for value in batch.x[0]]
    labels = [label for batch in reader.read_stage(1, 0, 20, views) for label in batch.fields["labels"].tolist()]
    shown = [value for step in range(20) for value in plain.read_batch(step).tensor.flatten(1)]
    assert labels == [label for step in range(20) for label in plain.read_batch(step).fields["labels"].tolist()]
    epochs = [[tuple(value.tolist()) for value in seen[at : at + 20]] for at in range(0, 120, 20)]
    assert all(torch.equal(*pair) for pair in zip(seen[:40], shown[:40]))
    assert set(epochs[0]) == set(epochs[2]) == set(epochs[4]) != set(epochs[1]) == set(epochs[3]) == set(epochs[5])
    assert epochs[0] != epochs[2]  # in another order
    assert not all(torch.equal(*pair) for pair in zip(seen[40:60], shown[40:60]))


def test_augmented_data_are_seen_as_without_a_cache_for_as_many_epochs_as_there_are_views(tmp_path, folder):
    plain, cached = (fit(SYSTEMS["gaussian"], tmp_path / str(n), n, 9) for n in (None, 9))
    assert measure_difference(plain, cached) < 1e-8
    assert len(list(folder.glob("*/view*"))) == 4  # the stage has 3.2 epochs
    fewer = fit(SYSTEMS["gaussian"], tmp_path / "fewer", 2, 2)
    assert measure_difference(plain, fewer) > 1e-8
    assert not fewer.progress.computed  # it found both


def test_what_is_condensed_anew_when_weights_seed_or_code_change(tmp_path, folder):
    fit(SYSTEMS["gaussian"], tmp_path / "a", 1)
    again = fit(SYSTEMS["gaussian"], tmp_path / "b", 1)
    assert not again.progress.computed and len(list(folder.iterdir())) == 1
    other = fit(SYSTEMS["gaussian"], tmp_path / "c", 1, seed=1)
    assert other.progress.computed and len(list(folder.iterdir())) == 2
    plain = use_latent(use("gaussian", channels=3), use("diffusion", network=use("mlp", width=9)))
    assert not fit(plain, tmp_path / "d", 1).progress.computed  # another prior of the same autoencoder


def test_other_code_with_the_same_weights_is_noticed(tmp_path, monkeypatch):
    stages = {"stages": [{"players": ["prior/*"], "steps": 10, "cache": 1}]}  # weights are those of the first step
    fit(SYSTEMS["deterministic"], tmp_path / "a", 1, **stages)
    monkeypatch.setattr(Normed, "factor", 1.5)
    changed = fit(SYSTEMS["deterministic"], tmp_path / "b", 1, **stages)
    assert changed.progress.computed
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "other"))
    assert measure_difference(changed, fit(SYSTEMS["deterministic"], tmp_path / "c", 1, **stages)) == 0


class Bytes(Few):
    """Samples that are read as bytes and finished on the device."""

    def read(self, split, indices, rng):
        batch = super().read(split, indices, rng)
        return Batch((batch.tensor * 8 + 8).round().to(torch.uint8), batch.fields)

    def finish(self, batch):
        return Batch(batch.tensor.double() / 8 - 1, batch.fields)


def test_samples_are_condensed_as_they_are_finished(tmp_path):
    runs = [fit(SYSTEMS["gaussian"], tmp_path / str(n), n, kind=Bytes) for n in (None, 1)]
    assert measure_difference(*runs) < 1e-8


@pytest.mark.wide(1)
@pytest.mark.parametrize("damage", ["shorter", "missing", "index", "dtype", "bytes"])
def test_a_damaged_view_is_computed_anew(damage, tmp_path, folder, caplog):
    whole = fit(SYSTEMS["codes"], tmp_path / "whole", 1)
    (view,) = folder.glob("*/view-0")
    if damage == "missing":
        (view / "1.bin").unlink()
    elif damage == "shorter":
        os.truncate(view / "0.bin", 100)
    elif damage == "bytes":  # a quarter, beyond the first batch
        data = bytearray((view / "0.bin").read_bytes())
        data[len(data) // 2 : 3 * len(data) // 4] = bytes(len(data) // 4)
        (view / "0.bin").write_bytes(data)
    else:
        text = (view / "view.json").read_text()
        (view / "view.json").write_text(text[:-9] if damage == "index" else text.replace("int32", "load"))
    again = fit(SYSTEMS["codes"], tmp_path / "again", 1)
    assert len(again.progress.computed) == 1 and measure_difference(whole, again) == 0
    (told,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert str(view) in told and "damaged" in told and told.endswith("it is computed anew")


def test_a_run_that_is_killed_while_it_writes_a_view_computes_it_anew(tmp_path, folder, monkeypatch):
    whole = fit(SYSTEMS["gaussian"], tmp_path / "whole", 1)
    shutil.rmtree(folder)
    child = os.fork()
    if not child:
        monkeypatch.setattr(ViewWriter, "sync", lambda writer: os.kill(os.getpid(), signal.SIGKILL))
        with suppress(BaseException):
            fit(SYSTEMS["gaussian"], tmp_path / "run", 1)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (left,) = folder.glob("*/.view-0.tmp-*")
    assert (left / "0.bin").exists() and not list(folder.glob("*/view-0"))
    resumed = fit(SYSTEMS["gaussian"], tmp_path / "run", 1)
    assert len(resumed.progress.computed) == 1 and measure_difference(whole, resumed) == 0
    assert [path.name for path in folder.glob("*/*") if path.is_dir()] == ["view-0"]


def test_what_another_process_is_writing_is_left_to_it(tmp_path, folder, monkeypatch):
    fit(SYSTEMS["gaussian"], tmp_path / "a", 1)
    (view,) = folder.glob("*/view-0")
    other = view.rename(view.with_name(".view-0.tmp-123"))
    with Hold(other, lambda: None):
        fit(SYSTEMS["gaussian"], tmp_path / "b", 1)
        assert other.exists() and view.exists()
        shutil.rmtree(view)
    fit(SYSTEMS["gaussian"], tmp_path / "c", 1)
    assert view.exists() and not other.exists()


@pytest.mark.wide
def test_a_run_resumed_inside_the_stage_reads_the_same_views_or_computes_them_again(tmp_path, folder, monkeypatch):
    often = {"checkpoints": {"every": 4, "keep": 9}}
    whole = fit(SYSTEMS["gaussian"], tmp_path / "whole", 2, 2)
    for name in ("kept", "deleted"):
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            take = Trainer._take_turns

            def interrupt(self, players, batch, renew, take=take):
                if self._cursor.step == 7:
                    raise KeyboardInterrupt
                return take(self, players, batch, renew)

            patch.setattr(Trainer, "_take_turns", interrupt)
            fit(SYSTEMS["gaussian"], tmp_path / name, 2, 2, **often)
        if name == "deleted":
            shutil.rmtree(folder)
        resumed = fit(SYSTEMS["gaussian"], tmp_path / name, 2, 2, **often)
        assert measure_difference(whole, resumed) == 0
        assert len(resumed.progress.computed) == (0 if name == "kept" else 2)
        assert set(resumed.progress.counts[-6:]) == {resumed.progress.counts[-1]}


def test_a_disk_without_space_is_told_and_nothing_is_left(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(stored_view.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"expects 0.0 GB for 20 samples, got 0.0 GB free; MODKIT_CACHE sets another"):
        fit(SYSTEMS["gaussian"], tmp_path / "run", 1)
    assert not [path for path in folder.glob("*/*") if path.is_dir()]


class Opaque(Autoencoder):
    """An autoencoder that is not known to condense anything."""

    condensers = property(lambda model: None, lambda model, paths: None)


def explain(model, *stages):
    """What is refused, by path."""
    with pytest.raises(SpecError) as caught:
        check(spec(model, stages=list(stages)))
    return {problem.path: problem.message for problem in caught.value.problems}


def test_refusals_name_the_stage_and_the_players():
    prior = {"players": ["prior/*"]}
    assert explain(SYSTEMS["gaussian"], {"players": ["*"]}, {**prior, "cache": 0}) == {
        "train.stages[1].cache": "Stage expects cache to be at least 1, got 0"
    }
    assert explain(SYSTEMS["gaussian"], {"players": ["*"], "cache": 1}) == {
        "train.stages[0].cache": "expects players that accept condensed samples, of Latent prior/*; got "
        "autoencoder/autoencoder"
    }
    assert explain(DENOISER, {"players": ["*"], "cache": 1}) == {
        "train.stages[0].cache": "expects players that accept condensed samples, of Diffusion none; got denoiser"
    }
    opaque = use("latent", autoencoder=use(Opaque, **MLP), prior=DENOISER)
    assert explain(opaque, prior, {**prior, "cache": 1}) == {
        "train.stages[1].cache": "expects players that accept condensed samples, of Latent none; got prior/denoiser"
    }
