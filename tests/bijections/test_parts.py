"""What each bijection is by itself."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from modkit import Batch, SpecError, TensorType, use
from modkit.bijections.spline import Spline
from modkit.bijections.splits import Checkerboard
from modkit.diffusion.gaussian import compute_log_normal
from modkit.types import Cond, CondType
from tests.bijections.test_bijections import NET, SPLINE, build, draw
from tests.refusals import refusals

VECTOR, MAPS = TensorType((5,)), TensorType((3, 4, 2))


def curve(num=7, bins=6, bound=3.0):
    spline = Spline(bins=bins, bound=bound)
    return spline, draw(TensorType((spline.num,)), num)


def test_a_spline_is_the_rational_function_of_the_paper_between_its_knots():
    """Eq. 4 to 6 at each bin by itself, with knots and slopes from the definition."""
    spline, raw = curve()
    x = torch.linspace(-2.9, 2.9, 7, dtype=torch.float64)
    y, log_slope = spline.forward(x, raw)
    for value, got, gained, one in zip(x, y, log_slope, raw):
        shares = [1e-3 + (1 - 6e-3) * part.softmax(0) for part in (one[:6], one[6:12])]
        at_x, at_y = ([-3 + 6 * float(share[:k].sum()) for k in range(7)] for share in shares)
        slopes = [1.0, *(1e-3 + math.log1p(math.exp(float(d) + math.log(math.expm1(0.999)))) for d in one[12:]), 1.0]
        k = max(k for k in range(6) if at_x[k] <= value)
        s, xi = (at_y[k + 1] - at_y[k]) / (at_x[k + 1] - at_x[k]), (float(value) - at_x[k]) / (at_x[k + 1] - at_x[k])
        below = s + (slopes[k + 1] + slopes[k] - 2 * s) * xi * (1 - xi)
        want = at_y[k] + (at_y[k + 1] - at_y[k]) * (s * xi**2 + slopes[k] * xi * (1 - xi)) / below
        slope = s**2 * (slopes[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + slopes[k] * (1 - xi) ** 2) / below**2
        torch.testing.assert_close([float(got), float(gained)], [want, math.log(slope)], rtol=1e-10, atol=1e-10)


def test_a_spline_returns_at_its_knots_and_tails_and_is_smooth_there():
    spline, raw = curve(num=1)
    knots, heights, slopes = (one[0] for one in spline._make_knots(raw))
    tails = torch.tensor([-1e6, -3.5, -3.0 - 1e-12, 3.0 + 1e-12, 40.0], dtype=torch.float64)
    x = torch.cat([knots, knots + 1e-9, knots - 1e-9, tails]).requires_grad_()
    y, log_slope = spline.forward(x, raw.expand(len(x), -1))
    torch.testing.assert_close(y[:7], heights, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_slope[:21].exp().view(3, 7), slopes.expand(3, 7), rtol=0, atol=1e-5)  # on both sides
    assert torch.equal(y[21:], x[21:])
    assert torch.equal(log_slope[21:], torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(spline.inverse(y, raw.expand(len(x), -1)), x, rtol=0, atol=1e-8)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope.log(), log_slope, rtol=0, atol=1e-9)


def test_a_spline_s_gradients_are_finite_far_outside_and_in_extreme_bins():
    spline = Spline(bins=4, bound=1.0)
    raw = (50 * draw(TensorType((spline.num,)), 6)).float().requires_grad_()
    x = torch.tensor([-1e4, -1.0, -0.999, 0.2, 1.0, 1e4], requires_grad=True)
    y, log_slope = spline.forward(x, raw)
    back = spline.inverse(y, raw)
    assert all(one.isfinite().all() for one in torch.autograd.grad((y + log_slope + back).sum(), (x, raw)))
    assert (y.diff() > 0).sum() >= 2


@pytest.mark.parametrize("reverse", [False, True])
def test_an_autoregressive_jacobian_is_triangular_in_its_order_and_full_below(reverse):
    bijection = build(use("autoregressive", width=32, reverse=reverse), VECTOR)
    jacobian = torch.autograd.functional.jacobian(lambda v: bijection(v[None])[0][0], draw(VECTOR, 1)[0])
    jacobian = jacobian.flip(0, 1) if reverse else jacobian
    assert torch.equal(jacobian.triu(1), torch.zeros_like(jacobian))
    assert bool((jacobian.tril().abs() + torch.ones_like(jacobian).triu(1) > 0).all())


def test_the_first_value_of_an_autoregressive_one_depends_on_the_conditions():
    bijection = build("autoregressive", VECTOR, CondType(vector=2))
    x = draw(VECTOR, 1)
    first, second = (bijection(x, Cond(vector=torch.full((1, 2), one).double()))[0] for one in (0.0, 1.0))
    assert (first != second).all()


@pytest.mark.parametrize("x", [TensorType((4,)), TensorType((3,)), TensorType((2, 3, 3))], ids=str)
def test_a_coupling_keeps_one_half_and_both_networks_have_their_say(x):
    bijection = build(use("coupling", network=NET, split="checkerboard" if len(x.shape) > 1 else None), x)
    with torch.no_grad():
        for parameter in getattr(bijection, "network[1]").parameters():
            parameter.zero_()
    values = draw(x)
    y, _ = bijection(values)
    kept = bijection.splits[0].keep(torch.ones_like(values)).sum() / len(values)
    assert int((y == values).all(0).sum()) == kept < x.numel


def test_a_checkerboard_alternates_along_every_axis():
    changes = Checkerboard(TensorType((2, 3, 4)), even=True).changes
    assert changes.tolist() == [[(row + column) % 2 == 1 for column in range(4)] for row in range(3)]


def test_actnorm_gives_its_data_mean_0_and_deviation_1_a_channel_and_keeps_constants_finite():
    bijection = build("actnorm", MAPS)
    x = draw(MAPS, 50) * torch.tensor([2.0, 0.1, 0.0])[:, None, None] + 5
    bijection.prepare([Batch(x[:20], {}), Batch(x[20:], {})])
    y, _ = bijection(x)
    flat = y.transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(flat[:2].std(1, correction=0), torch.ones(2, dtype=torch.float64))


def test_a_chain_prepares_each_of_its_bijections_with_what_those_before_it_give():
    x = TensorType((4, 2, 2))
    inner = use("squeeze", bijection=use("chain", layers=["actnorm"]))
    chain = build(use("chain", layers=["actnorm", "linear", "actnorm", inner]), x)
    values = draw(x, 200) * 3 + 1
    chain.prepare([Batch(values[:128], {}), Batch(values[128:], {})])
    y = chain(values)[0]
    torch.testing.assert_close(y.mean(0), torch.zeros(x.shape, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(x.shape, dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_linear_one_starts_as_a_rotation():
    bijection = build("linear", TensorType((6,)), scale=0)
    matrix = bijection(torch.eye(6, dtype=torch.float64))[0]
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(bijection(draw(TensorType((6,))))[1], torch.zeros(3).double(), rtol=0, atol=1e-6)


def test_a_squeeze_puts_blocks_into_channels_and_half_leaves_the_first_half():
    x = TensorType((1, 4, 4))
    bijection = build(use("squeeze", half=True, bijection="actnorm"), x)
    bijection.bijection.log_scale.data.zero_()
    bijection.bijection.shift.data[:] = torch.tensor([10.0, 20.0])[:, None, None]
    moved = (bijection(torch.zeros(1, 4, 4)[None].double())[0])[0, 0]
    assert moved.tolist() == [[0, 0, 0, 0], [10, 20, 10, 20]] * 2


def test_affine_bijections_make_the_exact_gaussian():
    """With y = W x + b standard normal, x is N(-W^-1 b, (W^T W)^-1)."""
    flow = build(use("chain", layers=["actnorm", "linear", "actnorm", "linear"]), VECTOR, scale=0.5)
    x = draw(VECTOR, 6)
    y, log_det = flow(x)
    zero = torch.zeros(1, 5, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(lambda v: flow(v[None])[0][0], zero[0])
    exact = MultivariateNormal(flow.inverse(zero)[0], precision_matrix=matrix.T @ matrix)
    torch.testing.assert_close(compute_log_normal(y) + log_det, exact.log_prob(x), rtol=1e-9, atol=1e-9)


def test_new_ones_are_the_identity():
    for part in (use("coupling", network=NET), use("coupling", network=NET, **SPLINE), "autoregressive", "actnorm"):
        y, log_det = build(part, VECTOR, scale=0)(draw(VECTOR))
        torch.testing.assert_close(y, draw(VECTOR), rtol=0, atol=1e-9)
        torch.testing.assert_close(log_det, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)


CODES, SCALAR = TensorType((4,), classes=3), TensorType((1,))

test_refusals = refusals(
    (lambda: build("actnorm", CODES), "Actnorm expects continuous x"),
    (lambda: build("coupling", SCALAR), "Coupling expects x with two or more positions to split"),
    (
        lambda: build("linear", TensorType((1, 4, 4))),
        r"Linear expects x with at least 2 channels, got .*: put it into a `squeeze`$",
    ),
    (
        lambda: build("linear", SCALAR),
        r"at least 2 channels, got 1 unbounded: `actnorm` and `autoregressive` take any number of channels$",
    ),
    (lambda: build("linear", TensorType((1, 4, 3))), "got 1×4×3 unbounded: `actnorm` and `autoregressive`"),
    (
        lambda: build(use("coupling", split="halves"), TensorType((1, 4, 4))),
        "with the split `halves` expects x with at least 2 channels",
    ),
    (lambda: build(use("coupling", split="thirds"), VECTOR), "thirds"),
    (lambda: build(use("coupling", transform="cubic"), VECTOR), "cubic"),
    (
        lambda: build(use("coupling", transform="spline", bins=1), VECTOR),
        r"Coupling expects bins to be in \[2, 500\], got 1",
    ),
    (
        lambda: build(use("coupling", transform="spline", bound=0.0), VECTOR),
        r"bijection\.bound: Coupling expects bound to be above 0, got 0\.0",
    ),
    (lambda: build(use("autoregressive", width=0), VECTOR), "Autoregressive expects width to be at least 1, got 0"),
    (lambda: build("autoregressive", VECTOR, CondType(context=(3, 4))), "expects no context"),
    (
        lambda: build("autoregressive", VECTOR, CondType(concat=TensorType((4, 4), classes=3))),
        "expects a continuous map in its conditions",
    ),
    (lambda: build("squeeze", TensorType((1, 4, 3))), "Squeeze expects maps of even sizes"),
    (lambda: build(use("chain", layers=[]), VECTOR), "Chain expects layers of one bijection or more, got none"),
    (lambda: build(use("chain", depth=0), VECTOR), "Chain expects depth to be at least 1, got 0"),
    error=SpecError,
)
