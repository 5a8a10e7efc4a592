"""Review of a whole model: the notes of all Models in it and of the game, and warnings that are shown once.

A Model states what it knows of its own parts (`Model.review`), with paths relative to itself. Here they are collected
from a model and the Models inside it, and moved to their place in the spec. What is frozen was trained elsewhere, so
that nothing of it is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import torch

from modkit.building.composition import Composition
from modkit.building.pieces import is_piece
from modkit.building.plan import Plan
from modkit.errors import Problem, SpecError, is_inside, join
from modkit.kinds import Data, Fact, Finding, Note
from modkit.models.model import Model
from modkit.nn.frozen import is_frozen
from modkit.parts.signature import read_parameters
from modkit.specs.overrides import apply
from modkit.specs.settings import Evaluation, Settings, Term
from modkit.specs.spec import Spec
from modkit.training.ownership import find_origins, find_untrained
from modkit.training.players import strip_scope
from modkit.training.schedule import StageSchedule, explain_frozen, explain_idle

__all__ = [
    "list_findings",
    "make_problems",
    "review_game",
    "review_model",
    "review_samples",
    "review_training",
    "review_untrained",
    "review_watch",
    "show_warnings",
    "verify_overrides",
]

_logger = logging.getLogger(__name__)
_shown: set[tuple[str, str, str]] = set()
_INDEX = re.compile(r"\[\d+\]")


def review_samples(stages: Sequence[StageSchedule], data: Data | None) -> Iterator[Finding]:
    """Finds players that cannot be prepared with as few training samples as there are.

    Args:
        stages: The stages.
        data: The data set, if there is one.
    """
    num = None if data is None else data.splits.get("train")
    for player in {player.name: player for stage in stages for player in stage.players}.values():
        if num is not None and num < player.least:
            reason = f"{player.name} expects at least {player.least} training samples, got {num}"
            yield Finding("data", reason, refused=True)


def review_watch(stages: Sequence[StageSchedule], settings: Settings, evaluation: Evaluation) -> Iterator[Fact]:
    """States that the best checkpoint is chosen by scores of other weights than its own.

    Args:
        stages: The stages.
        settings: The settings of training.
        evaluation: The settings of the evaluation, with what is watched.
    """
    every, watched = settings.checkpoints.every, evaluation.watch.every
    if watched is None or settings.checkpoints.best is not None:
        return
    if every % watched and watched % every and every < sum(stage.steps for stage in stages):
        yield Fact(
            "evaluate.watch.every",
            f"the checkpoint at step {every} has no score of its own, as a score is taken every {watched} steps; a "
            "checkpoint without one is judged by the last score since the checkpoint before it, if there is any",
        )


def review_model(model: Model) -> Iterator[Note]:
    """Reviews a model and the Models inside it, on the meta device or with weights.

    Examples:
        >>> import modkit
        >>> from modkit.models import Diffusion
        >>> model = Diffusion(modkit.TensorType((4, 8, 8)), network="mlp", parametrization="eps")
        >>> [note.path for note in review_model(model) if isinstance(note, Finding)]
        ['model.parametrization']
    """
    frozen = tuple(f"{name}." for name, module in model.named_modules() if is_frozen(module))
    origins = find_origins(model)
    for name, part in model.named_modules():
        if not isinstance(part, Model):
            continue
        origin = origins.get(part)
        path = origin.path if origin else ".".join(filter(None, ("model", name)))
        trained = not f"{name}.".startswith(frozen)
        with torch.no_grad():
            notes = [note.move(path) for note in part.review()]
        yield from (
            replace(note, refused=False) if isinstance(note, Finding) and not trained else note for note in notes
        )


def list_findings(model: Model) -> list[Finding]:
    """Lists the findings in a model that is trained already: no override of what it was made by would mend them."""
    return [replace(note, overrides=()) for note in review_model(model) if isinstance(note, Finding)]


def review_game(
    stages: Sequence[StageSchedule], terms: Mapping[str, Iterable[str]], due: Mapping[str, Term]
) -> Iterator[Note]:
    """Reviews the players of the stages: the terms of opponents, and players and terms that never have a turn.

    Args:
        stages: The stages.
        terms: Names of each player's losses.
        due: When terms are computed, by pattern.
    """
    for number, stage in enumerate(stages):
        names = {name for player in stage.players for name in player.against}
        for player in stage.players:
            if player.against or player.name in names:
                scope = player.name.rpartition("/")[0]
                listed = ", ".join(strip_scope(term, scope) for term in terms.get(player.name, ()))
                yield Fact("", f"stage {number}: {player.name} minimises {listed}")
            if 0 < stage.steps <= player.start:
                enough = 2 * player.start
                yield Finding(
                    "train",
                    f"{player.name} starts at step {player.start} of stage {number}, which has {stage.steps} steps, so "
                    "that it never has a turn",
                    (f"train.steps={enough}", f"train.stages[{number}].steps={enough}"),
                )
    for pattern, term in due.items():
        yield from _review_term(pattern, term, stages, terms)


def _review_term(
    pattern: str, term: Term, stages: Sequence[StageSchedule], terms: Mapping[str, Iterable[str]]
) -> Iterator[Finding]:
    """Warns of a term that starts after the last turns of its player, in all stages."""
    last: dict[str, int] = {}
    for stage in stages:
        for player in stage.players:
            for turn in range(player.start, stage.steps, player.every)[-1:]:
                last[player.name] = max(last.get(player.name, 0), turn)
    for owner, turn in last.items():
        late = [name for name in terms.get(owner, ()) if fnmatchcase(name, pattern)]
        if late and turn < term.start:
            path, enough = join(("train", "terms", pattern)), 2 * term.start
            yield Finding(
                path,
                f"{', '.join(late)} of {owner} starts at step {term.start} of a stage, after the player's last turn, "
                f"at step {turn}, so that it is never computed",
                (f"{path}.start=0", f"train.steps={enough}"),
            )


def review_training(model: Model, stages: Sequence[StageSchedule], planned: Plan) -> Iterator[Finding]:
    """Finds what only training refuses: a model that is frozen whole, and stages in which nothing is trained.

    Args:
        model: The model.
        stages: The stages.
        planned: The plan, whose frozen pieces of other runs might be trained.
    """
    if reason := explain_frozen(model):
        frozen = [path for path in planned.parts if is_piece(one := planned.nodes[path]) and not one["train"]]
        outer = [path for path in frozen if not any(path.startswith(f"{other}.") for other in frozen)]
        yield Finding("model", reason, tuple(f"{path}.train=true" for path in outer), refused=True)
    for number, stage in enumerate(stages):
        if reason := explain_idle(model, stage):
            yield Finding(f"train.stages[{number}]", reason, refused=True)


def review_untrained(model: Model, composed: Composition) -> Iterator[Finding]:
    """Finds parts with initial weights that a part around them freezes, so that nothing trains them.

    A part that freezes itself, such as random features, means its weights to stay as they are. Weights that a part is
    given (of another run, of a folder, or as an object) are not initial ones, and a `ref` is trained at its own place.

    Args:
        model: The model, on the meta device or with weights.
        composed: What it was built from.
    """
    origins = composed.origins
    frozen = [name for name, module in model.named_modules(remove_duplicate=False) if is_frozen(module)]
    given = [name for name, origin in origins.items() if _has_weights(composed.plan, origin.path)]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    initial = [
        name
        for name in sorted(find_untrained(model, model.list_active_players()))
        if parameters[name].requires_grad and not is_inside(name, given)
    ]
    found: list[str] = []
    for name, origin in sorted(origins.items()):  # a part before those inside it
        around = [one for one in frozen if one != name and is_inside(name, (one,))]
        if is_inside(name, found) or not around or not any(is_inside(one, (name,)) for one in initial):
            continue
        found.append(name)
        reason = f"the {origin.kind} {origin.name} is frozen here, and nothing trains its initial weights"
        expected = "a piece of another run ({use: run, path: …}), pretrained weights, or a `ref` to a trained part"
        yield Finding(origin.path, f"{reason}; expected {expected}", refused=True)


def _has_weights(planned: Plan, path: str) -> bool:
    """Whether a part has other weights than initial ones: those of a run, of an object, or that its spec names."""
    if path not in planned.parts:
        return False
    if path in planned.objects or is_piece(planned.nodes[path]):
        return True
    declared = read_parameters(planned.parts[path])
    return any(value is not None and declared[name].initial for name, value in planned.get_arguments(path).items())


def make_problems(findings: Iterable[Finding], spec: Spec) -> list[Problem]:
    """Makes problems of those findings that are refused, with their positions in a spec."""
    return [
        Problem(finding.path, finding.message, spec.find_position(finding.path), finding.hint)
        for finding in findings
        if finding.refused
    ]


def verify_overrides(
    findings: Iterable[Finding], spec: Spec, examine: Callable[[Spec], Iterable[Finding]]
) -> tuple[Finding, ...]:
    """Keeps those overrides of findings that mend them.

    Args:
        findings: The findings.
        spec: The spec that they are about.
        examine: Examines a changed spec, and returns its findings; raises SpecError if it is wrong.
    """

    def mends(finding: Finding, override: str) -> bool:
        try:
            changed = apply(spec, [override])[0]
            return all(other.path != finding.path for other in examine(changed))
        except SpecError:
            return False

    def choose(finding: Finding) -> Iterator[str]:
        for override in finding.overrides:
            path, _, value = override.partition("=")
            shared = f"{_INDEX.sub('', path)}={value}"
            yield from [one for one in dict.fromkeys((override, shared)) if mends(finding, one)][:1]

    return tuple(replace(finding, overrides=tuple(choose(finding))) for finding in findings)


def show_warnings(notes: Iterable[Note], owner: str) -> None:
    """Logs findings as warnings, each once for each owner in this process.

    Args:
        notes: Notes, of which findings are shown.
        owner: What they are about: the directory of a run, or nothing for a spec.
    """
    for note in notes:
        if isinstance(note, Finding) and (key := (owner, note.path, note.message)) not in _shown:
            _shown.add(key)
            _logger.warning("%s%s", f"{owner}: " if owner else "", note)
