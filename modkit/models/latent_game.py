r"""The game of an autoencoder with a critic of its latents.

    fake   z ~ q(z), the latents of data
    real   z ~ p(z), the bottleneck's prior (AAE), or latents whose dimensions come from different samples, a draw of
           prod_j q(z_j) (FactorVAE), which implies the losses `density-ratio`

The encoder plays the generator's side. Where latents are shuffled, the critic's turn takes the even rows of its batch
as they are and shuffles the odd ones, so that the two are independent.

Shape letters: b batch.

References:
    Adversarial Autoencoders (Makhzani et al., 2016), section 2, https://arxiv.org/abs/1511.05644
    Disentangling by Factorising (Kim and Mnih, 2018), algorithm 2, https://arxiv.org/abs/1802.05983
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from torch import Tensor, nn

from modkit.kinds import (
    Adversarial,
    Bottleneck,
    Discriminator,
    Implies,
    Round,
    Slot,
    Step,
    Unfit,
)
from modkit.models.latent_penalties import check_prior
from modkit.models.rival import Rival
from modkit.precision import widen
from modkit.types import Cond, CondType, Value

__all__ = ["Against", "LatentGame"]

Against: TypeAlias = Annotated[
    Literal["prior", "shuffled"], Implies({"shuffled": {"latent_adversarial": "density-ratio"}})
]


class LatentGame(nn.Module):
    """A critic of latents and the losses of both sides.

    Args:
        bottleneck: The bottleneck whose latents the critic is given.
        slot: The slot of the bottleneck.
        critic: The slot of the critic.
        adversarial: The losses.
        against: What the critic takes for real.

    Raises:
        Unfit: If the decoder's input has several levels, or latents are compared with a prior that does not exist.
    """

    def __init__(
        self,
        bottleneck: Bottleneck,
        slot: Slot[Bottleneck],
        critic: Slot[Discriminator],
        adversarial: Adversarial,
        against: Against,
    ) -> None:
        super().__init__()
        z = list(bottleneck.latents.values())[-1]
        if isinstance(z, tuple):
            raise Unfit(
                "latent_critic", f"expected latents of one level, got a hierarchy of {len(z)} from {slot.where}"
            )
        if against == "prior":
            check_prior("latent_critic", bottleneck, slot)
        self.critic = critic.name_source(slot.where)(x=z, cond=CondType())
        self._rival, self._pair = Rival(self.critic, adversarial), _PAIRS[against]

    def compute_encoder_losses(self, z: Value, bottleneck: Bottleneck, step: Step) -> dict[str, Tensor]:
        """Computes the loss `adversarial/latent-critic` of the encoder for its latents, `b ...`, if it is due."""
        fake = real = _check_single(z)
        if self._rival.paired:
            real, fake = self._pair(fake, bottleneck, step)
        return self._rival.compute_generator_losses(self._play(real, fake, step), step, end="/latent-critic")

    def compute_critic_losses(self, z: Value, bottleneck: Bottleneck, step: Step) -> dict[str, Tensor]:
        """Computes the loss of the critic; latents are expected without gradients."""
        return self._rival.compute_losses(self._play(*self._pair(_check_single(z), bottleneck, step), step), step)

    def _play(self, real: Tensor, fake: Tensor, step: Step) -> Round:
        return Round(real, Cond(), step.rng, fake, critic=self.critic)


def _check_single(z: Value) -> Tensor:
    assert isinstance(z, Tensor)
    return z


def _draw_prior(z: Tensor, bottleneck: Bottleneck, step: Step) -> tuple[Tensor, Tensor]:
    real = bottleneck.sample(len(z), step.rng.at("latent_critic"))
    return _check_single(real), z


def _draw_shuffled(z: Tensor, bottleneck: Bottleneck, step: Step) -> tuple[Tensor, Tensor]:
    """Shuffles each dimension over the odd rows of all processes, and returns those of this process."""
    if len(z) < 2:
        raise ValueError(f"a latent critic against `shuffled` expects at least 2 latents in each process, got {len(z)}")
    keys = step.rng.at("latent_critic").uniform("order", widen(z))
    odd, keys = z[1::2], keys[1::2].contiguous()
    first, every = 0, odd
    if step.training:
        first, every, keys = step.rank * len(odd), step.gather(odd), step.gather(keys)
    return every.gather(0, keys.argsort(stable=True, dim=0))[first : first + len(odd)], z[::2]


_PAIRS: dict[str, Callable[[Tensor, Bottleneck, Step], tuple[Tensor, Tensor]]] = {
    "prior": _draw_prior,
    "shuffled": _draw_shuffled,
}
