"""Proposals: new, reproducible, and better than random ones."""

import itertools
import statistics

import pytest

pytest.importorskip("optuna", reason="optuna is not installed")

from modkit_optuna.domain import Choices, Interval
from modkit_optuna.proposal import ALGORITHMS, Past, Proposal, propose, should_prune

SMALL = [Choices("a", ("x", "y", "z")), Interval("b", 1, 4, whole=True)]
PLANE = [Interval("u", -1, 1), Interval("v", 1e-3, 1e3, log=True)]


def search(axes, measure, algorithm, seed, num, better=("lower",)):
    past = []
    while len(past) < num and (made := propose(axes, past, better, algorithm, seed)) is not None:
        past.append(Past(made, "complete", measure(made.values)))
    return past


def measure_distance(values):
    """The squared distance to u = 0.5, log10(v) = 1."""
    u, v = float(values["u"]), float(values["v"])
    return [(u - 0.5) ** 2 + (len(f"{v:.0f}") - 2) ** 2 / 4]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_values_are_proposed_twice_until_there_are_no_others(algorithm):
    past = search(SMALL, lambda values: [float(values["b"])], algorithm, 0, 100)
    found = [(one.proposal.values["a"], one.proposal.values["b"]) for one in past]
    assert sorted(found) == sorted(itertools.product("xyz", "1234"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_proposal_is_a_function_of_the_past_and_the_seed(algorithm):
    past = search(PLANE, measure_distance, algorithm, 1, 25)
    for num in (0, 3, 14, 24):
        assert propose(PLANE, past[:num], ["lower"], algorithm, 1) == past[num].proposal
    assert search(PLANE, measure_distance, algorithm, 2, 1)[0].proposal != past[0].proposal


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
def test_what_is_proposed_is_better_than_at_random(algorithm):
    def find_best(name):
        runs = (search(PLANE, measure_distance, name, seed, 50) for seed in range(5))
        return statistics.median(statistics.mean(one.objectives[0] for one in past[30:]) for past in runs)

    assert find_best(algorithm) < 0.7 * find_best("random")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_past_of_every_state_and_several_objectives_are_taken(algorithm):
    past = search(
        PLANE, lambda values: [*measure_distance(values), float(values["u"])], algorithm, 0, 12, ["lower"] * 2
    )
    other = [
        Past(Proposal({"u": "0.1", "v": str(10.0 + n)}), state)
        for n, state in enumerate(("pruned", "running", "failed"))
    ]
    made = propose(PLANE, [*past, *other], ["lower", "higher"], algorithm, 0)
    assert made is not None and -1 <= float(made.values["u"]) <= 1 and 1e-3 <= float(made.values["v"]) <= 1e3


def test_generations_of_nsga2_are_kept_with_the_proposals():
    past = search(PLANE, measure_distance, "nsga2", 0, 21)
    assert [[*one.proposal.attributes.values()] for one in past] == [[0]] * 10 + [[1]] * 10 + [[2]]


def test_a_training_worse_than_the_median_is_pruned():
    others = [{10: value, 20: value / 2} for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert should_prune({10: 3.1}, others, "lower") and not should_prune({10: 2.9}, others, "lower")
    assert should_prune({10: 9.0, 20: 1.6}, others, "lower") and not should_prune({10: 9.0, 20: 1.4}, others, "lower")
    assert should_prune({10: 2.9}, others, "higher") and not should_prune({10: 3.1}, others, "higher")
    assert not should_prune({5: 9.0}, [{5: 1.0, **other} for other in others], "lower")  # before a third of 20 steps
    assert not should_prune({10: 9.0}, others[:3], "lower")  # too few to judge by
    assert not should_prune({}, others, "lower")
