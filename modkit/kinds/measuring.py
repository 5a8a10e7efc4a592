"""What samples are measured with: features in which distances are meaningful, and metrics.

Shape letters: b batch, c channels, h w spatial, d features, k classes or codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from modkit.types import Batch, Features, Score, TensorType

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from modkit.rng import Rng

__all__ = ["FeatureExtractor", "FeatureExtractorExtras", "Metric", "MetricExtras"]


class FeatureExtractor(Protocol):
    """Maps images to features in which distances are meaningful; differentiable, with independent rows."""

    @property
    def label(self) -> str:
        """Its name in scores (`classifier:digits`)."""
        ...

    def __call__(self, x: Tensor) -> Features:
        """Computes the features of `x`, `b c h w` of its type."""
        ...

    def key(self) -> str:
        """Hash of the weights and preprocessing.

        Raises:
            ValueError: If `prepare` has yet to make the weights.
        """
        ...

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Trains or calibrates it, once, on the training split; an extractor that needs neither does not read them."""
        ...


@dataclass(frozen=True)
class FeatureExtractorExtras:
    """Optional members of a `FeatureExtractor`.

    Args:
        heads: For each of its maps, the weights of the channels, `c`, in a perceptual distance (LPIPS). If empty, every
            channel has weight 1.
    """

    heads: tuple[Tensor, ...] = ()


class Metric(Protocol):
    """A measure of samples, streaming and mergeable, so that processes can share the work.

    `.sets` names the sets that it compares: `real`, `fake` or `train`. `.better` says which scores are better. `.needs`
    names the values it is given of each set's samples:

        features   the extractor's vector, `b d`           points, images   the samples, `b ...`
        logits     the extractor's logits, `b k`           labels           their classes, `b`
        pairs      samples and their reconstructions, `b 2 ...`;   feature-pairs   the features of both, `b 2 d`
        latents    the mean of each sample's first continuous latent, `b d`
        posterior  mean and deviation of q(latent | x), `b 2 d`, where it is a Gaussian with independent dimensions
        factors    the values of their factors of variation, `b k`
        codes      how often each code stands for a sample, `b k`; of several codebooks a tuple, coarse to fine
        batch      the data's `Batch`, unrounded           model            the Model
        truth      the `Modes` of synthetic data            levels           the data's levels, or None
        range      the lowest and highest value of the data, unless they are unbounded
        precision  what the Model samples in, see `modkit.precision`

    `pairs`, `feature-pairs`, `codes`, `latents`, `posterior`, `model` and `precision` come from the Model that is
    measured, whatever the set. Anything a metric stores about a sample is stored under the sample's index, so the order
    of arrival never changes a result.

    Processes that measure together send each other their states, without pickle. So a state consists of tensors,
    numbers, texts and None, in lists, tuples, dicts and objects of these whose class stands in a module; the Model may
    stand in it as well.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the values that it is given."""
        ...

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets that it compares."""
        ...

    @property
    def better(self) -> Literal["lower", "higher"] | None:
        """Which scores are better."""
        ...

    def init(self) -> Any:
        """Returns an empty state."""
        ...

    def update(self, state: Any, set: str, values: Mapping[str, Any], indices: Tensor) -> Any:
        """Adds samples of a set to a state, and returns the new state.

        Args:
            state: The state.
            set: The set that the samples belong to.
            values: The samples' values, by the names in `.needs`.
            indices: The samples' indices, `b`, ascending.
        """
        ...

    def merge(self, a: Any, b: Any) -> Any:
        """Merges two states of disjoint samples; changes neither, as a state may be merged with several others."""
        ...

    def result(self, state: Any, rng: Rng) -> dict[str, Score]:
        """Computes the scores of a state, by name."""
        ...


@dataclass(frozen=True)
class MetricExtras:
    """Optional members of a `Metric`.

    Args:
        given: `given(state, set, statistics)` adds a set of which only the mean and covariance are known, and returns
            the new state.
        place: `place(state, device)` returns the state, of which `result` may compute on the device.
        most: The largest number of samples of a set that it can compare, so that more are refused before training.
        fewest: The smallest number of samples of a set that it can compare, so that fewer are refused before any is
            drawn.
        enough: The number of samples of a set below which a note says that the scores are not reliable.
        refuse: `refuse(model, x)` returns why it cannot measure samples of type `x`, or the Model, or None, so that
            such are refused before training. It is given the Model, on any device, trained or not, if that is among
            its needs.
        seed: Seed of its draws, if it does not use the evaluation's; its scores state it.
    """

    given: Callable[[Any, str, Any], Any] | None = None
    place: Callable[[Any, torch.device], Any] | None = None
    most: int | None = None
    fewest: int | None = None
    enough: int | None = None
    refuse: Callable[[Any, TensorType], str | None] | None = None
    seed: int | None = None
