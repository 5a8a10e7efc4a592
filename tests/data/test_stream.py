"""Data without random access: any loader, any world and any number of workers reads each sample once a pass."""

from contextlib import closing
from itertools import islice

import pytest
import torch

import modkit
from modkit import Spec, check, use
from modkit.data import Binarized, Corrupted
from modkit.data.loader import Loader, read_in_order, read_shuffled
from modkit.data.moments import measure_std
from modkit.data.stream import StreamReader
from modkit.engines.local import LocalEngine
from modkit.errors import SpecError
from modkit.evaluation.sources import from_data
from modkit.models.passes import select_fields
from modkit.rng import Rng
from modkit.specs.settings import Settings
from modkit.training.reader import Reader
from modkit.types import Batch, TensorType
from tests.play import MLP
from tests.refusals import check_refusal


class Numbers:
    """A stream of `num` samples in batches of up to three rows; sample i is i."""

    levels = None
    key = "numbers"

    def __init__(self, *, num: int = 24, stated: int | None = None) -> None:
        self.num, self.x = num, TensorType((1,), std=1.0)
        self.fields = {"index": TensorType((), classes=num)}
        self.splits = {"train": num if stated is None else stated, "test": 0}

    def read(self, split, indices, rng):
        raise ValueError("Numbers cannot be read by index")

    def finish(self, batch):
        return Batch(batch.tensor.float(), batch.fields)

    def stream(self, split, part, parts, rng):
        order = rng.integers("order", torch.empty(1, self.num), 0, 2**31)[0].argsort()[part::parts]
        for rows in order.split(3):
            yield Batch(rows[:, None], {"index": rows})


def indices(batches):
    return [index for batch in batches for index in batch.fields["index"].tolist()]


def take(batches, num):
    with closing(batches):
        return list(islice(batches, num))


@pytest.mark.wide(1)
@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 0), (1, 2), (2, 2)])
def test_processes_and_workers_read_disjoint_shares_that_are_whole(world, workers):
    share = 4 // world
    loaders = [Loader(Numbers(), "train", 4, Rng(0), workers=workers) for _ in range(world)]
    read = [take(loader.read_batches(0, rank * share, share), 6) for rank, loader in enumerate(loaders)]
    assert all(len(batch) == share for batches in read for batch in batches)
    assert sorted(index for batches in read for index in indices(batches)) == list(range(24))
    assert read[0][0].tensor.dtype == torch.float32


def test_passes_follow_one_another_in_orders_of_their_own():
    batches = take(Loader(Numbers(), "train", 8, Rng(0)).read_batches(), 6)
    first, second = indices(batches[:3]), indices(batches[3:])
    assert sorted(first) == sorted(second) == list(range(24)) and first != second


def test_order_is_a_function_of_the_key_and_of_the_step_at_which_reading_begins():
    def read(seed, start):
        return indices(take(Loader(Numbers(), "train", 8, Rng(seed)).read_batches(start), 3))

    assert read(0, 2) == read(0, 2)
    assert read(0, 2) != read(0, 0) and read(0, 2) != read(1, 2)
    assert sorted(read(0, 2)) == list(range(24))  # a new pass


@pytest.mark.parametrize("workers", [0, 2])
def test_a_single_pass_is_the_same_in_any_world(workers):
    whole = list(read_shuffled(Numbers(), "train", 10, Rng(0), workers=workers))
    assert [len(batch) for batch in whole] == [10, 10, 4] and sorted(indices(whole)) == list(range(24))
    shares = [list(read_shuffled(Numbers(), "train", 10, Rng(0), rank=rank, world=2)) for rank in range(2)]
    for batch, *parts in zip(whole, *shares):
        assert indices([batch]) == indices(parts)
    assert sorted(indices(read_in_order(Numbers(), "train", 10, Rng(0)))) == list(range(24))


def test_a_pass_has_as_many_samples_as_the_split_states():
    assert len(indices(read_shuffled(Numbers(stated=20), "train", 8, Rng(0)))) == 20
    message = r"Numbers expects 30 rows, as `splits` states, of split 'train', got 24"
    for workers in (0, 1):
        check_refusal(message, list, read_shuffled(Numbers(stated=30), "train", 8, Rng(0), workers=workers))


def test_a_share_without_samples_is_refused():
    shares = Loader(Numbers(num=3), "train", 8, Rng(0)).read_batches(0, 6, 2)
    check_refusal("Numbers expects rows in every share of split 'train', got 0 in share 3 of 4", next, shares)


def test_preparing_reads_passes_with_all_fields():
    passes = Reader(Numbers(), Settings(batch_size=10), LocalEngine("cpu")).start_passes("one")
    first, again = list(passes), list(select_fields(passes))
    assert sorted(indices(first)) == sorted(indices(again)) == list(range(24)) and indices(first) != indices(again)


def test_the_deviation_is_that_of_the_first_samples():
    found = torch.cat([batch.tensor for batch in read_in_order(Numbers(num=999), "train", 64, Rng(0, "std"))])
    assert measure_std(Numbers(num=999), 100) == pytest.approx(found[:128].double().std(correction=0).item(), rel=1e-5)


def test_what_needs_an_index_is_refused():
    data, got = Numbers(), "expects data that can be read by index, got Numbers, a stream"
    loader = Loader(data, "train", 8, Rng(0))
    check_refusal(f"read_batch {got}", loader.read_batch, 0)
    check_refusal(f"read_epoch {got}", loader.read_epoch, 0, [1])
    check_refusal(f"images {got}", from_data, data, "train", "images")
    for wrapper in (Binarized, Corrupted):
        check_refusal(f"{wrapper.__name__} {got}", wrapper, data=lambda: data)
    for start, first, num in ((-1, 0, 4), (0, 0, 3), (0, 2, 4), (0, 8, 4)):
        check_refusal(
            "Loader expects equal shares of batches of 8 from a stream", loader.read_batches, start, first, num
        )
    check_refusal("StreamReader expects a stream, got dict", StreamReader, {}, "train", 0)


def test_check_says_that_training_is_inexact_and_refuses_what_needs_an_index():
    report = check(Spec(model=use("gan"), data=use(Numbers)))
    assert any("a stream, so that training is inexact" in str(fact) for fact in report.facts)
    spec = Spec(
        model=use("latent", autoencoder=use("autoencoder", **MLP), prior=use("diffusion", network="mlp")),
        data=use(Numbers),
        train={"stages": [{"players": ["autoencoder*"]}, {"players": ["prior/*"], "cache": 2}]},
        evaluate={"num": 2},
    )
    with pytest.raises(SpecError) as refused:
        check(spec)
    paths = {problem.path for problem in refused.value.problems if "data that can be read by index" in str(problem)}
    assert paths == {"evaluate", "train.stages[1].cache"}


@pytest.mark.wide
def test_a_run_goes_on_through_its_stages(tmp_path):
    """Pictures of an autoencoder without a prior are reconstructions of training samples where none are held out."""
    model = use("latent", autoencoder=use("autoencoder", **MLP), prior=use("diffusion", network="mlp"))
    stages = [{"players": ["autoencoder*"]}, {"players": ["prior/*"]}]
    spec = Spec(model=model, data=use(Numbers), train={"batch_size": 8, "samples": {"num": 4}, "stages": stages})
    modkit.train(spec, tmp_path / "run", steps=2)
    run = modkit.train(spec, tmp_path / "run", steps=3, resume=True)
    assert run.find_checkpoint_name() == "step-00000005"
