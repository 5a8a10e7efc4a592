import pytest
import torch
from torch import nn

from modkit.nn.patch import PatchDiscriminator
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import batch_norm, convolve, draw, leaky, normal, windows
from tests.refusals import refusals

X = TensorType((2, 13, 16), (-1.0, 1.0))
COND = CondType(vector=3, labels=4)


@pytest.mark.parametrize("conditional", [False, True])
def test_values(conditional: bool) -> None:
    concat_type = TensorType((1, 13, 16))
    critic = draw(PatchDiscriminator(X, CondType(labels=4 if conditional else None, concat=concat_type), channels=3))
    x, concat, labels = normal(4, 2, 13, 16), normal(4, 1, 13, 16, seed=2), torch.tensor([0, 4, 1, 1])
    conv_0, _, conv_1, norm_1, _, conv_2, norm_2, _, conv_3 = critic.main
    phi = leaky(convolve(conv_0, torch.cat([x, concat], dim=1), 2))
    phi = leaky(batch_norm(norm_1, convolve(conv_1, phi, 2)))
    phi = leaky(batch_norm(norm_2, convolve(conv_2, phi, 1)))
    expected = convolve(conv_3, phi, 1)
    assert expected.shape == (4, 1, 1, 2)
    if conditional:
        inside = windows(torch.ones_like(phi), 1).sum((-1, -2))
        means = windows(phi, 1).sum((-1, -2)) / inside
        e = critic.projection.embedding.labels.weight[labels]
        inner = torch.einsum("bihw,ij,bj->bhw", means, critic.projection.v.weight, e)
        expected = expected + inner.unsqueeze(1) / 12**0.5
    torch.testing.assert_close(critic(x, Cond(labels=labels, concat=concat)), expected)


def test_values_without_norm() -> None:
    critic = draw(PatchDiscriminator(X, CondType(), channels=3, norm="none"))
    x = normal(4, 2, 13, 16)
    conv_0, _, conv_1, _, conv_2, _, conv_3 = critic.main
    phi = leaky(convolve(conv_2, leaky(convolve(conv_1, leaky(convolve(conv_0, x, 2)), 2)), 1))
    assert conv_1.bias is not None and conv_2.bias is not None
    torch.testing.assert_close(critic(x, Cond()), convolve(conv_3, phi, 1))


def test_form_and_keys_are_those_of_taming() -> None:
    """`NLayerDiscriminator(input_nc=3, ndf=64, n_layers=3)` of taming-transformers: keys and shapes of its weights."""
    critic = PatchDiscriminator(TensorType((3, 256, 256)), CondType(), layers=3)
    shapes = {key: tuple(value.shape) for key, value in critic.state_dict().items() if "num_batches" not in key}
    expected: dict[str, tuple[int, ...]] = {"main.0.weight": (64, 3, 4, 4), "main.0.bias": (64,)}
    for index, narrow, wide in ((2, 64, 128), (5, 128, 256), (8, 256, 512)):
        expected[f"main.{index}.weight"] = (wide, narrow, 4, 4)
        for name in ("weight", "bias", "running_mean", "running_var"):
            expected[f"main.{index + 1}.{name}"] = (wide,)
    expected |= {"main.11.weight": (1, 512, 4, 4), "main.11.bias": (1,)}
    assert shapes == expected
    convs = [layer for layer in critic.main if isinstance(layer, nn.Conv2d)]
    assert [(m.kernel_size, m.stride, m.padding) for m in convs] == [((4, 4), (s, s), (1, 1)) for s in (2, 2, 2, 1, 1)]


@pytest.mark.parametrize(("layers", "size", "patch"), [(1, 16, 16), (2, 34, 34), (3, 70, 70)], ids=["16", "34", "70"])
def test_receptive_field(layers: int, size: int, patch: int) -> None:
    """Patches of the papers' sizes: the middle logit's gradient is `patch` pixels wide."""
    image = TensorType((1, 2 * size, 2 * size))
    critic = draw(PatchDiscriminator(image, CondType(), channels=1, layers=layers)).eval()
    x = normal(1, 1, 2 * size, 2 * size).requires_grad_()
    logits = critic(x, Cond())
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows = x.grad[0, 0].any(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == patch


@pytest.mark.parametrize(("size", "layers", "logits"), [(256, 3, 30), (24, 3, 1), (16, 2, 2), (8, 1, 2), (6, 1, 1)])
def test_layers_follow_from_the_size(size: int, layers: int, logits: int) -> None:
    with torch.device("meta"):
        critic = PatchDiscriminator(TensorType((3, size, size)), CondType())
        assert critic(torch.zeros(2, 3, size, size), Cond()).shape == (2, 1, logits, logits)
    assert sum(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in critic.main) == layers


SMALL = TensorType((1, 4, 4))


test_mistakes_are_refused = refusals(
    (lambda: PatchDiscriminator(TensorType((5,)), CondType()), r"expects continuous images \(c, h, w\), got 5 unb"),
    (lambda: PatchDiscriminator(TensorType((1, 8, 8), classes=3), CondType()), "images .*got 1×8×8 codes of 3"),
    (lambda: PatchDiscriminator(SMALL, CondType()), "PatchDiscriminator .*at least 6×6, got 1×4×4"),
    (lambda: PatchDiscriminator(X, CondType(), layers=3), "layers=3 expects images of at least 24×24, got 2×13×16"),
    (lambda: PatchDiscriminator(X, CondType(), layers=0), "PatchDiscriminator expects layers to be at least 1, got 0"),
    (lambda: PatchDiscriminator(X, CondType(), norm="layer"), "expects norm to be 'batch' or 'none', got 'layer'"),
    (lambda: PatchDiscriminator(X, CondType(), channels=0), "expects channels to be at least 1, got 0"),
    (lambda: PatchDiscriminator(X, CondType(context=(3, 8))), r"expects cond without context, .*context \(3, 8\)"),
    (
        lambda: PatchDiscriminator(X, CondType(concat=TensorType((26, 32), classes=3))),
        "expects codes at no more than .*got 26×32",
    ),
)
