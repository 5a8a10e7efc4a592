import pytest
import torch

from modkit.diffusion.schedules import EDM, Flow, Linear
from modkit.grids import Even, Karras, Leading, Linspace, Trailing, choose_grid, space_noise_levels
from modkit.kinds import GridExtras, read_extras
from modkit.types import TensorType
from tests.refusals import refusals

GRIDS = {"leading": Leading, "trailing": Trailing, "linspace": Linspace}


def test_indices():
    def find_indices(steps, name):
        times = GRIDS[name](Linear())(steps)
        assert times[-1] == 0
        return (times[:-1] * 1000 - 1).round().int().tolist()

    assert find_indices(10, "leading") == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert find_indices(10, "trailing") == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert find_indices(10, "linspace") == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    for name in GRIDS:
        assert find_indices(1000, name) == list(range(999, -1, -1))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 333, 999, 1000])
@pytest.mark.parametrize("make", [*GRIDS.values(), Even], ids=[*GRIDS, "even"])
def test_no_time_is_visited_twice(make, steps):
    times = make(Linear())(steps)
    assert len(times) == steps + 1 and times.diff().max() < 0 and times[0] <= 1


def test_without_a_table_they_are_the_levels_down_to_the_lowest():
    for make in GRIDS.values():
        assert make(EDM())(5).equal(space_noise_levels(None, EDM(), 5))
        assert read_extras(make(EDM()), GridExtras).noise_levels
        assert not read_extras(make(Linear()), GridExtras).noise_levels


def test_even_times_are_rounded_to_indices_unless_they_are_shifted():
    assert Even(Flow())(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert (Even(Linear(num=10))(3) * 10).tolist() == pytest.approx([10, 7, 3, 0])
    t = torch.tensor([1, 2 / 3, 1 / 3, 0], dtype=torch.float64)
    for schedule in (Flow(), Linear(num=10)):
        torch.testing.assert_close(Even(schedule, shift=2.5)(3), 2.5 * t / (1 + 1.5 * t))
    assert Even(Flow(), shift=0.4)(4)[2] == pytest.approx(0.2 / 0.7)
    assert (Even(Linear(num=10), shift=0.25)(3) * 10)[2] == pytest.approx(10 / 9)  # above the first index, if barely


def test_auto_is_trailing_on_a_table_and_karras_without():
    x = TensorType((2,), std=0.1)
    assert choose_grid(Linear(), x)(7).equal(Trailing(Linear())(7))
    assert choose_grid(EDM(), x)(7).equal(Karras(EDM(), x)(7))


test_errors = refusals(
    (lambda: Trailing(Linear())(0), r"Trailing expects steps in \[1, 1000\] on a table of 1000, got 0"),
    (lambda: Leading(Linear(num=10))(11), r"Leading expects steps in \[1, 10\] on a table of 10, got 11"),
    (lambda: Even(Linear())(2000), r"Even expects steps in \[1, 1000\] on a table of 1000, got 2000"),
    (lambda: Even(Flow())(0), r"Even expects steps in \[1, 100000\], got 0"),
    (lambda: Linspace(EDM())(0), r"Linspace expects steps in \[1, 100000\], got 0"),
    (lambda: Even(Flow(), shift=0), "Even expects shift to be above 0, got 0"),
    (
        lambda: Even(Linear(), shift=0.1)(250),
        "Even expects times of at least 1/1000, the table's first, got 0.401/1000 in 250 steps with the shift 0.1",
    ),
)
