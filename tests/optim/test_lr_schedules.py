import json
import math

import pytest
import torch

from modkit.optim.lr_schedules import constant, cosine, linear


def rates(make, steps, num=None, rate=0.5, **options):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=rate)
    schedule = make(optimizer, steps, **options)
    found = []
    for _ in range(num or steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


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


def test_cosine_agrees_with_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=0.05)
    for rate in rates(cosine, 10, floor=0.1):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("make", [linear, cosine])
def test_past_its_end_the_rate_stays(make):
    assert rates(make, 3, 6, floor=0.2)[3:] == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize("make", [constant, linear, cosine])
def test_a_stage_cut_short_may_end_in_its_warmup(make):
    assert rates(make, 2, warmup=9) == pytest.approx([0.05, 0.1, 0.15])


@pytest.mark.parametrize("make", [constant, linear, cosine])
def test_each_group_keeps_its_own_rate(make):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = make(optimizer, 10, warmup=3)
    for _ in range(5):
        high, low = (group["lr"] for group in optimizer.param_groups)
        assert low == pytest.approx(high / 10, rel=1e-12)
        optimizer.step()
        schedule.step()


def test_state_is_plain_numbers_and_restores():
    whole = rates(cosine, 9, warmup=2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = cosine(optimizer, 9, warmup=2)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    state, inner = json.loads(json.dumps(schedule.state_dict())), optimizer.state_dict()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = cosine(optimizer, 9, warmup=2)
    optimizer.load_state_dict(inner)
    schedule.load_state_dict(state)
    for rate in whole[4:]:
        assert optimizer.param_groups[0]["lr"] == rate
        optimizer.step()
        schedule.step()


def test_mistakes_are_named():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    for options in ({"steps": 0}, {"warmup": -1}, {"floor": 1.5}, {"floor": -0.1}):
        with pytest.raises(ValueError, match=r"cosine expects steps >= 1, warmup >= 0, floor in \[0, 1\], got"):
            cosine(optimizer, **{"steps": 5, **options})
