r"""A critic of latents, against which an encoder plays.

    fake   z ~ q(z), the latents of data
    real   z ~ p(z), the prior (AAE), or latents whose dimensions come from different samples, a draw of prod_j q(z_j)
           (FactorVAE), which implies the losses `density-ratio`

Where latents are shuffled, the critic's turn takes the even rows of its batch as they are and shuffles the odd ones, so
that the two are independent.

Shape letters: b batch.

References:
    Adversarial Autoencoders (Makhzani et al., 2016), section 2, https://arxiv.org/abs/1511.05644
    Disentangling by Factorising (Kim and Mnih, 2018), algorithm 2, https://arxiv.org/abs/1802.05983
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal, TypeAlias

from torch import Tensor, nn

from modkit import kinds
from modkit.kinds import AdversarialExtras, Implies, Round, Slot, Step, default, read_extras
from modkit.losses.judging import compute_generator_loss
from modkit.losses.review import review_critic
from modkit.precision import widen
from modkit.types import Cond, CondType, TensorType, Value

__all__ = ["Against", "LatentCritic"]

Against: TypeAlias = Annotated[Literal["prior", "shuffled"], Implies({"shuffled": {"adversarial": "density-ratio"}})]


class LatentCritic(nn.Module):
    """A critic of latents and the losses of both sides.

    FactorVAE with γ = 35 has `judges: {latent-critic: {use: latent-critic, network: mlp, against: shuffled}}` and
    `weights: {latent-critic: 35}`.

    Args:
        name: The name of its player and its term.
        z: Type of the latents, of one level.
        network: Tells the two apart.
        adversarial: The losses; where latents are `shuffled`, `density-ratio`.
        against: What it takes for real: draws of the `prior`, or latents `shuffled` by dimension, which are independent
            of each other.

    Raises:
        ValueError: At a call, if it is to shuffle a single latent.

    Examples:
        >>> import torch
        >>> from modkit import Rng, StepContext
        >>> from modkit.losses import Hinge
        >>> from modkit.nn.mlp import MLPDiscriminator
        >>> make = lambda x, cond: MLPDiscriminator(x, cond, depth=0)
        >>> critic = LatentCritic("game", TensorType((2,)), network=make, adversarial=Hinge)
        >>> round = Round(torch.zeros(4, 2), Cond(), Rng(0), z=torch.ones(4, 2), prior=lambda rng: torch.zeros(4, 2))
        >>> list(critic.losses(round, StepContext(Rng(0)))), list(critic.play(round, StepContext(Rng(0))))
        (['game'], ['adversarial'])
    """

    latent = True

    def __init__(
        self,
        name: str,
        z: TensorType,
        *,
        network: Slot[kinds.Discriminator] = default("mlp"),
        adversarial: Slot[kinds.Adversarial] = default("non-saturating"),
        against: Against = "prior",
    ) -> None:
        super().__init__()
        self.name = name
        self.needs = ("z", "prior") if against == "prior" else ("z",)
        self.network = network(x=z, cond=CondType())
        self.adversarial, self._pair = adversarial(), _PAIRS[against]

    def losses(self, round: Round, step: Step) -> Mapping[str, Tensor]:
        """Computes the encoder's loss, at all of its latents."""
        if not step.wants(self.name):
            return {}
        fake = real = _check_single(round.z)
        if read_extras(self.adversarial, AdversarialExtras).paired:
            real, fake = self._pair(round, step)
        return {self.name: compute_generator_loss(self.adversarial, self.network, fake, real, Cond())}

    def play(self, round: Round, step: Step) -> Mapping[str, Tensor]:
        """Computes the critic's loss, `adversarial`."""
        real, fake = (self.network(one, Cond()) for one in self._pair(round, step))
        return {"adversarial": self.adversarial.discriminator(real, fake)}

    def review(self, path: str) -> Iterator[kinds.Note]:
        """What it is made of."""
        yield from review_critic(f"{path}.network", self.network, {})


def _check_single(z: Value) -> Tensor:
    assert isinstance(z, Tensor)
    return z


def _draw_prior(round: Round, step: Step) -> tuple[Tensor, Tensor]:
    return _check_single(round.prior(round.rng)), _check_single(round.z)


def _draw_shuffled(round: Round, step: Step) -> tuple[Tensor, Tensor]:
    """Shuffles each dimension over the odd rows of all processes, and returns those of this process."""
    z = _check_single(round.z)
    if len(z) < 2:
        raise ValueError(f"a latent critic against `shuffled` expects at least 2 latents in each process, got {len(z)}")
    keys = round.rng.uniform("order", widen(z))
    odd, keys = z[1::2], keys[1::2].contiguous()
    first, every = 0, odd
    if step.training:
        first, every, keys = step.rank * len(odd), step.gather(odd), step.gather(keys)
    return every.gather(0, keys.argsort(stable=True, dim=0))[first : first + len(odd)], z[::2]


_PAIRS: dict[str, Callable[[Round, Step], tuple[Tensor, Tensor]]] = {"prior": _draw_prior, "shuffled": _draw_shuffled}
