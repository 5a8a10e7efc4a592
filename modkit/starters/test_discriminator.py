"""Values of the discriminator."""

import torch

from modkit import Cond, CondType, TensorType
from modkit.starters.discriminator import Prototypes


def test_its_logits_are_a_mixture_s() -> None:
    """Up to constants the log density of an even mixture, as torch.distributions has it."""
    critic = Prototypes(TensorType((3,)), CondType(), num=4, width=2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.MultivariateNormal(critic.prototypes, torch.eye(2))
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=critic.weights), normal)
    density = mixture.log_prob(critic.features(x))  # type: ignore[no-untyped-call]
    logits = critic(x, Cond())
    torch.testing.assert_close(logits - logits[0], density - density[0])
