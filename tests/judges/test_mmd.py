import itertools

import pytest
import torch

from modkit.judges import MMD
from tests.refusals import refusals

DOUBLE = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def compare(kernel, scales, a, b):
    """The kernel of two latents."""
    square, d = (a - b).square().sum(), len(a)
    return sum(2 * d * s / (2 * d * s + square) if kernel == "imq" else (-square / (2 * d * s)).exp() for s in scales)


CASES = [
    ("imq", None, (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)),
    ("rbf", None, (1.0,)),
    ("rbf", [1.5], (1.5,)),
]


@pytest.mark.parametrize(("kernel", "scales", "used"), CASES)
def test_it_is_the_sum_over_different_pairs(kernel, scales, used):
    z, prior = draw(5, 3) + 0.5, draw(5, 3, seed=1)
    within = sum(compare(kernel, used, x[i], x[j]) for x in (z, prior) for i in range(5) for j in range(5) if i != j)
    between = sum(compare(kernel, used, a, b) for a in z for b in prior)
    made = MMD("mmd", kernel=kernel, scales=scales)(z, prior)
    torch.testing.assert_close(made, within / 20 - 2 * between / 25, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_it_is_unbiased(kernel):
    """Its mean over all batches of two, drawn from four points each, is the discrepancy of the points themselves."""
    part, q, p = MMD("mmd", kernel=kernel), draw(4, 2) + 0.5, draw(4, 2, seed=1)
    batches = list(itertools.product(range(4), repeat=2))
    mean = torch.stack([part(q[list(a)], p[list(b)]) for a in batches for b in batches]).mean()
    k = {name: part._compare(*pair).mean() for name, pair in {"qq": (q, q), "pp": (p, p), "qp": (q, p)}.items()}
    torch.testing.assert_close(mean, k["qq"] + k["pp"] - 2 * k["qp"], rtol=1e-12, atol=1e-14)
    assert mean > 0.01


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_its_gradient_is_that_of_the_equation(kernel):
    z, part = draw(4, 3).requires_grad_(), MMD("mmd", kernel=kernel)
    torch.autograd.gradcheck(lambda z: part(z, draw(4, 3, seed=1)), z)
    same = torch.zeros(3, 2, dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(part(same, torch.zeros(3, 2, dtype=DOUBLE)), same)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_float32_is_as_exact_as_its_kernel():
    """Squared distances are differences of squares, rounded to 1e-7 of |z|^2, which is 16 here."""
    z, prior = draw(64, 16), draw(64, 16, seed=1)
    narrow = MMD("mmd")(z.float(), prior.float())
    torch.testing.assert_close(narrow.double(), MMD("mmd")(z, prior), rtol=0, atol=1e-5)


test_mistakes_are_refused = refusals(
    (lambda: MMD("mmd", scales=[]), "MMD expects one scale or more, got none"),
    (lambda: MMD("mmd", scales=[1.0, 0.0]), r"MMD expects scales\[1\] to be above 0, got 0\.0"),
)
