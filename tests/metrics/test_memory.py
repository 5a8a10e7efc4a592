import subprocess
import sys

import pytest
import torch

import modkit
import modkit.metrics.memory as memory
from modkit import use
from modkit.metrics.memory import measure_peak_memory, read_peak_rss
from tests.play import spec
from tests.traps import set_traps

MIB = 2**20
IN_CHILD = memory._measure_in_child  # of which `conftest.py` has something else take the place
CHILD = """
import runpy
import sys
sys.path[:] = sys.argv[1].split("\\n")
module = runpy.run_path(sys.argv[2])  # without its package, which imports torch
read_peak_rss, restart_peak = module["read_peak_rss"], module["restart_peak"]

def hold(size):
    held = bytearray(size << 20)
    held[:: 4096] = bytes(len(held[:: 4096]))

marks = [read_peak_rss()]
hold(64)
marks.append(read_peak_rss())
restart_peak()
marks.append(read_peak_rss())
hold(32)
marks.append(read_peak_rss())
assert "torch" not in sys.modules
print(*marks)
"""


@pytest.mark.wide
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux begins the peak anew")
def test_the_peak_is_the_childs_own_and_begins_anew():
    held = b"x" * (400 * MIB)  # what this process has resident is none of the child's
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "\n".join(sys.path), memory.__file__], capture_output=True, text=True, check=True
    )
    start, high, anew, again = (int(mark) / MIB for mark in done.stdout.split())
    assert read_peak_rss() > len(held) > 4 * start * MIB
    assert high - start == pytest.approx(64, abs=4)
    assert anew == pytest.approx(start, abs=4)
    assert again - anew == pytest.approx(32, abs=4)


@pytest.mark.wide
def test_a_run_is_sampled_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_measure_in_child", IN_CHILD)
    run = modkit.train(spec(use("gan", generator=use("mlp", width=8, depth=1))), tmp_path / "run", steps=1)
    mark = set_traps(tmp_path)
    monkeypatch.chdir(tmp_path)
    score = measure_peak_memory(run.path, num=7)
    assert not mark.exists()
    assert 50 < score.value < 4000 and score.better == "lower"
    assert score.settings == {"memory": "resident", "batch size": 7}
    assert 50 < score.details["before sampling (MiB)"] <= score.value
    with pytest.raises(ValueError, match=r"model\.generator\.depth: expected int, got 'deep'"):
        measure_peak_memory(run.path, ["model.generator.depth=deep"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_allocators_peak_holds_weights_and_samples(tmp_path):
    run = modkit.train(spec(use("gan", generator=use("mlp", width=8, depth=1))), tmp_path / "run", steps=1)
    held = torch.zeros(64 * MIB, dtype=torch.uint8, device="cuda")  # another's
    score = measure_peak_memory(run.path, num=1000, device="cuda")
    weights = sum(4 * one.numel() for one in modkit.load(run).parameters())
    assert weights + 4 * 1000 * 64 < score.value * MIB < len(held)
    assert score.settings == {"memory": "CUDA", "batch size": 1000}
