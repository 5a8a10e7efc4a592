import json

from tests.forks import fork_python

KILLED = """
import fcntl, json, os, sys
from pathlib import Path
import torch
from modkit.runs.checkpoint import Checkpoint, list_names, load, recover, save_snapshot
from modkit.runs.parts import Patience
from modkit.runs.slices import Slice
from modkit.runs.snapshot import Memory, take
from tests.runs.kills import CALLS, kill_before_each_call

FUNCTIONS = {name: getattr(os, name) for name in CALLS}
HELD = Path(sys.argv[1], "held")

def make(step, rank):
    snapshot = take(Checkpoint({"model": {"w": torch.full((32,), float(step))}}, {"step": step}), Memory())
    (part,) = snapshot.parts.values()
    name = "model.1.safetensors" if rank else "model.safetensors"
    part = part._replace(slices={"w": Slice([64], [32 * rank])})
    return snapshot._replace(parts={name: part}, rank=rank, ranks=frozenset({0, 1}))

class Loyal(Patience):
    def __init__(self, parent):
        super().__init__(60)
        self.parent = parent

    def wait(self, look, what):
        def look_until_alone():
            if os.getppid() != self.parent:
                self._latest = 0
            return look()

        return super().wait(look_until_alone, what)

def write(root, step, rank, patience):
    save_snapshot(root, f"step-{step}", make(step, rank), patience)

def write_together(root, step, rank):
    held = open(HELD, "w")
    fcntl.flock(held, fcntl.LOCK_EX)  # until both processes have ended
    parent, other = os.getpid(), os.fork()
    if not other:
        for name, function in FUNCTIONS.items():  # which the kill does not reach
            setattr(os, name, function)
        try:
            write(root, step, 1 - rank, Loyal(parent))
        except OSError:
            os._exit(3)
        os._exit(0)
    write(root, step, rank, Patience(60))
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0

def check(root, *steps):
    assert list_names(root) == [f"step-{step}" for step in steps], (list_names(root), steps)
    for step in steps:
        whole = load(root / f"step-{step}")
        assert whole.state == {"step": step} and whole.tensors["model"]["w"].tolist() == [step] * 64

start, root = Path(sys.argv[1], "start"), Path(sys.argv[1], "root")
start.mkdir()
write_together(start, 1, 0)
counts = []
for rank in (0, 1):
    counts.append(0)
    for killed in kill_before_each_call(lambda root: write_together(root, 2, rank), start, root):
        with open(HELD) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
        check(root, *((1, 2) if "step-2" in os.listdir(root) else (1,)))
        recover(root)
        write_together(root, 3, 0)
        check(root, *((1, 2, 3) if "step-2" in os.listdir(root) else (1, 3)))
        assert sorted(os.listdir(root / "step-3")) == [
            "manifest.json", "model.1.safetensors", "model.safetensors", "state.json"
        ]
        assert not [name for name in os.listdir(root) if name.startswith(".")]
        counts[-1] += killed
print(json.dumps(counts))
"""


def test_a_kill_of_one_of_two_writers_before_any_of_its_calls_leaves_whole_checkpoints(tmp_path):
    first, second = json.loads(fork_python("-c", KILLED, tmp_path, cwd=tmp_path).stdout)
    assert first >= 15 and second >= 8, (first, second)
