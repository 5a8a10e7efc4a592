r"""Guidance of logits: a network of codes is treated as a denoiser whose prediction of x_0 is the logits.

    logits = logits_u + s (logits_c - logits_u)         for classifier-free guidance

Guidance combines predictions of x_0, so every kind of guidance works for codes without change. The time is the share of
codes that are still unknown, 1 at the start. Where a decoding does not say how many are known, they are counted on the
device, and the share is read back.

References:
    Muse: Text-To-Image Generation via Masked Generative Transformers (Chang et al., 2023), eq. 1,
    https://arxiv.org/abs/2301.00704

Shape letters: b batch, n positions, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modkit.diffusion.guidance import check_sides
from modkit.kinds import Guidance, Predict
from modkit.types import Denoised

__all__ = ["guide"]


def guide(guidance: Guidance, predicts: Mapping[str, Predict], *, mask: int) -> Predict:
    """Combines the predictions of logits on two sides; the second is evaluated only if the guidance uses it.

    The predictions raise a ValueError if the guidance asks for another side.

    Args:
        guidance: How the two predictions are combined.
        predicts: Predict logits given the conditions (`cond`) and the null conditions (`null`).
        mask: The code of unknown positions, for predictions of all positions at once.
    """

    def predict(codes: Tensor, i: int | None, known: int | None = None) -> Tensor:
        known = i if known is None else known
        if known is None:
            share = (codes == mask).sum().cpu().double() / codes.numel()
        else:
            share = torch.tensor(1 - known / codes.shape[1], dtype=torch.float64)

        def ask(x_t: Tensor, t: Tensor, *names: str) -> tuple[Denoised, ...]:
            check_sides(names, predicts)
            return tuple(Denoised(predicts[name](x_t, i)) for name in names)

        return guidance(ask)(codes, share).x_0

    return predict
