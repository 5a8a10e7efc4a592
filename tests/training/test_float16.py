"""Training in float16, or with a limit of gradients: what a skipped step leaves as it was, and how a run goes on."""

import json
import math

import pytest
import torch

import modkit
from modkit import use
from modkit.engines.local import LocalEngine
from modkit.optim.loss_scale import LossScale
from modkit.runs import checkpoint as store
from modkit.training.trainer import TrainingError
from tests.play import MLP, Notes, spec, trainer
from tests.run_folders import differing
from tests.training.test_resume import stopped_at

VQGAN = use(
    "autoencoder",
    **MLP,
    bottleneck=use("vq", num_codes=8, channels=2, codebook="ema", revive=0.5),
    critic=use("patch", channels=4, layers=1, spectral_norm=True),
    weights={"adversarial": use("adaptive", against=["nll"])},
)
EVERY = {"checkpoints": {"every": 1, "keep": 99}, "samples": {"every": 99, "num": 4}, "lr_schedule": use("cosine")}


class Planting(LocalEngine):
    """An engine in which gradients overflow at some updates, counted over all players."""

    def __init__(self, device, wrong):
        super().__init__(device)
        self.wrong, self.updates = wrong, 0

    def step(self, optimizer):
        self.updates += 1
        if self.updates in self.wrong:
            optimizer.param_groups[0]["params"][0].grad.view(-1)[-1] = math.inf
        super().step(optimizer)


def begin_with(monkeypatch, value, patience):
    monkeypatch.setattr(LossScale.__init__, "__kwdefaults__", {"value": value, "patience": patience})


def train(path, wrong=(), model=VQGAN, progress=None, **settings):
    settings = {**EVERY, "precision": "fp16", **settings}
    one = trainer(spec(model, **settings), path, progress=progress, engine=Planting("cpu", wrong))
    with one.run:
        one.fit()
    return one


def read(one, step):
    """All of a checkpoint, by the player that it belongs to."""
    kept = store.load(one.run.checkpoints / f"step-{step:08d}")
    parts = {"critic": {}, "autoencoder": {}, "ema": dict(kept.tensors["ema"])}
    for name, value in kept.tensors["model"].items():
        parts["critic" if name.startswith("judges.critic") else "autoencoder"][name] = value
    for player, state in kept.state["players"].items():
        parts[player] |= kept.tensors[f"optimizer-{player}"]
        parts[player]["lr"] = torch.tensor([group["lr"] for group in state["optimizer"]["groups"]])
        parts[player]["lr_schedule"] = torch.tensor(state["lr_schedule"]["last_epoch"])
    guards = {
        player: {key: state[key] for key in ("skipped", "loss_scale") if key in state}
        for player, state in kept.state["players"].items()
    }
    return parts, guards, kept.state["cursor"]["averaged"]


def find_moved(before, after):
    return {
        part for part, values in after.items() if any(not torch.equal(v, before[part][k]) for k, v in values.items())
    }


FLOAT16 = {"precision": "fp16"}
LIMITED = {"precision": "float32", "players": {"*": {"skip": 1e3}}}


@pytest.mark.parametrize("settings", [FLOAT16, LIMITED], ids=["fp16", "limited"])
def test_a_skipped_step_moves_nothing_of_its_player(settings, tmp_path, monkeypatch):
    begin_with(monkeypatch, 2.0**8, 99)
    notes = Notes()
    one = train(tmp_path / "run", wrong={3, 6}, steps=4, progress=notes, **settings)  # both play at each step
    (first, second, third, fourth) = (read(one, step) for step in (1, 2, 3, 4))
    names = list(first[1])
    skipped, other = names[0], names[1]
    assert find_moved(first[0], second[0]) == {other}  # update 3 is the first of step 2
    assert find_moved(second[0], third[0]) == {skipped}  # update 6 the second of step 3
    assert find_moved(third[0], fourth[0]) == {*names, "ema"}
    counts = [{name: guard["skipped"] for name, guard in part[1].items()} for part in (first, second, third, fourth)]
    assert counts == [row["skipped"] for row in one.run.read_metrics()]
    assert counts[1:] == [{skipped: 1, other: 0}, {skipped: 1, other: 1}, {skipped: 1, other: 1}]
    if settings is FLOAT16:
        scales = [{name: guard["loss_scale"] for name, guard in part[1].items()} for part in (second, third)]
        assert scales == [
            {skipped: {"value": 2.0**7, "steps": 0}, other: {"value": 2.0**8, "steps": 2}},
            {skipped: {"value": 2.0**7, "steps": 1}, other: {"value": 2.0**7, "steps": 0}},
        ]
    assert [part[2] for part in (first, second, third, fourth)] == [1, 1, 1, 2]
    assert [text.split(",")[0] for text in notes.texts[:-1]] == [
        f"step 2: {skipped} skips it",
        f"step 3: {other} skips it",
    ]
    codebook = "bottleneck.codebook.codes"
    assert not torch.equal(first[0]["autoencoder"][codebook], fourth[0]["autoencoder"][codebook])


def test_losses_in_float16_are_close_to_those_in_float32(tmp_path):
    model = use("autoencoder", **MLP)
    runs = [train(tmp_path / name, model=model, precision=name).run for name in ("float32", "fp16")]
    full, half = ([row["losses"]["autoencoder/nll"] for row in run.read_metrics()] for run in runs)
    assert half == pytest.approx(full, rel=2e-3) and half != full  # 11 bits


def test_adaptive_weights_are_those_of_float32(tmp_path):
    """Without a scale, the gradients that they compare are 0 in float16."""
    seen = {}
    for name in ("float32", "fp16"):
        one = trainer(spec(VQGAN, precision=name, steps=1), tmp_path / name)
        weight = one.model.weights("autoencoder")["critic"]
        measured = seen.setdefault(name, [])
        plain = weight._compute_gradient_norm

        def measure(loss, layer, step, plain=plain, measured=measured):
            measured.append(float(plain(loss * 2.0**-18, layer, step)) * 2.0**18)  # a mean over so many more pixels
            return plain(loss, layer, step)

        weight._compute_gradient_norm = measure
        with one.run:
            one.fit()
    assert seen["fp16"] == pytest.approx(seen["float32"], rel=1e-2)


@pytest.mark.wide
def test_a_resumed_run_goes_on_with_its_scales(tmp_path, monkeypatch):
    begin_with(monkeypatch, 2.0**18, 2)
    run = spec(VQGAN, **EVERY, precision="fp16", steps=6, ema=0.9)
    whole = modkit.train(run, tmp_path / "whole").path
    states = [
        json.loads((whole / "checkpoints" / f"step-{step:08d}" / "state.json").read_text()) for step in range(1, 7)
    ]
    scales = [[player["loss_scale"]["value"] for player in state["players"].values()] for state in states]
    pairs = [(a, b) for earlier, later in zip(scales, scales[1:]) for a, b in zip(earlier, later)]
    assert {b / a for a, b in pairs} == {0.5, 1.0, 2.0}
    for step in (2, 5):
        again = modkit.train(run, stopped_at(f"step-{step:08d}", whole, tmp_path / str(step)), resume=True).path
        assert not differing(again, whole)


@pytest.mark.wide
def test_a_resumed_run_skips_what_it_would_have_skipped(tmp_path):
    run = spec(VQGAN, **EVERY, players={"autoencoder": {"skip": 0.15}}, steps=6, ema=0.9)
    whole = modkit.train(run, tmp_path / "whole")
    counts = [row["skipped"] for row in whole.read_metrics()]
    assert [count["autoencoder"] for count in counts] == [0, 0, 0, 1, 2, 3]
    for step in (2, 4):
        again = modkit.train(run, stopped_at(f"step-{step:08d}", whole.path, tmp_path / str(step)), resume=True).path
        assert not differing(again, whole.path)


def test_a_limit_that_skips_every_step_is_refused():
    with pytest.raises(ValueError, match=r"train\.players\.critic\.skip: .* expects skip to be above 0, got 0"):
        modkit.check(spec(VQGAN, players={"critic": {"skip": 0.0}}))


def test_a_loss_that_overflows_ends_training_with_advice(tmp_path):
    def scale(module, given, out):
        return out * 1e5

    one = trainer(spec(use("autoencoder", **MLP), precision="fp16"), tmp_path / "run")
    one.model.decoder.register_forward_hook(scale)
    with pytest.raises(TrainingError, match=r"65,504 \(train\.precision=bf16 does not\)"), one.run:
        one.fit()
