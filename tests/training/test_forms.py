"""What `fit` takes as users have it: data sets of any form, torch's optimizers, modules of tensors."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import modkit
from modkit import SpecError
from modkit.data.objects import as_data
from modkit.models import GAN, Diffusion
from modkit.nn import from_callable
from tests.training.test_fit import LABELS, NETWORK, TINY, ListDataset, X, equal, make_gan, points

CLASSES = torch.arange(12) % 3
ITEMS = [
    {"image": points(), "label": CLASSES},
    (points(), {"label": CLASSES}),
    (points(), CLASSES),
    ListDataset([{"image": x, "label": y, "rest": "x"} for x, y in zip(points(), CLASSES)]),
    ListDataset([(x, {"labels": y}) for x, y in zip(points(), CLASSES)]),
    ListDataset([{"labels": y, "x": x, "image": "x"} for x, y in zip(points(), CLASSES)]),
]


@pytest.mark.parametrize("data", ITEMS)
def test_a_sample_and_its_fields_are_found_by_name_or_order(data, tmp_path):
    with modkit.seeded(0):
        model = Diffusion(X, fields=LABELS, conditioner="label", network=NETWORK)
    batch = as_data(data, X, LABELS).read("train", [4, 1], modkit.Rng(0))
    assert torch.equal(batch.x, points()[[4, 1]]) and batch.fields["labels"].tolist() == [1, 1]
    run = modkit.fit(model, data, tmp_path / "run", steps=2, **TINY)
    with modkit.seeded(1):
        fresh = Diffusion(X, fields=LABELS, conditioner="label", network=NETWORK)
    assert torch.equal(modkit.load(run, model=fresh).sample(2, seed=0), model.sample(2, seed=0))


def test_a_mapping_without_the_sample_is_refused():
    with pytest.raises(ValueError, match=r"Indexed expects `x` of 2 unbounded in item 0, got nothing"):
        as_data(ListDataset([{"labels": 0}]), X, LABELS)


def test_a_learning_rate_and_epochs_are_written_as_settings(tmp_path):
    run = modkit.fit(make_gan(), points(), tmp_path / "run", lr=1e-4, epochs=1.5, **TINY)
    spec = modkit.Spec.from_yaml(run.spec_text)
    assert (spec.at("train.optimizer.use"), spec.at("train.optimizer.lr"), spec.at("train.steps")) == ("adam", 1e-4, 5)
    assert run.finished
    for wrong, message in (({"epochs": 1, "steps": 2}, "`epochs` or `steps`, got both"), ({"epochs": 0}, "above 0")):
        with pytest.raises(ValueError, match=message):
            modkit.fit(make_gan(), points(), tmp_path / "other", **wrong, **TINY)
    with pytest.raises(SpecError, match="lr"):
        modkit.fit(make_gan(), points(), tmp_path / "other", lr="fast", steps=1, **TINY)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "optimizer", [torch.optim.AdamW, partial(torch.optim.NAdam, lr=2e-3, betas=(0.5, 0.9)), torch.optim.Adagrad]
)
def test_a_class_of_torch_is_recorded_by_name_and_resumes_to_the_bit(optimizer, tmp_path):
    settings = {**TINY, "optimizer": optimizer}
    whole = make_gan()
    modkit.fit(whole, points(), tmp_path / "whole", steps=4, **settings)
    run = modkit.fit(make_gan(), points(), tmp_path / "run", steps=2, **settings)
    assert modkit.Spec.from_yaml(run.spec_text).at("train.optimizer.use") == "torch"
    resumed = modkit.resume(run, ["train.steps=4"], data=points())
    assert equal(modkit.load(resumed), modkit.load(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.LBFGS, "expects a name of .*NAdam.*, got 'LBFGS'"),
        (partial(torch.optim.NAdam, speed=1), r"NAdam expects keywords of torch.optim.NAdam, got \{'speed': 1\}"),
        (partial(torch.optim.NAdam, lr=torch.ones(1)), "lr"),
    ],
)
def test_an_optimizer_that_will_not_do_is_refused(optimizer, message, tmp_path):
    with pytest.raises(SpecError, match=message):
        modkit.fit(make_gan(), points(), tmp_path / "run", steps=1, **{**TINY, "optimizer": optimizer})
    assert not (tmp_path / "run").exists()


class Stream(torch.utils.data.IterableDataset):
    """Points in an order of torch's draws."""

    def __init__(self, num=12):
        self.num = num

    def __iter__(self):
        yield from points(self.num)[torch.randperm(self.num)]


class Endless(Stream):
    def __iter__(self):
        while True:
            yield points()[0]


def test_an_iterable_dataset_is_a_stream_that_a_resumed_run_begins_anew(tmp_path, caplog):
    run = modkit.fit(make_gan(), DataLoader(Stream(), batch_size=5), tmp_path / "run", steps=2, **TINY)
    assert modkit.load(run).sample(2, seed=0).shape == (2, 2) and "anew" not in caplog.text
    assert modkit.resume(run, ["train.steps=3"], data=Stream()).finished
    assert "its data are a stream, which begins anew" in caplog.text


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_the_shares_of_an_iterable_dataset_are_a_pass(parts):
    data = as_data(Stream(200), X, {})
    shares = [[*data.stream("train", part, parts, modkit.Rng(3))] for part in range(parts)]
    read = torch.cat([batch.x for share in shares for batch in share])
    order = lambda x: x[x[:, 0].argsort()]  # noqa: E731
    assert data.splits == {"train": 200} and torch.equal(order(read), order(points(200)))
    assert max(len(batch) for share in shares for batch in share) <= 64
    again = torch.cat([batch.x for batch in data.stream("train", 0, parts, modkit.Rng(3))])
    other = torch.cat([batch.x for batch in data.stream("train", 0, parts, modkit.Rng(4))])
    assert torch.equal(again, torch.cat([batch.x for batch in shares[0]])) and not torch.equal(again, other)
    with pytest.raises(ValueError, match="expects to be read as a stream, got indices of Stream"):
        data.read("train", [0], modkit.Rng(0))


@pytest.mark.parametrize(
    ("stream", "message"),
    [(Endless(), "Endless expects a length.*define `__len__`"), (Stream(0), "Stream expects items, got none")],
)
def test_a_stream_of_no_items_or_no_end_is_refused(stream, message, monkeypatch):
    monkeypatch.setattr("modkit.data.streamed._COUNTED", 100)
    with pytest.raises(ValueError, match=message):
        as_data(stream, X, {})


def test_functions_and_modules_of_tensors_are_networks(tmp_path):
    layers = lambda: nn.Sequential(nn.Linear(2, 4), nn.SiLU(), nn.Linear(4, 2))  # noqa: E731

    class OfTime(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x, t):
            return self.inner(torch.cat([x, t[:, None].to(x)], 1))

    makers = [
        lambda: Diffusion(X, network=from_callable(layers())),
        lambda: Diffusion(X, network=from_callable(OfTime())),
        lambda: GAN(X, generator=from_callable(layers()), discriminator=from_callable(nn.Linear(2, 1)), z_dim=2),
    ]
    for number, make in enumerate(makers):
        model = make()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        run = modkit.fit(model, points(), tmp_path / f"{number}", steps=2, **TINY)
        assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
        loaded = modkit.load(run, model=make)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_function_is_given_the_conditions_that_it_names():
    cond = modkit.Cond(time=torch.ones(2), labels=torch.tensor([3, 4]))
    made = from_callable(lambda x, y, t: x + y[:, None] * t[:, None], takes=("labels", "time"))
    assert made(torch.zeros(2, 1), cond).flatten().tolist() == [3, 4]
    with pytest.raises(ValueError, match="expects vector among its conditions, got labels, time"):
        from_callable(lambda x, c: x, takes=["vector"])(torch.zeros(2, 1), cond)
