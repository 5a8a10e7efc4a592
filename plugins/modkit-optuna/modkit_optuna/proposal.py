"""Proposals: the next values of a search, from its earlier trials only.

Each proposal makes a new study of Optuna, adds the earlier trials and asks once, with a seed of its own. So it depends
on nothing but its arguments, and a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import MedianPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from modkit.comparison.ranking import Better
from modkit.rng import Rng
from modkit_optuna.domain import Domain

__all__ = ["ALGORITHMS", "Past", "Proposal", "propose", "should_prune"]

_State: TypeAlias = Literal["complete", "pruned", "running", "failed"]
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "running": TrialState.RUNNING,
    "failed": TrialState.FAIL,
}
_DIRECTIONS = {"lower": StudyDirection.MINIMIZE, "higher": StudyDirection.MAXIMIZE}
_POPULATION = 10  # of NSGA-II; its default of 50 would make one generation of a usual search
_ATTEMPTS = 20  # seeds with which the algorithm may name something new, before values are drawn at random
_DRAWS = 10_000
_WARMUP = 4  # runs that are trained to the end before any is pruned


def _make_tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of both options
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _make_nsga(seed: int) -> BaseSampler:
    return NSGAIISampler(seed=seed, population_size=_POPULATION)


def _make_random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


ALGORITHMS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": _make_tpe,
    "nsga2": _make_nsga,
    "random": _make_random,
}
"""The algorithms by name: the tree-structured Parzen estimator, NSGA-II and random values.

References:
    TPE: Multiobjective Tree-Structured Parzen Estimator (Ozaki et al., 2022), https://doi.org/10.1613/jair.1.13188
    NSGA-II: A Fast and Elitist Multiobjective Genetic Algorithm (Deb et al., 2002), https://doi.org/10.1109/4235.996017
"""


@dataclass(frozen=True)
class Proposal:
    """Values by path, and what the algorithm keeps with them."""

    values: Mapping[str, str]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Past:
    """An earlier proposal, what became of it, and its objectives if it is complete."""

    proposal: Proposal
    state: _State
    objectives: Sequence[float] = ()


def propose(
    axes: Sequence[Domain], past: Sequence[Past], better: Sequence[Better], algorithm: str, seed: int
) -> Proposal | None:
    """Proposes values that no earlier proposal has; None if there are none.

    Args:
        axes: The axes.
        past: The earlier proposals, in their order.
        better: The direction of each objective.
        algorithm: One of `ALGORITHMS`.
        seed: Seed of the search.
    """
    total = 1.0
    for axis in axes:
        total *= axis.total
    if len(past) >= total:
        return None
    known = [one.proposal.values for one in past]
    for attempt in range(_DRAWS):
        name = algorithm if attempt < _ATTEMPTS else "random"
        own = Rng("search", seed, len(past), attempt).draw_seed() % 2**32
        made = _ask(axes, past if name != "random" else (), better, ALGORITHMS[name](own))
        if made.values not in known:
            return made
    return None


def should_prune(scores: Mapping[int, float], others: Sequence[Mapping[int, float]], better: Better) -> bool:
    """Tells whether a training is worse than the median of the others, by the scores that were watched.

    It is judged after a third of the others' steps, once four of them are finished.

    Args:
        scores: Its scores by step.
        others: Those of the trainings that are finished.
        better: Which direction is better.
    """
    if not scores:
        return False
    study = _make_study([better], RandomSampler())
    for other in others:
        study.add_trial(create_trial(value=list(other.values())[-1], intermediate_values=dict(other)))
    study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values=dict(scores)))
    begun = max((step for other in others for step in other), default=0) // 3
    return MedianPruner(n_startup_trials=_WARMUP, n_warmup_steps=begun).prune(study, study.trials[-1])


def _make_study(better: Sequence[Better], sampler: BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=[_DIRECTIONS[one] for one in better], sampler=sampler)


def _ask(axes: Sequence[Domain], past: Sequence[Past], better: Sequence[Better], sampler: BaseSampler) -> Proposal:
    spaces = {axis.path: axis.distribution for axis in axes}
    study = _make_study(better, sampler)
    for one in past:
        params = {axis.path: axis.read(one.proposal.values[axis.path]) for axis in axes}
        study.add_trial(
            create_trial(
                state=_STATES[one.state],
                values=list(one.objectives) or None,
                params=params,
                distributions=spaces,
                system_attrs=dict(one.proposal.attributes),
            )
        )
    asked = study.ask(spaces)
    values = {axis.path: axis.write(asked.params[axis.path]) for axis in axes}
    return Proposal(values, study.trials[-1].system_attrs)
