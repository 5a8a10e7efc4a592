import torch

from modkit import Rng, StepContext
from modkit.losses.augmented import AugmentedCritic, Augmenter
from modkit.types import Cond


def scale(x, rng):
    return x * rng.uniform("scale", x[:, :1])


def test_each_call_draws_anew_and_of_pairs_both_are_changed_alike():
    seen, x = [], torch.ones(3, 2)
    critic = lambda x, cond: seen.append((x, cond.concat)) or x.sum(1)  # noqa: E731
    for pairs in (False, True):
        shown = AugmentedCritic(critic, scale, Rng(0), pairs=pairs)
        for _ in range(2):
            shown(x, Cond(concat=2 * x))
    (first, beside), (second, _), (again, changed), _ = seen
    assert torch.equal(first, scale(x, Rng(0).at(0))) and torch.equal(second, scale(x, Rng(0).at(1)))
    assert torch.equal(beside, 2 * x) and torch.equal(again, first) and torch.equal(changed, 2 * first)


def test_only_what_is_made_in_training_is_observed():
    class Counts:
        seen = updates = 0

        def __call__(self, x, rng):
            return x

        def observe(self, real_logits):
            self.seen += 1

        def update(self, step):
            self.updates += 1

    augment = Counts()
    for step in (StepContext(Rng(0), training=True), StepContext(Rng(0))):
        Augmenter(augment).observe(torch.zeros(2), step)
    Augmenter(augment).update(step)
    Augmenter(None).observe(torch.zeros(2), step)
    Augmenter(None).update(step)
    assert (augment.seen, augment.updates) == (1, 1)
