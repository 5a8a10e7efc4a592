import pickle

import numpy as np
import torch

from modkit.data import Array, Digits, Ring, Subset, read_samples
from modkit.data.moments import measure_std
from modkit.kinds import DataExtras, read_extras
from modkit.rng import Rng
from tests.data.reading import read_split
from tests.refusals import refusals


def digits():
    return Digits(size=8)


def test_it_has_distinct_training_samples_with_their_fields_and_all_test_samples():
    data, whole = Subset(data=digits, num=300), read_split(digits())
    batch = read_split(data)
    assert data.splits == {"train": 300, "test": 360} and data.x.std == measure_std(data) != digits().x.std
    pixels = {tuple(row): int(label) for row, label in zip(whole.tensor.flatten(1).tolist(), whole.fields["labels"])}
    found = [tuple(row) for row in batch.tensor.flatten(1).tolist()]
    assert len(set(found)) == 300
    assert [pixels[row] for row in found] == batch.fields["labels"].tolist()
    assert torch.equal(read_split(data, "test").tensor, read_split(digits(), "test").tensor)
    assert torch.equal(data.read_fields("train", [7, 2])["labels"], batch.fields["labels"][[7, 2]])
    assert torch.equal(data.read_fields("test", [7])["labels"], read_split(digits(), "test").fields["labels"][[7]])


def test_a_smaller_one_is_part_of_a_larger_one_and_another_seed_chooses_others():
    few, more, other = (
        read_split(Subset(data=digits, num=num, seed=seed)).tensor for num, seed in ((50, 0), (90, 0), (50, 1))
    )
    assert torch.equal(few, more[:50]) and not torch.equal(few, other)
    keys = {Subset(data=digits, num=num, seed=seed).key for num, seed in ((50, 0), (90, 0), (50, 1))}
    assert len(keys | {digits().key}) == 4


def test_it_keeps_what_the_data_state_and_reads_bytes_as_values(tmp_path):
    ring = read_extras(Subset(data=Ring, num=8), DataExtras)
    assert torch.equal(ring.truth.centers, Ring().truth.centers)
    assert read_extras(Subset(data=digits), DataExtras).features == "classifier:digits"
    np.save(tmp_path / "x.npy", np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4))
    array = Array(path=str(tmp_path / "x.npy"), test=0.0)
    data = Subset(data=lambda: array, num=3)
    assert data.levels == 256 and data.read("train", [0], Rng(0)).tensor.is_floating_point()
    every = read_samples(array, "train", range(6), Rng(0)).tensor
    assert (read_split(data).tensor[:, None] == every).flatten(2).all(2).any(1).all()


def test_a_copy_in_another_process_reads_the_same():
    data = Subset(data=Ring, num=8)
    assert torch.equal(read_split(pickle.loads(pickle.dumps(data))).tensor, read_split(data).tensor)


test_refuses = refusals(
    (lambda: Subset(data=digits, num=1438), "Subset expects num in .1, 1,437., the number of training .*, got 1,438"),
    (lambda: Subset(data=digits, num=0), "Subset expects num in .*, got 0"),
)
