import json
import os
import random

import pytest
import torch

from modkit.runs.checkpoint import Checkpoint, list_names, load, read_latest, save
from modkit.runs.slices import Slice, assemble, check_slices, find_share, place
from tests.engines.systems import launch
from tests.refusals import check_refusal
from tests.runs.sharing import make_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes write together, beside what one has written."""
    folder = tmp_path_factory.mktemp("sharing")
    save(folder / "alone", "step-1", Checkpoint({"model": make_tensors()}))
    told = launch(folder, [], 2, 60, "tests.runs.sharing")
    assert all(text.endswith("status 0") for text in told), told
    return folder / "together" / "checkpoints"


def test_one_process_reads_what_two_have_written(folder):
    kept = load(folder / "step-1").tensors["model"]
    assert all(torch.equal(kept[name], value) for name, value in make_tensors().items())
    assert kept["tied"] is kept["rows"]
    mapped = read_latest(folder, mapped=True).checkpoint.tensors["model"]
    assert mapped.keys() == kept.keys() and all(torch.equal(mapped[name], value) for name, value in kept.items())


def test_each_process_writes_its_slices_and_the_first_whatever_is_whole(folder):
    rows = json.loads((folder / "step-1" / "manifest.json").read_bytes())["files"]
    assert set(os.listdir(folder / "step-1")) == {*rows, "manifest.json"}
    places = {file: row["slices"] for file, row in rows.items() if row.get("group") == "model"}
    assert places["model.safetensors"]["rows"] == [[5, 3], [0, 0]] and "plain" not in places["model.safetensors"]
    assert places["model.1.safetensors"] == {
        "rows": [[5, 3], [3, 0]], "columns": [[2, 6], [0, 3]], "half": [[4, 2], [2, 0]]
    }  # fmt: skip


def test_what_could_not_be_written_together_leaves_nothing(folder):
    assert os.listdir(folder) == ["step-1"] and list_names(folder) == ["step-1"]


def test_slices_that_do_not_make_a_whole_are_refused():
    ones = torch.ones(2, 2)
    assert torch.equal(assemble([(ones, Slice([2, 2], [0, 0]))]), ones)
    check_refusal("4 values do not fill", assemble, [(ones, Slice([3, 2], [0, 0]))])
    check_refusal("lies outside a tensor of shape", assemble, [(ones, Slice([2, 2], [1, 0]))])
    check_refusal("of another one", assemble, [(ones, Slice([4, 2], [0, 0])), (ones, Slice([2, 4], [2, 0]))])


def test_slices_that_overlap_leave_no_value_uninitialised():
    half, row = torch.ones(2, 4), torch.ones(1, 4)
    check_refusal("overlap", assemble, [(half, Slice([4, 4], [0, 0])), (half, Slice([4, 4], [0, 0]))])
    check_refusal("overlap", assemble, [(torch.ones(3, 4), Slice([4, 4], [0, 0])), (row, Slice([4, 4], [1, 0]))])
    check_refusal("lies outside", assemble, [(half, Slice([4, 4], [0, 0])), (half, Slice([4, 4], [-2, 0]))])
    empty = torch.ones(0, 4)
    assert assemble([(half, Slice([2, 4], [0, 0])), (empty, Slice([2, 4], [2, 0]))]).shape == (2, 4)
    assert assemble([(torch.tensor(3.0), Slice([], []))]) == 3


@pytest.mark.wide
def test_slices_are_accepted_exactly_if_each_value_is_covered_once():
    """Against counting by hand, over random slices as large as the whole together."""
    draw, found = random.Random(0), []
    while len(found) < 2000:
        shape = [draw.randint(1, 3) for _ in range(draw.randint(1, 3))]
        cover, pieces = torch.zeros(shape), []
        for _ in range(draw.randint(1, 4)):
            offset = [draw.randrange(size) for size in shape]
            part = [draw.randint(1, size - begin) for begin, size in zip(offset, shape)]
            cover[tuple(slice(begin, begin + size) for begin, size in zip(offset, part))] += 1
            pieces.append((torch.zeros(part), Slice(shape, offset)))
        if cover.sum() != cover.numel():
            continue
        found.append(bool((cover == 1).all()))
        if found[-1]:
            check_slices(pieces)
        else:
            check_refusal("overlap", check_slices, pieces)
    assert 200 < sum(found) < 1800


def test_a_plain_tensor_has_no_slices_and_keeps_its_memory_format():
    like = torch.zeros(2, 3, 4, 5, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    value = torch.randn(2, 3, 4, 5)
    placed = place(value, like)
    assert find_share(like) is None and torch.equal(placed, value)
    assert placed.stride() == like.stride() and placed.dtype == value.dtype
