"""Faults that are planted in the library, each found by tests that run by default: the guard of this selection.

Each has escaped a suite before, or would be easy to make.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """A fault.

    Args:
        path: The file, under `modkit`.
        before: The only place of this text in the file is changed.
        after: What stands there instead.
        tests: The files or folders of tests, one of which finds it.
    """

    path: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTANTS = {
    "a sampler's noise is not squared": Mutant(
        "samplers/ddim.py", "fresh = eta**2 * tau", "fresh = eta * tau", ("tests/samplers/test_ddim.py",)
    ),
    "an error's scale is squared": Mutant(
        "diffusion/parametrizations.py",
        "return sigma, torch.sqrt(sigma**2 + self.sigma_data**2)",
        "return sigma, sigma**2 + self.sigma_data**2",
        ("tests/diffusion/test_parametrizations.py",),
    ),
    "guidance swaps its sides": Mutant(
        "diffusion/guidance.py",
        '{"cond": given.merge(cond), "null": null.merge(cond)}',
        '{"null": given.merge(cond), "cond": null.merge(cond)}',
        ("tests/diffusion/test_guidance.py",),
    ),
    "a codebook forgets what it should keep": Mutant(
        "bottlenecks/codebook.py",
        "self.usage.lerp_(self.counts, 1 - self.decay)",
        "self.usage.lerp_(self.counts, self.decay)",
        ("tests/bottlenecks/test_vq.py",),
    ),
    "a part is built twice where its `ref` is built first": Mutant(
        "building/builder.py",
        "if wanted not in (None, path) or place in self.plan.refs.values():",
        "if wanted not in (None, path):",
        ("tests/building/test_builder.py",),
    ),
    "exactly as many samples as a metric compares are too many": Mutant(
        "evaluation/needs.py",
        "count > extras.most",
        "count >= extras.most",
        ("tests/evaluation/test_needs.py",),
    ),
    "a penalty halves no more": Mutant(
        "losses/regularizers.py",
        "self.gamma / 2 * _differentiate(round.critic, *round.judged[0])",
        "self.gamma * _differentiate(round.critic, *round.judged[0])",
        ("tests/losses/test_regularizers.py",),
    ),
    "a hinge is on the wrong side": Mutant(
        "losses/adversarial.py",
        "F.relu(1 - widen(real_logits)).mean()",
        "F.relu(1 + widen(real_logits)).mean()",
        ("tests/losses/test_adversarial.py",),
    ),
    "the density of a latent loses the sign of its volume": Mutant(
        "models/latent.py",
        "log_weight - self.scale.log_volume",
        "log_weight + self.scale.log_volume",
        ("tests/models/test_bound_latent.py",),
    ),
    "a lazy player plays a step late": Mutant(
        "training/players.py",
        "(index - self.player.start) % self.player.every == 0",
        "(index - self.player.start) % self.player.every == 1",
        ("tests/training/test_players.py",),
    ),
    "every epoch reads in one order": Mutant(
        "data/loader.py",
        "lambda epoch: draw_permutation(Rng(seed, epoch), self._size)",
        "lambda epoch: draw_permutation(Rng(seed, 0), self._size)",
        ("tests/data/test_loader.py",),
    ),
    "repeated rows draw each other's noise": Mutant(
        "rng.py",
        "return self._derive(self._key, self._first * num)",
        "return self._derive(self._key, self._first)",
        ("tests/test_rng.py", "tests/losses/test_importance.py"),
    ),
    "a coupling's volume is its mean": Mutant(
        "bijections/coupling.py",
        "log_slope.flatten(1).sum(1)",
        "log_slope.flatten(1).mean(1)",
        ("tests/bijections/test_bijections.py",),
    ),
}
