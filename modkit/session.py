"""Sessions: building what a spec says, and loading what a run made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from typing import NamedTuple

from modkit.builder import Site, given_fields, given_type
from modkit.checker import check
from modkit.kinds import Data
from modkit.model import Model
from modkit.plan import plan
from modkit.run import Run
from modkit.settings import Evaluation
from modkit.spec import Spec

__all__ = ["Opened", "build", "load", "opened"]

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
) -> Model:
    """The model of a run, with the weights of a checkpoint: the averaged ones inside a stage.

    Args:
        run: The run, or its directory.
        overrides: Of the spec, for what has no weights: `model.prior.sampler=ddim`.
        spec: Stands in for the run's own where that has local parts, which no name reloads.
        device: Where to put it.
        checkpoint: Which one: the last good one where not given, the `best`, or one by its name.

    Raises:
        ValueError: If the directory holds no run, or the run no whole checkpoint, or an override changes its weights.
        SpecError: If an override is wrong.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    site, data = _site(run, overrides, spec)
    x, fields = (data.x, data.fields) if data else (given_type(site.plan.spec), given_fields(site.plan.spec))
    model: Model = site.model(x, fields)
    site.check()
    try:
        model.load_state_dict(run.weights(checkpoint))
    except RuntimeError as error:
        changes = ", ".join(overrides) or "the spec given"
        raise ValueError(
            f"{run.path} expects overrides that leave its weights as they are, got {changes}: {error}"
        ) from error
    return model.to(device).eval()


class Opened(NamedTuple):
    """What a run was trained on, by the name of its part, and how its spec measures it."""

    data: Data
    name: str
    evaluation: Evaluation | None


def opened(run: Run, overrides: Sequence[str] = (), *, spec: Spec | None = None) -> Opened:
    """The data set of a run, and how to measure it; for overrides and spec see `load`.

    Raises:
        ValueError: If it has none.
        SpecError: If an override is wrong.
    """
    site, data = _site(run, overrides, spec)
    call = site.plan.data
    if data is None or call is None:
        raise ValueError(f"{run.path}: expected a spec with `data`, got one without: name them, as data=digits")
    made = Opened(data, call.part.name, site.evaluation())
    site.check()
    return made


def _site(run: Run, overrides: Sequence[str], spec: Spec | None) -> tuple[Site, Data | None]:
    """A building of a run's spec with overrides, and its data, where it has any."""
    from modkit.overrides import apply

    spec, notices = apply(spec or Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml")), overrides)
    for notice in notices:
        _logger.warning("%s", notice)
    site = Site(plan(spec), meta=False, weights=False)
    data = site.data()
    site.check()
    return site, data
