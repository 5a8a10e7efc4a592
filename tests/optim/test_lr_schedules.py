import json
import math

import pytest
import torch

from modkit.optim.lr_schedules import constant, cosine, inverse_root, linear
from tests.refusals import check_refusal


def begin(make, steps, rates=(0.5,), **options):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    return optimizer, make(optimizer, steps, **options)


def follow(optimizer, schedule, num):
    found = []
    for _ in range(num):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def rates(make, steps, num=None, **options):
    return [rate for (rate,) in follow(*begin(make, steps, **options), num or steps + 1)]


def test_constant():
    assert rates(constant, 5) == [0.5] * 6
    assert rates(constant, 6, warmup=3) == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5])


def test_linear():
    assert rates(linear, 4) == pytest.approx([0.5, 0.375, 0.25, 0.125, 0.0])
    expected = [0.5 / 3, 1 / 3, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert rates(linear, 6, warmup=2, floor=0.2) == pytest.approx(expected)


@pytest.mark.smoke
def test_cosine():
    expected = [0.5 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(9)]
    assert rates(cosine, 8) == pytest.approx(expected, abs=1e-15)
    assert expected[4] == pytest.approx(0.25)
    tail = [0.05 + 0.45 * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(7)]
    assert rates(cosine, 8, warmup=2, floor=0.1) == pytest.approx([0.5 / 3, 1 / 3, *tail])


def test_inverse_root():
    expected = [0.5 / math.sqrt(max(k / 4, 1)) for k in range(40)]
    assert rates(inverse_root, 39, hold=4) == pytest.approx(expected, rel=1e-12)
    assert expected[3:6] == [0.5, 0.5, 0.5 / math.sqrt(1.25)] and expected[36] == pytest.approx(0.5 / 3)
    warm = [rate * min((k + 1) / 7, 1) for k, rate in enumerate(expected)]
    assert rates(inverse_root, 39, hold=4, warmup=6) == pytest.approx(warm, rel=1e-12)
    assert rates(inverse_root, 5, 40, hold=4) == pytest.approx(expected, rel=1e-12)  # the stage's length is no matter


@pytest.mark.parametrize("make", [linear, cosine])
def test_past_its_end_the_rate_stays(make):
    assert rates(make, 3, 6, floor=0.2)[3:] == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize("make", [constant, linear, cosine, inverse_root])
def test_a_stage_cut_short_may_end_in_its_warmup(make):
    assert rates(make, 2, warmup=9) == pytest.approx([0.05, 0.1, 0.15])


def test_cosine_agrees_with_torchs():
    theirs = rates(torch.optim.lr_scheduler.CosineAnnealingLR, 10, eta_min=0.05)
    assert rates(cosine, 10, floor=0.1) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("make", [constant, linear, cosine, inverse_root])
def test_each_group_keeps_its_own_rate(make):
    for high, low in follow(*begin(make, 10, (1.0, 0.1), warmup=3), 5):
        assert low == pytest.approx(high / 10, rel=1e-12)


def test_state_is_plain_numbers_and_restores():
    optimizer, schedule = begin(cosine, 9, warmup=2)
    follow(optimizer, schedule, 4)
    state, inner = json.loads(json.dumps(schedule.state_dict())), optimizer.state_dict()
    optimizer, schedule = begin(cosine, 9, warmup=2)
    optimizer.load_state_dict(inner)
    schedule.load_state_dict(state)
    assert follow(optimizer, schedule, 6) == [[rate] for rate in rates(cosine, 9, warmup=2)[4:]]


@pytest.mark.parametrize("options", [{"steps": 0}, {"warmup": -1}, {"floor": 1.5}, {"floor": -0.1}])
def test_mistakes_are_named(options):
    message = r"cosine expects (steps to be at least 1|warmup to be at least 0|floor to be in \[0, 1\]), got"
    check_refusal(message, begin, cosine, **{"steps": 5, **options})


@pytest.mark.parametrize("options", [{"hold": 0}, {"warmup": -1}])
def test_mistakes_of_inverse_root_are_named(options):
    check_refusal(
        "inverse_root expects (hold to be at least 1|warmup to be at least 0)", begin, inverse_root, 5, **options
    )
