import math
import pickle

import pytest
import torch

from modkit.data import Corrupted, Digits
from modkit.data.noise import Drop, Noise, SaltPepper
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import refusals

IMAGE = TensorType((2, 8, 6), range=(-1.0, 1.0))
NUM = 4000


def test_noise_is_gaussian_of_its_deviation_and_independent_of_x():
    part, x = Noise(IMAGE, std=0.3), torch.full((NUM, 2, 8, 6), 0.5, dtype=torch.float64)
    assert part.fields == {"noisy": TensorType((2, 8, 6))}
    eps = (part(x, Rng(0))["noisy"] - x) / 0.3
    values = eps.flatten()
    assert abs(values.mean()) < 5 / len(values) ** 0.5
    assert abs(values.var() - 1) < 5 * (2 / len(values)) ** 0.5
    assert abs(values.pow(4).mean() - 3) < 5 * (96 / len(values)) ** 0.5  # the variance of eps^4 is 96
    torch.testing.assert_close(part(2 * x, Rng(0))["noisy"] - 2 * x, 0.3 * eps)
    assert torch.equal(Noise(IMAGE, std=0.0)(x, Rng(0))["noisy"], x)


@pytest.mark.wide
def test_a_level_is_drawn_for_each_sample_from_its_range():
    x = torch.zeros(NUM, 2000, dtype=torch.float64)
    stds = Noise(TensorType((2000,)), std=[0.2, 0.6])(x, Rng(0))["noisy"].std(1)
    rounding = 5 * 0.6 / 4000**0.5  # the error of a deviation of 2000 values
    assert 0.2 - rounding < stds.min() and stds.max() < 0.6 + rounding
    assert abs(stds.mean() - 0.4) < 5 * 0.4 / math.sqrt(12 * NUM)
    assert abs(stds.var() - 0.4**2 / 12) < 0.002


def test_salt_and_pepper_are_equally_many_and_cover_all_channels():
    part, x = SaltPepper(IMAGE, share=0.4, field="spotted"), torch.rand(NUM, 2, 8, 6, dtype=torch.float64) - 0.5
    assert part.fields == {"spotted": IMAGE}
    made = part(x, Rng(0))["spotted"]
    low, high = made == -1, made == 1
    assert torch.equal(made[~low & ~high], x[~low & ~high])
    assert torch.equal(low[:, 0], low[:, 1]) and torch.equal(high[:, 0], high[:, 1])
    error = 5 * (0.2 * 0.8 / (NUM * 48)) ** 0.5
    assert abs(low.double().mean() - 0.2) < error and abs(high.double().mean() - 0.2) < error


@pytest.mark.parametrize("size", [(7,), (8, 6), (3, 4, 5)])
def test_patches_are_dropped_as_a_whole(size):
    part = Drop(TensorType((2, *size), range=(-1.0, 1.0)), share=0.3, patch=2, mask="mask")
    x = torch.rand(NUM, 2, *size, dtype=torch.float64) + 2
    made = part(x, Rng(0))
    hidden = made["mask"].bool()
    assert torch.equal(made["dropped"], torch.where(hidden, 0.0, x)) and hidden.shape == (NUM, 1, *size)
    places = hidden[(slice(None), 0, *(slice(None, None, 2),) * len(size))]
    assert abs(places.double().mean() - 0.3) < 5 * (0.21 / places.numel()) ** 0.5
    for axis, length in enumerate(size, start=2):
        pairs = hidden.narrow(axis, 0, length // 2 * 2).unflatten(axis, (-1, 2))
        assert torch.equal(*pairs.unbind(axis + 1))


def test_drop_has_one_field_and_its_own_value_unless_told_otherwise():
    part, x = Drop(IMAGE, share=1.0, value=3.0), torch.zeros(2, 2, 8, 6)
    assert part.fields == {"dropped": TensorType((2, 8, 6), range=(-1.0, 3.0))}
    made = part(x, Rng(0))
    assert list(made) == ["dropped"] and bool((made["dropped"] == 3).all())
    assert bool((Drop(TensorType((2, 8, 6)), share=1.0)(x + 1, Rng(0))["dropped"] == 0).all())


@pytest.mark.parametrize(
    "part",
    [Noise(IMAGE, std=[0.1, 0.5]), SaltPepper(IMAGE), Drop(IMAGE, patch=3)],
    ids=lambda part: type(part).__name__,
)
def test_a_row_is_corrupted_alone_and_a_part_can_be_sent(part):
    x = torch.rand(9, 2, 8, 6)
    ((name, made),) = part(x, Rng(0)).items()
    assert torch.equal(part(x[4:], Rng(0).rows(4))[name], made[4:])
    sent = pickle.loads(pickle.dumps(part))
    assert sent.key == part.key and torch.equal(sent(x, Rng(0))[name], made)


def test_keys_tell_settings_apart():
    parts = [Noise(IMAGE), Noise(IMAGE, std=0.1), Noise(IMAGE, std=[0.1, 0.5]), Noise(IMAGE, field="other")]
    parts += [SaltPepper(IMAGE), SaltPepper(IMAGE, share=0.1), Drop(IMAGE), Drop(IMAGE, patch=2), Drop(IMAGE, value=1)]
    parts += [Drop(IMAGE, mask="mask"), Drop(IMAGE, share=0.1)]
    assert len({part.key for part in parts}) == len(parts)


def test_corrupted_data_have_the_field_for_the_model_to_read():
    data = Corrupted(data=lambda: Digits(size=8), corruption=Noise)
    batch = data.read("test", [3, 1], Rng(0))
    assert data.conditions == ("noisy",) and not torch.equal(batch.fields["noisy"], batch.tensor)
    assert torch.equal(data.read("test", [1], Rng(0)).fields["noisy"], batch.fields["noisy"][1:])


test_refuses = refusals(
    (lambda: Noise(TensorType((4,), classes=3)), "Noise expects continuous values, got 4 codes of 3 classes"),
    (lambda: Noise(IMAGE, std=-1.0), r"Noise expects std of at least 0, or a range \[low, high\] of it, got -1.0"),
    (lambda: Noise(IMAGE, std=[0.5, 0.1]), r"Noise expects std .*, got \[0.5, 0.1\]"),
    (lambda: SaltPepper(IMAGE, share=[0.1]), r"SaltPepper expects share in \[0, 1\], or a range .*, got \[0.1\]"),
    (
        lambda: SaltPepper(TensorType((1, 4))),
        "SaltPepper expects x with a range, whose ends it sets values to, got 1×4",
    ),
    (lambda: SaltPepper(TensorType((2,))), "SaltPepper expects continuous maps"),
    (lambda: Drop(IMAGE, share=1.5), r"Drop expects share in \[0, 1\]"),
    (lambda: Drop(IMAGE, patch=0), "Drop expects patch to be at least 1, got 0"),
    (lambda: Drop(IMAGE, mask="dropped"), "Drop expects a mask of another name, got 'dropped' of 'dropped'"),
    (lambda: Drop(TensorType((2,))), "Drop expects continuous maps"),
)
