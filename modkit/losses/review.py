"""Review of a critic before training: what it is made of beside what is asked of it.

A penalty on the gradient at each sample (R1) supposes that a sample's logit is a function of that sample. Batch
normalisation makes it one of the whole batch, so that the gradient of the sum of logits, which the penalty takes,
mixes the samples. Spectral normalisation bounds a critic's slope by bounding each weight; one weight that is left out,
such as the embedding of a condition, unbounds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm

from modkit.kinds import DiscriminatorExtras, Finding, PromiseExtras, Regularizer, RegularizerExtras, read_extras

__all__ = ["review_critic"]


def review_critic(path: str, critic: object, regularizers: Mapping[str, Regularizer]) -> Iterator[Finding]:
    """Finds penalties that the critic's batch normalisation defeats, and weights that its spectral norm leaves out.

    Args:
        path: Path of the critic, relative to its Model.
        critic: The critic; it is only inspected if it is a module.
        regularizers: The penalties on it, by the names of their terms.

    Examples:
        >>> from modkit.losses.regularizers import R1
        >>> critic = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
        >>> [finding.path for finding in review_critic("discriminator", critic, {"r1": R1()})]
        ['discriminator']
    """
    if not isinstance(critic, nn.Module):
        return
    extras = {name: read_extras(part, RegularizerExtras) for name, part in regularizers.items()}
    penalties = [name for name, one in extras.items() if one.per_sample and one.side == "discriminator"]
    independent = read_extras(critic, PromiseExtras).batch_independent
    if penalties and not independent and any(isinstance(module, _BatchNorm) for module in critic.modules()):
        yield Finding(
            path,
            f"{', '.join(penalties)} needs the gradient of each sample's own logit, got {type(critic).__name__}, whose "
            "batch normalisation makes a logit depend on the whole batch",
            (f"{path}.norm=none", "regularizers=null"),
        )
    bounded = tuple(
        f"{name}." if name else ""
        for name, module in critic.named_modules()
        if read_extras(module, DiscriminatorExtras).bounded
    )
    free = [
        name
        for name, weight in critic.named_parameters()
        if weight.ndim > 1 and "parametrizations" not in name and not name.startswith(bounded)
    ]
    if free and any(isinstance(module, _SpectralNorm) for module in critic.modules()):
        yield Finding(
            path,
            f"expected spectral normalisation to bound every weight of {type(critic).__name__}, got these without it: "
            f"{', '.join(free)}",
            (f"{path}.spectral_norm=false",),
        )
