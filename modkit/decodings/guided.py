r"""Guidance of logits: a network of codes taken for a denoiser whose prediction of x_0 is its logits.

    logits = logits_u + s (logits_c - logits_u)         for classifier-free guidance

Guidance combines predictions of x_0, so each kind of it serves codes as it is. Its time is the share of codes that are
still unknown, 1 before the first.

References:
    Muse: Text-To-Image Generation via Masked Generative Transformers (Chang et al., 2023), eq. 1,
    https://arxiv.org/abs/2301.00704

Shape letters: b batch, n positions, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.kinds import Denoise, Guidance, Predict
from modkit.types import Denoised

__all__ = ["guide"]


def guide(guidance: Guidance, predict_cond: Predict, predict_null: Predict, *, mask: int) -> Predict:
    """What predicts the combined logits; the second is asked only where guidance asks it.

    Args:
        guidance: How the two are combined.
        predict_cond: Predicts under the conditions.
        predict_null: Predicts under none.
        mask: The code of what is unknown where all positions are asked for at once.
    """

    def predict(codes: Tensor, i: int | None) -> Tensor:
        share = (codes == mask).double().mean().cpu() if i is None else torch.tensor(1 - i / codes.shape[1]).double()
        return guidance(_make_denoise(predict_cond, i), _make_denoise(predict_null, i))(codes, share).x_0

    return predict


def _make_denoise(predict: Predict, i: int | None) -> Denoise:
    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        return Denoised(predict(x_t, i))

    return denoise
