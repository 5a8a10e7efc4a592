import pytest
import torch

from modkit.diffusion.coefficients import GridCoefficients, expand_time, send
from modkit.diffusion.parametrizations import EDM, X0, Eps, EpsLearned, Flow, V
from modkit.diffusion.schedules import Cosine

F64 = torch.float64
TIMES = torch.tensor([1.0, 0.7, 0.301, 0.05, 0.001], dtype=F64)


@pytest.mark.parametrize("part", [Eps, X0, V, EDM, Flow, EpsLearned])
def test_a_sample_is_treated_by_numbers_as_by_a_tensor_of_them(part):
    """What a sampler computes by floats of its grid is in float64 what training computes by one value per sample."""
    schedule = Cosine()
    parametrization = part(schedule)

    def compute(t):
        return parametrization.coefficients(t, schedule.scales(t))

    grid, each = GridCoefficients(compute, TIMES), compute(TIMES)
    x_t = torch.randn(5, 2, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    out = torch.cat([x_t.cos(), x_t.sin()], 1) if part is EpsLearned else x_t.cos()
    x_in, time = parametrization.inputs(x_t, each)
    x_0 = parametrization.denoised(out, x_t, each).x_0
    for row, t in enumerate(TIMES):
        rows = slice(row, row + 1)
        got = (
            *parametrization.inputs(x_t[rows], grid.at(t)),
            parametrization.denoised(out[rows], x_t[rows], grid.at(t)).x_0,
        )
        for value, expected in zip(got, (x_in[rows], time[rows], x_0[rows]), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_a_grid_is_computed_at_once_and_other_times_when_they_are_asked_for():
    asked = []

    def compute(t):
        asked.append(t.tolist())
        return {"square": t**2, "double": 2 * t}

    grid = GridCoefficients(compute, TIMES)
    assert grid.at(TIMES[1]) == {"square": 0.7**2, "double": 1.4} and len(asked) == 1
    other = torch.tensor(0.25, dtype=F64)
    assert [grid.at(other) for _ in range(2)] == [{"square": 0.0625, "double": 0.5}] * 2
    assert asked == [TIMES.tolist(), [0.25]]


@pytest.mark.parametrize(
    ("dtype", "expected"), [(F64, F64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)]
)
def test_what_is_sent_is_rounded_once_and_keeps_every_index_of_a_table(dtype, expected):
    index = torch.tensor([998.0, 999.0], dtype=F64)
    x = torch.zeros(2, 3, dtype=dtype)
    time, third = send((index, index / 3), x)
    assert torch.equal(time, index.to(expected)) and torch.equal(third, (index / 3).to(expected))
    assert torch.equal(expand_time(time, x), time) and torch.equal(expand_time(999.0, x), time[[1, 1]])
