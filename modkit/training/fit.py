"""Training a model composed from Python objects, on data of any form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modkit.building.builder import Site
from modkit.building.checker import check_composed
from modkit.building.compose import convert_data, convert_settings, get_composition
from modkit.building.plan import Plan, plan_training
from modkit.data.objects import as_data
from modkit.engines.processes import choose_engine
from modkit.kinds import Data
from modkit.models.model import Model
from modkit.progress import Progress
from modkit.runs.ranks import check_restarts
from modkit.runs.run import Run
from modkit.specs.event import write_types
from modkit.specs.node import Node
from modkit.specs.settings import Evaluation, Settings
from modkit.specs.spec import Spec
from modkit.training.train import open_before
from modkit.training.training import Training
from modkit.types import TensorType

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from modkit.specs.keys import TrainKeys

__all__ = ["fit", "plan_fit"]


def fit(
    model: Model,
    data: Any,
    out: str | PathLike[str] | None = None,
    *,
    name: str = "model",
    data_name: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    evaluate: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
    progress: Progress | None = None,
    lr: float | None = None,
    epochs: float | None = None,
    **train: Unpack[TrainKeys],
) -> Run:
    """Trains a composed model in place, and writes a run.

    Parameters that do not require gradients are not trained, and modules of which none does count as frozen.
    Afterwards, also if training fails or is interrupted, the model is in eval mode.

    Args:
        model: The model, made by calling its class or by `modkit.build`.
        data: The training data. The run stores a name, a class or `functools.partial` of a data set, what `use` returns
            and a data set that keeps what it was made with (`modkit.data.recorded`). It does not store another object:
            a data set, a tensor or array `b …`, a pair or a mapping of one and its fields (`{"image": x, "label": y}`),
            a torch Dataset or IterableDataset of such items, a DataLoader of one, whose order and batches are not
            used, or a mapping of `train` and `test` to these. Hand it in again where it is needed:
            `modkit.resume(run, data=…)`.
        out: The run's directory, `runs/NAME` by default.
        name: The run's name.
        data_name: A name for an object in messages and comparisons.
        resume: Whether to resume an existing run from its last good checkpoint.
        overwrite: Whether to replace an existing run.
        evaluate: The settings of a spec's `evaluate`, to evaluate the model at the end; None for no evaluation.
        callbacks: Objects that are notified as training proceeds, by any methods of `modkit.kinds.LoggerExtras`; a
            method has only the arguments that it uses, `model` among them. One that fails is warned of and not called
            again. The run does not store them, and of several processes the first calls them.
        progress: Displays progress; by default in a terminal or a notebook.
        lr: The learning rate of `train.optimizer`, whichever it is.
        epochs: Passes over the training data in each stage, in place of `steps`; the last batch may be of the next.
        **train: The settings of a spec's `train`, see `modkit.specs.settings.Settings`: `steps=300`, `batch_size=64`,
            `optimizer=partial(torch.optim.AdamW, betas=(0.9, 0.99))`.

    Returns:
        The run. The model has its weights; `modkit.load(run, model=model)` loads the weights of a checkpoint.

    Raises:
        SpecError: If a setting is wrong; nothing has been written.
        ValueError: If the data do not fit the model, a callback has none of the methods or requires an unknown
            argument, the directory already holds a run, or a launcher may start the training again and it is not
            resumed.
        modkit.training.trainer.TrainingError: If a loss is not finite.

    Examples:
        >>> import tempfile, torch, modkit
        >>> from modkit.models import GAN
        >>> with modkit.seeded(0):
        ...     model = GAN(modkit.TensorType((2,)), generator="mlp", discriminator="mlp", z_dim=2)
        >>> points = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = modkit.fit(model, points, f"{folder}/gan", steps=2, batch_size=32, device="cpu")
        ...     run.finished
        True
    """
    check_restarts(resume)
    composed, (planned, opened) = get_composition(model), plan_fit(model, data, name, train, evaluate, lr)
    made = as_data(opened, composed.x, composed.fields)
    if epochs is not None:
        steps = _count_steps(epochs, made, planned, train)
        planned, _ = plan_fit(model, data, name, {**train, "steps": steps}, evaluate, lr)
    path = Path(out) if out is not None else Path("runs") / name
    before = open_before(path) if resume else None
    report = check_composed(model, planned, made)
    if not before:
        report.raise_refusals()
    if isinstance(composed.x, TensorType):
        report = replace(report, x=composed.x)  # the run stores the type, and with it the deviation, of this model
    return Training(
        report,
        path,
        before,
        make=lambda site: model,
        origin={"data_name": data_name} if data_name else {},
        overwrite=overwrite,
        progress=progress,
        callbacks=callbacks,
    ).execute()


def plan_fit(
    model: Model,
    data: Any,
    name: str,
    train: Mapping[str, Any],
    evaluate: Mapping[str, Any] | None = None,
    lr: float | None = None,
) -> tuple[Plan, Any]:
    """Plans the training that `fit` carries out, and opens data that the run stores.

    Returns:
        The plan, and the data: an object as it was given.

    Raises:
        SpecError: If a setting is wrong.
    """
    composed = get_composition(model)
    stored = convert_data(data)
    written = Node(write_types(composed.x, composed.fields)) if isinstance(composed.x, TensorType) else None
    spec = Spec(
        model=composed.plan.spec.model,
        name=name,
        data=stored,
        train=convert_settings(train, Settings, "train"),
        evaluate=None if evaluate is None else convert_settings(evaluate, Evaluation, "evaluate"),
        x=None if stored else written,
    )
    if lr is not None:
        spec = spec.with_value("train.optimizer.lr", lr)
    planned = plan_training(composed.plan, choose_engine(spec))
    if stored and (isinstance(data, str | Mapping) or callable(data)):
        site = Site(planned, meta=False)
        data = site.data
        site.check()
    return planned, data


def _count_steps(epochs: float, data: Data, planned: Plan, train: Mapping[str, Any]) -> int:
    """Counts the steps of a number of epochs."""
    if "steps" in train:
        raise ValueError(f"fit expects `epochs` or `steps`, got both: {epochs} and {train['steps']}")
    if not 0 < epochs < math.inf:
        raise ValueError(f"fit expects `epochs` above 0, got {epochs}")
    return math.ceil(epochs * data.splits["train"] / Site(planned, meta=True).settings.batch_size)
