r"""A classifier of stacked samples: one classifier of a single sample is applied to each of them.

    log p(y_a, y_b, y_c | x) = log p(y_a | x_a) + log p(y_b | x_b) + log p(y_c | x_c)

Three of ten classes give 1000, of which no data set has enough samples for a classifier of its own.

Shape letters: b batch, n samples in a stack, c channels of a sample, h w spatial, k classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor, nn

from modkit.features.classifier import Classifier
from modkit.features.images import Images
from modkit.types import Batch, Features, PositiveInt, checked

__all__ = ["StackedClassifier"]


@checked
class StackedClassifier(nn.Module):
    """Gives the features of all samples of a stack side by side, and the logits of all combinations of their classes.

    Args:
        weights: `digits`, the shipped weights for scikit-learn's digits; the path of a file that the `save` of a
            `Classifier` of single samples wrote; or None, to train in `prepare`.
        name: Name of the data in the label.
        classes: Number of combinations of classes.
        depth: Number of samples in a stack.
        size: Height and width that samples are resized to.
        epochs: Number of passes over the training data.
        seed: Seed of training.

    Raises:
        ValueError: If the channels of `x` do not divide into `depth` samples, `classes` is not the `depth`-th power of
            a whole number, or the classifier cannot be made.

    Examples:
        >>> from modkit import TensorType
        >>> features = StackedClassifier(TensorType((3, 8, 8), range=(-1, 1)), weights="digits")
        >>> features(torch.zeros(2, 3, 8, 8)).logits.shape
        torch.Size([2, 1000])
    """

    def __init__(
        self,
        x: Images,
        *,
        weights: str | None = None,
        name: str = "data",
        classes: PositiveInt = 1000,
        depth: PositiveInt = 3,
        size: int = 16,
        epochs: int = 30,
        seed: int = 0,
    ) -> None:
        super().__init__()
        each: int = round(classes ** (1 / depth))
        if each**depth != classes or x.shape[0] % depth:
            received = f"{x}, {classes} classes and depth {depth}"
            raise ValueError(f"StackedClassifier expects k^depth classes and channels by depth, got {received}")
        self.depth, self.classes = depth, each
        single = replace(x, shape=(x.shape[0] // depth, *x.shape[1:]))
        self.classifier = Classifier(
            single, weights=weights, name=name, classes=each, size=size, epochs=epochs, seed=seed
        )

    @property
    def label(self) -> str:
        """The classifier's, as that of stacks."""
        return f"stacked-{self.classifier.label}"

    def key(self) -> str:
        """Hash of the classifier and the depth.

        Raises:
            ValueError: If it has not been trained.
        """
        return f"{self.classifier.key()}-{self.depth}"

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Trains the classifier, once, on the samples of the stacks."""
        self.classifier.prepare(map(self._divide_batch, batches))

    def forward(self, x: Tensor) -> Features:
        """Computes vectors `b nd`, maps `b nc h w` and logits `b k^n`.

        Raises:
            ValueError: If `x` has another rank or number of channels, or the classifier has not been trained.
        """
        made = self.classifier(self._divide(x))
        assert made.logits is not None
        log_p = made.logits.log_softmax(1).view(len(x), self.depth, -1).unbind(1)
        logits = reduce(lambda a, b: (a[:, :, None] + b[:, None]).flatten(1), log_p)
        maps = tuple(one.reshape(len(x), -1, *one.shape[2:]) for one in made.maps)
        return Features(made.vector.reshape(len(x), -1), maps, logits)

    def _divide(self, x: Tensor) -> Tensor:
        """Returns the samples of stacks as a batch, `bn c h w`."""
        return x.reshape(len(x) * self.depth, -1, *x.shape[2:])

    def _divide_batch(self, batch: Batch) -> Batch:
        fields = {name: self._divide_labels(batch.fields[name]) for name in ("labels",) if name in batch.fields}
        return Batch(self._divide(batch.tensor), fields)

    def _divide_labels(self, labels: Tensor) -> Tensor:
        powers = self.classes ** torch.arange(self.depth - 1, -1, -1, device=labels.device)
        return (labels[:, None] // powers % self.classes).flatten()
