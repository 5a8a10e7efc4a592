import copy
import json
import math
import multiprocessing
import os
import shutil
import signal
import threading
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn

import modkit
from modkit import Spec, build, train, use
from modkit.conditioners import Label
from modkit.data.digits import Digits
from modkit.data.loader import Loader
from modkit.models.diffusion import Diffusion
from modkit.models.flow import Flow
from modkit.models.model import Model
from modkit.models.player import Player
from modkit.progress import Silent
from modkit.rng import Rng
from modkit.runs import checkpoint as store
from modkit.runs.pictures import draw_picture, encode_png
from modkit.runs.run import Run
from modkit.runs.writer import Writer
from modkit.training.interruption import SIGNALS, Stopped
from modkit.training.trainer import TrainingError
from modkit.types import Score
from tests.play import LINEAR, MLP, Notes, spec, state, trainer

LINE = use("autoencoder", **LINEAR, bottleneck="identity")  # a linear decoder of the pixels
VAE = use("autoencoder", **MLP)
VQGAN = use("autoencoder", **MLP, critic=use("mlp", width=8, depth=1))
LDM = use("latent", autoencoder=VAE, prior=use("diffusion", network=use("mlp", width=8, depth=1)))


def fitted(model, path, loggers=(), progress=None, **train):
    one = trainer(spec(model, **train), path, loggers, progress)
    with one.run:
        one.fit()
    return one


def by_hand(steps, stages=1, lr=0.5, momentum=0.9, decay=0.0, model=None):
    """Plain SGD on the linear autoencoder's squared error; the weights after each step, and the averages."""
    model = model or build(spec(LINE))
    live, averages = [], []
    for stage in range(stages):
        optimizer = torch.optim.SGD(model.parameters(), lr, momentum, fused=True)
        batches = Loader(Digits(size=8), "train", 8, Rng(0, "data", stage)).read_batches()
        average = {name: value.clone() for name, value in model.state_dict().items()}
        for n, batch in zip(range(1, steps + 1), batches):
            x = batch.tensor
            loss = ((x - model.decoder(x)).square() / 2).reshape(8, -1).sum(1).mean() / 64
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            share = min(decay, (1 + n) / (10 + n))
            average = {name: share * value + (1 - share) * model.state_dict()[name] for name, value in average.items()}
            live.append((loss.item(), state(model)))
            averages.append(average)
        if decay:
            model.load_state_dict(average)
    return live, averages


SGD = {"optimizer": use("sgd", lr=0.5, momentum=0.9)}


def test_training_is_plain_sgd_on_the_weighted_losses(tmp_path):
    live, _ = by_hand(5)
    one = fitted(LINE, tmp_path / "run", steps=5, ema=0, **SGD)
    assert [row["losses"]["autoencoder/nll"] for row in one.run.read_metrics()] == [loss for loss, _ in live]
    assert all(torch.equal(value, live[-1][1][name]) for name, value in one.model.state_dict().items())
    assert live[-1][0] < live[0][0] / 2


def test_averages_become_the_weights_and_optimizers_are_new_in_each_stage(tmp_path):
    live, averages = by_hand(4, stages=2, decay=0.3)
    stages = [{"players": ["*"]}] * 2
    one = fitted(LINE, tmp_path / "run", ema=0.3, stages=stages, checkpoints={"every": 1, "keep": 9}, **SGD)
    for step, ((_, weights), average) in enumerate(zip(live, averages), 1):
        kept = store.load(one.run.checkpoints / f"step-{step:08d}").tensors
        torch.testing.assert_close(kept["model"], weights, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(kept["ema"], average, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dict(one.model.state_dict()), averages[-1], rtol=1e-5, atol=1e-6)
    apart = (averages[-1]["decoder.out.weight"] - live[-1][1]["decoder.out.weight"]).abs().max()
    assert apart > 1e-4


class Noted(Digits):
    """Digits that note which samples are read for batches of 8."""

    def read(self, split, indices, rng):
        if split == "train" and len(indices) == 8:
            type(self).seen.append(tuple(indices))
        return super().read(split, indices, rng)


def test_a_run_that_overfits_trains_on_the_same_samples_also_when_it_is_resumed(tmp_path):
    Noted.seen = []
    stages = [{"players": ["*"], "steps": 5}, {"players": ["*"], "steps": 3}]
    settings = {"overfit": 2, "stages": stages, "checkpoints": {"every": 3, "keep": 9}, **SGD}
    given = spec(LINE, use(Noted, size=8), **settings)
    whole = trainer(given, tmp_path / "whole")
    with whole.run:
        whole.fit()
    loader = Loader(Digits(size=8), "train", 8, Rng(0, "data", 0))
    first = [tuple(*(indices for _, indices in loader._make_request(step, 0, None))) for step in (0, 1)]
    assert Noted.seen == 2 * first and len({*first[0], *first[1]}) == 16
    rows = whole.run.read_metrics()
    assert (
        rows[4]["losses"]["autoencoder/nll"]
        < rows[2]["losses"]["autoencoder/nll"]
        < rows[0]["losses"]["autoencoder/nll"]
    )
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for name in ("step-00000005", "step-00000006", "step-00000008"):
        shutil.rmtree(tmp_path / "again" / "checkpoints" / name)
    (tmp_path / "again" / "status.json").unlink()
    again = trainer(given, tmp_path / "again")
    with again.run:
        again.fit()
    assert Noted.seen == 4 * first
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_microbatches_add_up_to_the_batch(tmp_path, accumulate):
    whole = fitted(VAE, tmp_path / "whole", ema=0, **SGD)
    parts = fitted(VAE, tmp_path / "parts", ema=0, accumulate=accumulate, **SGD)
    torch.testing.assert_close(dict(parts.model.state_dict()), dict(whole.model.state_dict()), rtol=1e-4, atol=1e-6)
    for a, b in zip(parts.run.read_metrics(), whole.run.read_metrics()):
        assert a["losses"] == pytest.approx(b["losses"], rel=1e-5)


def test_gradients_are_clipped(tmp_path):
    before = build(spec(LINE)).state_dict()
    after = fitted(LINE, tmp_path / "run", steps=1, ema=0, clip=0.01, optimizer=use("sgd", lr=1.0)).model.state_dict()
    moved = torch.cat([(after[name] - value).flatten() for name, value in before.items()])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_losses_and_pictures_are_computed_under_autocast_with_float32_weights(precision, dtype, tmp_path):
    seen = []

    class Spy(nn.Module):
        last_layer = None

        def __init__(self, z, x):
            super().__init__()
            self.out = nn.Linear(z.numel, x.numel)

        def forward(self, z):
            seen.append(self.out(z).dtype)
            return self.out(z).view(-1, 1, 8, 8)

    model = use("autoencoder", encoder=MLP["encoder"], decoder=use(Spy))
    one = fitted(model, tmp_path / "run", precision=precision, steps=2)
    assert len(seen) == 3 and set(seen) == {dtype}  # the last is of the picture
    assert {value.dtype for value in one.model.state_dict().values()} == {torch.float32}


class Teaching(Model):
    """A student that follows its teacher, which `update` moves towards the student."""

    def __init__(self, x, cond, move: str):
        super().__init__()
        self.event = x
        self.student = nn.Linear(x.numel, 4)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.move, self.gaps = MOVES[move], []

    def players(self):
        return (Player("student", ("student",)),)

    def losses(self, player, batch, step):
        x = batch.tensor.flatten(1)
        taught = self.teacher(x)
        self.gaps.append((taught - nn.functional.linear(x, *self.teacher.parameters())).abs().max().item())
        return {"match": (self.student(x) - taught - 1).square().mean()}

    def update(self, player, step):
        for one, other in zip(self.teacher.parameters(), self.student.parameters()):
            self.move(one, other)

    def draw(self, num, fields, cond, rng):
        return rng.normal("x", self.allocate(num, self.event))


@torch.no_grad()
def move_in_place(one, other):
    one.lerp_(other, 0.5)


def replace_data(one, other):
    one.data = torch.lerp(one.data, other.data, 0.5)


def move_data(one, other):
    one.data.lerp_(other.data, 0.5)


MOVES = {"in place": move_in_place, "new data": replace_data, "data": move_data}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_teacher_that_update_moves_is_used_as_it_is(precision, move, tmp_path):
    one = fitted(use(Teaching, move=move), tmp_path / "run", precision=precision, steps=5, ema=0, **SGD)
    assert one.model.gaps == [0.0] * 5


class Halt:
    def step_done(self, run, stage, step, losses):
        os.kill(os.getpid(), signal.SIGINT)


class Break(Silent):
    def step(self, values):
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("settings", "error"),
    [({}, None), ({"loggers": [Halt()]}, Stopped), ({"progress": Break()}, RuntimeError)],
    ids=["finished", "stopped", "failed"],
)
def test_the_model_is_in_eval_mode_afterwards(settings, error, tmp_path):
    seen = []

    class Look:
        def run_finished(self, run, error):
            seen.append([module.training for module in one.model.modules()])

    loggers = [*settings.pop("loggers", []), Look()]
    critic = use("mlp", width=8, depth=1)
    model = use("autoencoder", encoder=use("mlp", width=8, norm="batch"), decoder=MLP["decoder"], critic=critic)
    one = trainer(spec(model, steps=2, log={"every": 1}), tmp_path / "run", loggers, **settings)
    one.model.train()
    with one.run, nullcontext() if error is None else pytest.raises(error):
        one.fit()
    assert not any(module.training for module in one.model.modules()) and not any(seen[0])
    before, (name,) = state(one.model), one.model.latents
    one.model.encode(torch.rand(4, 1, 8, 8), name)
    assert all(torch.equal(value, before[key]) for key, value in one.model.state_dict().items())


def test_frozen_weights_are_cast_once_a_stage_and_stored_as_they_are(tmp_path):
    dtypes = {}

    class Spy:
        def step_done(self, run, stage, step, losses):
            with torch.autocast("cpu", torch.bfloat16):
                coder = one.model.autoencoder
                for part in (coder.encoder, one.model.prior.network, coder.judges.parts["perceptual"].features):
                    layers = [layer for layer in part.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
                    dtypes.setdefault(stage, []).append({layer.weight.dtype for layer in layers})

    seeing = use("autoencoder", **MLP, judges={"perceptual": use("perceptual", features=use("random-conv", dim=8))})
    model = use("latent", autoencoder=seeing, prior=use("diffusion", network=use("mlp", width=8, depth=1)))
    one = trainer(spec(model, precision="bf16", steps=2), tmp_path / "run", [Spy()])
    with one.run:
        one.fit()
    full, narrow = {torch.float32}, {torch.bfloat16}
    assert {stage: found[:3] for stage, found in dtypes.items()} == {
        0: [full, narrow, narrow],
        1: [narrow, full, narrow],
    }
    kept = one.run.load_weights()
    assert {value.dtype for value in kept.values() if value.is_floating_point()} == {torch.float32}
    assert not [layer for layer in one.model.modules() if hasattr(layer, "narrowed")]


def test_players_play_at_their_steps_and_terms_wait_for_their_opponents(tmp_path):
    players = {"critic": {"every": 2, "start": 1}}
    rows = fitted(VQGAN, tmp_path / "run", steps=5, players=players).run.read_metrics()
    assert [row["step"] for row in rows if "critic/adversarial" in row["losses"]] == [2, 4]
    assert [row["step"] for row in rows if "autoencoder/critic" in row["losses"]] == [2, 3, 4, 5]
    assert all({"autoencoder/nll", "autoencoder/kl"} <= set(row["losses"]) for row in rows)


def test_a_lazy_term_is_computed_in_the_next_turn_of_its_player(tmp_path):
    critic = {"critic": use("mlp", width=8, depth=1), "regularizers": {"r1": use("r1")}}
    players, terms = {"critic": {"every": 2, "start": 1}}, {"r1": {"every": 4}}
    model = use("autoencoder", **MLP, **critic)
    rows = fitted(model, tmp_path / "run", steps=11, players=players, terms=terms).run.read_metrics()
    assert [row["step"] - 1 for row in rows if "critic/adversarial" in row["losses"]] == [1, 3, 5, 7, 9]
    assert [row["step"] - 1 for row in rows if "critic/r1" in row["losses"]] == [1, 5, 9]


def test_a_lazy_term_that_an_adaptive_weight_compares_with_is_left_out_where_it_is_not_due(tmp_path):
    model = use(
        "autoencoder", **MLP, critic=use("mlp", width=8, depth=1), judges={"perceptual": "perceptual"},
        weights={"adversarial": use("adaptive", against=["nll", "perceptual"])},
    )  # fmt: skip
    rows = fitted(model, tmp_path / "run", steps=3, terms={"perceptual": {"every": 2}}).run.read_metrics()
    assert ["autoencoder/perceptual" in row["losses"] for row in rows] == [True, False, True]
    assert all("autoencoder/critic" in row["losses"] for row in rows)


def test_a_critic_that_has_never_played_is_not_played_against(tmp_path):
    stages = [{"players": [p], "steps": 1} for p in ("autoencoder", "*", "autoencoder")]
    rows = fitted(VQGAN, tmp_path / "run", stages=stages).run.read_metrics()
    assert ["autoencoder/critic" in row["losses"] for row in rows] == [False, True, True]
    assert ["critic/adversarial" in row["losses"] for row in rows] == [False, True, False]


def test_what_no_player_of_the_stage_owns_is_frozen(tmp_path):
    gan = use("gan", generator=use("dcgan", channels=4), discriminator=use("dcgan", channels=4), z_dim=4)
    stages = [{"players": ["*"], "steps": 2}, {"players": ["generator"], "steps": 2}]
    modes = []

    class Spy:
        def step_done(self, run, stage, step, losses):
            parts = (one.model.generator, one.model.discriminator)
            modes.append([all(m.training for m in part.modules()) for part in parts])

    one = trainer(spec(gan, stages=stages, ema=0, checkpoints={"every": 2, "keep": 9}), tmp_path / "run", [Spy()])
    one.fit()
    assert modes == [[True, True]] * 2 + [[True, False]] * 2
    middle = store.load(one.run.checkpoints / "step-00000002").tensors["model"]
    moved = {name for name, value in one.model.state_dict().items() if not torch.equal(value, middle[name])}
    assert {name.partition(".")[0] for name in moved} == {"generator"}
    assert any("running_mean" in name for name in moved)


class Told(Model):
    """A line through the origin that keeps what it is asked; its loss is not a number from step `until` on."""

    def __init__(self, x, *, until: int = 99):
        super().__init__()
        self.event, self.until, self.told = x, until, []
        self.line = nn.Linear(1, 1)

    def players(self):
        return (Player("one", ("line",)), Player("empty", ()))

    def losses(self, player, batch, step):
        self.told.append(("losses", player, step.index, len(batch)))
        loss = self.line.weight.square().sum()
        return {"good": loss, "bad": loss * (torch.nan if step.index >= self.until else 1)}

    def prepare(self, player, batches, rng):
        self.told.append(("prepare", player, [sum(len(b) for b in batches) for _ in range(2)]))

    def update(self, player, step):
        grown = self.line.weight.item() != self.before
        self.told.append(("update", player, step.index, step.training, grown))
        self.before = self.line.weight.item()

    before = 0.0

    def draw(self, num, fields, cond, rng):
        return self.line.weight * rng.normal("x", self.allocate(num, self.event))


def test_a_step_is_losses_over_microbatches_then_the_optimizer_then_update(tmp_path):
    stages = [{"players": ["*"], "steps": 2}, {"players": ["one"], "steps": 1}]
    one = trainer(spec(use(Told), stages=stages, accumulate=2, ema=0), tmp_path / "run")
    one.fit()
    step = [[("losses", "one", i, 4), ("losses", "one", i, 4), ("update", "one", i, True, True)] for i in (0, 1)]
    prepared = [("prepare", name, [1437, 1437]) for name in ("one", "empty")]
    assert one.model.told == prepared + step[0] + step[1] + step[0]


@pytest.mark.parametrize("until", [0, 2])
def test_a_loss_that_is_not_a_number_stops_at_once_and_names_the_last_good_checkpoint(tmp_path, until):
    errors = []

    class Spy:
        def run_finished(self, run, error):
            errors.append(error)

    one = trainer(spec(use(Told, until=until), checkpoints={"every": 1}), tmp_path / "run", [Spy()])
    good = tmp_path / "run" / "checkpoints" / f"step-0000000{until}"
    where = rf"at step {until} \(step {until} of stage 0\)"
    message = f"the loss bad of one is nan {where}; the last good checkpoint is {good}"
    with pytest.raises(TrainingError, match=message) as caught, one.run:
        one.fit()
    assert errors == [caught.value] and not one.run.finished and len(one.run.read_metrics()) == until
    assert all(value.isfinite().all() for value in store.load(good).tensors["model"].values())


class Cut(Told):
    """A model of whose losses none depends on the weights, for torch."""

    def losses(self, player, batch, step):
        return {name: loss.detach() for name, loss in super().losses(player, batch, step).items()}


def test_losses_without_a_gradient_are_named_with_their_player(tmp_path):
    """The fault: "element 0 of tensors does not require grad", with no word on whose losses they are."""
    said = "player one expects a loss that depends on its parameters, got good, bad, through which no gradient flows"
    with pytest.raises(ValueError, match=said):
        fitted(use(Cut), tmp_path / "run")


@pytest.mark.wide
def test_a_step_that_fails_ends_the_processes_and_the_thread_that_read(tmp_path):
    before = multiprocessing.active_children()
    with pytest.raises(TrainingError, match="the loss bad of one is nan") as caught:
        fitted(use(Told, until=2), tmp_path / "run", workers=1)
    assert caught.value.__traceback__  # which keeps the frames of the training
    assert set(multiprocessing.active_children()) <= set(before)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("modkit-batches")]


class Refusing:
    every = 1000

    def __call__(self, model, engine):
        raise ValueError("Refusing expects more samples")


def test_a_score_that_is_refused_ends_training_after_the_checkpoint_that_is_due(tmp_path):
    """The fault: the checkpoint of that step was not written, so that resuming came to the same score again."""
    settings = {"steps": 3, "checkpoints": {"every": 2}}
    one = trainer(spec(VAE, **settings), tmp_path / "run")
    one.scorer = Refusing()
    good = tmp_path / "run" / "checkpoints" / "step-00000003"
    with pytest.raises(TrainingError, match=f"Refusing expects more samples at step 3 .*checkpoint is {good}"), one.run:
        one.fit()
    again, plain = fitted(VAE, tmp_path / "run", **settings), fitted(VAE, tmp_path / "plain", **settings)
    assert again.run.finished and all(
        torch.equal(value, state(plain.model)[n]) for n, value in state(again.model).items()
    )


def test_watchers_are_told_in_order(tmp_path):
    told = []

    class Spy:
        def __getattr__(self, event):
            return lambda run, **arguments: told.append((event, arguments))

    one = fitted(LINE, tmp_path / "run", [Spy()], steps=3, samples={"every": 2, "num": 4}, checkpoints={"every": 2})
    events = [(event, arguments.get("step")) for event, arguments in told]
    names = [name for name, _ in events]
    want = ["run_started", "step_done", "step_done", "samples_ready", "step_done", "samples_ready", "run_finished"]
    assert [name for name in names if name != "checkpoint_saved"] == want
    assert names[1] == names[-2] == "checkpoint_saved" and names.index("checkpoint_saved", 2) > names.index(want[3])
    assert [step for name, step in events if name in ("step_done", "samples_ready")] == [1, 2, 2, 3, 3]
    rows = one.run.read_metrics()
    losses = [arguments for event, arguments in told if event == "step_done"]
    assert [dict(row) for row in rows] == [
        {key: a[key] for key in ("stage", "step", "losses", "measures")} for a in losses
    ]
    grids = [arguments["grid"] for event, arguments in told if event == "samples_ready"]
    assert (one.run.samples / "step-00000003.png").read_bytes() == encode_png(grids[-1])
    paths = [arguments["path"].name for event, arguments in told if event == "checkpoint_saved"]
    assert paths == ["step-00000000", "step-00000002", "step-00000003"]
    assert told[-1] == ("run_finished", {"model": one.model, "error": None})


def test_rows_are_logged_at_their_steps_and_clocks_stand_elsewhere(tmp_path):
    stages = [{"players": ["*"], "steps": 5}, {"players": ["*"], "steps": 4}]
    one = fitted(LINE, tmp_path / "a", stages=stages, log={"every": 3})
    rows = one.run.read_metrics()
    assert [(row["stage"], row["step"]) for row in rows] == [(0, 3), (0, 5), (1, 6), (1, 9)]
    assert {key for row in rows for key in row} == {"stage", "step", "losses", "measures"}
    timing = [json.loads(line) for line in (tmp_path / "a" / "timing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in timing] == [3, 5, 6, 9] and all(row["steps_per_second"] > 0 for row in timing)
    assert all(row["samples_per_second"] == 8 * row["steps_per_second"] for row in timing)
    fitted(LINE, tmp_path / "b", stages=stages, log={"every": 3})
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_measures_are_norms_before_clipping_and_the_rates_of_steps(tmp_path, clip):
    """The critic plays in steps 2 and 4, each at one half of its schedule, which falls from 0.5 to 0."""
    players = {"critic": {"every": 2, "start": 1}}
    settings = {"optimizer": use("sgd", lr=0.5), "lr_schedule": "cosine", "players": players, "clip": clip}
    one, norms = trainer(spec(VQGAN, **settings), tmp_path / "run"), []
    step = one.engine.step

    def observe(optimizer):
        gradients = [p.grad.double().flatten() for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat(gradients).square().sum().sqrt().item())
        step(optimizer)

    one.engine.step = observe
    with one.run:
        one.fit()
    rows = [row["measures"] for row in one.run.read_metrics()]
    turns = [
        (0, "autoencoder"),
        (1, "autoencoder"),
        (1, "critic"),
        (2, "autoencoder"),
        (3, "autoencoder"),
        (3, "critic"),
    ]
    measured = [rows[index][f"gradient_norm/{name}"] for index, name in turns]
    assert measured == pytest.approx(norms, rel=1e-5) and min(norms) > 1e-3
    assert [name in row for row in rows for name in ("gradient_norm/critic",)] == [False, True, False, True]
    rates = [0.25 * (1 + math.cos(math.pi * turn / 4)) for turn in range(4)]
    assert [row["learning_rate/autoencoder"] for row in rows] == pytest.approx(rates)
    assert [row.get("learning_rate/critic") for row in rows] == [None, 0.5, 0.5, pytest.approx(0.25)]


def test_before_it_can_be_sampled_grids_show_reconstructions_and_say_so(tmp_path):
    notes = Notes()
    one = fitted(LDM, tmp_path / "run", progress=notes, steps=2)
    (note,) = notes.texts
    assert note == "step-00000002.png: reconstructions until prior/denoiser is trained"
    held = Digits(size=8).read("test", range(4), Rng(0)).tensor
    with torch.no_grad():
        want = draw_picture(one.model.eval().reconstruct(held), one.data.x)
    assert (one.run.samples / "step-00000002.png").read_bytes() == encode_png(want)
    want = draw_picture(one.model.sample(4, seed=0), one.data.x)
    assert (one.run.samples / "step-00000004.png").read_bytes() == encode_png(want)


def test_the_prior_is_prepared_once_with_the_averaged_weights_of_the_stage_before(tmp_path):
    stages = [{"players": ["autoencoder/*"], "steps": 3}, *[{"players": ["prior/*"], "steps": 1}] * 2]
    one = fitted(LDM, tmp_path / "run", stages=stages, ema=0.9, checkpoints={"every": 1, "keep": 9})
    first, last = (store.load(one.run.checkpoints / f"step-{n:08d}") for n in (3, 5))
    assert first.state["cursor"]["prepared"] == ["autoencoder/autoencoder", "prior/denoiser"]
    assert first.state["cursor"]["stage"] == 1 and first.state["cursor"]["index"] == 0
    assert torch.equal(first.tensors["model"]["std_0"], last.tensors["model"]["std_0"])
    weights = [kept.tensors["model"]["autoencoder.encoder.hidden.0.weight"] for kept in (first, last)]
    assert torch.equal(*weights)
    x = one.data.read("train", range(1437), Rng(0)).tensor
    mean, logvar = one.model.autoencoder.bottleneck.project(one.model.autoencoder.encoder(x)).double().chunk(2, 1)
    std = (mean.var(correction=0) + logvar.exp().mean()).sqrt()
    assert last.tensors["model"]["std_0"].item() == pytest.approx(std.item(), rel=0.05)


def test_averages_start_from_prepared_weights(tmp_path):
    model = use("autoencoder", **MLP, bottleneck=use("vq", num_codes=8, codebook="gradient"))
    one = fitted(model, tmp_path / "run", checkpoints={"keep": 9})
    first = store.load(one.run.checkpoints / "step-00000000").tensors
    assert torch.equal(first["ema"]["bottleneck.codebook.codes"], first["model"]["bottleneck.codebook.codes"])


def test_the_best_checkpoint_is_kept(tmp_path):
    class Valley(Told):
        """A loss that is lowest at the fourth step."""

        def losses(self, player, batch, step):
            return {"depth": self.line.weight.sum() * 0 + abs(step.index - 3)}

    checkpoints = {"every": 2, "keep": 1, "best": "one/depth"}
    one = fitted(use(Valley), tmp_path / "run", steps=10, checkpoints=checkpoints)
    assert store.list_names(one.run.checkpoints) == ["step-00000004", "step-00000010"]


def test_the_best_checkpoint_is_the_one_with_the_best_score_of_its_own(tmp_path):
    """The fault: the mean of all scores since the previous checkpoint, most of other weights, decided."""

    class Scripted:
        every = 1

        def __init__(self):
            self.values = iter([9.0, 1.0, 2.0, 3.0, 9.0, 9.0])

        def __call__(self, model, engine):
            return {"depth": Score(next(self.values), None, "lower")}

    one = trainer(spec(VAE, steps=6, checkpoints={"every": 2, "keep": 1}), tmp_path / "run")
    one.scorer = Scripted()
    with one.run:
        one.fit()
    assert store.list_names(one.run.checkpoints) == ["step-00000002", "step-00000006"]


def test_a_logger_that_fails_never_stops_training(tmp_path):
    class Broken:
        def step_done(self, **_):
            raise OSError("disk full")

    with pytest.warns(UserWarning, match="Broken failed in step_done and is not called again: OSError: disk full") as w:
        one = fitted(LINE, tmp_path / "run", [Broken()])
    assert len(w) == 1 and one.run.finished and len(one.run.read_metrics()) == 4


@pytest.mark.wide(1)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_that_is_interrupted_saves_and_goes_on_as_if_it_never_was(tmp_path, number):
    class Impatient:
        def step_done(self, run, stage, step, losses):
            if step == 3:
                os.kill(os.getpid(), number)

    model = use("autoencoder", **{**MLP, "bottleneck": use("vq", num_codes=8)}, critic=use("dcgan", channels=4))
    settings = {"steps": 6, "lr_schedule": "cosine", "ema": 0.9}
    before = [signal.getsignal(one) for one in SIGNALS]
    with pytest.raises(Stopped, match="stopped at step 3"):
        fitted(model, tmp_path / "a", [Impatient()], **settings)
    assert [signal.getsignal(one) for one in SIGNALS] == before
    resumed = fitted(model, tmp_path / "a", **settings)
    straight = fitted(model, tmp_path / "b", **settings)
    assert all(torch.equal(v, straight.model.state_dict()[name]) for name, v in resumed.model.state_dict().items())
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
    assert resumed.run.finished


def test_tensorboard_holds_a_run_s_losses_and_grids(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(spec(LINE, loggers=["tensorboard"]), tmp_path / "run")
    found = events.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    scalars = [(event.step, event.value) for event in found.Scalars("stage-0/autoencoder/nll")]
    rows = [(row["step"], row["losses"]["autoencoder/nll"]) for row in run.read_metrics()]
    assert scalars == [(step, pytest.approx(value)) for step, value in rows] and len(rows) == 4
    assert [image.step for image in found.Images("samples")] == [4]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    told, written, save = [], threading.Event(), Run.save_snapshot

    def wait(run, name, *rest):
        assert name != "step-00000002" or written.wait(60)
        return save(run, name, *rest)

    class Told:
        def step_done(self, run, stage, step, losses):
            told.append(step)
            if step == 3:
                written.set()

        def checkpoint_saved(self, run, path):
            told.append(path.name)

    monkeypatch.setattr(Run, "save_snapshot", wait)
    one = fitted(LINE, tmp_path / "run", [Told()], checkpoints={"every": 2, "keep": 1}, **SGD)
    saved = [f"step-{step:08d}" for step in (0, 2, 4)]
    assert told[0] == saved[0] and told.index(3) < told.index(saved[1]) < told.index(saved[2])
    assert one.run.kept == saved[2:]


def test_an_error_of_the_disk_is_raised_at_the_next_step(tmp_path, monkeypatch):
    save, steps = Run.save_snapshot, []

    def fail(run, name, *rest):
        if name == "step-00000002":
            raise OSError(28, "No space left on device")
        return save(run, name, *rest)

    class Told:
        def step_done(self, run, stage, step, losses):
            steps.append(step)

    monkeypatch.setattr(Run, "save_snapshot", fail)
    monkeypatch.setattr(Writer, "poll", lambda writer: writer.finish())  # as if it had been written within a step
    with pytest.raises(OSError, match="No space left on device"):
        fitted(LINE, tmp_path / "run", [Told()], steps=9, checkpoints={"every": 2}, **SGD)
    assert steps == [1, 2] and store.list_names(tmp_path / "run" / "checkpoints") == ["step-00000000"]


@pytest.mark.parametrize(
    ("data", "model"),
    [
        (use("ring", num=256, num_test=32), use("flow", bijection=use("chain", layers=["actnorm", "linear"]))),
        (use("digits", size=8), use("autoencoder", **MLP, bottleneck=use("vq", num_codes=16, channels=4))),
    ],
    ids=["flow", "vq"],
)
def test_a_trained_piece_is_trained_further_from_its_weights(tmp_path, data, model):
    """Preparation would measure its actnorms, or cluster its codes, anew."""
    first = train(Spec(data=data, model=model, train={"batch_size": 16}), tmp_path / "first", steps=3)
    piece = use("run", path=str(first.path), at="model", train=True)
    other = train(Spec(data=data, model=piece, train={"batch_size": 16, "seed": 1}), tmp_path / "other", steps=1)
    begun, expected = store.load(other.checkpoints / "step-00000000").tensors["model"], first.load_weights()
    assert begun.keys() == expected.keys() and all(torch.equal(begun[name], expected[name]) for name in expected)


def test_a_model_that_was_trained_goes_on_from_its_weights(tmp_path):
    x = modkit.TensorType((2,))
    points = Rng(0).normal("x", torch.empty(64, 2))
    model = Flow(x, bijection="actnorm")
    modkit.fit(model, points, tmp_path / "first", steps=2, batch_size=16)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    loaded = modkit.load(tmp_path / "first")
    for again in (model, loaded):
        run = modkit.fit(again, points + 5, tmp_path / f"again-{id(again)}", steps=1, batch_size=16)
        begun = store.load(run.checkpoints / "step-00000000").tensors["model"]
        assert all(torch.equal(begun[name], trained[name]) for name in trained)


@pytest.mark.wide
def test_what_a_trained_piece_has_not_seen_is_still_measured(tmp_path):
    """The scale of another autoencoder's latents, and how often the data have each label."""
    label = use("label", width=4)
    prior = use("diffusion", network=use("mlp", width=8, depth=1), conditioner=label)
    first = train(spec(use("latent", autoencoder=use("autoencoder", **MLP), prior=prior)), tmp_path / "first", steps=1)
    piece = use("run", path=str(first.path), at="model.prior", train=True)
    other = spec(use("latent", autoencoder=use("autoencoder", **MLP), prior=piece))
    model = modkit.load(train(other.with_value("train.seed", 5), tmp_path / "other", steps=1))
    assert model.scale.known and model.sample(2, seed=0).isfinite().all()

    x, labels = modkit.TensorType((2,)), torch.tensor([0, 1] * 32)
    fields = {"labels": modkit.TensorType((), classes=3)}
    model = Diffusion(x, fields=fields, network="mlp", conditioner=partial(Label, width=4))
    points = Rng(0).normal("x", torch.empty(64, 2))
    for number, shown in enumerate((labels, labels + 1)):
        modkit.fit(model, (points, {"labels": shown}), tmp_path / str(number), steps=1, batch_size=16)
        assert set(model.conditioner.draw(200, Rng(0))["labels"].tolist()) == set(shown.tolist())
