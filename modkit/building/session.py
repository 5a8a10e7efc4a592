"""Sessions: building what a spec says, and loading what a run made."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NamedTuple

from torch import Tensor

from modkit.building.builder import Site
from modkit.building.checker import check
from modkit.building.migration import load_current, load_current_spec
from modkit.building.plan import Plan, plan
from modkit.building.provenance import explain_failure, suggest_remedies, verify
from modkit.errors import Problem, SpecError
from modkit.kinds import Data
from modkit.models.model import Model
from modkit.runs.run import Run
from modkit.specs.event import read_fields, read_type
from modkit.specs.node import describe
from modkit.specs.settings import Evaluation
from modkit.specs.spec import Spec
from modkit.types import TensorType

__all__ = ["Loaded", "Opened", "build", "load", "load_run", "open_data", "open_run"]

_logger = logging.getLogger(__name__)


def build(spec: Spec) -> Model:
    """Checks a spec and builds its model, initialised by the spec's seed, on the CPU.

    Raises:
        SpecError: With every problem found, before any weight exists.
    """
    if not isinstance(spec, Spec):
        raise SpecError(Problem("", f"build expects a Spec, got {describe(spec)}: Spec(model=use(…), data=use(…))"))
    report = check(spec)
    site = Site(report.plan, meta=False)
    model: Model = site.model(report.x, report.fields)
    site.check()
    return model


def load(
    run: Run | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    model: Model | None = None,
    spec: Spec | None = None,
    device: str = "cpu",
    checkpoint: str | None = None,
    locked: bool = False,
) -> Model:
    """The model of a run, in eval mode, with the weights of a checkpoint: the averaged ones inside a stage.

    The data are not touched: a run keeps the types of its samples. What an older version of a plug-in made goes through
    its `migrate`, see `modkit.building.migration`. Parts that differ from those that the run was made with cause one
    warning.

    Args:
        run: The run, or its directory, or one that `modkit export` wrote.
        overrides: Of the spec, for what has no weights: `model.prior.sampler=ddim`.
        model: A model that was composed as the run's was: it receives the weights, in place, and is returned.
        spec: Stands in for the run's own where that has local parts, which no name reloads.
        device: Where to put it.
        checkpoint: Which one: the last good one where not given, the `best`, or one by its name.
        locked: Refuse parts and a torch that are not those of the run's lock.

    Raises:
        ValueError: If the directory holds no run, or the run no whole checkpoint, a part of it is missing or does not
            fit what the run holds, an override changes its weights, or the model given has other weights.
        SpecError: If an override is wrong.
    """
    if model is None:
        made = load_run(run, overrides, spec=spec, checkpoint=checkpoint, locked=locked).model
    elif overrides or spec:
        raise ValueError("load expects a model, or overrides and a spec to build one from, got both")
    else:
        run = run if isinstance(run, Run) else Run.open(run)
        made = model
        _load_weights(run, made, run.weights(checkpoint), f"the {type(model).__name__} given")
    return made.to(device).eval()


class Loaded(NamedTuple):
    """A run's model, on the CPU, and what it was built from."""

    model: Model
    site: Site
    x: TensorType
    fields: Mapping[str, TensorType]
    migrated: bool

    @property
    def plan(self) -> Plan:
        """The plan of its spec."""
        return self.site.plan


def load_run(
    run: Run | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    spec: Spec | None = None,
    planned: Plan | None = None,
    checkpoint: str | None = None,
    locked: bool = False,
) -> Loaded:
    """What `load` does, with what the model was built from; a plan that is there already need not be made again.

    Raises:
        ValueError: As `load`.
        SpecError: As `load`.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if planned is None:
        verify(run, locked=locked)
    mine = load_current(run, checkpoint)
    with explain_failure(run):
        site = _make_site(run, overrides, spec or mine.spec, planned)
        x, fields = _types(run, site, mine.spec)
        model: Model = site.model(x, fields)
        site.check()
    _load_weights(run, model, mine.weights, ", ".join(overrides) or "the spec given")
    return Loaded(model, site, x, fields, bool(mine.migrations))


class Opened(NamedTuple):
    """What a run was trained on, by the name of its part, and how its spec measures it."""

    data: Data
    name: str
    evaluation: Evaluation | None


def open_data(run: Run, site: Site) -> Opened:
    """Reads the data set of a run, and how to measure it.

    Raises:
        ValueError: If the spec has none.
        SpecError: If it cannot be built.
    """
    with explain_failure(run):
        data, call = site.data(), site.plan.data
        site.check()
        if data is None or call is None:
            raise ValueError(f"{run.path}: expected a spec with `data`, got one without: name them, as data=digits")
        made = Opened(data, call.part.name, site.evaluation())
        site.check()
    return made


def open_run(run: Run) -> Opened:
    """The data set of a run, and how to measure it, without its model.

    Raises:
        ValueError: If it has none, or a part of the run is missing.
    """
    with explain_failure(run):
        site = _make_site(run, (), load_current_spec(run), None)
    return open_data(run, site)


def _types(run: Run, site: Site, own: Spec) -> tuple[TensorType, Mapping[str, TensorType]]:
    """The types of samples that a run keeps; runs made before it did, and overrides of `data`, read the data."""
    spec = site.plan.spec
    if spec.data is not None and spec.data == own.data and isinstance(run.lock.get("x"), dict):
        spec = spec.with_value("x", run.lock["x"])
    elif spec.data is not None and not (run.exported and spec.data == own.data):
        data = site.data()
        site.check()
        if data:
            return data.x, data.fields
    return read_type(spec), read_fields(spec)


def _make_site(run: Run, overrides: Sequence[str], spec: Spec, planned: Plan | None) -> Site:
    """A building of a run's spec with overrides."""
    from modkit.specs.overrides import apply

    if planned is None:
        spec, notices = apply(spec, overrides)
        for notice in notices:
            _logger.warning("%s", notice)
        planned = plan(spec)
    return Site(planned, meta=False, weights=False)


def _load_weights(run: Run, model: Model, weights: Mapping[str, Tensor], changes: str) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        if reasons := suggest_remedies(run, keys=_misfits(model, weights)):
            raise ValueError(
                "\n".join([f"{run.path} expects parts that take its weights: {error}", *reasons])
            ) from error
        raise ValueError(
            f"{run.path} expects overrides that leave its weights as they are, got {changes}: {error}"
        ) from error


def _misfits(model: Model, weights: Mapping[str, Tensor]) -> list[str]:
    """The keys that only one of the two has, or under other shapes."""
    state = model.state_dict()
    shapes = [{key: value.shape for key, value in one.items()} for one in (state, weights)]
    return [key for key in {**state, **weights} if shapes[0].get(key) != shapes[1].get(key)]
