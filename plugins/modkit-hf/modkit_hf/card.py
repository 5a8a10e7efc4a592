"""The model card of a run on the Hub: what `modkit export` writes, with license, task and data in the Hub's terms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from huggingface_hub import ModelCard, ModelCardData

from modkit.building.session import Loaded, load_run
from modkit.specs.node import Node
from modkit.types import TensorType

__all__ = ["find_task", "make_card"]

_HUB_DATA = "hf/datasets"


def make_card(folder: Path, repo: str, license: str | None = None) -> ModelCard:
    """Makes the card of an exported run from the one in its folder.

    Args:
        folder: The run's folder.
        repo: The repository, `USER/NAME`.
        license: The license, by the Hub's name for it; by default what the card has, or else `unknown`.

    Raises:
        ValueError: If the card or the run in the folder is damaged.
    """
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    made, data = load_run(folder), cast(ModelCardData, card.data)
    data.license = license or data.license or "unknown"
    data.library_name = "modkit"
    conditions = [made.fields[name] for name in made.model.reads if name in made.fields]
    data.pipeline_tag = data.pipeline_tag or find_task(made.x, conditions)
    data.datasets = _list_datasets(data.datasets or (), made) or None
    for result in data.eval_results or ():
        result.task_type = data.pipeline_tag or result.task_type
        result.dataset_type = next(iter(data.datasets or ()), "unknown")
    card.text = card.text.replace("USER/NAME", repo)
    return card


def find_task(x: TensorType, conditions: Sequence[TensorType]) -> str | None:
    """Finds the Hub's name for making pictures under conditions; None if it has none, as for pictures of a class.

    Args:
        x: The type of a sample.
        conditions: The types of the fields that the model reads.

    Examples:
        >>> picture, text = TensorType((3, 8, 8), (-1, 1)), TensorType((77,), classes=49408)
        >>> find_task(picture, [text]), find_task(picture, [text, picture])
        ('text-to-image', 'image-to-image')
    """
    if not _is_picture(x):
        return None
    if any(map(_is_picture, conditions)):
        return "image-to-image"
    return "text-to-image" if any(len(one.shape) == 1 and one.classes for one in conditions) else None


def _is_picture(x: TensorType) -> bool:
    return len(x.shape) == 3 and x.range is not None


def _list_datasets(names: Iterable[str], made: Loaded) -> list[str]:
    """Lists data sets by their names on the Hub; a plug-in's part has none, unless it reads a dataset of the Hub."""
    found = [name for name in names if "/" not in name]
    node = made.plan.spec.data
    path = str(node["path"]) if isinstance(node, Node) and node.use == _HUB_DATA else ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not Path(path).exists():
        found.append(path)
    return found
