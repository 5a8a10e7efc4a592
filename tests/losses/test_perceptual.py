import copy

import pytest
import torch
from torch import nn

from modkit.features.classifier import Classifier
from modkit.features.pixels import Pixels
from modkit.features.random_conv import RandomConv
from modkit.losses.perceptual import Perceptual, normalize
from modkit.types import Batch, Features, TensorType

GREY = TensorType((1, 6, 7), range=(-1, 1))


class Maps(nn.Module):
    """An extractor with two maps, the second of them `c h`; its weight scales both."""

    label = "maps"

    def __init__(self, heads=None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
        self.dropout = nn.Dropout(0.5)
        if heads is not None:
            self.heads = heads

    def forward(self, x):
        y = self.weight * self.dropout(x)
        return Features(y.flatten(1), (y, y[..., 0] ** 2))

    def key(self):
        return "key"

    def prepare(self, batches):
        self.prepared = list(batches)


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(a, b, heads):
    """Eq. 1 of Zhang et al., computed position by position and channel by channel."""
    total = torch.zeros(len(a), dtype=torch.float64)
    for map_a, map_b, head in zip((3 * a, (3 * a[..., 0]) ** 2), (3 * b, (3 * b[..., 0]) ** 2), heads):
        for sample in range(len(a)):
            columns_a, columns_b = map_a[sample].flatten(1).T, map_b[sample].flatten(1).T
            for p, q in zip(columns_a, columns_b):
                p, q = p / p.square().sum().sqrt(), q / q.square().sum().sqrt()
                total[sample] += sum(w * (s - t) ** 2 for w, s, t in zip(head, p, q)) / len(columns_a)
    return total


@pytest.mark.parametrize("heads", [None, (torch.tensor([0.5, 2.0, 0.0]), torch.tensor([1.0, 0.25, 7.0]))])
def test_it_is_the_equation(heads):
    a, b = images(2, 3, 2, 3), images(2, 3, 2, 3, seed=1)
    part = Perceptual(Maps(heads))
    want = by_hand(a, b, heads or 2 * [torch.ones(3)])
    torch.testing.assert_close(part(a, b), want, rtol=1e-9, atol=0)
    torch.testing.assert_close(part(b, a), want, rtol=1e-9, atol=0)
    torch.testing.assert_close(part(2 * a, b), want, rtol=1e-9, atol=0)  # maps that are multiples are equal
    assert torch.equal(part(a, a), torch.zeros(2, dtype=torch.float64))


def test_the_gradient_is_that_of_finite_differences():
    part = Perceptual(RandomConv(GREY, dim=8)).double()
    fake, real = images(2, 1, 6, 7).requires_grad_(), images(2, 1, 6, 7, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda fake: part(fake, real), fake)
    part(fake, real).sum().backward()
    assert fake.grad.flatten(1).norm(dim=1).min() > 0 and real.grad is None
    (alone,) = torch.autograd.grad(part(fake, real)[0], fake)
    assert alone[0].any() and not alone[1].any()  # each pair by itself


def test_a_map_of_zeros_has_a_finite_gradient():
    y = torch.zeros(1, 3, 2, requires_grad=True)
    normalize(y.relu()).square().sum().backward()
    assert torch.equal(normalize(y), torch.zeros(1, 3, 2)) and torch.equal(y.grad, torch.zeros(1, 3, 2))


def test_it_is_float32_at_least():
    part = Perceptual(RandomConv(GREY, dim=8))
    a, b = (images(2, 1, 6, 7, seed=seed).float() for seed in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        narrow = part(a, b)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, part(a, b), rtol=0.05, atol=0)


def test_the_extractor_is_frozen_and_no_part_of_the_network():
    part = Perceptual(Maps())
    assert not part.features.weight.requires_grad
    part.train()
    a, b = images(2, 3, 2, 3), images(2, 3, 2, 3, seed=1)
    assert torch.equal(part(a, b), part(a, b))  # no dropout
    assert part.features not in list(part.modules()) and not list(part.parameters()) and not part.state_dict()
    part.prepare(["batch"])
    assert part.features.prepared == ["batch"]


def test_it_moves_with_the_model_and_is_copied_with_it():
    model = nn.Sequential(Perceptual(RandomConv(GREY, dim=8)))
    copied = copy.deepcopy(model)
    model.double().to("meta")
    weight = model[0].features.project.weight
    assert weight.is_meta and weight.dtype == torch.float64
    assert not copied[0].features.project.weight.is_meta
    torch.testing.assert_close(copied[0].features.project.weight, RandomConv(GREY, dim=8).project.weight)


def labelled():
    x = images(40, 1, 6, 7).float().clamp(-1, 1)
    return Batch(x, {"labels": (x.mean((1, 2, 3)) > 0).long()})


def untrained():
    return nn.ModuleDict({"loss": Perceptual(Classifier(GREY, classes=2, epochs=1, size=8))})


def test_only_what_prepare_trained_is_saved():
    first, batch = untrained(), labelled()
    first["loss"].prepare([batch])
    state = first.state_dict()
    assert set(state) == {f"loss.{name}" for name in first["loss"].features.state_dict()}
    again = untrained()
    again.load_state_dict(state)
    a, b = batch.tensor[:2], batch.tensor[2:4]
    assert torch.equal(again["loss"](a, b), first["loss"](a, b))
    assert again["loss"].features.key() == first["loss"].features.key()

    shipped = nn.ModuleDict({"loss": Perceptual(Classifier(GREY, weights="digits"))})
    assert shipped.state_dict() == {}
    shipped.load_state_dict({})
    with torch.device("meta"):
        assert set(untrained().state_dict()) == set(state)
        assert Perceptual(Classifier(GREY, weights="digits")).state_dict() == {}


def test_weights_that_do_not_fit_are_refused():
    part, other = untrained(), labelled()
    part["loss"].prepare([other])
    state = part.state_dict()
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"loss.scale\""):
        untrained().load_state_dict({name: value for name, value in state.items() if name != "loss.scale"})
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"loss.more\""):
        untrained().load_state_dict({**state, "loss.more": torch.zeros(())})
    with pytest.raises(RuntimeError, match="size mismatch for net.head.bias"):
        untrained().load_state_dict({**state, "loss.net.head.bias": torch.zeros(3)})
    with pytest.raises(RuntimeError, match="Unexpected"):
        nn.ModuleDict({"loss": Perceptual(RandomConv(GREY))}).load_state_dict(state)


def test_refuses_extractors_without_maps_and_heads_of_another_number():
    x = torch.zeros(2, 1, 6, 7)
    with pytest.raises(ValueError, match="Perceptual expects features with maps, got pixels, which gives none"):
        Perceptual(Pixels(GREY))(x, x)
    with pytest.raises(ValueError, match="Perceptual expects a head for each of 2 maps, got 1 heads"):
        Perceptual(Maps((torch.ones(3),)))(images(2, 3, 2, 3), images(2, 3, 2, 3))
    with pytest.raises(ValueError, match="Classifier expects to be trained: call prepare"):
        untrained()["loss"](x, x)
