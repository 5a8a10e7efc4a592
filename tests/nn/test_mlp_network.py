import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.nn.mlp_network import MLPNetwork
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions, draw, normal
from tests.refusals import refusals

X = TensorType((1, 4, 3), (-1.0, 3.0))
V = TensorType((5,))
MAP = TensorType((2, 2, 1))
FULL = CondType(vector=3, noise=2, labels=4, concat=MAP, time=True)


def linear(layer: nn.Linear, v: Tensor) -> Tensor:
    return torch.einsum("oi,bi->bo", layer.weight, v) + layer.bias


def silu(v: Tensor) -> Tensor:
    return v / (1 + torch.exp(-v))


def layer_norm(layer: nn.LayerNorm, v: Tensor) -> Tensor:
    centred = v - v.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias


@pytest.mark.parametrize("time", [False, True])
def test_network_values(time: bool) -> None:
    cond_type = CondType(vector=3, concat=MAP, time=time)
    network = draw(MLPNetwork(X, TensorType((2, 4, 3)), cond_type, width=6, depth=2))
    x, cond = normal(5, 1, 4, 3), conditions(FULL, 5)
    e = linear(network.embedding.vector, cond.vector)
    if time:
        angles = cond.time[:, None] * torch.tensor([1.0, 1e-4], dtype=torch.float64)
        first, _, second = network.embedding.time
        e = e + linear(second, silu(linear(first, torch.cat([angles.sin(), angles.cos()], dim=1))))
    film = linear(network.modulation, silu(e)).reshape(5, 2, 2, 6)
    h = linear(network.stem, torch.cat([x.reshape(5, 12), cond.concat.reshape(5, 4)], dim=1))
    for i, block in enumerate(network.blocks):
        inner = (1 + film[:, 0, i]) * layer_norm(block.norm, h) + film[:, 1, i]
        h = h + linear(block.back, silu(linear(block.into, inner)))
    expected = linear(network.out, layer_norm(network.norm, h)).reshape(5, 2, 4, 3)
    torch.testing.assert_close(network(x, cond), expected)


def test_network_without_conditions() -> None:
    network = draw(MLPNetwork(V, V, CondType(), width=6, depth=1))
    x = normal(5, 5)
    h, block = linear(network.stem, x), network.blocks[0]
    h = h + linear(block.back, silu(linear(block.into, layer_norm(block.norm, h))))
    torch.testing.assert_close(network(x, Cond()), linear(network.out, layer_norm(network.norm, h)))
    assert network.modulation is None


def test_network_starts_at_zero_with_blocks_that_are_identities() -> None:
    network = MLPNetwork(V, V, CondType(time=True)).double()
    x, cond = normal(4, 5), Cond(time=torch.arange(4.0))
    h = network.stem(x)
    film = [torch.ones_like(h), torch.ones_like(h)]
    assert not network(x, cond).any()
    assert all(torch.equal(block(h, film), h) for block in network.blocks)


@pytest.mark.wide
def test_network_drops_in_training_only() -> None:
    network = draw(MLPNetwork(V, V, CondType(), width=64, depth=1, dropout=0.5))
    x = normal(4, 5)
    torch.manual_seed(0)
    noisy = torch.stack([network(x, Cond()) for _ in range(2000)])
    clean = network.eval()(x, Cond())
    assert torch.equal(clean, network(x, Cond())) and not torch.equal(noisy[0], noisy[1])
    h, block = network.stem(x), network.blocks[0]
    inner = silu(block.into(block.norm(h)))
    torch.manual_seed(0)
    network.train()
    kept = block(h) - h - block.back.bias
    torch.manual_seed(0)
    torch.testing.assert_close(kept, torch.einsum("oi,bi->bo", block.back.weight, F.dropout(inner, 0.5)))


def test_network_gradient_is_the_derivative() -> None:
    network = draw(MLPNetwork(V, V, FULL, width=6, depth=2))
    cond = conditions(FULL, 2)
    assert torch.autograd.gradcheck(lambda x: network(x, cond), (normal(2, 5).requires_grad_(),))


CODES = TensorType((4, 4), classes=7)
CONTEXT = CondType(context=(3, 8))


test_mistakes_are_refused = refusals(
    (lambda: MLPNetwork(X, X, CONTEXT), r"MLPNetwork expects no context .*got \(3, 8\)"),
    (lambda: MLPNetwork(CODES, X, CondType()), "MLPNetwork expects a continuous x"),
    (lambda: MLPNetwork(X, CODES, CondType()), "MLPNetwork expects a continuous out"),
    (lambda: MLPNetwork(X, X, CondType(), depth=0), "MLPNetwork expects depth to be at least 1, got 0"),
    (
        lambda: MLPNetwork(X, X, CondType(concat=MAP))(torch.zeros(2, 1, 4, 3), Cond()),
        "MLPNetwork expects a Cond with `concat`",
    ),
)
