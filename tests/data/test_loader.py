import multiprocessing
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from modkit.data.digits import Digits
from modkit.data.image_folder import ImageFolder
from modkit.data.loader import Loader, read_in_order, read_shuffled
from modkit.data.mixture import Ring
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.refusals import check_refusal


class Numbers:
    """Sample i is i, beside a draw of augmentation; a hierarchy of two levels."""

    x = (TensorType((1,)), TensorType((2,)))
    levels = None
    key = "numbers"

    def __init__(self, size=10):
        self.fields = {"index": TensorType((), classes=size)}
        self.splits = {"train": size, "empty": 0}

    def read(self, split, indices, rng):
        if 13 in indices:
            raise ValueError("Numbers expects luck, got 13")
        noise = torch.stack([rng.at(index).uniform("noise", torch.empty(1, 1))[0] for index in indices])
        numbers = torch.tensor(indices)
        return Batch((noise, numbers[:, None].repeat(1, 2).float()), {"index": numbers})


def indices(batch):
    return batch.fields["index"].tolist()


def equal(a, b):
    xs = zip(a.x, b.x, strict=True) if isinstance(a.x, tuple) else [(a.x, b.x)]
    return all(torch.equal(x, y) for x, y in xs) and all(torch.equal(a.fields[k], b.fields[k]) for k in a.fields)


def joined(batches):
    return [torch.cat(level) for level in zip(*(batch.x for batch in batches), strict=True)]


@pytest.mark.smoke
def test_each_epoch_is_another_permutation():
    loader = Loader(Numbers(10), "train", 5, Rng(0, "stage", 0))
    seen = [index for step in range(40) for index in indices(loader.read_batch(step))]
    epochs = [tuple(seen[start : start + 10]) for start in range(0, 200, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 20


@pytest.mark.wide
def test_permutations_are_uniform():
    counts = torch.zeros(4, 4)
    for seed in range(600):
        for place, index in enumerate(indices(Loader(Numbers(4), "train", 4, Rng(seed)).read_batch(0))):
            counts[place, index] += 1
    # Binomial(600, 1/4) has standard deviation 10.6; six of them.
    assert (counts - 150).abs().max() < 64


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_batches_follow_one_another_across_epochs(batch_size):
    reference = Loader(Numbers(10), "train", 10, Rng(3))
    loader = Loader(Numbers(10), "train", batch_size, Rng(3))
    steps = 130 // batch_size
    got = joined(loader.read_batch(step) for step in range(steps))
    expected = joined(reference.read_batch(step) for step in range(13))
    for level, other in zip(got, expected, strict=True):
        assert torch.equal(level, other[: len(level)])


def test_order_and_augmentation_are_functions_of_key_epoch_and_index():
    loader, again, other = (Loader(Numbers(10), "train", 10, Rng(seed)) for seed in (0, 0, 1))
    assert equal(again.read_batch(7), loader.read_batch(7))  # whatever was read before
    assert equal(loader.read_batch(7), loader.read_batch(7))
    assert indices(loader.read_batch(7)) != indices(other.read_batch(7))
    first, second = loader.read_batch(0), loader.read_batch(1)
    noise = [dict(zip(indices(batch), batch.x[0][:, 0].tolist(), strict=True)) for batch in (first, second)]
    assert all(noise[0][index] != noise[1][index] for index in range(10))


def test_any_rows_of_a_batch_can_be_read():
    loader = Loader(Numbers(10), "train", 8, Rng(0))
    for step in range(6):
        whole = loader.read_batch(step)
        for first, num in ((0, 3), (3, 2), (5, 3), (7, 1)):
            part = Loader(Numbers(10), "train", 8, Rng(0)).read_batch(step, first, num)
            rows = slice(first, first + num)
            assert equal(part, Batch(tuple(x[rows] for x in whole.x), {"index": whole.fields["index"][rows]}))
        assert equal(loader.read_batch(step, 5), loader.read_batch(step, 5, 3))


def test_batches_start_anywhere():
    loader = Loader(Numbers(10), "train", 4, Rng(0))
    batches = loader.read_batches(3, first=1, num=2)
    for step in range(3, 9):
        assert equal(next(batches), loader.read_batch(step, 1, 2))


def test_samples_are_read_in_any_order_as_an_epoch_reads_them():
    loader = Loader(Numbers(10), "train", 4, Rng(0))
    for epoch in range(3):
        whole, some = loader.read_epoch(epoch, range(10)), loader.read_epoch(epoch, [7, 1, 4, 0, 2])
        x = joined(whole)
        assert [len(batch) for batch in loader.read_epoch(epoch, range(10))] == [4, 4, 2]
        assert all(torch.equal(*pair) for pair in zip(joined(some), (level[[7, 1, 4, 0, 2]] for level in x)))
        plain = Loader(Numbers(10), "train", 10, Rng(0)).read_batch(epoch)
        assert equal(plain, Batch(tuple(level[indices(plain)] for level in x), plain.fields))


def test_epochs_read_views_in_turn_in_the_order_of_the_data():
    class View:
        def __init__(self, number):
            self.number = number

        def read(self, split, indices, rng):
            return Batch(torch.full((len(indices),), self.number), {"index": torch.tensor(indices)})

    plain, viewed = (Loader(Numbers(10), "train", 4, Rng(0), views=v) for v in ((), (View(0), View(1))))
    for step in range(15):
        batch = viewed.read_batch(step)
        assert indices(batch) == indices(plain.read_batch(step))
        assert batch.x.tolist() == [(step * 4 + row) // 10 % 2 for row in range(4)]


@pytest.mark.wide
def test_workers_give_the_same_batches(tmp_path):
    for index in range(6):
        array = np.random.default_rng(index).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / f"{index}.png")
    folder = ImageFolder(root=str(tmp_path), size=4, flip=True, crop="random", test=0.0)
    for data in (folder, Numbers(10)):
        direct, workers = (Loader(data, "train", 4, Rng(0), workers=n) for n in (0, 2))
        batches = workers.read_batches(2)
        for step in range(2, 7):
            got = next(batches)
            assert type(got.x) is type(direct.read_batch(step).x) and equal(got, direct.read_batch(step))
        batches.close()
    passes = [read_shuffled(Numbers(10), "train", 4, Rng(0), workers=workers) for workers in (1, 0)]
    assert all(equal(a, b) for a, b in zip(*passes, strict=True))


@pytest.mark.wide
def test_workers_errors_keep_their_message_and_place_and_end_them():
    before = multiprocessing.active_children()
    for workers in (0, 1, 2):
        batches = read_in_order(Numbers(20), "train", 4, Rng(0), workers=workers)
        assert [indices(next(batches))[0] for _ in range(3)] == [0, 4, 8]
        with pytest.raises(ValueError, match="Numbers expects luck, got 13"):
            next(batches)
        assert set(multiprocessing.active_children()) <= set(before)


def test_closing_ends_what_reads_ahead():
    before = multiprocessing.active_children()
    batches = Loader(Numbers(10), "train", 4, Rng(0), workers=2).read_batches()
    next(batches)
    assert len(set(multiprocessing.active_children()) - set(before)) == 2
    batches.close()
    assert set(multiprocessing.active_children()) <= set(before)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("modkit-batches")]


@pytest.mark.parametrize("workers", [0, 1])
def test_global_randomness_does_not_move(workers):
    np.random.seed(0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    batches = Loader(Digits(), "train", 16, Rng(0), workers=workers).read_batches()
    for _ in range(3):
        next(batches)
    batches.close()
    list(read_shuffled(Ring(num=100), "train", 32, Rng(0), workers=workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_passes_are_finite_and_whole():
    data = Numbers(10)
    ordered = list(read_in_order(data, "train", 4, Rng(0)))
    assert [indices(batch) for batch in ordered] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    shuffled = [[indices(batch) for batch in read_shuffled(data, "train", 4, Rng(seed))] for seed in (0, 0, 1)]
    assert [len(batch) for batch in shuffled[0]] == [4, 4, 2]
    assert sorted(sum(shuffled[0], [])) == list(range(10))
    assert shuffled[0] == shuffled[1] != shuffled[2]
    rng = Rng(0)
    first, again = ([indices(batch) for batch in read_shuffled(data, "train", 4, rng)] for _ in range(2))
    assert first == again


def test_digits_come_with_their_labels():
    data = Digits()
    every = data.read("train", range(1437), Rng(0))
    found = list(read_shuffled(data, "train", 256, Rng(0)))
    x, labels = torch.cat([b.tensor for b in found]), torch.cat([b.fields["labels"] for b in found])
    for row in (0, 500, 1436):
        matches = (every.tensor == x[row]).flatten(1).all(1).nonzero()[:, 0]
        assert labels[row] in every.fields["labels"][matches]
    assert torch.equal(torch.bincount(labels), torch.bincount(every.fields["labels"]))


def test_mistakes_are_named():
    data = Numbers()
    for make in (Loader, read_shuffled, read_in_order):
        check_refusal(r"Numbers expects a split of \['empty', 'train'\], got 'valid'", make, data, "valid", 4, Rng(0))
        check_refusal("Numbers expects samples in split 'empty', got none", make, data, "empty", 4, Rng(0))
        check_refusal("expects batch_size to be at least 1, got 0", make, data, "train", 0, Rng(0))
    loader = Loader(data, "train", 4, Rng(0))
    for step, first, num in ((-1, 0, 4), (0, -1, 2), (0, 2, 3), (0, 0, 0), (0, 4, None)):
        check_refusal("Loader expects rows within batches of 4", loader.read_batch, step, first, num)


def test_an_error_in_a_worker_has_no_traceback_in_its_message():
    """The fault: torch passes on an error's traceback as its message, and the command line printed it."""
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"^Numbers expects luck, got 13$"):
            list(read_in_order(Numbers(20), "train", 4, Rng(0), workers=workers))


def test_a_thousand_workers_are_refused(monkeypatch):
    """The fault: 1024 processes were forked on a machine of two processors."""
    message = r"train\.workers expects at most 32 processes on this machine of 2 processors, got 1024"
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(ValueError, match=message):
        Loader(Numbers(20), "train", 4, Rng(0), workers=1024)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(256)))
    Loader(Numbers(20), "train", 4, Rng(0), workers=1024)
