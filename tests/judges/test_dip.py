import pytest
import torch

from modkit.judges import DIP
from tests.refusals import refusals


def draw(num=7, d=3):
    mean, logstd = torch.randn(2, num, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return mean, (logstd / 2).exp()


@pytest.mark.parametrize(
    ("params", "diagonal"), [({"of": "means"}, 10.0), ({"of": "z"}, 1.0), ({"of": "z", "diagonal": 3.0}, 3.0)]
)
def test_it_is_the_distance_of_the_covariance_from_the_identity(params, diagonal):
    mean, std = draw()
    covariance = torch.cov(mean.T, correction=0)
    if params["of"] == "z":
        covariance = covariance + sum(torch.diag(one.square()) for one in std) / len(std)
    expected = sum(
        covariance[i, j] ** 2 if i != j else diagonal * (covariance[i, i] - 1) ** 2 for i in range(3) for j in range(3)
    )
    torch.testing.assert_close(DIP("dip", **params)(mean, std), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("of", ["means", "z"])
def test_its_gradient_is_that_of_the_equation(of):
    inputs = [one.requires_grad_() for one in draw()]
    torch.autograd.gradcheck(lambda mean, std: DIP("dip", of=of)(mean, std), inputs)


test_mistakes_are_refused = refusals(
    (lambda: DIP(diagonal=-1.0), r"DIP expects diagonal to be at least 0, got -1\.0"),
)
