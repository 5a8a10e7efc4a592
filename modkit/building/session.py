"""Building the model of a spec, and loading the model of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, NamedTuple, TypeAlias, cast

from torch import Tensor, nn

from modkit.building.addresses import open_run
from modkit.building.builder import Site
from modkit.building.change import check_model, restore_local
from modkit.building.checker import Report, check
from modkit.building.compose import convert_data, get_composition
from modkit.building.exchange import exchange_weights, list_revised
from modkit.building.migration import load_current, load_current_spec, read_spec
from modkit.building.pieces import keep_pieces
from modkit.building.plan import Plan, plan
from modkit.building.provenance import explain_failure, suggest_remedies, verify, verify_local
from modkit.building.review import list_findings, show_warnings
from modkit.data.objects import as_data
from modkit.kinds import Data
from modkit.models.compiling import compile_networks
from modkit.models.model import Model
from modkit.nn.trained import mark_trained
from modkit.runs.run import Run
from modkit.specs.event import read_fields, read_type
from modkit.specs.spec import SURROUNDINGS, Spec, require_spec
from modkit.types import TensorType

__all__ = [
    *("Composed", "Loaded", "build", "build_checked", "load", "load_run", "make_data_refusal", "open_data"),
    *("resolve_run", "restore_parts", "restore_std"),
]

Composed: TypeAlias = "Model | Callable[[], Model]"
"""A model that is composed like a run's, or a function that composes one."""

_logger = logging.getLogger(__name__)


def build(spec: Spec) -> Model:
    """Checks a spec and builds its model on the CPU, initialised by the spec's seed.

    Args:
        spec: The spec.

    Raises:
        SpecError: With every problem found, before any weight exists.

    Examples:
        >>> from modkit import Spec, build, use
        >>> model = build(Spec(model=use("gan", z_dim=2), data=use("ring")))
        >>> model.sample(3, seed=0).shape
        torch.Size([3, 2])
    """
    require_spec(spec, "build")
    report = check(spec)
    show_warnings(report.findings, "")
    return build_checked(report)


def build_checked(report: Report) -> Model:
    """Builds the model of a checked spec on the CPU, initialised by the spec's seed.

    Raises:
        SpecError: If a part cannot be built.
    """
    report.site.renew()
    model: Model = report.site.build_model(report.x, report.fields)
    report.site.check()
    return model


def load(
    run: Run | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    model: Composed | None = None,
    spec: Spec | None = None,
    device: str = "cpu",
    checkpoint: str | None = None,
    locked: bool = False,
    compile: bool = False,
) -> Model:
    """Loads the model of a run, in eval mode. Inside a stage, the weights are the averaged ones.

    The data are not read, since a run stores the types of its samples. Parts around the model, which only trained or
    measured it, need not be installed. A run made by an older version of a plug-in is migrated, see
    `modkit.building.migration`. If parts differ from those that the run was made with, one warning is logged. What
    `check` would refuse to train is logged as a warning as well, once for each run.

    Args:
        run: The run, its directory, a directory written by `modkit export`, or the address of one whose scheme a
            plug-in knows (`hf://user/name`), which is downloaded.
        overrides: Overrides of the spec. Those of the model change what only sampling reads, as
            `model.prior.sampler=ddim`, not what the weights were trained with; see `modkit.building.change`.
        model: A model composed like the run's, or a function that composes one. The model receives the weights in
            place and is returned.
        spec: Replaces the run's spec if that has local parts, which cannot be loaded by name.
        device: The device of the model.
        checkpoint: The name of a checkpoint, or `best`; the last good one by default.
        locked: Whether to refuse versions of parts and of torch other than those in the run's lock.
        compile: Whether to compile the networks, which pays when many samples are drawn.

    Returns:
        The model.

    Raises:
        ValueError: If the directory holds no run or no complete checkpoint, a part is missing or does not fit the
            run's weights, or an override changes the shapes of the weights.
        SpecError: If an override is wrong, or it, `spec` or `model` differs from what the weights were trained with.

    Examples:
        >>> import tempfile, torch, modkit
        >>> from modkit.models import GAN
        >>> model = GAN(modkit.TensorType((2,)), generator="mlp", discriminator="mlp", z_dim=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = modkit.fit(model, torch.zeros(8, 2), f"{folder}/run", steps=1, batch_size=4, device="cpu")
        ...     loaded = modkit.load(run)
        >>> torch.equal(loaded.sample(3, seed=0), model.sample(3, seed=0))
        True
    """
    if model is None:
        made = load_run(run, overrides, spec=spec, checkpoint=checkpoint, locked=locked).model
    elif overrides or spec:
        raise ValueError("load expects a model, or overrides and a spec to build one from, got both")
    else:
        run = open_run(run)
        verify(run, (), locked=locked)
        made, mine = _compose(model), load_current(run, checkpoint)
        restore_parts(run, mine.spec, made)
        verify_local(run, get_composition(made).plan.describe_local(), locked=locked)
        _load_weights(run, made, mine.weights, f"the {type(made).__name__} given")
    if compile:
        compile_networks(made)
    return made.to(device).eval()


class Loaded(NamedTuple):
    """An open run: its model on the CPU, and what that was built from."""

    run: Run
    model: Model
    site: Site
    x: TensorType
    fields: Mapping[str, TensorType]
    migrated: bool
    checkpoint: str

    @property
    def plan(self) -> Plan:
        """The plan of the run's spec."""
        return self.site.plan

    @property
    def data(self) -> Data:
        """Its data set.

        Raises:
            ValueError: If the spec has none.
            SpecError: If it cannot be built.
        """
        return _open_data(self.run, self.site)


def load_run(
    run: Run | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    model: Composed | None = None,
    data: Any = None,
    spec: Spec | None = None,
    site: Site | None = None,
    needs: Collection[str] = (),
    checkpoint: str | None = None,
    locked: bool = False,
) -> Loaded:
    """Loads the model of a run, as `load` does, together with what it was built from.

    Args:
        run: The run, or its directory.
        overrides: See `load`.
        model: See `restore_parts`.
        data: See `restore_parts`.
        spec: See `load`.
        needs: What to plan besides the model, of `SURROUNDINGS`: what its site is to make. Parts in the rest need not
            be installed.
        site: Where the run's spec has been planned already; it is renewed.
        checkpoint: See `load`.
        locked: See `load`.

    Raises:
        ValueError: As `load`.
        SpecError: As `load`.
    """
    if spec and model:
        raise ValueError("expected a model or a spec in place of the run's, got both")
    run = open_run(run)
    if site is None:
        verify(run, needs, locked=locked)
    mine = load_current(run, checkpoint)
    with explain_failure(run):
        if site is None:
            own, given = restore_parts(run, mine.spec, model, data)
            chosen = keep_pieces(spec, mine.spec) if spec else own
            planned = _plan_run(run, overrides, chosen, mine.spec, needs)
            if overrides or spec:
                check_model(run, mine.spec, planned)
            verify_local(run, planned.describe_local(), locked=locked)
            site = Site(planned, meta=False, weights=False)
            if given is not None:
                site.data = given
        site.renew(weights=False)
        x, fields = _find_types(run, site, mine.spec)
        made: Model = site.build_model(x, fields)
        site.check()
    weights = exchange_weights(mine.weights, made, mine.spec, site.plan, list_revised(run, mine.checkpoint))
    stored, changes = _read_stored_type(run, mine.spec), ", ".join(overrides) or "the spec given"
    if stored and x.shape != stored.shape:
        changes += f", data of samples {x} in a run that was trained with {stored}"
    _load_weights(run, made, weights, changes)
    show_warnings(list_findings(made), str(run.path))
    return Loaded(run, made, site, x, fields, bool(mine.migrations), mine.checkpoint)


def restore_parts(run: Run, own: Spec, model: Composed | None, data: Any = None) -> tuple[Spec, Data | None]:
    """Restores what a run's spec cannot hold, from a model that is composed like the run's and from its data.

    Args:
        run: The run.
        own: Its spec, which names its local parts.
        model: The model, or a function that composes it; None if the run's has no local parts. What a model was given
            built receives the weights of the run; a function composes another model for each run.
        data: The data that the run was trained on, as in `fit`; None if its spec has them by name.

    Returns:
        The spec with its local parts, and data that were given as an object.

    Raises:
        SpecError: If the model differs from what the run's weights were trained with.
        ValueError: If it was not made by calling its class, or the data have another content than the run's.
    """
    if model is not None:
        composed = get_composition(_compose(model))
        check_model(run, own, composed.plan.replace_types(composed.x, composed.fields))
        own = restore_local(own, composed.plan)
    if data is None or (node := convert_data(data)):
        return own if data is None else replace(own, data=node), None
    typed = own.with_value("x", run.lock.get("x", own.x))
    made = as_data(data, read_type(typed), read_fields(typed))
    if made.key != run.lock.get("data", made.key):
        raise ValueError(
            f"{run.path} expects the data that it was trained on, of hash {run.lock['data']}, got others of hash "
            f"{made.key}: name other data by an override, as data=digits"
        )
    return own, made


def make_data_refusal(run: Run) -> ValueError:
    """Makes the error of a run whose spec has no data, such as one of tensors, where they are needed."""
    x = _read_stored_type(run, read_spec(run))
    wanted, given = f", with samples {x}" if x else "", run.lock.get("data_name")
    return ValueError(
        f"{run.path}: expected a spec with `data`, got one without: name them, as data=digits or "
        f"data={{use: digits, size: 8}}{wanted}" + (f", or hand in {given!r} again, data=…" if given else "")
    )


def open_data(run: Run, overrides: Sequence[str] = (), *, spec: Spec | None = None) -> Data:
    """Opens the data set of a run, with overrides of its spec, without building its model.

    `spec` is the run's own with its local parts, if it has any.

    Raises:
        ValueError: If it has none, or a part of the run is missing.
    """
    with explain_failure(run):
        own = spec or load_current_spec(run)
        site = Site(_plan_run(run, overrides, own, own, SURROUNDINGS), meta=False, weights=False)
    return _open_data(run, site)


def resolve_run(run: Run) -> Spec:
    """Returns a run's spec with all that the parts that are installed now have.

    Raises:
        ValueError: If a part is missing or does not fit.
    """
    with explain_failure(run):
        return plan(load_current_spec(run)).resolved


def restore_std(x: TensorType, run: Run) -> TensorType:
    """Returns a type with the deviation that a run stores, for which its model was made, or None if it stores none."""
    stored = run.lock.get("x")
    return replace(x, std=stored.get("std") if isinstance(stored, dict) else None)


def _compose(given: Composed) -> Model:
    return cast(Model, given) if isinstance(given, nn.Module) else given()


def _open_data(run: Run, site: Site) -> Data:
    with explain_failure(run):
        data = site.data
        site.check()
    if data is None:
        raise make_data_refusal(run)
    return data


def _read_stored_type(run: Run, spec: Spec) -> TensorType | None:
    """Reads the type of the samples that a run with this spec was trained with; None of runs by earlier versions."""
    stored = run.lock.get("x")
    return read_type(spec.with_value("x", stored)) if isinstance(stored, dict) else None


def _find_types(run: Run, site: Site, own: Spec) -> tuple[TensorType, Mapping[str, TensorType]]:
    """Returns the types stored in a run; for older runs and other `data` than its own, they are read from the data."""
    spec = site.plan.spec
    # as the run has it, which may be older than a parameter of the part, or as a spec given in its place means it
    same = spec.data is not None and own.data in (spec.data, site.plan.resolved.data)
    if same and isinstance(run.lock.get("x"), dict):
        spec = spec.with_value("x", run.lock["x"])
    elif spec.data is not None and not (run.exported and spec.data == own.data):
        data = site.data
        site.check()
        if data:
            return restore_std(data.x, run), data.fields
    return read_type(spec), read_fields(spec)


def _plan_run(run: Run, overrides: Sequence[str], spec: Spec, own: Spec, needs: Collection[str]) -> Plan:
    """Plans a run's own spec, or one in its place, with overrides: the model, what is needed around it and has changed.

    The data are needed where the run stores no types.
    """
    from modkit.specs.overrides import apply

    spec, notices = apply(spec, overrides)
    for notice in notices:
        _logger.warning("%s", notice)
    typed = run.exported or isinstance(run.lock.get("x"), dict)
    changed = [key for key in SURROUNDINGS if getattr(spec, key) != getattr(own, key)]
    return plan(spec, leave=SURROUNDINGS.difference(needs, changed, () if typed else ("data",)))


def _load_weights(run: Run, model: Model, weights: Mapping[str, Tensor], changes: str) -> None:
    try:
        model.load_state_dict(weights)
        mark_trained(model)
    except RuntimeError as error:
        if reasons := suggest_remedies(run, keys=_list_misfits(model, weights)):
            raise ValueError(
                "\n".join([f"{run.path} expects parts that take its weights: {error}", *reasons])
            ) from error
        raise ValueError(
            f"{run.path} expects overrides that leave its weights as they are, got {changes}: {error}"
        ) from error


def _list_misfits(model: Model, weights: Mapping[str, Tensor]) -> list[str]:
    """Lists the keys that only one of the two has, or that have different shapes."""
    state = model.state_dict()
    shapes = [{key: value.shape for key, value in one.items()} for one in (state, weights)]
    return [key for key in {**state, **weights} if shapes[0].get(key) != shapes[1].get(key)]
