"""What processes that wait say of one that has failed, hangs or is gone."""

import re
import time

import pytest
from torch.distributed import DistNetworkError, HashStore

from modkit.engines.record import ProcessRecord
from modkit.runs import checkpoint as store
from tests.engines.faults import STEP
from tests.engines.systems import ROOT
from tests.forks import fork_python

FAILED = f"failed at step {STEP}: ValueError: picture 3 cannot be read"
GONE = r"has not been heard of: it was at or after (?:its start|the preparation of \w+|step (\d+))"
SOME, MORE = ("killed-1", "raising-0", "hanging-1"), ("killed-0", "raising-1", "hanging-0")


@pytest.mark.wide
@pytest.mark.parametrize("faults", [SOME, pytest.param(MORE, marks=pytest.mark.full)], ids=["some", "more"])
def test_the_other_process_names_the_one_at_fault_and_its_step(tmp_path, faults):
    fork_python("-m", "tests.engines.faults", tmp_path, *faults, cwd=ROOT)
    for fault in faults:
        kind, _, rank = fault.partition("-")
        said = (tmp_path / f"{fault}-of-{1 - int(rank)}.txt").read_text()
        last = tmp_path / fault / "checkpoints" / "step-00000010"
        how = re.escape(FAILED) if kind == "raising" else GONE
        ended = rf"process {rank} {how}; the last good checkpoint is {re.escape(str(last))}\nstatus 1\n\Z"
        assert (found := re.search(ended, said)), said
        assert kind == "raising" or int(found[1] or 0) <= STEP
        assert store.load(last).state["cursor"]["step"] == 10


def test_those_that_wait_are_not_blamed(monkeypatch):
    monkeypatch.setattr("modkit.engines.record._PATIENCE", 0.2)
    keep = HashStore()
    first, second, third = (ProcessRecord(keep, rank, 3, period=0) for rank in range(3))
    second.announce("step 5")
    third.announce("step 4")
    assert second.find_fault() == (
        "process 0 has not been heard of: it was at or after its start; "
        "process 2 has not been heard of: it was at or after step 4"
    )
    assert first.find_fault() == "process 2 has not been heard of: it was at or after step 4"
    assert third.find_fault() is None
    second.fail(ValueError("what it has waited for in vain is no error of its own"))
    assert third.find_fault() is None


class Counting(HashStore):
    written = 0

    def set(self, key, value):
        self.written += 1
        super().set(key, value)


def test_a_place_is_written_once_a_period_and_when_a_process_fails(monkeypatch):
    keep, now = Counting(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    record = ProcessRecord.__new__(ProcessRecord)
    record._store, record._rank, record._world, record._period, record._written = keep, 0, 1, 1.0, 0.0
    for step in range(1, 31):  # 10 a second
        now[0] = step / 10
        record.announce(f"step {step}")
    assert keep.written == 3 and '"step 30"' in keep.get("0").decode()
    now[0] += 0.5
    record.announce("step 31")
    record.announce("step 32")
    assert keep.written == 3
    record.fail(ValueError("no such picture"))
    assert keep.written == 4 and '"step 32"' in keep.get("0").decode()


class Ended(HashStore):
    def set(self, key, value):
        if 'waited": true' in value:
            raise DistNetworkError("connection was likely closed")
        super().set(key, value)


def test_the_process_that_keeps_the_record_can_be_gone():
    record = ProcessRecord.__new__(ProcessRecord)
    record._store, record._rank, record._world, record._period, record._written = Ended(), 1, 2, 0, 0
    record.announce("step 7")
    assert record.find_fault() == "process 0, or the launcher, has ended since step 7"
