r"""Arithmetic in a latent space: means of classes, and what is left of one when another is taken from it.

    m_y = mean of the latents of class y,    z = m_a - m_b + m_c,    G(z + u),  u ~ U(-spread, spread)

The latents are those that samples are encoded to. Where a Model does not encode, they are draws, and a classifier says
which class they are decoded to.

Shape letters: n samples, k classes, the latent's own shape, the sample's own shape.

References:
    Unsupervised Representation Learning with Deep Convolutional GANs (Radford et al., 2016), section 6.3.2, figure 7,
    https://arxiv.org/abs/1511.06434
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from modkit.kinds import FeatureExtractor
from modkit.latent_space.space import Space, repeat_fields
from modkit.rng import Rng

__all__ = ["average_classes", "read_classes", "decode_arithmetic", "select_class"]

_BATCH = 256


def read_classes(space: Space, z: Tensor, features: FeatureExtractor, fields: Mapping[str, Tensor] = {}) -> Tensor:
    """Classifies what latents, `n ...`, are decoded to, by the largest logit of a feature extractor; int64, `n`.

    Raises:
        ValueError: If the features have no logits.
    """
    found = []
    for part in torch.split(space.decode(z, fields), _BATCH):
        logits = features(part).logits
        if logits is None:
            raise ValueError(f"classes of latents expect the features of a classifier, got {features.label}")
        found.append(logits.argmax(1).cpu())
    return torch.cat(found)


def select_class(z: Tensor, classes: Tensor, label: int, num: int | None = None) -> Tensor:
    """Selects the first `num` latents of a class, or all of them.

    Raises:
        ValueError: If there are fewer, or none.
    """
    found = z[classes == label]
    if len(found) < (num or 1):
        raise ValueError(f"expected at least {num or 1} latents of class {label}, got {len(found)} among {len(z)}")
    return found[:num]


def average_classes(z: Tensor, classes: Tensor, num: int | None = None) -> dict[int, Tensor]:
    """Averages the first `num` latents of each class that has as many, or all latents of each class.

    Args:
        z: Latents, `n ...`.
        classes: Their classes, `n`.
        num: Number of latents in a mean.

    Raises:
        ValueError: If no class has as many.

    Examples:
        >>> average_classes(torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([0, 0, 4]))
        {0: tensor([2.]), 4: tensor([8.])}
    """
    counts, least = Counter(classes.tolist()), num or 1
    kept = [label for label in sorted(counts) if counts[label] >= least]
    if not kept:
        most = max(counts.values(), default=0)
        raise ValueError(
            f"average_classes expects a class of at least {least} latents, got at most {most} of any class among "
            f"{len(z)}; a mean of fewer is num=1 (-n 1)"
        )
    return {label: select_class(z, classes, label, num).mean(0) for label in kept}


def decode_arithmetic(
    space: Space,
    terms: Sequence[Tensor],
    *,
    spread: float = 0.25,
    seed: int = 0,
    fields: Mapping[str, Tensor] = {},
) -> Tensor:
    """Decodes a - b + c of the means of three groups of latents, with the groups: `(4 (n + 1)) ...`, in four rows.

    The first three rows are the latents of a group, followed by their mean. The last has n decodings of the result with
    uniform noise, followed by that without.

    Args:
        space: The latent space.
        terms: The groups a, b and c, `n ...` each.
        spread: Half the width of the noise, in units of the latent.
        seed: Seed of the noise.
        fields: The fields of one sample, which a conditional Model decodes all with; those that a GAN is not given are
            drawn once.

    Raises:
        ValueError: If there are not three groups of one shape.
    """
    if len(terms) != 3 or len({one.shape for one in terms}) > 1:
        shapes = ", ".join(str(tuple(one.shape)) for one in terms)
        raise ValueError(f"decode_arithmetic expects three groups of latents of one shape, got {shapes}")
    means = [one.mean(0, keepdim=True) for one in terms]
    result = means[0] - means[1] + means[2]
    noise = spread * (2 * Rng("arithmetic", seed).uniform("noise", terms[0]) - 1)
    rows = torch.cat([*(torch.cat(pair) for pair in zip(terms, means)), result + noise, result])
    return space.decode(rows, repeat_fields(space.complete(1, fields), len(rows)))
