import torch

from modkit.latent_space import average_classes, decode_arithmetic, find_space, read_classes, select_class
from modkit.models import GAN
from modkit.types import Features, TensorType
from tests.latent_space.test_views import use_identity
from tests.refusals import refusals

Z = torch.tensor([[1.0, 0.0], [3.0, 2.0], [8.0, 8.0], [5.0, 1.0]])
CLASSES = torch.tensor([0, 0, 4, 0])


class Signs:
    """Features whose classes are the signs of the first value."""

    label = "signs"

    def __init__(self, *, logits=True):
        self.logits = logits

    def __call__(self, x):
        return Features(x, (), torch.stack([-x[:, 0], x[:, 0]], 1) if self.logits else None)


def test_means_are_those_of_the_first_of_each_class():
    means = average_classes(Z, CLASSES)
    assert {label: mean.tolist() for label, mean in means.items()} == {0: [3.0, 1.0], 4: [8.0, 8.0]}
    assert average_classes(Z, CLASSES, 1)[0].tolist() == [1.0, 0.0]
    assert list(average_classes(Z, CLASSES, 2)) == [0]  # the other class has one alone
    assert select_class(Z, CLASSES, 0, 2).tolist() == [[1.0, 0.0], [3.0, 2.0]]


def test_draws_are_classified_by_what_they_are_decoded_to():
    z = torch.linspace(-1, 1, 600)[:, None].repeat(1, 2)
    assert torch.equal(read_classes(use_identity(2, scale=-1.0), z, Signs()), (z[:, 0] < 0).long())


def test_the_last_row_is_the_result_with_noise_and_without():
    a, b, c = (torch.full((2, 3), float(value)) + torch.tensor([[-1.0], [1.0]]) for value in (10, 3, 1))
    rows = decode_arithmetic(use_identity(3, scale=2.0), (a, b, c), spread=0.5).view(4, 3, 3) * 2
    for row, (term, mean) in enumerate(zip((a, b, c), (10.0, 3.0, 1.0))):
        assert torch.equal(rows[row, :2], term) and torch.equal(rows[row, 2], torch.full((3,), mean))
    assert torch.equal(rows[3, 2], torch.full((3,), 8.0))
    noise = rows[3, :2] - 8
    assert 0 < noise.abs().max() <= 0.5 and len(noise.unique()) == 6


def test_missing_fields_are_drawn_once():
    model = GAN(TensorType((2,)), fields={"labels": TensorType((), classes=50)}, conditioner="label", z_dim=2)
    space = find_space(model)
    label = space.complete(1)
    terms = [space.draw(3, first=first) for first in (0, 3, 6)]
    assert torch.equal(decode_arithmetic(space, terms), decode_arithmetic(space, terms, fields=label))


test_refuses = refusals(
    (lambda: select_class(Z, CLASSES, 4, 2), "expected at least 2 latents of class 4, got 1 among 4"),
    (
        lambda: average_classes(Z, CLASSES, 4),
        r"a class of at least 4 latents, got at most 3 of any class among 4; .* \(-n 1\)",
    ),
    (
        lambda: decode_arithmetic(use_identity(2), (Z, Z)),
        r"three groups of latents of one shape, got \(4, 2\), \(4, 2\)",
    ),
    (lambda: read_classes(use_identity(2), Z, Signs(logits=False)), "features of a classifier, got signs"),
)
