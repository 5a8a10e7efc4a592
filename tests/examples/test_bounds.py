"""The study of bounds: its judgement of made-up figures, its specs, and how it goes on after a kill."""

import json
from dataclasses import replace

import pytest

import modkit
from examples.bounds import study
from examples.bounds.study import SYSTEMS, Plan, carry_out, read_spec
from examples.bounds.verdict import claims, report
from examples.studies import timed
from examples.studies.page import insert
from tests.examples.killing import resume_after_kills
from tests.files import write_fashion_mnist
from tests.test_architecture import PACKAGE

SMALL = (
    "data.data.size=4",
    "train.batch_size=4",
    "train.samples.num=1",
    "train.device=cpu",
    "train.checkpoints={every: 1, keep: 99}",
)
PLAN = Plan(seeds=1, draws=2, num=2)


def make_rows(seeds=2, **bounds):
    """Bounds of -100 with an error of 1, but for those given."""
    other = {"ELBO": -105.0, "weights": 1e6, "steps": 10, "skipped": 0}
    means = {system: -100.0 for system in SYSTEMS} | bounds
    return {name: [{"bound": mean + shift, **other} for shift in (-1, 1)[:seeds]] for name, mean in means.items()}


@pytest.mark.parametrize(("bound", "holds"), [(-97.9, True), (-98.1, None), (-101.8, None), (-103.0, False)])
@pytest.mark.parametrize(("system", "index"), [("ladder", 0), ("IWAE-50", 1), ("IAF", 2)])
def test_a_bound_is_above_its_rivals_by_more_than_both_errors(system, index, bound, holds):
    found = claims(make_rows(**{system: bound}))
    assert [one.holds for one in found] == [holds if place == index else None for place in range(3)]
    assert f"{bound:.4g} ± 1 against -100 ± 1" in str(found[index])


def test_one_seed_decides_nothing_and_the_report_has_all_systems():
    assert [one.holds for one in claims(make_rows(seeds=1, ladder=-1.0))] == [None] * 3
    text = report(make_rows(ladder=-90.0))
    assert text.count("**confirmed**") == 1 and text.count("**undecided**") == 2
    assert "| ladder | -90 ± 1 | -105 ± 0 | 1,000,000 ± 0 | 10 ± 0 | 0 ± 0 |" in text


def test_the_page_of_the_study_has_the_marks():
    assert "new figures" in insert((PACKAGE.parent / "docs" / "bounds.md").read_text(), "new figures")


@pytest.mark.wide
def test_rivals_have_as_many_weights(tmp_path):
    write_fashion_mnist(tmp_path / "data")
    data = f"data.data.root={tmp_path / 'data'}"
    size = {
        system: sum(one.numel() for one in modkit.build(read_spec(system, (data,))).parameters()) for system in SYSTEMS
    }
    assert all(0.95 < one / size["VAE"] < 1.05 for one in size.values())


@pytest.mark.full
def test_a_study_that_was_killed_goes_on_to_the_same_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(timed, "fit_budget", lambda spec, *given, **more: spec.with_value("train.steps", 2))
    write_fashion_mnist(tmp_path / "data")
    plan = replace(PLAN, overrides=(*SMALL, f"data.data.root={tmp_path / 'data'}"))
    told = []
    carry_out(plan, tmp_path / "whole", told.append)
    whole = json.loads((tmp_path / "whole" / "study.json").read_bytes())
    trained = [line.split()[1] for line in told if line.startswith("training")]
    assert trained == [f"{system.lower()}-0" for system in SYSTEMS]
    kills = {"train": 2, "save": 1, "run": "iaf-0", "score": "_measure", "scores": 1}
    found = resume_after_kills(study, plan, tmp_path / "broken", **kills)
    assert found == whole and set(found["rows"]) == set(SYSTEMS)
    assert (tmp_path / "broken" / "report.md").read_text().count("\n- ") == 3


def test_a_plan_that_measures_nothing_is_refused():
    with pytest.raises(
        ValueError, match="Plan expects seconds above 0, a seed and a draw or more .*, got 600.0, 0, 100"
    ):
        Plan(seeds=0)
