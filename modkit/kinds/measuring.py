"""What samples are measured with: features that distances make sense in, and metrics of them.

Shape letters: b batch, c channels, h w spatial, d features, k classes or codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from modkit.types import Batch, Features, Score

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.rng import Rng

__all__ = ["FeatureExtractor", "Metric"]


class FeatureExtractor(Protocol):
    """Maps images to features that distances make sense in: differentiable, and independent of the batch.

    `.label` names it in scores (`classifier:digits`). Optional: `.heads`, for each of its maps the weight of each
    channel, `c`, in a perceptual distance (LPIPS'); without them all weigh one.
    """

    label: str

    def __call__(self, x: Tensor) -> Features:
        """Features of `x`, `b c h w` of its type."""
        ...

    def key(self) -> str:
        """Hash of weights and preprocessing; a ValueError until `prepare` has made the weights."""
        ...

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Trains or calibrates it once on the training split; left alone where it needs nothing."""
        ...


class Metric(Protocol):
    """A measure of samples, streaming and mergeable, so that processes can share the work.

    `.sets` names the sets it looks at: of `real`, `fake`, `train`. `.needs` names what it is fed of their samples:

        features   the extractor's vector, `b d`           points, images   the samples, `b ...`
        logits     the extractor's logits, `b k`           labels           their classes, `b`
        pairs      samples and their reconstructions, `b 2 ...`;   feature-pairs   the features of both, `b 2 d`
        codes      how often each code stands for a sample, `b k`; of several codebooks a tuple, coarse to fine
        batch      the data's `Batch`, unrounded           model            the Model
        truth      the `Modes` of synthetic data            levels           the data's levels, or None

    `pairs`, `feature-pairs`, `codes` and `model` are the Model's that is measured, whatever the set. What it keeps a
    sample it keeps by the sample's index, so that the order of arrival never changes a result.
    """

    needs: tuple[str, ...]
    sets: tuple[str, ...]
    better: Literal["lower", "higher"] | None

    def init(self) -> Any:
        """An empty state."""
        ...

    def update(self, state: Any, set: str, values: Mapping[str, Any], indices: Tensor) -> Any:
        """The state with more samples of a set: `values` by what it needs, `indices` of the samples, `b`, ascending."""
        ...

    def merge(self, a: Any, b: Any) -> Any:
        """Two states of disjoint samples as one."""
        ...

    def result(self, state: Any, rng: Rng) -> dict[str, Score]:
        """Scores by name."""
        ...
