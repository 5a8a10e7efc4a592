"""Rows that processes compute together: in batches of one process, each by one of them."""

import pytest
import torch

from modkit.engines.local import LocalEngine
from modkit.engines.shares import share_rows
from tests.engines.threads import run_together


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("num", "size"), [(1, None), (5, 2), (7, 3), (12, 2), (300, None), (4, 100)])
def test_each_process_computes_batches_of_its_own_and_gets_all_rows(world, num, size):
    def act(engine):
        calls = []

        def compute(first, count):
            calls.append((first, count))
            return torch.arange(first, first + count)

        return share_rows(compute, num, engine, size), calls

    alone = act(LocalEngine("cpu"))[1]
    rows, calls = zip(*run_together(act, world), strict=True)
    assert all(torch.equal(one, torch.arange(num)) for one in rows)
    assert size is None or {call for own in calls for call in own} == set(alone)
    assert size is None or max(map(len, calls)) == -(-len(alone) // world)


def test_levels_of_a_hierarchy_are_shared_alike():
    def act(engine):
        return share_rows(lambda first, n: (torch.ones(n), torch.arange(first, first + n)), 3, engine, 2)

    for levels in run_together(act, 2):
        assert [level.tolist() for level in levels] == [[1, 1, 1], [0, 1, 2]]
