import pytest
import torch

from modkit import Rng, StepContext, TensorType
from modkit.losses.augmented import AugmentedCritic, change_pair
from modkit.models import GAN
from modkit.types import Batch, Cond


def scale(x, rng):
    return x * rng.uniform("scale", x[:, :1])


def test_each_call_draws_anew_and_of_pairs_both_are_changed_alike():
    seen, x = [], torch.ones(3, 2)
    critic = lambda x, cond: seen.append((x, cond.concat)) or x.sum(1)  # noqa: E731
    for maps in (False, True):
        shown = AugmentedCritic(critic, scale, Rng(0), maps=maps)
        for _ in range(2):
            shown(x, Cond(concat=2 * x))
    (first, beside), (second, _), (again, changed), _ = seen
    assert torch.equal(first, scale(x, Rng(0).at(0))) and torch.equal(second, scale(x, Rng(0).at(1)))
    assert torch.equal(beside, 2 * x) and torch.equal(again, first) and torch.equal(changed, 2 * first)


@pytest.mark.parametrize("beside", [torch.ones(3, 4), torch.ones(3, 2, dtype=torch.int64), None])
def test_what_is_no_map_of_the_samples_shape_stays(beside):
    x, cond = change_pair(scale, torch.ones(3, 2), Cond(concat=beside), Rng(0))
    assert torch.equal(x, scale(torch.ones(3, 2), Rng(0))) and cond.concat is beside


def test_a_gan_s_critic_of_samples_beside_maps_is_shown_both_alike():
    """The fault: only x was moved, so that the critic could not learn whether the two lie over each other."""
    x, seen = TensorType((1, 8, 8), range=(-1.0, 1.0)), []
    slots = {"generator": "mlp", "discriminator": "mlp", "conditioner": "map", "augment": "diffaugment"}
    model = GAN(x, fields={"edges": TensorType((1, 8, 8))}, **slots)
    model.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given))
    batch = torch.rand(4, 1, 8, 8)
    model.losses("discriminator", Batch(batch, {"edges": batch}), StepContext(Rng(0)))
    real, cond = seen[0]
    assert torch.equal(real, cond.concat) and not torch.equal(real, batch)
