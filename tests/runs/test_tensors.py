import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from modkit.runs.checkpoint import Checkpoint, save
from modkit.runs.snapshot import Memory, take
from modkit.runs.tensors import plan_layout, read_tensors
from tests.processes import READ_PEAK, run_python
from tests.refusals import check_refusal

PEAKS = f"""
import json, re, sys
from pathlib import Path
import torch
from modkit.runs.checkpoint import Checkpoint, load, save

def peak():
    return {READ_PEAK}

def make(size):
    model = {{str(number): torch.ones(size // 4) for number in range(4)}}
    return Checkpoint({{"model": model, "ema": {{"w": torch.ones(size)}}}})

root = Path(sys.argv[1])
load(save(root, "step-1", make(100)))
content = make(2**23)
before = peak()
path = save(root, "step-2", content)
written = peak()
del content
kept = load(path)
print(json.dumps([before, written, peak()]))
"""


@pytest.mark.wide
def test_a_checkpoint_is_written_with_one_copy_of_its_tensors_and_read_without_any(tmp_path):
    before, written, read = json.loads(run_python("-c", PEAKS, tmp_path).stdout)
    size = 2 * 2**23 * 4 // 1024
    assert 0.9 * size < written - before < 1.1 * size
    assert read - written < 0.1 * size  # the tensors made first, and their copy, are gone


def test_a_file_is_one_of_safetensors(tmp_path):
    tensors = {"n": torch.tensor(3), "w": torch.randn(2, 3), "b": torch.tensor([True]), "none": torch.empty(0, 2)}
    found = load_file(save(tmp_path, "a", Checkpoint({"g": tensors})) / "g.safetensors")
    assert found.keys() == tensors.keys() and all(torch.equal(found[key], value) for key, value in tensors.items())
    assert all(begin % tensors[key].element_size() == 0 for key, (begin, _) in plan_layout(tensors).places.items())


def test_a_file_of_the_library_is_read_whatever_its_alignment(tmp_path):
    tensors = {"odd": torch.tensor([1, 2, 3], dtype=torch.uint8), "w": torch.randn(5), "h": torch.randn(3).half()}
    save_file(tensors, tmp_path / "x", metadata={"format": "pt"})
    with open(tmp_path / "x", "rb") as file:
        found, digest = read_tensors(file, (tmp_path / "x").stat().st_size)
    assert digest.size == (tmp_path / "x").stat().st_size and found.keys() == tensors.keys()
    assert all(torch.equal(found[key], value) for key, value in tensors.items())
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                         "w": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}}).encode()  # fmt: skip
    (tmp_path / "y").write_bytes(len(header).to_bytes(8, "little") + header + bytes([7, 0, 0, 128, 63]))
    with open(tmp_path / "y", "rb") as file:
        found, _ = read_tensors(file, (tmp_path / "y").stat().st_size)
    assert (found["a"].item(), found["w"].item()) == (7, 1.0)


def test_a_file_that_ends_early_is_refused(tmp_path):
    path = save(tmp_path, "a", Checkpoint({"g": {"w": torch.ones(9)}})) / "g.safetensors"
    with open(path, "rb") as file:
        check_refusal("it ends 8 bytes early", read_tensors, file, path.stat().st_size + 8)


class Waiting(TorchDispatchMode):
    """A device whose copies without blocking end later than what follows them, as on MPS."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.copy_.default and args[2:] == (True,):
            return args[0]
        return func(*args, **(kwargs or {}))


def test_a_snapshot_holds_the_values_of_devices_that_copy_later():
    with Waiting():
        part = take(Checkpoint({"g": {"w": torch.tensor([1.0, 2.0])}}), Memory()).parts["g.safetensors"]
    assert torch.frombuffer(bytearray(part.data[-8:]), dtype=torch.float32).tolist() == [1.0, 2.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_tensors_on_cuda_are_copied_into_page_locked_memory():
    memory, values = Memory(), {"w": torch.randn(1000, device="cuda"), "n": torch.arange(3, device="cuda")}
    part = take(Checkpoint({"g": values}), memory).parts["g.safetensors"]
    places = plan_layout(values).places
    held = {key: bytes(part.data[slice(*places[key])]) for key in values}
    assert held == {key: value.cpu().numpy().tobytes() for key, value in values.items()}
    assert memory.allocate(len(part.data), True).is_pinned()
    memory.release()
