import numpy as np
import pytest
import torch

import modkit.metrics.mapped as mapped
from modkit.metrics.store import Store, StoredMetric
from modkit.rng import Rng
from tests.metrics.streams import shuffled
from tests.refusals import check_refusal, refusals

N, D = 23, 5
VALUES = Rng(0).normal("values", torch.empty(N, D))


def filled(order, *, split, limit=2**30):
    store = Store(D, limit=limit)
    for part in torch.tensor(order).split(split):
        store.add(part, VALUES[part])
    return store


@pytest.mark.parametrize("limit", [2**30, 200, 0])
def test_any_order_split_and_limit_gives_the_rows_by_index(limit):
    mixed = shuffled(N).tolist()
    for order, split in ((list(range(N)), 4), (mixed, 3), (mixed[::-1], N)):
        store = filled(order, split=split, limit=limit)
        for _ in range(2):
            indices, values = store.sort()
            assert torch.equal(indices, torch.arange(N)) and torch.equal(values, VALUES)
        assert len(store) == N


@pytest.mark.parametrize("limit", [2**30, 200])
def test_merged_stores_hold_both_and_change_neither(limit):
    a, b = filled(range(1, N, 2), split=2, limit=limit), filled(range(0, N, 2), split=5, limit=limit)
    merged = a.merge(b)
    assert torch.equal(merged.sort()[1], VALUES) and len(a) + len(b) == len(merged) == N
    assert torch.equal(a.sort()[1], VALUES[1::2])
    merged.add(torch.tensor([N]), VALUES[:1])
    assert len(merged.sort()[0]) == N + 1 and len(b) == 12


def test_rows_are_copies_in_float32():
    values = VALUES.double().clone()
    store = Store(D)
    store.add(torch.arange(N), values)
    values.zero_()
    assert torch.equal(store.sort()[1], VALUES)


def test_an_empty_store_has_no_rows():
    indices, values = Store(D).sort()
    assert indices.shape == (0,) and values.shape == (0, D)


def test_rows_lie_in_files_only_past_the_limit(monkeypatch):
    made = []
    monkeypatch.setattr(mapped.np, "memmap", lambda *a, **k: made.append(k["shape"]) or np.empty(k["shape"], "f4"))
    filled(range(N), split=4).sort()
    assert made == []
    filled(range(N), split=4, limit=100).sort()
    assert made == [(8, D), (8, D), (7, D), (N, D)]


test_refusals_say_what_was_expected_and_got = refusals(
    (lambda: Store(0), "dim to be at least 1, got 0"),
    (lambda: Store(D).add(torch.arange(N), VALUES[:, :4]), r"shape \(b, 5\) and indices \(b,\), got \(23, 4\)"),
    (lambda: Store(D).add(torch.arange(1), torch.full((1, D), float("nan"))), "finite"),
    (lambda: filled([1, 3, 2, 3], split=2).sort(), "each sample once, got index 3 twice"),
    (lambda: Store(5).merge(Store(4)), "got 5 and 4"),
)


class Places(StoredMetric):
    needs = ("points",)
    sets = ("fake",)


def test_a_metric_keeps_what_it_needs_flattened_and_by_index():
    metric = Places()
    a = metric.update(metric.init(), "fake", {"points": VALUES[3:].view(N - 3, D, 1)}, torch.arange(3, N))
    b = metric.update(metric.init(), "fake", {"points": VALUES[:3]}, torch.arange(3))
    ((indices, values),) = metric.rows(metric.merge(a, b)).values()
    assert torch.equal(indices, torch.arange(N)) and torch.equal(values, VALUES)
    assert len(a["fake"]) == N - 3 and metric.rows(metric.merge(metric.init(), b))["fake"][1].shape == (3, D)
    check_refusal("Places expects at least 4 samples of 'fake', got 3", metric.rows, b, least=4)
    check_refusal("Places expects at least 2 samples of 'fake', got 0", metric.rows, metric.init())
