"""Fitting objects: what data may be, and that `fit`, `train` and a loop of one's own compute the same."""

import re
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import modkit
from modkit import CondType, SpecError, TensorType
from modkit.data import Digits, Ring, Subset
from modkit.data.loader import Loader, read_shuffled
from modkit.data.objects import as_data
from modkit.evaluation.report import Report
from modkit.models import GAN, Autoencoder, Diffusion, Latent
from modkit.models.model import Model
from modkit.nn import ConvEncoder, MLPDecoder, MLPNetwork
from modkit.optim.optimizers import adam
from modkit.training import training
from modkit.training.trainer import TrainingError
from tests.refusals import refusals

X = TensorType((2,))
TINY = {"batch_size": 4, "device": "cpu", "ema": 0.0, "optimizer": "adam", "samples": {"num": 4}}
SMALL = partial(Autoencoder, encoder=partial(ConvEncoder, channels=[4]), decoder=partial(MLPDecoder, width=8, depth=1))
NETWORK = partial(MLPNetwork, width=8, depth=1)
FAMILIES = {
    "autoencoder": partial(SMALL, bottleneck="vq"),
    "gan": partial(GAN, generator="mlp", discriminator="mlp", z_dim=2),
    "latent": partial(Latent, autoencoder=SMALL, prior=partial(Diffusion, network=NETWORK)),
}


def points(num=12):
    return torch.randn(num, 2, generator=torch.Generator().manual_seed(0))


def make_gan(**options):
    with modkit.seeded(0):
        return GAN(X, generator="mlp", discriminator="mlp", z_dim=2, **options)


def equal(a, b):
    state, other = a.state_dict(), b.state_dict()
    return all(torch.equal(value.nan_to_num(), other[key].nan_to_num()) for key, value in state.items())


class Passes:
    """The passes over the data that the trainer prepares a player by."""

    def __init__(self, data, player):
        self.data, self.player, self.count = data, player, 0

    def __iter__(self):
        self.count += 1
        return iter(read_shuffled(self.data, "train", 4, modkit.Rng(0, "prepare", self.player, self.count)))


@pytest.mark.wide(1)
@pytest.mark.parametrize("family", FAMILIES)
def test_fit_and_a_loop_of_ones_own_are_equal_to_the_bit(family, tmp_path):
    data = Digits(size=8)
    with modkit.seeded(0):
        model, other = FAMILIES[family](data.x), FAMILIES[family](data.x)
    run = modkit.fit(model, data, tmp_path / "run", steps=3, **TINY)
    for stage in range(len(other.stages())):
        for player in modkit.players(other, stage):
            player.prepare(Passes(data, player.name))
        players = modkit.players(other, stage)
        optimizers = [adam(player.parameters) for player in players]
        for index, batch in enumerate(
            islice(Loader(data, "train", 4, modkit.Rng(0, "data", stage)).read_batches(0), 3)
        ):
            for player, optimizer in zip(players, optimizers):
                with player.begin_turn(index) as step:
                    player.compute_loss(batch, step).backward()
                optimizer.step()
                optimizer.zero_grad()
                player.update(index)
    assert equal(model, other)
    with modkit.seeded(1):
        loaded = modkit.load(run, model=FAMILIES[family](data.x))
    assert equal(model, loaded) and not loaded.training


def test_a_run_of_objects_is_that_of_their_spec(tmp_path):
    with modkit.seeded(0):
        model = SMALL(Digits(size=8).x)
    run = modkit.fit(model, partial(Digits, size=8), tmp_path / "objects", name="same", steps=2, **TINY)
    again = modkit.train(modkit.Spec.from_yaml((run.path / "spec.yaml").read_text()), tmp_path / "spec")
    assert run.spec_text == again.spec_text and equal(modkit.load(run), modkit.load(again))
    assert modkit.load(run, ["train.seed=1"]).sample(2, seed=0).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    "data",
    [points(), (points(), {}), TensorDataset(points()), DataLoader(TensorDataset(points()), batch_size=5)],
    ids=["tensor", "pair", "dataset", "loader"],
)
def test_data_of_any_form_train_the_same(data, tmp_path):
    model, plain = make_gan(), make_gan()
    modkit.fit(model, data, tmp_path / "a", steps=2, **TINY)
    modkit.fit(plain, points(), tmp_path / "b", steps=2, **TINY)
    expected = isinstance(data, torch.Tensor | tuple)  # the order of samples is a function of the data's own key
    assert equal(model, plain) or not expected


def test_fields_come_along():
    labels = TensorType((), classes=3)
    y = torch.arange(12) % 3
    data = as_data((points(), {"labels": y, "other": y}), X, {"labels": labels})
    batch = data.read("train", [3, 1], modkit.Rng(0))
    assert torch.equal(batch.x, points()[[3, 1]]) and batch.fields["labels"].tolist() == [0, 1]
    pairs = as_data(TensorDataset(points(), y), X, {"labels": labels}).read("train", [5], modkit.Rng(0))
    assert pairs.fields["labels"].tolist() == [2]


LABELS = {"labels": TensorType((), classes=3)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("label", [torch.uint8, torch.int32, torch.bool])
def test_other_floats_and_integers_are_converted(dtype, label):
    x, y = points().to(dtype), (torch.arange(12) % 2).to(label)
    for data in (as_data((x, {"labels": y}), X, LABELS), as_data(TensorDataset(x, y), X, LABELS)):
        batch = data.read("train", [3, 1], modkit.Rng(0))
        assert batch.x.dtype == torch.float32 and torch.equal(batch.x, x[[3, 1]].float()) and data.key
        assert batch.fields["labels"].dtype == torch.int64 and batch.fields["labels"].tolist() == [1, 1]


def test_doubles_of_numpy_train(tmp_path):
    data = [row.astype(np.float64) for row in points().numpy()]
    modkit.fit(make_gan(), ListDataset(data), tmp_path / "run", steps=1, **TINY)
    modkit.fit(make_gan(), torch.from_numpy(np.stack(data)), tmp_path / "other", steps=1, **TINY)


class ListDataset(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


BYTES, IMAGE = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), TensorType((1, 8, 8), range=(-1.0, 1.0))
PILLOW = Image.new("L", (8, 8))


@pytest.mark.parametrize(
    ("data", "x", "fields", "message"),
    [
        (
            BYTES,
            IMAGE,
            {},
            "Tensors expects samples as floats, got uint8; scale it to the range: pixels 0..255 by "
            "`x / 255 * 2 + (-1)`",
        ),
        (TensorDataset(BYTES), IMAGE, {}, "Indexed expects `x` in item 0 as floats, got uint8; scale it to the range"),
        (points().long(), X, {}, "Tensors expects samples as floats, got int64; convert it with `x.float()`"),
        (
            (points(), {"labels": torch.zeros(12)}),
            X,
            LABELS,
            "Tensors expects labels as integers from 0 to 2, got float32; convert it with `x.long()`",
        ),
        (
            ListDataset([PILLOW]),
            IMAGE,
            {},
            "Indexed expects `x` of 1×8×8 in [-1, 1] in item 0, got a value of Image; have the Dataset return a tensor",
        ),
        (ListDataset([(PILLOW, 1)]), IMAGE, LABELS, "got a value of Image"),
        (
            ListDataset([{"x": points()[0], "labels": "cat"}]),
            X,
            LABELS,
            "`labels` of scalar codes of 3 classes in item 0, got a value of str",
        ),
        (
            ListDataset([points()[0]]),
            X,
            LABELS,
            "Indexed expects `labels` of scalar codes of 3 classes in item 0, got nothing",
        ),
    ],
)
def test_values_of_another_kind_are_refused(data, x, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        as_data(data, x, fields)


PICTURES = torch.linspace(-1, 1, 256).view(4, 1, 8, 8)


@pytest.mark.parametrize(
    ("samples", "x", "labels", "expected", "received"),
    [
        (PICTURES * 127.5 + 127.5, IMAGE, None, "in [-1, 1]", "0 to 255"),
        (PICTURES - 0.01, IMAGE, None, "in [-1, 1]", "-1.01 to 0.99"),
        (PICTURES / 0, IMAGE, None, "in [-1, 1]", "-inf to inf"),
        (points() * torch.nan, X, None, "that are finite", "nan to nan"),
        (points().double().abs() * 1e300, X, None, "that are finite", "inf to inf"),
        (points(), X, torch.tensor([0, 3] * 6), "in [0, 2]", "0 to 3"),
        (points(), X, torch.tensor([-1, 2] * 6), "in [0, 2]", "-1 to 2"),
    ],
)
def test_values_out_of_range_are_refused(samples, x, labels, expected, received):
    fields, given = ({}, {}) if labels is None else (LABELS, {"labels": labels})
    name = "samples" if labels is None else "labels"
    with pytest.raises(ValueError, match=re.escape(f"Tensors expects {name} with values {expected}, got {received}")):
        as_data((samples, given), x, fields)
    name = "x" if labels is None else "labels"
    message = rf"Indexed expects `{name}` in item \d+ with values {re.escape(expected)}, got"
    with pytest.raises(ValueError, match=message):
        as_data(TensorDataset(samples, *given.values()), x, fields).read("train", range(len(samples)), modkit.Rng(0))


def test_rounding_may_exceed_a_range():
    near = PICTURES * (1 + 1e-4)
    assert torch.equal(as_data(near, IMAGE, {}).read("train", [0, 3], modkit.Rng(0)).x, near[[0, 3]])
    assert as_data(torch.zeros(0, 1, 8, 8), IMAGE, {}).splits == {"train": 0}


def test_a_dataset_that_augments_gives_the_same_sample_again():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.randn(2) + index

    data = as_data(Noisy(), X, {})
    first = data.read("train", [0, 3], modkit.Rng(0)).x
    assert torch.equal(first, data.read("train", [0, 3], modkit.Rng(0)).x)
    assert not torch.equal(first, data.read("train", [0, 3], modkit.Rng(1)).x)


class Unsized(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return points()[index]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(4, 3), r"Tensors expects samples with 4 rows of 2 unbounded, got a tensor 4×3"),
        (Unsized(), "`data` must have a length, got Unsized without `__len__`"),
        (3, "`data` must be a data part, a tensor, .* got int"),
        ({"train": points(), "test": 3}, "`data` must be a data part, a tensor, .* got int"),
        (TensorDataset(torch.zeros(4, 3)), r"Indexed expects `x` of 2 unbounded in item 0, got a tensor 3"),
        (Digits(size=8), r"the model was composed for samples of 2 unbounded; got data with samples of 1×8×8"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_a_run_is_made(data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        modkit.fit(make_gan(), data, tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


def test_settings_are_those_of_train(tmp_path):
    with pytest.raises(SpecError, match=r"train\.stepz: got an unknown key 'stepz'"):
        modkit.fit(make_gan(), points(), tmp_path / "run", stepz=2)
    run = modkit.fit(make_gan(), points(), tmp_path / "run", steps=1, **{**TINY, "optimizer": partial(adam, lr=1e-4)})
    assert modkit.Spec.from_yaml(run.spec_text).at("train.optimizer.lr") == 1e-4
    with pytest.raises(ValueError, match="holds a run"):
        modkit.fit(make_gan(), points(), tmp_path / "run", steps=1, **TINY)


def test_it_resumes(tmp_path):
    whole, first, second = make_gan(), make_gan(), make_gan()
    modkit.fit(whole, points(), tmp_path / "whole", steps=4, **TINY)
    modkit.fit(first, points(), tmp_path / "run", steps=2, **TINY)
    modkit.fit(second, points(), tmp_path / "run", steps=4, resume=True, **TINY)
    assert equal(second, whole)


@pytest.mark.wide(1)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_second_training_gives_the_prior_latents_of_unit_scale(frozen, tmp_path):
    """The fault: the scale stayed that of the first training, while the autoencoder trained on."""
    with modkit.seeded(0):
        model = FAMILIES["latent"](Digits(size=8).x)
    options = {**TINY, "optimizer": partial(adam, lr=1e-2), "batch_size": 32, "steps": 2}
    modkit.fit(model, Digits(size=8), tmp_path / "run", **options)
    first = [float(one) for one in model.scale.get_moments(0)]
    model.autoencoder.requires_grad_(not frozen)
    run = modkit.fit(model, Digits(size=8), tmp_path / "run", overwrite=True, **{**options, "seed": 1})
    assert ([float(one) for one in modkit.load(run).scale.get_moments(0)] == first) == frozen
    x = Digits(size=8).read("train", range(1437), modkit.Rng(0)).x
    latents = model.scale.apply(model.autoencoder.encode(x, model.at, modkit.Rng(0)))
    assert frozen or abs(latents.std() - 1) < 0.01


class Line(torch.nn.Module):
    """A denoiser of one's own."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(3, 2)

    def forward(self, x, cond):
        return self.line(torch.cat([x, cond.time[:, None]], 1))


def make_line(seed):
    torch.manual_seed(seed)
    return Diffusion(X, network=Line())


@pytest.mark.wide
def test_a_run_with_a_built_part_resumes_to_the_bit(tmp_path):
    """The fault: the built part was asked for its slots, and the checkpoint was said not to fit."""
    options = {**TINY, "ema": 0.9}
    whole, first, second = make_line(0), make_line(0), make_line(1)
    modkit.fit(whole, points(), tmp_path / "whole", steps=4, **options)
    modkit.fit(first, points(), tmp_path / "run", steps=2, **options)
    modkit.fit(second, points(), tmp_path / "run", steps=4, resume=True, **options)
    assert equal(second, whole) and not equal(first, whole)


@pytest.mark.wide
def test_a_run_with_a_built_part_is_measured_as_one_whose_slot_builds_it(tmp_path):
    class Slotted(Line):
        def __init__(self, cond: CondType) -> None:
            super().__init__()

    evaluate = {"num": 16, "features": "pixels", "metrics": ["fd"]}
    built, slotted = make_line(0), Diffusion(X, network=Slotted)
    slotted.load_state_dict(built.state_dict())
    scores = []
    for name, model in (("built", built), ("slotted", slotted)):
        run = modkit.fit(model, Ring(num=32, num_test=32), tmp_path / name, steps=2, evaluate=evaluate, **TINY)
        scores.append(Report.read(run.path / "evaluation.json").scores["FD (pixels)"].value)
    assert scores[0] == scores[1] and equal(built, slotted)
    assert all(parameter.requires_grad for parameter in built.parameters())


def test_a_run_that_no_command_can_load_is_not_advised_one(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise ValueError("a metric has second thoughts")

    monkeypatch.setattr(training, "measure_run", refuse)
    with pytest.raises(TrainingError, match=r"second thoughts; evaluate it with: modkit\.evaluate\(real=…, fake=model"):
        modkit.fit(
            make_line(0), Ring(num=32, num_test=32), tmp_path / "run", steps=1, evaluate={"metrics": ["fd"]}, **TINY
        )


@pytest.mark.parametrize("local", [True, False])
def test_a_change_that_a_run_of_local_parts_refuses_advises_no_command(local, tmp_path):
    """The fault: it was to be branched, which no run of local parts can."""

    def fit(**settings):
        model = make_line(0) if local else make_gan()
        modkit.fit(model, Ring(num=32, num_test=32), tmp_path / "run", steps=1, **{**TINY, **settings})

    fit()
    with pytest.raises(SpecError, match=r"train\.ema: got 0\.5 in a run") as caught:
        fit(ema=0.5, resume=True)
    (problem,) = caught.value.problems
    assert ("modkit branch" in (problem.hint or "")) is not local


def make_adam():
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])


class MyAdam(torch.optim.Adam):
    """A class that torch does not name."""


test_what_each_player_gets_anew_cannot_be_given_built = refusals(
    ({"optimizer": make_adam()}, r"train\.optimizer: got a built Adam, expected a class, a .*with `parameters`"),
    (
        {"players": {"generator": {"optimizer": make_adam()}}},
        r"train\.players\.generator\.optimizer: got a built Adam",
    ),
    (
        {"lr_schedule": torch.optim.lr_scheduler.StepLR(make_adam(), 1)},
        r"train\.lr_schedule: got a built StepLR, .* with `optimizer` and `steps`",
    ),
    (
        {"optimizer": partial(MyAdam, lr=1e-3)},
        r"train\.optimizer: the optimizer MyAdam cannot be used: .*'params': expected plain data or a slot \(it is "
        r"given parameters by name\), got .* \(parts of kind optimizer with a name: adam, adamw, rmsprop, sgd, torch\)",
    ),
    of=lambda settings: modkit.fit(make_gan(), points(), "runs/none", **{**TINY, **settings}),
    error=SpecError,
)


def test_a_function_of_parameters_is_an_optimizer(tmp_path):
    """Each player has its own, and both are trained by it."""
    made, model = [], make_gan()

    def sgd(parameters):
        made.append(torch.optim.SGD(parameters, lr=0.1))
        return made[-1]

    modkit.fit(model, points(), tmp_path / "run", steps=1, **{**TINY, "optimizer": sgd})
    sides = [set(map(id, side.parameters())) for side in (model.discriminator, model.generator)]
    assert [{id(one) for group in each.param_groups for one in group["params"]} for each in made[-2:]] == sides
    assert not any(equal(side, other) for side, other in [(model.generator, make_gan().generator)])


def test_it_measures_where_asked(tmp_path):
    with modkit.seeded(0):
        model = SMALL(Digits(size=8).x, bottleneck="gaussian")
    data, evaluate = partial(Digits, size=8), {"num": 16, "features": "pixels", "metrics": ["fd"]}
    run = modkit.fit(model, data, tmp_path / "run", evaluate=evaluate, steps=1, **TINY)
    assert (run.path / "evaluation.json").exists()


def test_a_stage_that_trains_nothing_is_refused(tmp_path):
    class Empty(Model):
        def __init__(self, x: TensorType) -> None:
            super().__init__()
            self.event, self.net = x, torch.nn.Identity()

        def players(self):
            return (modkit.Player("own", ("net",)),)

        def losses(self, player, batch, step):
            return {"mean": batch.tensor.mean()}

    with pytest.raises(
        ValueError, match="something to train, got one of own with no parameters to train and no buffers in net"
    ):
        modkit.fit(Empty(X), points(), tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.wide
def test_a_spec_is_planned_once_and_its_data_are_read_once(tmp_path, monkeypatch):
    """The fault: `build` planned and read twice, `train` with `evaluate` four times."""
    from modkit.building import plan as planning
    from modkit.data import digits

    counts = {"plan": 0, "data": 0}
    resolve, init = planning.resolve, digits.Digits.__init__

    def counted(name, function):
        def run(*arguments, **options):
            counts[name] += 1
            return function(*arguments, **options)

        return run

    monkeypatch.setattr(planning, "resolve", counted("plan", resolve))  # once a plan
    counting = counted("data", init)
    counting.__wrapped__ = init
    monkeypatch.setattr(digits.Digits, "__init__", counting)
    spec = modkit.Spec(
        model=modkit.use("autoencoder", encoder="mlp", decoder="mlp"),
        data=modkit.use("digits", size=8),
        train={"steps": 1, **TINY},
        evaluate={"num": 8, "features": "pixels", "metrics": ["fd"]},
    )
    modkit.build(spec)
    assert counts == {"plan": 1, "data": 1}
    run = modkit.train(spec, tmp_path / "run")
    assert counts == {"plan": 2, "data": 2}
    modkit.load(run)
    assert counts == {"plan": 3, "data": 2}
    modkit.evaluate_run(run)
    assert counts == {"plan": 4, "data": 3}


def test_the_key_of_a_dataset_follows_its_samples():
    """The fault: only the first sample was hashed, so that data sets that begin alike shared what is kept of them."""
    samples = points()
    others = samples.clone()
    others[-1] += 1
    keys = [as_data(TensorDataset(x), X, {}).key for x in (samples, samples.clone(), others)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.wide
def test_a_run_of_a_data_object_says_which_data_to_name(tmp_path):
    """The fault: the advice was `data=digits`, of another size, whose weights did not fit, and `modkit branch x=…`."""
    with modkit.seeded(0):
        model = SMALL(Digits(size=8).x)

    class Sized(Digits):
        def __init__(self):
            super().__init__(size=8)

    run, other = tmp_path / "run", partial(Subset, data=partial(Digits, size=8))
    modkit.fit(model, Sized(), run, steps=1, **TINY)
    with pytest.raises(ValueError, match="resume=True.* to continue it or --overwrite .overwrite=True. to replace it"):
        modkit.fit(model, Sized(), run, steps=1, **TINY)
    with pytest.raises(SpecError, match="data: got subset.* in a run that has trained with absent") as refused:
        modkit.fit(model, other, run, steps=2, resume=True, **TINY)
    assert [problem.path for problem in refused.value.problems] == ["data"]
    with pytest.raises(ValueError, match=re.escape("data={use: digits, size: 8}, with samples 1×8×8 in [-1, 1]")):
        modkit.branch(run, tmp_path / "branch")
    other = re.escape(
        "data=digits, data of samples 1×16×16 in [-1, 1] in a run that was trained with 1×8×8 in [-1, 1]:"
    )
    with pytest.raises(ValueError, match=other):
        modkit.load(run, ["data=digits"])
    with pytest.raises(ValueError, match=re.escape("its data have changed (shape was [1, 8, 8], now [1, 16, 16])")):
        modkit.branch(run, tmp_path / "branch", ["data=digits"])
    branched = modkit.branch(run, tmp_path / "branch", ["data={use: digits, size: 8}", "train.steps=2"])
    assert branched.finished


def test_callbacks_follow_the_loggers_with_the_model_and_change_nothing(tmp_path):
    told, model = [], make_gan()

    class Logger:
        def step_done(self, step):
            told.append(("logger", step))

    class First:
        def step_done(self, step, model, measures):
            told.append(("first", step, model, sorted(measures)))
            model.sample(2, seed=step)

    class Second:
        def step_done(self, stage, timing):
            told.append(("second", stage, timing["samples_per_second"] > 0))

        def run_finished(self, error):
            told.append(("second", error))

    given = {"steps": 2, "log": {"every": 1}, **TINY}
    run = modkit.fit(model, points(), tmp_path / "run", loggers=[Logger], callbacks=[First(), Second()], **given)
    names = [
        f"{kind}/{player}" for kind in ("gradient_norm", "learning_rate") for player in ("discriminator", "generator")
    ]
    steps = [[("logger", step), ("first", step, model, names), ("second", 0, True)] for step in (1, 2)]
    assert told == [*steps[0], *steps[1], ("second", None)] and "First" not in run.spec_text
    plain = make_gan()
    other = modkit.fit(plain, points(), tmp_path / "plain", **given)
    assert equal(plain, model) and other.read_metrics() == run.read_metrics()


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ({}, "Watch expects one of the methods run_started, step_done, .*, got an object without any"),
        ({"scores_ready": lambda self, step, score: None}, "Watch.scores_ready expects arguments among .*, got score"),
    ],
)
def test_a_callback_that_would_fail_is_refused_before_anything_is_written(methods, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        modkit.fit(make_gan(), points(), tmp_path / "run", callbacks=[type("Watch", (), methods)()], **TINY)
    assert not (tmp_path / "run").exists()
