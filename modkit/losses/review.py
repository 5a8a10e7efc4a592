"""Review of penalized networks before training: what they are made of beside what is asked of them.

A penalty on the gradient at each sample (R1) supposes that a sample's logit is a function of that sample. Batch
normalisation makes it one of the whole batch, so that the gradient of the sum of logits, which the penalty takes,
mixes the samples; so does that of an encoder or decoder. Spectral normalisation bounds a critic's slope by bounding
each weight; one weight that is left out, such as the embedding of a condition, unbounds it. So does a norm of the
activations, which divides by their deviation: the smaller the input, the steeper the critic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm

from modkit.kinds import DiscriminatorExtras, Finding, PromiseExtras, Regularizer, RegularizerExtras, read_extras

__all__ = ["review_coders", "review_critic"]


def review_critic(path: str, critic: object, regularizers: Mapping[str, Regularizer]) -> Iterator[Finding]:
    """Finds penalties that the critic's batch normalisation defeats, and what its spectral norm does not bound.

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
    names = [name for name, one in extras.items() if one.per_sample and one.side == "discriminator"]
    yield from _review_coupling(path, critic, names, "logit")
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
    norms = [
        name
        for name, module in critic.named_modules()
        if isinstance(module, _NormBase | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm)
        and not f"{name}.".startswith(bounded)
    ]
    if not any(isinstance(module, _SpectralNorm) for module in critic.modules()):
        return
    if free:
        yield Finding(
            path,
            f"expected spectral normalisation to bound every weight of {type(critic).__name__}, got these without it: "
            f"{', '.join(free)}",
            (f"{path}.spectral_norm=false",),
        )
    if norms:
        yield Finding(
            path,
            f"expected spectral normalisation to bound the slope of {type(critic).__name__}, got norms, which divide "
            f"by the deviation of their input and have no bound: {', '.join(norms)}",
            (f"{path}.attention_norm=false", f"{path}.norm=none", f"{path}.spectral_norm=false"),
        )


def review_coders(coders: Mapping[str, object], regularizers: Mapping[str, Regularizer]) -> Iterator[Finding]:
    """Finds penalties on an autoencoder's networks, `encoder` and `decoder`, that their batch normalisation defeats.

    Examples:
        >>> from modkit.losses import Contractive
        >>> encoder = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
        >>> [finding.path for finding in review_coders({"encoder": encoder}, {"contractive": Contractive()})]
        ['encoder']
    """
    extras = {name: read_extras(part, RegularizerExtras) for name, part in regularizers.items()}
    for path, coder in coders.items():
        names = [name for name, one in extras.items() if one.per_sample and path in one.needs]
        if isinstance(coder, nn.Module):
            yield from _review_coupling(path, coder, names, "output")


def _review_coupling(path: str, network: nn.Module, penalties: Sequence[str], output: str) -> Iterator[Finding]:
    independent = read_extras(network, PromiseExtras).batch_independent
    if penalties and not independent and any(isinstance(module, _BatchNorm) for module in network.modules()):
        yield Finding(
            path,
            f"{', '.join(penalties)} needs the gradient of each sample's own {output}, got {type(network).__name__}, "
            f"whose batch normalisation makes it depend on the whole batch",
            (f"{path}.norm=none", "regularizers=null"),
        )
