import math

import pytest
import torch

import modkit
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.specs.settings import Term


def test_a_step_outside_training_updates_nothing_and_wants_every_term():
    step = modkit.StepContext(Rng(0))
    assert (step.index, step.training) == (0, False)
    assert step.wants("anything") and step.at("prior").wants("anything")


def test_a_child_draws_and_names_terms_under_its_own_name():
    terms = {"outer/prior/r1": Term(every=7), "outer/prior/kl": Term(start=8), "r1": Term(start=100)}
    step = StepContext(Rng(0), 7, True, terms).at("outer").at("prior")
    assert (step.index, step.training) == (7, True)
    assert step.wants("r1") and not step.wants("kl")
    like = torch.empty(2, 2)
    assert torch.equal(step.rng.normal("x", like), Rng(0, "outer", "prior").normal("x", like))


def test_lazy_terms_are_due_from_their_start_on_each_nth_step():
    terms = {"*r1": Term(every=4, start=2), "critic/*": Term(every=2)}

    def due(name):
        return [index for index in range(13) if StepContext(Rng(0), index, terms=terms).wants(name)]

    assert due("r1") == [2, 6, 10]
    assert due("critic/r1") == [2, 6, 10]
    assert due("critic/gp") == [0, 2, 4, 6, 8, 10, 12]
    assert due("nll") == list(range(13))


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("terms", [{"r1": 4}, {"r1": 16}, {"r1": 4, "r*": 6}])
def test_the_gain_of_a_lazy_term_is_the_number_of_turns_for_each_in_which_it_is_computed(every, terms):
    settings = {pattern: Term(every=num, rescale=pattern == "r1") for pattern, num in terms.items()}
    turns = range(0, 240, every)
    steps = [StepContext(Rng(0), index, terms=settings, previous=index - every, every=every) for index in turns]
    due = [step.find_gain("r1") for step in steps if step.wants("r1")]
    if len(terms) == 1 or every == 1:  # else two rules may be due in one turn, though at different steps
        assert sum(due) == pytest.approx(len(turns), abs=max(terms.values()))
    assert set(due) == {max(math.lcm(*terms.values()) / every, 1.0)}
    assert {step.at("prior").find_gain("r1") for step in steps} == {1.0}


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("start", [0, 1, 7])
def test_a_lazy_term_is_due_in_the_first_turn_at_or_after_each_of_its_steps(every, start):
    turns = range(start, 60, every)
    for term in (Term(every=4), Term(every=4, start=2), Term(every=6, start=9)):
        steps = range(term.start, turns[-1] + 1, term.every)
        wanted = {next(turn for turn in turns if turn >= step) for step in steps}
        contexts = [
            StepContext(Rng(0), turn, terms={"r1": term}, previous=before)
            for before, turn in zip([-1, *turns], turns, strict=False)
        ]
        assert {step.index for step in contexts if step.at("critic").wants("r1") and step.wants("r1")} == wanted


def test_terms_against_a_player_wait_for_it():
    step = StepContext(Rng(0), waiting=("critic", "prior/second"))
    for term in ("adversarial", "adversarial/critic", "prior/adversarial", "prior/adversarial/second"):
        assert not step.wants(term) and not step.wants(term.replace("adversarial", "class"))
    for term in ("nll", "adversarial/other", "prior/adversarial/critic", "outer/adversarial", "adversarial/second"):
        assert step.wants(term)
    assert not step.at("prior").wants("adversarial") and step.at("prior").wants("adversarial/critic")


def test_a_subclass_has_children_of_its_own_class():
    class Refusing(StepContext):
        def wants(self, term):
            return False

    assert not Refusing(Rng(0)).at("prior").wants("r1")
