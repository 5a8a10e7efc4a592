"""The study of learned noise: its judgement of made-up figures, its specs, and how it goes on after a kill."""

import json
from dataclasses import replace

import pytest

import modkit
from examples.learned_noise import study
from examples.learned_noise.study import SYSTEMS, Plan, carry_out, read_spec
from examples.learned_noise.verdict import claims, report
from examples.studies import timed
from examples.studies.page import insert
from tests.examples.killing import resume_after_kills
from tests.files import write_fashion_mnist
from tests.test_architecture import PACKAGE


def make_rows(seeds=2, **bounds):
    """Bounds of 100 with an error of 1, but for those given."""
    other = {"sigma_min": 0.004, "sigma_max": 160.0, "steps": 10}
    means = {system: 100.0 for system in SYSTEMS} | bounds
    return {name: [{"bound": mean + shift, **other} for shift in (-1, 1)[:seeds]] for name, mean in means.items()}


@pytest.mark.parametrize(("bound", "holds"), [(102.1, True), (101.9, None), (97.0, False)])
def test_a_bound_is_above_its_rivals_by_more_than_both_errors(bound, holds):
    assert [one.holds for one in claims(make_rows(learned=bound))] == [holds] * 2
    assert [one.holds for one in claims(make_rows(seeds=1, learned=bound))] == [None] * 2
    assert report(make_rows(learned=bound)).count("**confirmed**") == (2 if holds else 0)


def test_the_page_of_the_study_has_the_marks():
    assert "new figures" in insert((PACKAGE.parent / "docs" / "learned_noise.md").read_text(), "new figures")


def test_the_fixed_schedule_is_what_the_learned_one_starts_as(tmp_path):
    write_fashion_mnist(tmp_path / "data")
    data = f"data.root={tmp_path / 'data'}"
    fixed, learned = (modkit.build(read_spec(system, (data,))) for system in ("log-linear", "learned"))
    assert learned.schedule.sigma_min == pytest.approx(fixed.schedule.sigma_min, rel=1e-5)
    assert learned.schedule.sigma_max == pytest.approx(fixed.schedule.sigma_max, rel=1e-5)
    assert type(learned.loss_weight) is type(fixed.loss_weight) and type(learned.times) is type(fixed.times)


@pytest.mark.full
def test_a_study_that_was_killed_goes_on_to_the_same_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(timed, "fit_budget", lambda spec, *given, **more: spec.with_value("train.steps", 2))
    write_fashion_mnist(tmp_path / "data")
    small = ("data.size=4", "train.batch_size=4", "train.samples.num=1", "train.device=cpu")
    overrides = (*small, "train.checkpoints={every: 1, keep: 99}", f"data.root={tmp_path / 'data'}")
    plan = Plan(seeds=1, draws=2, num=2, overrides=overrides)
    carry_out(plan, tmp_path / "whole", lambda text: None)
    whole = json.loads((tmp_path / "whole" / "study.json").read_bytes())
    kills = {"train": 1, "save": 1, "run": "learned-0", "score": "_measure", "scores": 1}
    found = resume_after_kills(study, plan, tmp_path / "broken", **kills)
    assert found == whole and set(found["rows"]) == set(SYSTEMS)


def test_a_plan_that_measures_nothing_is_refused():
    with pytest.raises(ValueError, match="Plan expects seconds above 0, a seed and a draw or more .*, got 180.0, 0, 8"):
        replace(Plan(), seeds=0)
