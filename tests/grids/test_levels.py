import math
from functools import partial

import pytest
import torch

from modkit.diffusion.schedules import EDM, Cosine, Flow, Linear, find_noise_range
from modkit.grids import Karras, Listed, LogSNR, space_noise_levels
from modkit.types import TensorType
from tests.refusals import refusals

F64 = torch.float64
SCHEDULES = {"linear": Linear(), "cosine": Cosine(), "edm": EDM(), "flow": Flow()}


def find_levels(schedule, times):
    alpha, sigma = schedule.scales(times)
    return (sigma / alpha).tolist()


def test_edm_grid_is_the_published_one():
    levels = find_levels(EDM(), Karras(EDM())(18))
    assert levels[:5] == pytest.approx([80, 57.586, 40.7856, 28.3746, 19.3525], rel=1e-5)
    assert levels[16:] == pytest.approx([0.00752802, 0.002, 0], rel=1e-6)


@pytest.mark.parametrize("make", [Karras, LogSNR])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_levels_span_the_schedules_ends(schedule, make):
    times = make(schedule, TensorType((2,)), sigma_min=None, sigma_max=None)(12)
    levels, (low, high) = find_levels(schedule, times), find_noise_range(schedule)
    assert levels[0] == pytest.approx(high, rel=1e-6) and levels[-2] == pytest.approx(low, rel=1e-6)
    assert times.diff().max() < 0 and times[-1] == 0 and times.dtype == F64
    spaced = [level ** (1 / 7) if make is Karras else math.log(level) for level in levels[:-1]]
    assert spaced == pytest.approx(torch.linspace(spaced[0], spaced[-1], 12, dtype=F64).tolist(), abs=1e-6)


def test_few_levels_leave_the_lowest_out_and_18_do_not():
    for make in (Karras, LogSNR):
        assert find_levels(EDM(), make(EDM())(17))[:-1] == pytest.approx(
            find_levels(EDM(), make(EDM(), sigma_min=None)(18))[:-2]
        )
        assert make(EDM())(18).equal(make(EDM(), sigma_min=None)(18))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_list_is_visited_as_it_stands_and_interpolated_evenly_in_its_logarithm(schedule):
    listed = Listed(schedule, levels=[40.0, 10.0, 0.4])
    assert find_levels(schedule, listed(3)) == pytest.approx([40, 10, 0.4, 0])
    assert find_levels(schedule, listed(5)) == pytest.approx([40, 20, 10, 2, 0.4, 0])
    assert find_levels(schedule, listed(1)) == pytest.approx([40, 0])
    assert len(Listed(schedule)(10)) == 11 and find_levels(schedule, Listed(schedule)(10))[0] == pytest.approx(14.615)


test_errors = refusals(
    (lambda: Karras(EDM(), rho=0)(4), "Karras expects rho above 0, got 0"),
    (lambda: Karras(EDM(), sigma_min=90.0)(4), "Karras expects 0 < sigma_min < sigma_max, got 90 and 80"),
    (
        lambda: LogSNR(Linear(), sigma_min=0.002)(4),
        "LogSNR expects sigma_min of at least 0.0100005, the level of the table's first index, got 0.002",
    ),
    (lambda: Karras(Linear(), sigma_max=1e4)(4), "Karras expects sigma_max of at most 157.4.*, the schedule's, got 1"),
    (lambda: Karras(EDM())(0), r"Karras expects steps in \[1, 100000\], got 0"),
    (lambda: LogSNR(EDM())(10**6), r"LogSNR expects steps in \[1, 100000\], got 1000000"),
    (lambda: Listed(EDM(), levels=[]), r"Listed expects levels that descend to one above 0, got \[\]"),
    (lambda: Listed(EDM(), levels=[1.0, 2.0]), r"Listed expects levels that descend .*, got \[1.0, 2.0\]"),
    (lambda: Listed(EDM(), levels=[1.0, 0.0]), r"Listed expects levels that descend .*, got \[1.0, 0.0\]"),
    (lambda: Listed(EDM(), levels=[5.0])(2), r"Listed expects two levels or more for 2 steps, got \[5.0\]"),
    (lambda: Listed(Linear(), levels=[500.0])(1), "Listed expects sigma_max of at most 157.4.*, got 500"),
    (lambda: Listed(Linear(), levels=[1.0, 1e-4])(2), "Listed expects sigma_min of at least 0.0100005, .*, got 0.0001"),
    (lambda: Listed(EDM())(0), r"Listed expects steps in \[1, 100000\], got 0"),
    (partial(space_noise_levels, None, EDM(), 0), r"NoneType expects steps in \[1, 100000\], got 0"),
)
