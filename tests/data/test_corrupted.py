import pickle
from functools import partial

import pytest
import torch

from modkit.data.corrupted import Corrupted
from modkit.data.corruptions import LowRes, Mask
from modkit.data.digits import Digits
from modkit.data.loader import Loader
from modkit.data.mixture import Ring
from modkit.data.noise import Noise
from modkit.data.subset import Subset
from modkit.rng import Rng
from tests.refusals import refusals


def digits():
    return Digits(size=8)


def corrupted(corruption=Mask):
    return Corrupted(data=digits, corruption=corruption)


@pytest.mark.parametrize("split", ["train", "test"])
def test_fields_stand_beside_the_data_s(split):
    data, plain = corrupted(), digits()
    assert data.x == plain.x and data.splits == plain.splits and data.levels == 17
    assert data.fields == {**plain.fields, **Mask(plain.x).fields}
    batch, same = data.read(split, [5, 2], Rng(0)), plain.read(split, [5, 2], Rng(0))
    assert torch.equal(batch.tensor, same.tensor) and torch.equal(batch.fields["labels"], same.fields["labels"])
    mask = batch.fields["mask"]
    assert torch.equal(batch.fields["masked"], batch.tensor * (1 - mask)) and mask.flatten(1).any(1).all()


def test_a_sample_s_mask_is_a_function_of_the_rng_and_its_index():
    data = corrupted()
    masks = data.read("train", range(20), Rng(0)).fields["mask"]
    assert torch.equal(data.read("train", [7, 3], Rng(0)).fields["mask"], masks[[7, 3]])
    again = data.read("train", range(20), Rng(1)).fields["mask"]
    assert (masks != again).flatten(1).any(1).sum() > 10
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 10


def test_a_row_draws_what_its_index_does_alone():
    class Noise:
        key = "noise"

        def __init__(self, x):
            self.fields = {"a": x, "b": x, "c": x, "d": x}

        def __call__(self, x, rng):
            inner = rng.at("inner", 1)
            noise = [rng.normal("a", x), inner.uniform("b", x), rng.integers("c", x, 0, 9)]
            seeds = [torch.rand(x.shape[1:], generator=one) for one in rng.make_generators(len(x))]
            return dict(zip("abcd", [*noise, torch.stack(seeds)], strict=True))

    batch = corrupted(Noise).read("train", [9, 4], Rng(3))
    for row, index in enumerate((9, 4)):
        x, own = batch.tensor[row : row + 1], Rng(3).at("corruption", index)
        want = Noise(None)(x, own)
        assert all(torch.equal(batch.fields[name][row : row + 1], want[name]) for name in "abcd")


def test_each_corruption_of_corrupted_data_has_draws_of_its_own():
    def make(*fields):
        data = digits
        for field in fields:
            data = partial(Corrupted, data=data, corruption=partial(Noise, field=field))
        return data()

    data = Corrupted(data=lambda: Subset(data=lambda: make("a", "b"), num=20), corruption=partial(Noise, field="c"))
    rows = data.data._find("train", [3, 0])
    fields = data.read("train", [3, 0], Rng(0)).fields
    single = make("a").read("train", rows, Rng(0)).fields  # the draws of one alone
    assert torch.equal(fields["a"], single["a"])
    for name, depth, indices in (("b", 1, rows), ("c", 2, [3, 0])):
        x = data.read("train", [3, 0], Rng(0)).tensor
        for row, index in enumerate(indices):
            want = Noise(data.x, field=name)(x[row : row + 1], Rng(0).at("corruption-again", depth, index))[name]
            assert torch.equal(fields[name][row : row + 1], want)


def test_corrupted_samples_are_measured_as_those_of_the_data():
    assert corrupted().features == digits().features == "classifier:digits" and corrupted().truth is None
    ring = Corrupted(data=partial(Ring, num=64, num_test=8), corruption=Noise)
    assert torch.equal(ring.truth.centers, Ring(num=64, num_test=8).truth.centers)


def test_epochs_differ_and_workers_do_not():
    data = corrupted()
    loader = Loader(data, "train", 1437, Rng(0))
    first, second = loader.read_batch(0), loader.read_batch(1)
    a, b = (batch.tensor.flatten(1).double().sum(1).argsort() for batch in (first, second))
    assert torch.equal(first.tensor[a].flatten(1).sum(1), second.tensor[b].flatten(1).sum(1))
    assert not torch.equal(first.fields["mask"].sum((1, 2, 3))[a], second.fields["mask"].sum((1, 2, 3))[b])
    apart = Loader(pickle.loads(pickle.dumps(data)), "train", 1437, Rng(0)).read_batch(0, 100, 9)
    assert torch.equal(apart.fields["mask"], first.fields["mask"][100:109])


def test_keys_tell_corruptions_apart():
    keys = {digits().key, corrupted().key, corrupted(LowRes).key, corrupted(lambda x: Mask(x, regions=["box"])).key}
    assert len(keys) == 4 and corrupted().key == corrupted().key


test_refuses = refusals(
    (
        lambda: Corrupted(data=corrupted, corruption=Mask),
        r"Corrupted expects a corruption whose fields differ from the data's, got \['mask', 'mask",
    ),
    (lambda: corrupted().read("valid", [0], Rng(0)), r"Digits expects a split of \['test', 'train'\], got 'valid'"),
    (
        lambda: corrupted(lambda x: LowRes(x, factor=3)),
        r"LowRes expects a factor that divides the sizes of 1×8×8 in \[-1, 1\], got 3",
    ),
)
