import pickle
from functools import partial

import pytest
import torch

import modkit
from modkit import Spec, use
from modkit.augmentations.warp import warp
from modkit.data import (
    Augmented,
    Binarized,
    Corrupted,
    Digits,
    ImageFolder,
    LowRes,
    Ring,
    Stacked,
    Subset,
    read_samples,
)
from modkit.data.fields import Fields
from modkit.data.loader import Loader
from modkit.data.objects import Tensors
from modkit.data.splits import find_plain
from modkit.diffusion.guidance import make_conditions
from modkit.engines import LocalEngine
from modkit.evaluation.evaluate_run import measure_run
from modkit.kinds import DataExtras, read_extras
from modkit.models import Diffusion
from modkit.models.passes import select_fields
from modkit.optim.optimizers import adamw
from modkit.rng import Rng
from modkit.specs.settings import Settings
from modkit.training.reader import Reader
from modkit.types import Cond, TensorType
from tests.files import write_pictures
from tests.refusals import refusals


def digits():
    return Digits(size=8)


def augmented(**keywords):
    return Augmented(data=digits, **keywords)


def test_training_pictures_are_warped_by_what_their_field_says_and_test_pictures_are_the_data_s():
    data, plain = augmented(p=0.5), digits()
    assert data.x == plain.x and data.x.std == plain.x.std and data.splits == plain.splits and data.levels == 17
    assert {name: str(type) for name, type in data.fields.items()} == {
        "labels": "scalar codes of 10 classes",
        "augmentation": "9 unbounded",
    }
    batch, same = (read_samples(one, "train", range(60), Rng(0)) for one in (data, plain))
    parameters = batch.fields["augmentation"]
    assert torch.equal(batch.fields["labels"], same.fields["labels"])
    want = warp(same.tensor, data.geometry.make_maps(parameters, (8, 8)))
    assert torch.equal(batch.tensor, want) and (want != same.tensor).flatten(1).any(1).sum() > 40
    idle = ~parameters.any(1)
    assert torch.equal(batch.tensor[idle], same.tensor[idle])
    assert batch.tensor.abs().max() <= 1 + 1e-6
    test, same = (read_samples(one, "test", range(60), Rng(0)) for one in (data, plain))
    assert torch.equal(test.tensor, same.tensor) and not test.fields["augmentation"].any()


@pytest.mark.wide
def test_what_a_sample_draws_is_a_function_of_the_rng_and_its_index():
    data = augmented(p=0.5)
    drawn = data.read("train", range(20), Rng(0)).fields["augmentation"]
    assert torch.equal(data.read("train", [7, 3], Rng(0)).fields["augmentation"], drawn[[7, 3]])
    assert not torch.equal(data.read("train", range(20), Rng(1)).fields["augmentation"], drawn)
    loader = Loader(pickle.loads(pickle.dumps(data)), "train", 1437, Rng(0))
    first, second = (loader.read_batch(step) for step in (0, 1))
    part = loader.read_batch(0, 100, 9)
    assert torch.equal(part.tensor, first.tensor[100:109])
    assert not torch.equal(first.fields["augmentation"].sum(0), second.fields["augmentation"].sum(0))


def test_bytes_are_sent_and_warped_where_they_are_finished(tmp_path):
    write_pictures(tmp_path / "folder")
    folder = lambda: ImageFolder(root=str(tmp_path / "folder"), size=8)  # noqa: E731
    data = Augmented(data=folder, p=1.0)
    read, plain = data.read("train", [2, 0], Rng(0)), folder().read("train", [2, 0], Rng(0))
    assert read.tensor.dtype == torch.uint8 and torch.equal(read.tensor, plain.tensor)
    made = data.finish(read)
    want = warp(folder().finish(plain).tensor, data.geometry.make_maps(read.fields["augmentation"], (8, 8)))
    assert torch.equal(made.tensor, want)


def test_half_are_mirrored_whatever_p_is_and_changes_are_chosen():
    data = augmented(p=0.0)
    parameters = data.read("train", range(1437), Rng(0)).fields["augmentation"]
    assert abs(parameters[:, 0].mean() - 0.5) < 0.06  # sd .013
    assert not parameters[:, 1:].any()
    assert augmented(changes=["rotation", "scaling"]).fields["augmentation"].shape == (3,)


def test_the_plain_data_are_those_without_changes():
    data, batch = augmented(p=1.0), read_samples(digits(), "train", range(9), Rng(0))
    plain = find_plain(data)
    made = read_samples(plain, "train", range(9), Rng(0))
    assert torch.equal(made.tensor, batch.tensor) and not made.fields["augmentation"].any()
    assert plain.fields == data.fields and plain.splits == data.splits and plain.x == data.x
    read = Fields(plain).read("train", [4, 2], Rng(0)).fields
    assert torch.equal(read["labels"], batch.fields["labels"][[4, 2]]) and read["augmentation"].shape == (2, 9)
    assert read_extras(data, DataExtras).read_fields is None  # they are drawn
    assert find_plain(digits()).key == digits().key


@pytest.mark.parametrize(
    "make",
    [
        lambda data: Subset(data=data, num=30),
        lambda data: Binarized(data=data),
        lambda data: Corrupted(data=data, corruption=LowRes),
    ],
)
def test_data_made_of_them_are_plain_where_they_are(make):
    data, want = make(lambda: augmented(p=1.0)), make(digits)
    assert "augmentation" in read_extras(data, DataExtras).conditions
    plain, same = (read_samples(one, "train", range(9), Rng(0)) for one in (find_plain(data), want))
    assert torch.equal(plain.tensor, same.tensor)
    assert all(torch.equal(plain.fields[name], value) for name, value in same.fields.items())
    assert not plain.fields["augmentation"].any()
    assert data.read("train", range(9), Rng(0)).fields["augmentation"].any()
    assert find_plain(want) is want and data.x.std == want.x.std


def test_keys_tell_settings_apart():
    made = (augmented(), augmented(p=0.2), augmented(changes=["x-flip"]), find_plain(augmented()), digits())
    assert len({one.key for one in made}) == 5 and augmented().key == augmented().key


def test_conditioners_are_prepared_with_the_fields_of_plain_data():
    reader = Reader(augmented(p=1.0), Settings(batch_size=500), LocalEngine("cpu"))
    passes = reader.start_passes("denoiser")
    assert not any(batch.fields["augmentation"].any() for batch in select_fields(passes))
    assert all(batch.fields["augmentation"].any() for batch in passes)


CONDITIONER = use("vector", width=8, drop=0.0)


def spec(conditioner, **slots):
    network = use("mlp", width=16, depth=1)
    train = {"device": "cpu", "batch_size": 32, "steps": 3}
    return Spec(
        model=use("diffusion", network=network, conditioner=conditioner, sampler=use("ddim", steps=2), **slots),
        data=use("augmented", data=use("digits", size=8), p=0.5),
        train=train,
    )


def test_diffusion_is_trained_with_it_and_sampled_as_if_nothing_were_changed(tmp_path):
    run = modkit.train(spec(CONDITIONER), tmp_path / "run")
    model = modkit.load(run)
    assert model.reads == ("augmentation",) and not model.conditioner.mean.any()
    assert not model.conditioner.draw(50, Rng(0))["augmentation"].any()
    x = model.sample(3, seed=0)
    assert torch.equal(model.sample(3, seed=0, augmentation=torch.zeros(3, 9)), x)
    assert not torch.equal(model.sample(3, seed=0, augmentation=torch.ones(3, 9)), x)


@pytest.mark.wide
def test_it_does_not_leak(tmp_path):
    """The training pictures are bright above, and half of them are turned over; all samples are bright above."""
    g = torch.Generator().manual_seed(0)
    x = torch.tensor([0.8, 0.8, -0.8, -0.8])[:, None] + 0.1 * torch.randn(512, 1, 4, 4, generator=g)
    upright = Tensors(x, {}, x=TensorType((1, 4, 4)), fields={})
    data = Augmented(data=lambda: upright, p=1.0, changes=["y-flip"])
    with modkit.seeded(0):
        parts = {"network": use("mlp", width=32, depth=1), "conditioner": CONDITIONER, "sampler": use("ddim", steps=10)}
        model = Diffusion(data.x, fields=data.fields, **parts)
    settings = {"steps": 300, "batch_size": 64, "optimizer": partial(adamw, lr=5e-3), "ema": 0.99, "device": "cpu"}
    modkit.fit(model, data, tmp_path / "run", **settings)

    def find_bright(**fields):
        made = model.sample(200, seed=0, **fields)
        return (made[:, :, :2].mean((1, 2, 3)) > made[:, :, 2:].mean((1, 2, 3))).double().mean()

    assert find_bright() > 0.97  # .5, if it leaked
    assert find_bright(augmentation=torch.ones(200, 1)) < 0.03


def test_guidance_by_labels_is_away_from_the_plain_data_too(tmp_path):
    parts = {"label": use("label", width=4), "augmentation": CONDITIONER}
    run = modkit.train(spec(use("several", parts=parts), guidance=use("cfg", scale=2.0)), tmp_path / "run")
    model = modkit.load(run)
    part = model.conditioner.parts["augmentation"]
    fields = model.complete(2, {}, Rng(0))
    assert not fields["augmentation"].any()
    null = make_conditions(model.conditioner, fields, 2, Cond())["null"].vector
    torch.testing.assert_close(null[:, 4:], part(fields, None).vector)
    assert model.sample(2, seed=0).isfinite().all()


@pytest.mark.wide
def test_samples_are_compared_with_plain_pictures(tmp_path, monkeypatch):
    """Every source of real samples that metrics see is the data's, in training and after it."""
    from modkit.building.session import load_run
    from modkit.evaluation import evaluate_run as measuring

    run = modkit.train(spec(CONDITIONER), tmp_path / "run")
    loaded, seen = load_run(run, needs=("data", "evaluate")), []
    assert isinstance(loaded.data, Augmented)
    real = measuring.from_data
    monkeypatch.setattr(measuring, "from_data", lambda data, *rest: seen.append(data) or real(data, *rest))
    measure_run(loaded, LocalEngine("cpu"), num=20, metrics=["fd"], features="pixels")
    want = read_samples(digits(), "train", range(9), Rng(0)).tensor
    assert len(seen) == 3
    assert all(torch.equal(read_samples(one, "train", range(9), Rng(0)).tensor, want) for one in seen)


test_refuses = refusals(
    (lambda: Augmented(data=Ring), r"Augmented expects continuous pictures \(c, h, w\), got 2 unbounded"),
    (lambda: Augmented(data=augmented), "Augmented expects data without a field 'augmentation' and .*, got {'augmenta"),
    (
        lambda: Augmented(data=lambda: Corrupted(data=digits, corruption=LowRes)),
        "Augmented expects data without .* maps, which would not be .*, got {'low_res': '1×4×4 in",
    ),
    (lambda: augmented(p=-1.0), r"Geometry expects p to be in \[0, 1\], got -1.0"),
    (lambda: augmented(changes=["shear"]), r"Geometry expects different changes of .*, got \['shear'\]"),
    (lambda: augmented().read("valid", [0], Rng(0)), r"Augmented expects a split of \['test', 'train'\], got 'valid'"),
    (
        lambda: Stacked(data=augmented),
        r"Stacked expects data without fields that models have to read, got \['augmentation'\]",
    ),
)


@pytest.mark.parametrize(
    ("conditioner", "expected"),
    [
        ("none", r"unread that these data have for it to read: augmentation; .* such as model.conditioner=vector"),
        ("map", r"Map expects one or more maps"),
    ],
)
def test_a_model_that_is_not_told_is_refused(conditioner, expected, tmp_path):
    with pytest.raises(modkit.SpecError, match=expected):
        modkit.train(spec(use(conditioner)), tmp_path / "run")
