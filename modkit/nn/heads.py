"""Heads: what a discriminator tells of a sample beside its logit, such as the logits of classes.

Shape letters: b batch, d features.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from modkit.nn.spectral_norm import normalize_spectrum

__all__ = ["Heads"]


class Heads(nn.Module):
    """A linear layer for each head, of the discriminator's last features.

    Args:
        widths: Number of outputs of each head, by name.
        features: Number d of features.
        spectral_norm: Whether to divide each weight by its largest singular value.

    Examples:
        >>> import torch
        >>> heads = Heads({"labels": 10}, 8)
        >>> {name: tuple(one.shape) for name, one in heads(torch.zeros(2, 8)).items()}
        {'labels': (2, 10)}
    """

    def __init__(self, widths: Mapping[str, int] | None, features: int, *, spectral_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(features, width) for name, width in (widths or {}).items()})
        if spectral_norm:
            for layer in self.layers.values():
                normalize_spectrum(layer)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Computes what each head tells of features `b d`, by name."""
        return {name: layer(features) for name, layer in self.layers.items()}
