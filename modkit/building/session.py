"""Sessions: building what a spec says, and loading what a run made."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NamedTuple

from torch import Tensor

from modkit.building.builder import Site, given_fields, given_type
from modkit.building.checker import check
from modkit.building.migration import current, current_spec
from modkit.building.plan import Plan, plan
from modkit.building.provenance import explained, remedies, verify
from modkit.kinds import Data
from modkit.models.model import Model
from modkit.runs.run import Run
from modkit.specs.settings import Evaluation
from modkit.specs.spec import Spec
from modkit.types import TensorType

__all__ = ["Loaded", "Opened", "build", "load", "loaded", "opened"]

_logger = logging.getLogger(__name__)


def build(spec: Spec) -> Model:
    """Checks a spec and builds its model, initialised by the spec's seed, on the CPU.

    Raises:
        SpecError: With every problem found, before any weight exists.
    """
    check(spec)
    site = Site(plan(spec), meta=False)
    data = site.data()
    x, fields = (data.x, data.fields) if data else (given_type(spec), given_fields(spec))
    model = site.model(x, fields)
    site.check()
    return model  # type: ignore[no-any-return]


def load(
    run: Run | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    spec: Spec | None = None,
    device: str = "cpu",
    checkpoint: str | None = None,
    locked: bool = False,
) -> Model:
    """The model of a run, with the weights of a checkpoint: the averaged ones inside a stage.

    What an older version of a plug-in made goes through its `migrate`, see `modkit.building.migration`. Parts that
    differ from those that the run was made with cause one warning.

    Args:
        run: The run, or its directory, or one that `modkit export` wrote.
        overrides: Of the spec, for what has no weights: `model.prior.sampler=ddim`.
        spec: Stands in for the run's own where that has local parts, which no name reloads.
        device: Where to put it.
        checkpoint: Which one: the last good one where not given, the `best`, or one by its name.
        locked: Refuse parts and a torch that are not those of the run's lock.

    Raises:
        ValueError: If the directory holds no run, or the run no whole checkpoint, a part of it is missing or does not
            fit what the run holds, or an override changes its weights.
        SpecError: If an override is wrong.
    """
    return loaded(run, overrides, spec=spec, checkpoint=checkpoint, locked=locked).model.to(device).eval()


class Loaded(NamedTuple):
    """A run's model, on the CPU, and what it was built from."""

    model: Model
    plan: Plan
    x: TensorType
    fields: Mapping[str, TensorType]
    data: Data | None
    migrated: bool


def loaded(
    run: Run | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    spec: Spec | None = None,
    checkpoint: str | None = None,
    locked: bool = False,
) -> Loaded:
    """What `load` does, with what the model was built from.

    Raises:
        ValueError: As `load`.
        SpecError: As `load`.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    verify(run, locked=locked)
    mine = current(run, checkpoint)
    with explained(run):
        site = _site(run, overrides, spec or mine.spec)
        # what was exported says its types, and may be far from its data
        data = None if run.exported and site.plan.spec.data == mine.spec.data else site.data()
        site.check()
        x, fields = (data.x, data.fields) if data else (given_type(site.plan.spec), given_fields(site.plan.spec))
        model: Model = site.model(x, fields)
        site.check()
    try:
        model.load_state_dict(mine.weights)
    except RuntimeError as error:
        if reasons := remedies(run, keys=_misfits(model, mine.weights)):
            raise ValueError(
                "\n".join([f"{run.path} expects parts that take its weights: {error}", *reasons])
            ) from error
        changes = ", ".join(overrides) or "the spec given"
        raise ValueError(
            f"{run.path} expects overrides that leave its weights as they are, got {changes}: {error}"
        ) from error
    return Loaded(model, site.plan, x, fields, data, bool(mine.migrations))


class Opened(NamedTuple):
    """What a run was trained on, by the name of its part, and how its spec measures it."""

    data: Data
    name: str
    evaluation: Evaluation | None


def opened(run: Run, overrides: Sequence[str] = (), *, spec: Spec | None = None) -> Opened:
    """The data set of a run, and how to measure it; for overrides and spec see `load`.

    Raises:
        ValueError: If it has none, or a part of the run is missing.
        SpecError: If an override is wrong.
    """
    with explained(run):
        site = _site(run, overrides, spec or current_spec(run))
        data, call = site.data(), site.plan.data
        site.check()
        if data is None or call is None:
            raise ValueError(f"{run.path}: expected a spec with `data`, got one without: name them, as data=digits")
        made = Opened(data, call.part.name, site.evaluation())
        site.check()
    return made


def _site(run: Run, overrides: Sequence[str], spec: Spec) -> Site:
    """A building of a run's spec with overrides."""
    from modkit.specs.overrides import apply

    spec, notices = apply(spec, overrides)
    for notice in notices:
        _logger.warning("%s", notice)
    return Site(plan(spec), meta=False, weights=False)


def _misfits(model: Model, weights: Mapping[str, Tensor]) -> list[str]:
    """The keys that only one of the two has, or under other shapes."""
    state = model.state_dict()
    shapes = [{key: value.shape for key, value in one.items()} for one in (state, weights)]
    return [key for key in {**state, **weights} if shapes[0].get(key) != shapes[1].get(key)]
