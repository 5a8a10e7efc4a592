r"""Min-p sampling: draws from the codes whose probability is not too far below that of the most likely code.

    c_i ~ p_i restricted to { k : p_ik >= min_p max_k p_ik }

A decoding draws codes from a network's logits (`modkit.kinds.Decoding`). `causal = True` requires a network that reads
codes in raster order: `predict(codes, i)` returns the logits of position i, given the codes before i.

Shape letters: b batch, n positions, k classes.
"""

import torch
from torch import Tensor

from modkit import Rng, TensorType
from modkit.decodings import sample_categorical
from modkit.kinds import Predict
from modkit.types import Share, checked

__all__ = ["MinP"]


@checked
class MinP:
    """Draws one code after another, excluding improbable ones.

    References:
        Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs (Nguyen et al., 2024), section 3,
        https://arxiv.org/abs/2407.01082

    Args:
        codes: Type of the codes.
        min_p: Minimum probability, relative to the most likely code, in [0, 1]; 0 keeps all codes, 1 only the most
            likely.

    Raises:
        ValueError: If `min_p` is out of range.
    """

    causal = True

    def __init__(self, codes: TensorType, *, min_p: Share = 0.05) -> None:
        self.num, self.min_p = codes.numel, min_p

    def __call__(self, predict: Predict, num: int, rng: Rng) -> Tensor:
        """Draws `num` code maps, `b n`, int64."""
        codes = torch.zeros(num, self.num, dtype=torch.int64)
        uniform = rng.uniform("codes", torch.empty(num, self.num))
        for i in range(self.num):
            probabilities = predict(codes, i).double().softmax(-1)
            codes, uniform = codes.to(probabilities.device), uniform.to(probabilities.device)
            least = self.min_p * probabilities.amax(-1, keepdim=True)
            codes[:, i] = sample_categorical(probabilities * (probabilities >= least), uniform[:, i])
        return codes
