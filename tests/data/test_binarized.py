import pickle

import pytest
import torch

from modkit.data.binarized import Binarized
from modkit.data.corrupted import Corrupted
from modkit.data.corruptions import Mask
from modkit.data.digits import Digits
from modkit.data.mixture import Ring
from modkit.kinds import DataExtras, read_extras
from modkit.rng import Rng
from tests.data.reading import read_split
from tests.refusals import refusals


def digits():
    return Digits(size=8)


@pytest.mark.parametrize("split", ["train", "test"])
def test_values_are_cut_at_the_middle_of_the_range(split):
    data, greys = Binarized(data=digits), read_split(digits(), split)
    batch = read_split(data, split)
    assert torch.equal(batch.tensor, (greys.tensor > 0).float() * 2 - 1)
    assert torch.equal(batch.fields["labels"], greys.fields["labels"])
    assert (data.x, data.levels, data.splits) == (digits().x, 2, digits().splits)


def test_drawn_values_have_the_grey_as_their_mean_and_depend_on_seed_and_index_alone():
    data = Binarized(data=digits, drawn=True)
    greys = read_split(digits(), num=3).tensor
    draws = torch.stack([read_split(data, num=3, rng=Rng(seed)).tensor for seed in range(400)])
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    assert (draws.mean(0) - greys).abs().max() < 0.2  # 4 sd: 4 sqrt(1 / 400)
    assert torch.equal(draws[7][[2, 0]], data.read("train", [2, 0], Rng(7)).tensor)


def test_it_has_the_data_s_features_and_conditions_and_a_key_of_its_own():
    data = Binarized(data=lambda: Corrupted(data=digits, corruption=Mask))
    extras = read_extras(data, DataExtras)
    assert extras.conditions == ("masked", "mask") and read_extras(Binarized(data=digits), DataExtras).features
    keys = {digits().key, Binarized(data=digits).key, Binarized(data=digits, drawn=True).key}
    assert len(keys) == 3 and Binarized(data=digits).key in keys
    same = pickle.loads(pickle.dumps(Binarized(data=digits)))
    assert torch.equal(read_split(same, num=2).tensor, read_split(Binarized(data=digits), num=2).tensor)


test_refuses = refusals((lambda: Binarized(data=Ring), "Binarized expects data with a range, got 2 unbounded"))
