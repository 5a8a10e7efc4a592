import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.nn.mlp import MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator, MLPNetwork, squash
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions, draw, leaky, normal
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


def test_encoder_values() -> None:
    encoder = draw(MLPEncoder(X, width=6))
    x = normal(3, 1, 4, 3)
    h = silu(linear(encoder.hidden[2], silu(linear(encoder.hidden[0], x.reshape(3, 12)))))
    torch.testing.assert_close(encoder(x), h)
    assert encoder.h == TensorType((6,))


def test_depth_zero_is_linear() -> None:
    encoder = MLPEncoder(X, depth=0)
    decoder = draw(MLPDecoder(encoder.h, TensorType((2, 3)), depth=0))
    x = normal(3, 1, 4, 3)
    assert encoder.h == TensorType((12,)) and not list(encoder.parameters())
    expected = torch.einsum("oi,bi->bo", decoder.out.weight, x.reshape(3, 12)) + decoder.out.bias
    torch.testing.assert_close(decoder(encoder(x)), expected.reshape(3, 2, 3))


@pytest.mark.parametrize("depth", [1, 0])
def test_encoder_and_decoder_join_a_map_and_the_embedding(depth: int) -> None:
    cond_type, cond = CondType(vector=3, labels=4, concat=MAP), conditions(FULL, 3)
    encoder = draw(MLPEncoder(X, cond_type, width=6, depth=depth))
    decoder = draw(MLPDecoder(TensorType((2, 2)), TensorType((2,)), cond_type, width=6, depth=depth))

    def join(part: nn.Module, v: Tensor) -> Tensor:
        e = linear(part.embedding.vector, cond.vector) + part.embedding.labels.weight[cond.labels]
        joined = torch.cat([v.flatten(1), cond.concat.reshape(3, 4), e], dim=1)
        return silu(linear(part.hidden[0], joined)) if depth else joined

    x, z = normal(3, 1, 4, 3), normal(3, 2, 2)
    torch.testing.assert_close(encoder(x, cond), join(encoder, x))
    assert encoder.h == TensorType((6,) if depth else (12 + 4 + 6,))
    torch.testing.assert_close(decoder(z, cond), linear(decoder.out, join(decoder, z)))


def test_decoder_values_and_last_layer() -> None:
    decoder = draw(MLPDecoder(TensorType((2, 2)), X, width=6))
    z = normal(3, 2, 2)
    raw = linear(decoder.out, silu(linear(decoder.hidden[2], silu(linear(decoder.hidden[0], z.reshape(3, 4))))))
    torch.testing.assert_close(decoder(z), (1 + 2 * torch.tanh(raw)).reshape(3, 1, 4, 3))
    assert decoder.get_parameter(decoder.last_layer) is decoder.out.weight


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 255.0), (-3.0, -2.0)])
def test_squash_fills_the_range_and_only_there(bounds: tuple[float, float]) -> None:
    raw = torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float64)
    low, high = bounds
    expected = torch.tensor([low, (low + high) / 2, high], dtype=torch.float64)
    torch.testing.assert_close(squash(raw, TensorType((3,), bounds)), expected)
    assert squash(raw, TensorType((3,))) is raw


def test_generator_joins_noise_map_and_embedding() -> None:
    generator = draw(MLPGenerator(V, TensorType((2,)), CondType(vector=3, labels=4, concat=MAP), width=6, depth=1))
    z, cond = normal(5, 5), conditions(FULL, 5)
    e = linear(generator.embedding.vector, cond.vector) + generator.embedding.labels.weight[cond.labels]
    joined = torch.cat([z, cond.concat.reshape(5, 4), e], dim=1)
    torch.testing.assert_close(generator(z, cond), linear(generator.out, silu(linear(generator.hidden[0], joined))))


ACTIVATIONS = {"leaky-relu": leaky, "relu": lambda v: v.clamp_min(0), "silu": silu, "tanh": torch.tanh}
FACTORIES = {
    "encoder": lambda **options: MLPEncoder(V, width=64, **options),
    "decoder": lambda **options: MLPDecoder(V, X, width=64, **options),
    "generator": lambda **options: MLPGenerator(V, X, CondType(), width=64, **options),
    "discriminator": lambda **options: MLPDiscriminator(V, CondType(), width=64, **options),
}


@pytest.mark.parametrize("part", FACTORIES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_follows_each_hidden_layer(part: str, activation: str) -> None:
    made, x, act = draw(FACTORIES[part](activation=activation)), normal(3, 5), ACTIVATIONS[activation]
    want = act(linear(made.hidden[2], act(linear(made.hidden[0], x))))
    torch.testing.assert_close(made.hidden(x), want)


@pytest.mark.parametrize("part", FACTORIES)
def test_initial_weights_are_normal_where_a_deviation_is_given(part: str) -> None:
    """Weights of 64x64: the deviation within 5 standard errors, s / sqrt(2 n); no other weight is far from it."""
    torch.manual_seed(0)
    layers = [one for one in FACTORIES[part](init_std=0.03).modules() if isinstance(one, nn.Linear)]
    assert layers[1].weight.std().item() == pytest.approx(0.03, rel=5 / (2 * 64 * 64) ** 0.5)
    assert all(0.02 < layer.weight.std() < 0.04 and not layer.bias.any() for layer in layers)


def test_discriminator_is_the_projection_equation() -> None:
    """Miyato & Koyama, eq. 3: phi(x)^T V e(y) + psi(phi(x)), here over sqrt(d)."""
    critic = draw(MLPDiscriminator(V, CondType(labels=4), width=6))
    x, labels = normal(5, 5), torch.tensor([0, 1, 4, 2, 0])
    phi = leaky(linear(critic.hidden[2], leaky(linear(critic.hidden[0], x))))
    e = critic.projection.embedding.labels.weight[labels]
    inner = torch.einsum("bi,ij,bj->b", phi, critic.projection.v.weight, e)
    expected = phi @ critic.out.weight[0] + critic.out.bias + inner / 6**0.5
    torch.testing.assert_close(critic(x, Cond(labels=labels)), expected)


def test_discriminator_without_conditions_is_its_own_head() -> None:
    critic = draw(MLPDiscriminator(V, CondType(), width=6, depth=1))
    x = normal(5, 5)
    torch.testing.assert_close(critic(x, Cond()), linear(critic.out, leaky(linear(critic.hidden[0], x)))[:, 0])
    assert not list(critic.projection.parameters())


def test_discriminator_joins_the_map() -> None:
    critic = draw(MLPDiscriminator(X, CondType(concat=MAP), width=6, depth=1))
    x, cond = normal(5, 1, 4, 3), conditions(FULL, 5)
    joined = torch.cat([x.reshape(5, 12), cond.concat.reshape(5, 4)], dim=1)
    torch.testing.assert_close(critic(x, cond), linear(critic.out, leaky(linear(critic.hidden[0], joined)))[:, 0])


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


def test_discriminator_has_second_derivatives() -> None:
    critic = draw(MLPDiscriminator(V, FULL, width=6))
    cond = conditions(FULL, 2)
    assert torch.autograd.gradgradcheck(lambda x: critic(x, cond), (normal(2, 5).requires_grad_(),))
    x = normal(2, 5).requires_grad_()
    (grad,) = torch.autograd.grad(critic(x, cond).sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert critic.projection.v.weight.grad.any() and critic.hidden[0].weight.grad.any()


CODES = TensorType((4, 4), classes=7)
CONTEXT = CondType(context=(3, 8))


test_mistakes_are_refused = refusals(
    *(
        refusal
        for part, make in FACTORIES.items()
        for refusal in (
            (lambda make=make: make(init_std=0.0), f"MLP{part.title()} expects init_std above 0, got 0"),
            (lambda make=make: make(activation="elu"), f"MLP{part.title()} expects activation of .*got 'elu'"),
        )
    ),
    (lambda: MLPEncoder(CODES), "MLPEncoder expects a continuous x, got 4×4 codes of 7 classes"),
    (lambda: MLPEncoder(X, depth=-1), "MLPEncoder expects depth >= 0, got -1"),
    (lambda: MLPDecoder(CODES, X), "MLPDecoder expects a continuous z, got 4×4 codes"),
    (lambda: MLPDecoder(V, CODES), "MLPDecoder expects a continuous x, got 4×4 codes"),
    (lambda: MLPDecoder((V, V), X), "MLPDecoder expects z of one level, got a hierarchy of 2"),
    (lambda: MLPGenerator(V, X, CONTEXT), r"MLPGenerator expects no context .*got \(3, 8\)"),
    (lambda: MLPGenerator(V, CODES, CondType()), "MLPGenerator expects a continuous x"),
    (lambda: MLPDiscriminator(X, CONTEXT), r"MLPDiscriminator expects no context .*got \(3, 8\)"),
    (lambda: MLPDiscriminator(X, CondType(concat=CODES)), "MLPDiscriminator expects a continuous concat, got 4×4"),
    (lambda: MLPNetwork(X, X, CONTEXT), r"MLPNetwork expects no context .*got \(3, 8\)"),
    (lambda: MLPNetwork(CODES, X, CondType()), "MLPNetwork expects a continuous x"),
    (lambda: MLPNetwork(X, CODES, CondType()), "MLPNetwork expects a continuous out"),
    (lambda: MLPNetwork(X, X, CondType(), depth=0), "MLPNetwork expects depth >= 1, got 0"),
    (
        lambda: MLPNetwork(X, X, CondType(concat=MAP))(torch.zeros(2, 1, 4, 3), Cond()),
        "MLPNetwork expects a Cond with `concat`",
    ),
)
