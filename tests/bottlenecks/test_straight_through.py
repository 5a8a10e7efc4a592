import math

import pytest
import torch

from modkit.bottlenecks.straight_through import rotation_trick, straight_through


def gradient(passed, z, z_q, weight):
    z = z.clone().requires_grad_()
    value = passed(z, z_q)
    assert torch.equal(value.detach(), z_q)
    return torch.autograd.grad((weight * value).sum(), z)[0]


def test_straight_through_is_the_identity():
    z, z_q, weight = torch.randn(3, 5, 4, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gradient(straight_through, z, z_q, weight), weight)


@pytest.mark.parametrize("size", [(), (4,), (2, 3)])
def test_the_jacobian_is_the_scaled_rotation_in_the_plane_of_both(size):
    generator = torch.Generator().manual_seed(len(size))
    z, z_q, weight = (torch.randn(3, 5, *size, dtype=torch.float64, generator=generator) for _ in range(3))
    got = gradient(rotation_trick, z, z_q, weight).movedim(1, -1).reshape(-1, 5)
    rows = [value.movedim(1, -1).reshape(-1, 5) for value in (z, z_q, weight)]
    for a, b, w, mine in zip(*rows, got):
        e, q = a / a.norm(), b / b.norm()
        u = q - (q @ e) * e  # turn by the angle between them in the plane of e and u, nothing else
        u = u / u.norm()
        angle = math.acos(float(e @ q))
        plane = torch.outer(e, e) + torch.outer(u, u)
        turn = torch.eye(5).double() + (math.cos(angle) - 1) * plane
        turn = turn + math.sin(angle) * (torch.outer(u, e) - torch.outer(e, u))
        torch.testing.assert_close(turn @ e, q)
        torch.testing.assert_close(mine, b.norm() / a.norm() * turn.T @ w)


def test_opposite_and_vanishing_vectors_have_finite_gradients():
    z = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    z_q = torch.tensor([[-2.0, 0.0], [0.5, 0.0], [0.0, 0.0]])
    got = gradient(rotation_trick, z, z_q, torch.ones(3, 2))
    assert got.isfinite().all()
    torch.testing.assert_close(got[0], torch.tensor([-2.0, 2.0]))  # a reflection along z
    torch.testing.assert_close(got[2], torch.zeros(2))
