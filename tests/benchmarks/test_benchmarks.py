import json
import warnings

import pytest
import torch

import modkit
from modkit.models.step import StepContext
from modkit.parts.registry import get_registry
from modkit.starters import STARTERS
from modkit.training import players
from modkit.training.players import weigh_losses
from modkit.types import Batch
from tests.benchmarks import card, checkpoints, frechet, gpus, ops, reading, samplers, stage_cache, start, training

TINY = ["model.autoencoder.encoder.channels=[8]", "model.autoencoder.decoder.channels=[8]", "data.size=8"]
TINY += ["model.prior.network.width=16", "train.batch_size=8", "train.samples.num=1"]


def bare_and_ours(loss, side, draws):
    """The bare loop's loss and the model's weighted sum on one batch, with the same noise."""
    model = modkit.build(modkit.load_spec(training.EXAMPLE, TINY))
    model.mean_0.fill_(0.1)
    model.std_0.fill_(0.7)
    x = torch.linspace(-1, 1, 8 * 64).view(8, 1, 8, 8)
    sources = iter(draws(modkit.Rng(0)))

    def noise(like):
        rng, name = next(sources)
        return rng.normal(name, like.double()).to(like)

    player = next(player.name for player in model.players() if player.name.startswith(side))
    step = StepContext(modkit.Rng(0))
    losses = model.losses(player, Batch(x, {}), step)
    return loss(model, x, noise), weigh_losses(losses, model.weights(player), step, None)


def test_the_bare_loop_computes_the_autoencoder_s_loss():
    bare, ours = bare_and_ours(
        training.autoencoder_loss, "autoencoder", lambda rng: [(rng.at("autoencoder"), "posterior")]
    )
    torch.testing.assert_close(bare, ours)


def test_the_bare_loop_computes_the_denoiser_s_loss():
    def draws(rng):
        prior = rng.at("prior")
        return [(rng.at("encode"), "posterior"), (prior.at("times"), "time"), (prior, "eps")]

    bare, ours = bare_and_ours(training.denoiser_loss, "prior", draws)
    torch.testing.assert_close(bare, ours)


@pytest.mark.wide
def test_both_stages_are_timed_in_rounds():
    seconds = training.measure(TINY, rounds=2, block=2)
    assert [len(rounds) for rounds in seconds.values()] == [2, 2]


@pytest.mark.wide
def test_steps_with_and_without_a_cache_are_timed_in_turn():
    seconds = stage_cache.measure(TINY, rounds=2, block=2)
    assert [len(rounds) for rounds in seconds.values()] == [2, 2]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.parametrize("name", samplers.PAIRS)
def test_every_sampler_is_timed_beside_its_peer(name):
    row = samplers.measure(name, rounds=1, steps=4)
    assert row.keys() == {"sampler", "whole", "diffusers"} and min(row.values()) > 0


@pytest.mark.parametrize("side", checkpoints.SIDES)
def test_the_pause_at_a_checkpoint_is_timed(side, monkeypatch):
    monkeypatch.setattr(checkpoints, "BETWEEN", 1)
    row = checkpoints.measure(side, 1, 2, "cpu")
    assert len(row["pauses"]) == 2 and row["step"] > 0


@pytest.mark.full
def test_starts_are_timed_with_plugins():
    costs = start.measure(runs=1, plugins=2)
    more = {f"{name}, 2 plug-ins more" for name in start.COMMANDS if name.startswith("modkit")}
    assert costs.keys() == {*start.COMMANDS, *more}
    assert all(0 < one.processor for runs in costs.values() for one in runs)


def test_the_plugins_are_listed(tmp_path, monkeypatch):
    start.install(tmp_path, 3)
    monkeypatch.syspath_prepend(str(tmp_path))
    get_registry.cache_clear()
    try:
        found = [entry.part for entry in get_registry().list_parts() if entry.part.name.startswith("acme")]
    finally:
        get_registry.cache_clear()
    assert [part.kind for part in found] == sorted(list(STARTERS)[:3])


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_the_formulas_of_the_frechet_distance_agree(decay):
    assert all(difference < 1e-6 for _, difference in frechet.ratios(24, repeats=1, decay=decay).values())


def test_the_ratio_of_each_formula_is_printed(capsys):
    frechet.main(["--dim", "8", "--repeats", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 7


@pytest.mark.wide
def test_reading_is_timed_and_its_memory_measured(tmp_path, capsys):
    reading.main(["--num", "48", "--size", "16", "--batch", "4", "--step", "0.001", "--rounds", "1", "--workers", "1"])
    epoch, compared = map(json.loads, capsys.readouterr().out.splitlines())
    assert epoch["waited"] > 0 and epoch["memory"] > 0 and compared["floats / bytes"] > 0


@pytest.mark.full
def test_what_is_shown_on_gpus_runs_on_the_cpu(capsys, monkeypatch):
    for name in ("TEST_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # which `main` sets
    words = "--device cpu --processes 1,2 --rows 8 --samples 64 --kills 1 --systems vae,gan-r1@"
    gpus.main(words.split())
    report = json.loads(capsys.readouterr().out)
    assert max(report["difference"].values()) < 1e-8 and len(report["difference"]) == 2
    assert report["killed"] is True
    assert report["step"].keys() == report["samples"].keys() == {"1", "2"}


@pytest.mark.wide
def test_what_waits_is_found_between_logs_alone_with_its_place(monkeypatch):
    modes = []

    def weigh(*given):
        if modes[-1:] == ["warn"]:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return weigh_losses(*given)

    monkeypatch.setattr(players, "weigh_losses", weigh)
    assert card.find_waits("vae-2d", "cpu", modes.append) == {
        "tests/benchmarks/test_benchmarks.py:weigh": modes.count("warn")
    }
    assert modes[:24] == ["default" if step % 7 == 0 or step > 23 else "warn" for step in range(2, 26)]


def test_losses_are_as_far_apart_as_their_quarters():
    wanted = [{"loss": float(value)} for value in (1, 3, 1, 3, 1, 3, 1, 3)]
    assert card.measure_distance(wanted[::-1], wanted) == 0.0
    assert card.measure_distance([{"loss": row["loss"] + 1} for row in wanted], wanted) == 0.5


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", ["vqgan", "ddgan"])
def test_what_is_trained_on_a_card_is_valid(name):
    spec = modkit.load_spec(card.EXAMPLES / f"{name}.yaml", card.SIZES["cuda"]["kernels"][name])
    assert not modkit.check(spec).findings


@pytest.mark.full
def test_what_is_shown_on_a_card_runs_on_the_cpu(capsys):
    card.main("--device cpu --rounds 1 --examples vae-2d,vqgan".split())
    about, *figures = map(json.loads, capsys.readouterr().out.splitlines())
    names = ["waits/vae-2d", "waits/vqgan", "losses", "step", "kernels/vqgan", "kernels/ddgan"]
    assert about["card"].startswith("no card") and all(row["left out"] for row in figures)
    assert [row["figure"] for row in figures] == [*names, *(f"floors/{name}" for name in ops.CASES)]


def test_ops_are_timed_beside_their_floors(capsys, monkeypatch):
    monkeypatch.setattr(ops, "CASES", {name: ops.CASES[name] for name in ("fir down", "norm and gradients", "noise")})
    ops.main(["--rounds", "1", "--scale", "0", "--device", "cpu"])
    assert len(capsys.readouterr().out.splitlines()) == 4
