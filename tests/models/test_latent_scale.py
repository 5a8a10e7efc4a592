import pytest
import torch
from torch import nn

from modkit.models.latent_scale import LatentScale
from modkit.types import TensorType

MAP, VECTOR, CODES = TensorType((2, 3, 3)), TensorType((5,)), TensorType((4,), classes=7)


def batches(num=3):
    generator = torch.Generator().manual_seed(0)
    for _ in range(num):
        yield (
            1e4 + 3 * torch.randn(8, *MAP.shape, generator=generator),
            torch.randint(7, (8, 4), generator=generator),
            torch.randn(8, *VECTOR.shape, generator=generator) / 5 - 1,
        )


def test_moments_are_measured_a_level_in_float64_and_codes_pass():
    owner = nn.Module()
    scale = LatentScale(owner, (MAP, CODES, VECTOR), None)
    assert sorted(owner.state_dict()) == ["mean_0", "mean_2", "std_0", "std_2"] and not scale.known
    scale.measure(batches())
    assert scale.known
    seen = [torch.cat(level) for level in zip(*batches())]
    for level in (0, 2):
        exact = seen[level].double()
        torch.testing.assert_close(owner.get_buffer(f"mean_{level}"), exact.mean().float(), rtol=1e-6, atol=0)
        torch.testing.assert_close(owner.get_buffer(f"std_{level}"), exact.std(correction=0).float(), rtol=1e-6, atol=0)
    unit = scale.apply(tuple(seen))
    assert unit[1] is seen[1]
    assert all(abs(unit[i].mean()) < 1e-3 and abs(unit[i].std(correction=0) - 1) < 1e-4 for i in (0, 2))
    back = scale.invert(unit)
    torch.testing.assert_close(back, tuple(seen), rtol=1e-5, atol=1e-4)


def test_the_volume_is_the_log_determinant_of_the_restoring_map():
    owner = nn.Module()
    scale = LatentScale(owner, (MAP, CODES, VECTOR), None)
    scale.measure(batches())
    for level, event in ((0, MAP), (2, VECTOR)):
        alone = LatentScale(nn.Module(), event, 1 / float(owner.get_buffer(f"std_{level}")))
        jacobian = torch.autograd.functional.jacobian(alone.invert, torch.zeros(event.numel))
        torch.testing.assert_close(alone.log_volume, torch.linalg.slogdet(jacobian).logabsdet)
    parts = 18 * owner.std_0.log() + 5 * owner.std_2.log()
    torch.testing.assert_close(scale.log_volume, parts)


def test_a_given_scale_is_known_and_codes_have_none():
    owner = nn.Module()
    scale = LatentScale(owner, VECTOR, 0.25)
    assert scale.known and owner.mean_0 == 0 and owner.std_0 == 4
    torch.testing.assert_close(scale.apply(torch.full((2, 5), 8.0)), torch.full((2, 5), 2.0))
    codes = LatentScale(nn.Module(), CODES, None)
    assert codes.known and codes.log_volume == 0
    with pytest.raises(ValueError, match="LatentScale expects scale to be above 0, got 0"):
        LatentScale(nn.Module(), VECTOR, 0)


def test_it_is_saved_with_its_owner():
    owner, other = nn.Module(), nn.Module()
    scale, restored = LatentScale(owner, VECTOR, None), LatentScale(other, VECTOR, None)
    scale.measure(values[2] for values in batches())
    other.load_state_dict(owner.state_dict())
    x = torch.ones(2, 5)
    assert restored.known and torch.equal(restored.apply(x), scale.apply(x))


def test_a_scale_that_is_due_again_stays_in_force_until_it_is_measured():
    owner, other = nn.Module(), nn.Module()
    scale, restored = LatentScale(owner, VECTOR, None), LatentScale(other, VECTOR, None)
    scale.mark_due()
    assert scale.due and not scale.known
    values, x = [level[2] for level in batches()], torch.ones(2, 5)
    scale.measure(values)
    before, volume = scale.apply(x), scale.log_volume
    assert scale.known and not scale.due
    for _ in range(2):
        scale.mark_due()
        other.load_state_dict(owner.state_dict())
        for one in (scale, restored):
            assert one.known and one.due and torch.equal(one.apply(x), before) and one.log_volume == volume
    scale.measure(2 * value for value in values)
    assert not scale.due
    torch.testing.assert_close(scale.apply(2 * x), before)
    for known in (LatentScale(nn.Module(), VECTOR, 2.0), LatentScale(nn.Module(), CODES, None)):
        known.mark_due()
        assert known.known and not known.due


def test_known_moments_stand_before_the_measured_and_behind_a_given_scale():
    owner = nn.Module()
    scale = LatentScale(owner, VECTOR, None, (0.5, 4.0))
    assert scale.known and (float(owner.mean_0), float(owner.std_0)) == (0.5, 4.0)
    assert torch.equal(scale.apply(torch.full((1, 5), 2.5)), torch.full((1, 5), 0.5))
    given = nn.Module()
    assert LatentScale(given, VECTOR, 2.0, (0.5, 4.0)).known
    assert (float(given.mean_0), float(given.std_0)) == (0.0, 0.5)


def test_each_channel_can_have_moments_of_its_own():
    owner = nn.Module()
    scale = LatentScale(owner, (MAP, CODES, VECTOR), None, by_channel=True)
    assert not scale.known and owner.std_0.shape == (2, 1, 1) and owner.std_2.shape == (5,)
    stretched = [(a * torch.tensor([1.0, 5.0]).view(2, 1, 1), codes, b) for a, codes, b in batches()]
    scale.measure(stretched)
    seen = [torch.cat(level) for level in zip(*stretched)]
    for level in (0, 2):
        exact = seen[level].double().transpose(0, 1).flatten(1)
        std = owner.get_buffer(f"std_{level}").flatten()
        torch.testing.assert_close(std, exact.std(1, correction=0).float(), rtol=1e-6, atol=0)
        torch.testing.assert_close(
            owner.get_buffer(f"mean_{level}").flatten(), exact.mean(1).float(), rtol=1e-6, atol=0
        )
    assert scale.known
    torch.testing.assert_close(scale.invert(scale.apply(tuple(seen))), tuple(seen), rtol=1e-5, atol=1e-3)

    alone = LatentScale(nn.Module(), MAP, None, by_channel=True)
    alone.measure(level[0] for level in stretched)
    jacobian = torch.autograd.functional.jacobian(
        lambda u: alone.invert(u.view(1, *MAP.shape)).flatten(), torch.zeros(MAP.numel)
    )
    torch.testing.assert_close(alone.log_volume, torch.linalg.slogdet(jacobian).logabsdet)
