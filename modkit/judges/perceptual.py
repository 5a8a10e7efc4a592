"""The perceptual distance of samples from what a Model makes of them, as a judge.

References:
    Taming Transformers (Esser et al., 2021), section 3.1, https://arxiv.org/abs/2012.09841

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from modkit.kinds import FeatureExtractor, Round, Slot, Step, default
from modkit.losses.perceptual import Perceptual
from modkit.types import TensorType

__all__ = ["PerceptualJudge"]


class PerceptualJudge(Perceptual):
    """The distance of samples and reconstructions in the maps of an extractor, averaged over the batch.

    The extractor is frozen, and its weights are saved only if they were trained here. A run whose extractor was read
    from a file can therefore be loaded without the file, by `modkit.load(run, ["model.judges.perceptual=null"])`.

    Args:
        name: The name of its term.
        x: Type of the samples.
        features: The extractor.

    Examples:
        >>> import torch
        >>> from modkit import Cond, Rng, StepContext
        >>> from modkit.features import RandomConv
        >>> judge = PerceptualJudge("perceptual", TensorType((1, 16, 16), (-1, 1)), features=RandomConv)
        >>> x = torch.zeros(2, 1, 16, 16)
        >>> judge.losses(Round(x, Cond(), Rng(0), fake=x), StepContext(Rng(0)))
        {'perceptual': tensor(0.)}
    """

    def __init__(self, name: str, x: TensorType, *, features: Slot[FeatureExtractor] = default("random-conv")) -> None:
        super().__init__(features(x=x))
        self.name = name

    def losses(self, round: Round, step: Step) -> Mapping[str, Tensor]:
        """Computes the distance; gradients reach only what was made."""
        return {self.name: self(round.fake, round.real).mean()} if step.wants(self.name) else {}
