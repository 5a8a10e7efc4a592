"""The check of a whole model before any weight exists: the types of all parts, all players' losses, all decodings.

Modules are built on the meta device, where tensors have shapes but no values, and tried there, see
`modkit.building.trial`.

Types say whether parts fit, the models' own review (`modkit.building.review`) whether they suit each other. `examine`
reports both; `check` also refuses what the review refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from torch import nn

from modkit.building.batch_review import review_engine, review_rows, review_split
from modkit.building.builder import Built, Failed, Site, copy_to_meta
from modkit.building.cache_review import review_cache
from modkit.building.candidates import suggest_candidates
from modkit.building.compose import get_composition
from modkit.building.mentions import drop_leftovers, find_unknown
from modkit.building.plan import Plan, plan
from modkit.building.report import Port, Report
from modkit.building.review import (
    make_problems,
    review_game,
    review_model,
    review_samples,
    review_training,
    review_untrained,
    review_watch,
    show_warnings,
    verify_overrides,
)
from modkit.building.trial import EMITS, Trial, try_model
from modkit.data.moments import find_type
from modkit.data.review import review_data
from modkit.data.splits import is_stream
from modkit.engines.device import read_device
from modkit.engines.local import LocalEngine
from modkit.errors import Problem, SpecError
from modkit.evaluation.needs import Measures, find_unmet
from modkit.kinds import Data, DataExtras, Fact, Finding, Note, read_extras
from modkit.models.model import Model
from modkit.nn.compiled import check_backend
from modkit.precision import check_precision
from modkit.runs.ranks import count_launched
from modkit.specs.event import read_fields, read_type
from modkit.specs.settings import Compilation, Settings
from modkit.specs.spec import Spec, require_spec
from modkit.training.players import make_participants
from modkit.training.schedule import StageSchedule, schedule_stages
from modkit.types import Event, TensorType, split_levels

__all__ = ["Port", "Report", "check", "check_composed", "examine"]

_Made = TypeVar("_Made")


def check(spec: Spec) -> Report:
    """Checks a spec, from its keywords to the shapes of all tensors, without allocating any weights.

    Examples:
        >>> from modkit import Spec, check, use
        >>> report = check(Spec(model=use("gan"), data=use("ring")))
        >>> [player.name for player in report.players], str(report.x)
        (['discriminator', 'generator'], '2 unbounded')

    Raises:
        SpecError: With every problem found: of form, of types and, where these are sound, of meaning.
    """
    require_spec(spec, "check")
    report = examine(spec)
    report.raise_refusals()
    return report


def examine(spec: Spec, *, weights: bool = True, data: Data | None = None) -> Report:
    """Checks a spec as `check` does, but only reports the findings that `check` refuses, as for what is loaded.

    Args:
        spec: The spec.
        weights: Whether pieces of other runs are to receive their weights, which must then fit; a run that goes on has
            them in its own.
        data: The data, if the spec has none.

    Raises:
        SpecError: With every problem of form and types.
    """
    trial, measures = _try_spec(spec, weights=weights, data=data)
    if not trial.site.problems and (found := drop_leftovers(spec, _list_unknown(trial, measures), _find_unknown)):
        return examine(found[0], weights=weights, data=data)
    return _verify(_make_report(trial, measures))


def _try_spec(spec: Spec, *, weights: bool = False, data: Data | None = None) -> tuple[Trial, Measures | None]:
    """Builds everything in a spec and runs the losses of its model; problems are recorded by the site.

    Raises:
        SpecError: If a part cannot be built.
    """
    site = Site(plan(spec), meta=True, weights=weights)
    if data is not None:
        site.data = data
    data = site.data
    _check_settings(site)
    x, fields = (find_type(data), data.fields) if data else (read_type(spec), read_fields(spec))
    measures = _make_measures(site, x)
    _ = [make() for make in site.settings.loggers]  # to hear what they refuse
    rows = _count_rows(site.settings)

    def find_problems(spec: Spec) -> list[Problem]:
        other = Site(plan(spec), meta=True, weights=weights)
        try_model(other, x, fields, rows=rows)
        return other.problems

    try:
        return try_model(site, x, fields, rows=rows), measures
    except SpecError as error:
        show_warnings(review_data(data), "")  # why there are no labels, where they are asked for
        raise SpecError(suggest_candidates(error.problems, site.plan, find_problems)) from None


def _find_unknown(spec: Spec) -> list[Problem]:
    """Finds what a sound spec names and its model does not have.

    Raises:
        SpecError: If the spec has another problem.
    """
    trial, measures = _try_spec(spec)
    trial.site.check()
    return _list_unknown(trial, measures)


def _list_unknown(trial: Trial, measures: Measures | None) -> list[Problem]:
    """Lists what a spec names and its model does not have, and metrics that nothing feeds."""
    metrics = {*measures.metrics, *measures.watched} if measures else set()
    unfed = [one for one in _find_unmet(trial, measures) if one.path in metrics]
    return [*_find_unknown_names(trial), *unfed]


def check_composed(model: Model, planned: Plan, data: Data) -> Report:
    """Checks the training of a composed model as `examine` does, using a copy of it on the meta device.

    Raises:
        SpecError: With every problem found.
    """
    site = Site(planned, meta=True)
    site.data = data
    _check_settings(site)
    trial = Trial(site, copy_to_meta(model), data.x, data.fields, rows=_count_rows(site.settings))
    trial.run()
    return _verify(_make_report(trial, _make_measures(site, data.x)))


def _make_report(trial: Trial, measures: Measures | None, *, mended: bool = False) -> Report:
    site, model, x, settings, data = trial.site, trial.model, trial.x, trial.site.settings, trial.site.data
    assert isinstance(x, TensorType)  # samples of data are no hierarchy
    _check_conditions(site, model, data)
    site.problems += _find_unmet(trial, measures)
    played = _check_training(trial)
    for number, stage in enumerate(settings.stages if is_stream(data) else ()):
        if stage.cache:
            site.fail(f"train.stages[{number}].cache", "expected data that can be read by index, got a stream")
    shared = _review_split(site.plan, model, trial, played, settings)
    untrained = review_untrained(model, get_composition(model))
    game = review_game(played, trial.terms, settings.terms)
    watch = review_watch(played, settings, measures.settings) if measures else ()
    cached = review_cache(model, played, settings, data, trial.flops, trial.condensing)
    of_data = () if mended else review_data(data, settings.batch_size)
    of_model = (*review_samples(played, data), *review_model(model))
    notes = (*of_data, *of_model, *untrained, *game, *shared, *watch, *cached)
    findings = tuple(note for note in notes if isinstance(note, Finding))
    if site.problems:
        site.problems += make_problems(findings, site.plan.spec)
    site.check()
    return Report(
        site=site,
        x=x,
        fields=trial.fields,
        ports=tuple(_make_port(built) for path, built in site.built.items() if path.split(".")[0] == "model"),
        players=model.list_active_players(),
        stages=played,
        terms=trial.terms,
        flops=trial.flops,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        state={name: tuple(value.shape) for name, value in model.state_dict().items()},
        modules=get_composition(model).list_renamed(),
        unchecked=trial.unchecked,
        sources=dict(site.sources),
        facts=tuple(note for note in notes if isinstance(note, Fact)),
        findings=findings,
        idle=tuple(review_training(model, played, site.plan)),
    )


def _review_split(
    planned: Plan, model: Model, trial: Trial, played: Sequence[StageSchedule], settings: Settings
) -> Iterator[Note]:
    """States what several processes or microbatches do otherwise than one, and finds microbatches of too few rows."""
    several, accumulates = planned.is_for_several(), settings.accumulate > 1
    joins = several and planned.get_arguments("train.engine").get("sync_batch_norm") is True
    yield from review_engine(settings.device, joins)
    rows = settings.count_rows(count_launched())
    yield from review_split(model, played, planned, rows=rows, several=several, accumulates=accumulates, joins=joins)
    yield from review_rows(model, played, trial.single, settings, count_launched(), joins=joins)


def _count_rows(settings: Settings) -> int:
    """Counts the rows of a microbatch of one process."""
    return max(1, settings.count_rows(count_launched()))


def _verify(report: Report) -> Report:
    """Keeps those overrides of the findings that mend them."""

    def examine_again(spec: Spec) -> tuple[Finding, ...]:
        site = Site(plan(spec, typed=True), meta=True, weights=False)
        site.data = report.data
        _check_settings(site)
        trial = try_model(site, report.x, report.fields, rows=_count_rows(site.settings))
        return _make_report(trial, None, mended=True).findings

    return replace(report, findings=verify_overrides(report.findings, report.plan.spec, examine_again))


def _check_conditions(site: Site, model: Model, data: Data | None) -> None:
    """Checks that the model reads the fields that its data have for it to read."""
    conditions = read_extras(data, DataExtras).conditions
    unread = [name for name in conditions if name not in (*model.reads, *model.inputs)]
    if not unread:
        return
    slots = [path for path, part in site.plan.parts.items() if part.kind == "conditioner"]
    slot = min(slots, key=len, default=None)  # the outermost
    if slot is None:
        expected = f"data without them, or a model with a conditioner, which {type(model).__name__} does not have"
    elif len(unread) == len(conditions):
        maps = data is not None and all(len(data.fields[name].shape) > 1 for name in unread)
        expected = f"a conditioner that reads them, such as {slot}={'map' if maps else 'vector'}"
    else:
        expected = "the conditioner to read them as well"
    message = f"the model leaves fields unread that these data have for it to read: {', '.join(unread)}"
    site.fail(slot or "data", f"{message}; expected {expected}")


def _make_measures(site: Site, x: TensorType) -> Measures | None:
    """Makes the parts of an evaluation, if the spec has one; problems are recorded by the site."""
    if (settings := site.evaluation) is None:
        return None
    features = settings.features(x=x) if settings.features else None
    metrics, watched = (
        {f"evaluate.{name}[{number}]": make() for number, make in enumerate(slots)}
        for name, slots in (("metrics", settings.metrics), ("watch.metrics", settings.watch.metrics))
    )
    return Measures(settings, features, metrics, watched)


def _find_unmet(trial: Trial, measures: Measures | None) -> list[Problem]:
    """Finds what the data, the features and the model do not provide for the evaluation."""
    site, x = trial.site, trial.x
    parts = (*measures.metrics.values(), *measures.watched.values(), measures.features) if measures else ()
    if not measures or not site.data or any(isinstance(part, Failed) for part in parts):
        return []
    assert isinstance(x, TensorType)
    unmet = find_unmet(measures, site.data, x, trial.model)
    return [Problem(path, reason, site.plan.spec.find_position(path)) for path, reason in unmet.items()]


def _find_unknown_names(trial: Trial) -> list[Problem]:
    """Finds what settings and weights name and the model does not have; a trial that stopped does not know all."""
    site = trial.site
    return find_unknown(site, trial.model, site.settings, trial.terms, complete=trial.complete)


def _check_training(trial: Trial) -> tuple[StageSchedule, ...]:
    """Checks settings against a model and returns the stages; problems are recorded by the site."""
    site, model, settings = trial.site, trial.model, trial.site.settings
    unknown = _find_unknown_names(trial)
    site.problems += unknown
    _check_precision(site, model, settings)
    _check_compilation(site, settings)
    lost = any(problem.path.startswith(("train.players", "train.stages")) for problem in unknown)
    played = () if lost else _schedule(site, model, settings)
    for number in range(len(played)):  # to hear what optimizers and learning-rate schedules refuse
        make_participants(model, settings, played, number, LocalEngine("cpu"))
    return played


def _check_precision(site: Site, model: Model, settings: Settings) -> None:
    """Checks that the model and the device have the precision; `auto` may be another device where it is trained."""
    device = _try_settings(site, lambda: read_device("cuda" if settings.device == "auto" else settings.device))
    if device is not None:
        _try_settings(site, lambda: check_precision(settings.precision, device, model), "train.precision")


def _check_compilation(site: Site, settings: Settings) -> None:
    """Checks that torch has the backend."""
    if isinstance(compilation := settings.compile, Compilation):
        _try_settings(site, lambda: check_backend(compilation.backend), "train.compile.backend")


def _check_settings(site: Site) -> None:
    """Makes the settings of training and of evaluation.

    Raises:
        SpecError: If the site has problems, with the problems of both.
    """
    for name in ("settings", "evaluation"):
        _try_settings(site, partial(getattr, site, name))
    site.check()


def _try_settings(site: Site, make: Callable[[], _Made], path: str = "train") -> _Made | None:
    try:
        return make()
    except ValueError as error:
        site.record(error, path)
        return None


def _schedule(site: Site, model: Model, settings: Settings) -> tuple[StageSchedule, ...]:
    if not model.list_active_players():  # what is frozen whole can be built and sampled; training refuses it
        return ()
    return _try_settings(site, lambda: schedule_stages(model, settings)) or ()


def _make_port(built: Built) -> Port:
    types = {name: _format_event(value) for name, value in built.types.items() if isinstance(value, TensorType | tuple)}
    cond = built.types.get("cond")
    if cond:
        types["cond"] = str(cond)
    kind, value = built.part.kind, built.value
    emits = _format_event(EMITS[kind](built)) if kind in EMITS else ""
    if kind in ("bottleneck", "model"):
        emits = "; ".join(f"{name} {_format_event(event)}" for name, event in value.latents.items())
    parameters = sum(p.numel() for p in value.parameters()) if isinstance(value, nn.Module) else 0
    return Port(built.path, kind, built.part.name, types, emits, parameters)


def _format_event(event: Event) -> str:
    return ", ".join(map(str, split_levels(event)))
