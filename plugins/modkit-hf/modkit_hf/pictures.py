"""Pictures in Hugging Face's datasets (Lhoest et al., 2021), of which any row can be read: no streams.

Shape letters: b batch, n pictures.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import datasets
import torch
from torch import Tensor

from modkit.data.listing import Listing, number_classes, split_pictures
from modkit.data.pictures import Background, Channels, Crop, Damaged, Flip, Pictures, Size
from modkit.types import Range, checked
from modkit_hf.store import Rows, read_labels

__all__ = ["Datasets"]


@checked
class Datasets(Pictures):
    """The pictures in a dataset, `b channels size size` in [-1, 1], and their `labels` (`b`), if any.

    The largest square of a picture is resized to `size`. Labels are those of a column of classes or of integers.

    Args:
        path: A folder that `save_to_disk` wrote, or the name of a dataset of the hub, which is downloaded.
        name: Name of the hub's configuration, if it has several.
        image: The column of pictures.
        label: The column of labels; a dataset without it has none.
        train: Name of the split that is trained on.
        held_out: Name of the split `test`; if the dataset has none of this name, a share of the training split is.
        test: That share, in [0, 1).

    Raises:
        ValueError: If the dataset cannot be loaded, a column or split is missing, too many pictures are damaged, or a
            setting is out of range.

    References:
        Datasets: A Community Library for Natural Language Processing (Lhoest et al., 2021),
        https://arxiv.org/abs/2109.02846
    """

    kind = "hf/datasets"
    labels_apart = True

    def __init__(
        self,
        *,
        path: str,
        name: str | None = None,
        image: str = "image",
        label: str = "label",
        train: str = "train",
        held_out: str = "test",
        size: Size = 64,
        channels: Channels = 3,
        flip: Flip = False,
        crop: Crop = "center",
        test: Annotated[float, Range(0, below=1)] = 0.1,
        background: Background = "white",
        damaged: Damaged = 0.01,
    ) -> None:
        found = _load(path, name)
        if train not in found:
            raise ValueError(f"Datasets expects the split {train!r} in {path!r}, got {sorted(found)}")
        self._label = label
        self._tables = {"train": found[train], "test": found.get(held_out, found[train])}

        def list_rows() -> dict[str, Listing]:
            chosen = {"train": train, "test": held_out} if held_out in found else {"train": train}
            rows = {
                split: Rows(found[one], image, os.path.join(path, name or "", one)) for split, one in chosen.items()
            }
            if "test" not in rows:
                return split_pictures(rows["train"], rows["train"].list_names(), test)
            return {split: Listing(store, store.list_names()) for split, store in rows.items()}

        super().__init__(
            list_rows,
            root=path,
            size=size,
            channels=channels,
            flip=flip,
            crop=crop,
            test=test,
            background=background,
            damaged=damaged,
        )

    def _find_labels(self, listings: Mapping[str, Listing]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Finds the labels in their column, if there is one."""
        feature = self._tables["train"].features.get(self._label)
        if feature is None:
            return {}, ()
        found = {
            split: read_labels(self._tables[split], self._label, list(map(int, listing)))
            for split, listing in listings.items()
        }
        every = [one for labels in found.values() for one in labels]
        if wrong := [one for one in every if type(one) is not int or one < 0]:
            raise ValueError(
                f"Datasets expects an integer from 0 as the {self._label} of every picture, got {wrong[0]!r} for "
                f"{len(wrong):,} of {len(every):,}; for data without labels set `label` to a column that is not there"
            )
        named = isinstance(feature, datasets.ClassLabel)
        names = tuple(feature.names) if named else number_classes("Datasets", self._label, every)
        return {split: torch.tensor(labels, dtype=torch.long) for split, labels in found.items()}, names


def _load(path: str, name: str | None) -> Mapping[str, datasets.Dataset]:
    """Loads the splits of a dataset; one that was saved by itself is the split `train`."""
    saved = Path(path)
    try:
        found: Any
        if any((saved / file).is_file() for file in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(path)
        else:
            found = datasets.load_dataset(path, name)
    except Exception as error:  # whatever a file or the network provokes
        raise ValueError(f"Datasets cannot load {path!r}: {type(error).__name__}: {error}") from error
    return found if isinstance(found, Mapping) else {"train": found}
