"""What processes that wait say of one that has failed, hangs or is gone."""

import subprocess
import sys

import pytest
from torch.distributed import DistNetworkError, HashStore

from modkit.engines.record import Record
from modkit.runs import checkpoint as store
from tests.engines.faults import STEP
from tests.engines.systems import ROOT

SAID = {"raising": f"failed at step {STEP}: ValueError: picture 3 cannot be read"}
GONE = f"has not been heard of since step {STEP}"
SOME, MORE = ("killed-1", "raising-0", "hanging-1"), ("killed-0", "raising-1", "hanging-0")


@pytest.mark.parametrize("faults", [SOME, pytest.param(MORE, marks=pytest.mark.full)], ids=["some", "more"])
def test_the_other_process_names_the_one_at_fault_and_its_step(tmp_path, faults):
    command = [sys.executable, "-m", "tests.engines.faults", str(tmp_path), *faults]
    subprocess.run(command, cwd=ROOT, timeout=300, check=True)
    for fault in faults:
        kind, _, rank = fault.partition("-")
        said = (tmp_path / f"{fault}-of-{1 - int(rank)}.txt").read_text()
        last = tmp_path / fault / "checkpoints" / "step-00000010"
        ended = f"process {rank} {SAID.get(kind, GONE)}; the last good checkpoint is {last}\nstatus 1\n"
        assert said.endswith(ended), said
        assert store.load(last).state["cursor"]["step"] == 10


def test_those_that_wait_are_not_blamed():
    keep = HashStore()
    first, second, third = (Record(keep, rank, 3) for rank in range(3))
    second.announce("step 5")
    third.announce("step 4")
    assert second.find_fault() == (
        "process 0 has not been heard of since its start; process 2 has not been heard of since step 4"
    )
    assert first.find_fault() == "process 2 has not been heard of since step 4"
    assert third.find_fault() is None
    second.fail(ValueError("what it has waited for in vain is no error of its own"))
    assert third.find_fault() is None


class Ended(HashStore):
    def set(self, key, value):
        if 'waited": true' in value:
            raise DistNetworkError("connection was likely closed")
        super().set(key, value)


def test_the_process_that_keeps_the_record_can_be_gone():
    record = Record.__new__(Record)
    record._store, record._rank, record._world = Ended(), 1, 2
    record.announce("step 7")
    assert record.find_fault() == "process 0, or the launcher, has ended since step 7"
