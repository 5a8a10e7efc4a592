"""What others' turns change is put back, in few launches."""

import pytest
import torch
from torch import nn

from modkit.bottlenecks.codebook import Codebook
from modkit.nn.buffer_snapshot import BufferSnapshot
from modkit.nn.fir import FIRDownsample
from tests.launches import Launches


def make_modules():
    torch.manual_seed(0)
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16))
    return nn.ModuleDict({"norm": nn.BatchNorm1d(16), "other": nn.BatchNorm1d(16), "spectral": spectral})


def test_what_a_forward_pass_changes_is_put_back_even_after_an_error():
    net = make_modules()
    held, moved = BufferSnapshot(net.modules()), set()
    for _ in range(2):
        before = {name: value.clone() for name, value in net.named_buffers()}
        with pytest.raises(KeyError), held.keep():
            net["other"](net["norm"](net["spectral"](torch.randn(5, 16))))
            after = dict(net.named_buffers())
            moved |= {name for name, value in before.items() if not torch.equal(value, after[name])}
            raise KeyError
        assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
        net["other"](net["norm"](net["spectral"](torch.randn(5, 16))))  # in the owner's turn, they move on
    assert moved == before.keys()


def test_only_the_modules_that_are_given_are_kept():
    net = make_modules()
    with BufferSnapshot([net["norm"]]).keep():
        net["other"](net["norm"](torch.randn(5, 16)))
    assert net["norm"].num_batches_tracked == 0 and net["other"].num_batches_tracked == 1


def test_constants_are_left_out_and_what_a_codebook_collects_is_not():
    assert not BufferSnapshot(FIRDownsample(2).modules()).buffers
    codebook = Codebook("Toy", 8, 4, ema=True, decay=0.9, revive=0.1)
    names = {"codes", "sums", "usage", "counts", "seen", "priority"}
    kept = {id(buffer) for buffer in BufferSnapshot(codebook.modules()).buffers}
    assert {name for name, buffer in codebook.named_buffers() if id(buffer) in kept} >= names


def test_buffers_of_one_dtype_are_copied_by_one_launch_each_way():
    net = make_modules().to("meta")
    with Launches() as seen, BufferSnapshot(net.modules()).keep():
        pass
    assert seen.kernels == {"_foreach_copy_": 4}  # of float32 and int64
