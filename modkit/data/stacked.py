"""Stacked data: several samples of another data set as the channels of one, so that classes multiply.

    x_i = [x_a, x_b, x_c],   label = k^2 label_a + k label_b + label_c,   (a, b, c) drawn uniformly by seed and split

Three of ten digits give 1000 classes, which a generative model covers or drops.

Shape letters: b batch, c channels, h w spatial, n samples in a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from modkit.data.splits import check_indexed, check_split, hash_contents, read_samples
from modkit.kinds import Data, DataExtras, Slot, default, read_extras
from modkit.rng import Rng
from modkit.types import Batch, PositiveInt, TensorType, checked

__all__ = ["Stacked"]


@checked
class Stacked:
    """A data set whose samples are several of another, one above the other, with the field `labels` of the whole.

    Stacks are put together when they are read. Those of a split consist of samples of that split.

    References:
        VEEGAN (Srivastava et al., 2017), section 4.2; Unrolled Generative Adversarial Networks (Metz et al., 2017),
        section 3.3, https://arxiv.org/abs/1611.02163

    Args:
        data: The data set, with channels and the field `labels`.
        depth: Number of samples in a stack.
        num: Number of stacks in the training split.
        num_test: Number of stacks in the test split.
        seed: Seed of which samples make a stack.

    Raises:
        ValueError: If the data have no channels, no labels or no samples in the split `train` or `test`, or are a
            stream, or a number is below 1.

    Examples:
        >>> from modkit.data import Digits
        >>> data = Stacked(data=lambda: Digits(size=8), num=100)
        >>> data.x.shape, data.fields["labels"].classes
        ((3, 8, 8), 1000)
    """

    def __init__(
        self,
        *,
        data: Slot[Data] = default("digits"),
        depth: PositiveInt = 3,
        num: PositiveInt = 50_000,
        num_test: PositiveInt = 10_000,
        seed: int = 0,
    ) -> None:
        self.data, self.depth, self.seed = data(), depth, seed
        check_indexed(self.data, "Stacked")
        x, labels = self.data.x, self.data.fields.get("labels")
        if lost := read_extras(self.data, DataExtras).conditions:
            raise ValueError(f"Stacked expects data without fields that models have to read, got {list(lost)}")
        if len(x.shape) < 2 or labels is None or labels.classes is None or labels.shape:
            raise ValueError(f"Stacked expects data with channels and labels, got {x} with {sorted(self.data.fields)}")
        for split in ("train", "test"):
            if not self.data.splits.get(split):
                raise ValueError(f"Stacked expects samples in the split {split}, got none")
        self.x = replace(x, shape=(depth * x.shape[0], *x.shape[1:]))
        self.classes = labels.classes
        self.fields = {"labels": TensorType((), classes=labels.classes**depth)}
        self.splits = {"train": num, "test": num_test}
        self.levels = self.data.levels
        shipped = read_extras(self.data, DataExtras).features == "classifier:digits"
        self.features = f"stacked-classifier:{'digits,' if shipped else ''}depth={depth}" if x.range else None
        rng = Rng(seed, "stacked")
        self._members = {
            split: rng.at(split).integers("members", torch.empty(count, depth), 0, self.data.splits[split])
            for split, count in self.splits.items()
        }

    @property
    def key(self) -> str:
        """Hash of the data and of which samples make a stack."""
        return hash_contents("stacked", self.data.key, self.depth, self.seed, *self.splits.values())

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the stacks at `indices`.

        Raises:
            ValueError: If there is no such split.
        """
        distinct, rows = self._find_members(split, indices)
        batch = read_samples(self.data, split, distinct, rng)
        return Batch(batch.tensor[rows].flatten(1, 2), {"labels": self._join_labels(batch.fields["labels"][rows])})

    def read_fields(self, split: str, indices: Sequence[int]) -> dict[str, Tensor]:
        """Reads the labels of the stacks at `indices`; the samples are read only if the data cannot do without."""
        distinct, rows = self._find_members(split, indices)
        read = read_extras(self.data, DataExtras).read_fields
        fields = read(split, distinct) if read else read_samples(self.data, split, distinct, Rng(0)).fields
        labels = fields["labels"]
        return {"labels": self._join_labels(labels[rows])}

    def _find_members(self, split: str, indices: Sequence[int]) -> tuple[list[int], Tensor]:
        """Finds the samples to read, each once though several stacks may have it, and the rows of each stack, `b n`."""
        check_split(self, split)
        members = self._members[split][torch.as_tensor(indices, dtype=torch.long)]
        distinct = sorted(set(members.flatten().tolist()))
        return distinct, torch.searchsorted(torch.tensor(distinct), members)

    def _join_labels(self, labels: Tensor) -> Tensor:
        weights = self.classes ** torch.arange(self.depth - 1, -1, -1)
        return (labels.long() * weights).sum(1)
