import pytest
import torch
from torch import Tensor, nn

from modkit.nn.projection import Projection
from modkit.types import Cond, CondType
from tests.nn.modules import conditions, draw, normal

COND = CondType(vector=3, noise=2, labels=4, time=True)


def scaled(weight: Tensor) -> Tensor:
    return weight / torch.linalg.svdvals(weight)[0]


def test_values() -> None:
    projection = draw(Projection(CondType(labels=4), 6))
    phi, labels = normal(3, 6, 2), torch.tensor([0, 4, 1])
    e = projection.embedding.labels.weight[labels]
    want = torch.einsum("bin,ij,bj->bn", phi, projection.v.weight, e) / 6**0.5
    torch.testing.assert_close(projection(phi, Cond(labels=labels)), want)


@pytest.mark.wide(1)
@pytest.mark.parametrize("cond_type", [CondType(vector=3), CondType(labels=4), CondType(noise=2), COND])
def test_spectral_norm_divides_every_matrix_of_the_embedding(cond_type: CondType) -> None:
    projection = draw(Projection(cond_type, 6, spectral_norm=True), scale=3.0)
    phi, cond = normal(5, 6), conditions(cond_type, 5)
    for _ in range(300):
        projection(phi, cond)
    plain = Projection(cond_type, 6).double()
    plain.v.weight.data = scaled(projection.v.parametrizations.weight.original)
    plain.embedding.load_state_dict(projection.embedding.state_dict())
    for layer in (one for one in plain.embedding.modules() if isinstance(one, nn.Linear | nn.Embedding)):
        layer.weight.data = scaled(layer.weight)
    torch.testing.assert_close(projection(phi, cond), plain(phi, cond), rtol=1e-6, atol=1e-9)


def test_under_spectral_norm_labels_move_a_logit_by_a_bounded_amount() -> None:
    """Rows of a matrix of norm 1, through V of norm 1: by at most 2 |phi| / sqrt(d), however far the weights grow."""
    projection = draw(Projection(CondType(labels=4), 6, spectral_norm=True), scale=100.0)
    phi = normal(1, 6).expand(5, 6)
    for _ in range(100):
        term = projection(phi, Cond(labels=torch.arange(5)))
    assert (term.max() - term.min()) <= 2 * phi[0].norm() / 6**0.5


def test_spectral_norm_adds_no_keys_and_is_differentiable() -> None:
    plain, normalized = (Projection(COND, 6, spectral_norm=normal) for normal in (False, True))
    assert normalized.embedding.state_dict().keys() == plain.embedding.state_dict().keys()
    projection = draw(Projection(CondType(labels=4), 6, spectral_norm=True)).eval()
    phi, cond = normal(5, 6), Cond(labels=torch.arange(5))

    def term(weight: Tensor) -> Tensor:
        return torch.func.functional_call(projection, {"embedding.labels.weight": weight}, (phi, cond))

    assert torch.autograd.gradcheck(term, (projection.embedding.labels.weight.detach().requires_grad_(),))
