"""The parts of an adversarial game: the two networks, the losses of each, and penalties on either side.

Shape letters: b batch, d features, h w spatial. Logits are higher for real samples, unless the losses of the game say
otherwise (`sign`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from modkit.types import Batch, Cond, Judgement, TensorType, Value

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.kinds.training import Step
    from modkit.rng import Rng

__all__ = [
    "Adversarial",
    "AdversarialExtras",
    "Augmentation",
    "AugmentationExtras",
    "Critic",
    "Discriminator",
    "DiscriminatorExtras",
    "Generator",
    "GeneratorExtras",
    "Regularizer",
    "RegularizerExtras",
    "Round",
]

_ABSENT: Any = None  # a part states which members it needs, and is called with only these: no type has None


class Generator(Protocol):
    """Maps noise z, `b d`, to x."""

    def __call__(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x."""
        ...


class Discriminator(Protocol):
    """Tells real samples from generated ones, by logits `b` or `b 1 h w`.

    The losses of a game say for which of the two its logits become higher, as a rule for real samples. One that judges
    packs of samples returns fewer.
    """

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`."""
        ...


class Critic(Protocol):
    """A discriminator, as regularizers are given it."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`."""
        ...


class Adversarial(Protocol):
    """The losses of the two sides of an adversarial game: scalars, averaged over logits."""

    def generator(self, fake_logits: Tensor) -> Tensor:
        """The loss that the generator minimises; of `paired` losses it is `generator(fake_logits, real_logits)`."""
        ...

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The loss that the discriminator minimises."""
        ...


@dataclass(frozen=True)
class Round:
    """One turn of a game, as judges and regularizers are given it: samples, and what made them.

    A member that a model does not have is None: a part names those that it uses in `needs`. Regularizers are given
    networks without compilation or autocast.

    Args:
        real: Real samples x.
        cond: The conditions: in the critic's turn, those beside `real`; in the other side's, its own (see `judged`).
        rng: Source of draws; each judge and each regularizer has one of its own.
        fake: What was generated or reconstructed in this turn, the shape of `real`.
        z: What `fake` was made from: a generator's noise, or an autoencoder's latent. In the turn of the side that made
            them, gradients pass through both.
        critic: The discriminator. If the game has an augmentation, it augments samples by new draws at each call.
        generator: `generator(z, cond)` generates x.
        encoder: `encoder(x)` computes z, without noise.
        decoder: `decoder(z)` computes the mean of x.
        step: The step of training, by which what depends on the whole batch other than by a mean of rows is summed over
            processes; None of a round that is played by itself.
        beside: The conditions that the critic is given beside `real` and beside `fake`; None if both are `cond`.
        maps: Whether a map beside samples (`concat`) of their shape lies over them; a code beside them does not.
        prior: `prior(rng)` draws as many latents as there are samples from the prior of `z`.
        batch: The batch, with its fields and the conditions of an enclosing Model.
        moments: `moments()` computes the means and standard deviations of q(z | x), a diagonal Gaussian, shaped as `z`.

    Examples:
        >>> import torch
        >>> from modkit import Rng
        >>> from modkit.kinds import Round
        >>> Round(torch.ones(2, 3), Cond(), Rng(0), critic=lambda x, cond: x.sum(1)).critic(torch.ones(2, 3), Cond())
        tensor([3., 3.])
    """

    real: Tensor
    cond: Cond
    rng: Rng
    fake: Tensor = _ABSENT
    z: Value = _ABSENT
    critic: Critic = _ABSENT
    generator: Callable[[Tensor, Cond], Tensor] = _ABSENT
    encoder: Callable[[Tensor], Value] = _ABSENT
    decoder: Callable[[Value], Tensor] = _ABSENT
    step: Step | None = None
    beside: tuple[Cond, Cond] | None = None
    maps: bool = True
    prior: Callable[[Rng], Value] = _ABSENT
    batch: Batch = _ABSENT
    moments: Callable[[], tuple[Value, Value]] = _ABSENT

    @property
    def judged(self) -> tuple[tuple[Tensor, Cond], tuple[Tensor, Cond]]:
        """The arguments of the critic: real samples and fakes, each with the conditions beside them."""
        beside_real, beside_fake = self.beside or (self.cond, self.cond)
        return (self.real, beside_real), (self.fake, beside_fake)


class Augmentation(Protocol):
    """Changes samples before a critic judges them, real and generated ones alike."""

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        """Augments `x`, each sample by draws of its own; it can be differentiated twice with respect to `x`."""
        ...


class Regularizer(Protocol):
    """A penalty on one side of a game, such as R1: a scalar, averaged over samples."""

    def __call__(self, round: Round) -> Tensor:
        """Computes the penalty on a round, whose networks can be differentiated twice."""
        ...


@dataclass(frozen=True)
class AdversarialExtras:
    """Optional members of an `Adversarial`.

    Args:
        paired: Whether its losses compare each fake with a real sample. `generator` is then given the logits of as many
            real samples as well, and no gradients reach these.
        boundary: The logit at which its discriminator takes a sample for real as for fake; None if a constant added to
            all logits changes no loss.
        sign: On which side of `boundary` its discriminator's logits of real samples lie: 1 above, -1 below.
    """

    paired: bool = False
    boundary: float | None = 0.0
    sign: float = 1.0


@dataclass(frozen=True)
class GeneratorExtras:
    """Optional members of a `Generator`, of one that maps noise to styles w first, and these to x.

    Args:
        draws: Whether it draws noise of its own beside z. It is then called as `generator(z, cond, rng)`; without `rng`
            that noise is left out.
        styles: `styles(z, cond)` maps noise to styles, `b d`. A part that has it has `synthesis` as well.
        synthesis: `synthesis(w)` maps styles to x: `b d`, or `b l d` if each of its l layers has styles of its own. A
            part that draws noise is given `rng` after them.
        map_layers: `map_layers(z, cond, rng)` maps noise to the styles of each layer, `b l d`, as a call has them:
            in training, `rng` may mix styles of a second noise into them.
        w: The type of the styles. With it, they are a source of the Model, `w`, in which paths and projections may go.
    """

    draws: bool = False
    styles: Callable[[Tensor, Cond], Tensor] | None = None
    synthesis: Callable[..., Tensor] | None = None
    map_layers: Callable[[Tensor, Cond, Rng | None], Tensor] | None = None
    w: TensorType | None = None


@dataclass(frozen=True)
class DiscriminatorExtras:
    """Optional members of a `Discriminator`, and of the modules inside it.

    Args:
        bounded: Whether each of its weights is bounded by spectral normalisation in a way that PyTorch's
            parametrizations do not show. `modkit check` warns of a weight that is not, beside others that are.
        judge: `judge(x, cond)` returns the logits of a call, the feature maps that they were computed from, and what
            each of the `heads` computes, by the names that the part was told with their widths; `b width`. A part that
            declares `heads` has it.
    """

    bounded: bool = False
    judge: Callable[[Tensor, Cond], Judgement] | None = None


@dataclass(frozen=True)
class AugmentationExtras:
    """Optional members of an `Augmentation`, of one whose strength follows the game.

    Args:
        observe: `observe(real_logits)` is given the logits of augmented real samples at each turn of the critic in
            training, positive where a sample is taken for real, one for each sample or its patches: samples judged
            together have the same. It is called for each microbatch. What it keeps belongs in buffers.
        update: `update(step)` is called once after the turn.
    """

    observe: Callable[[Tensor], None] | None = None
    update: Callable[[Step], None] | None = None


@dataclass(frozen=True)
class RegularizerExtras:
    """Optional members of a `Regularizer`.

    Args:
        side: The player whose turn it is computed in, and whose loss it is: `discriminator` (every discriminator, and
            an autoencoder's critic), `generator` or `autoencoder`.
        needs: Names of the members of `Round` that it uses besides those of every round, `real`, `cond`, `rng`
            and `step`. In a model without them it is refused.
        per_sample: Whether it needs the gradient of each sample's own output. A network that normalises over the batch
            couples the samples and defeats it, of which `modkit check` warns.
        update: `update(step)` is called once after each turn of its side in which it was computed. What it keeps
            belongs in buffers, so such a part is a module.
    """

    side: str = "discriminator"
    needs: tuple[str, ...] = ()

    per_sample: bool = False
    update: Callable[[Step], None] | None = None
