r"""Spectral normalisation: a layer's weight is divided by its largest singular value, tracked by power iteration.

    W_bar = W / (u^T W v),   v = W^T u / ||W^T u||,   u = W v / ||W v||

It is PyTorch's, with its keys and values. On the meta device, where models are checked, nothing is iterated: each of
PyTorch's 15 first iterations takes milliseconds there, for no value.

References:
    Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018), algorithm 1,
    https://arxiv.org/abs/1802.05957
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

__all__ = ["normalize_spectrum"]


def normalize_spectrum(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) -> None:
    """Divides the weight of a layer by its largest singular value, in place.

    Examples:
        >>> import torch
        >>> layer = nn.Linear(3, 2)
        >>> normalize_spectrum(layer)
        >>> bool(torch.linalg.matrix_norm(layer.eval().weight, 2).isclose(torch.tensor(1.0), atol=0.1))
        True
    """
    parametrize.register_parametrization(layer, "weight", _Normalization(layer.weight))


class _Normalization(_SpectralNorm):
    def _power_method(self, weight_mat: Tensor, n_power_iterations: int) -> None:
        if not weight_mat.is_meta:
            super()._power_method(weight_mat, n_power_iterations)
