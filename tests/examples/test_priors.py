"""The study of priors: its judgement of made-up figures, its specs, and how it goes on after a kill."""

import json
from dataclasses import replace

import pytest

import modkit
from examples.priors import study
from examples.priors.study import PRIORS, Plan, carry_out, read_spec
from examples.priors.verdict import claims, report
from examples.studies.page import insert
from tests.examples.killing import resume_after_kills
from tests.files import write_fashion_mnist
from tests.test_architecture import PACKAGE

SMALL = ("data.data.size=4", "train.batch_size=4", "train.samples.num=1", "train.device=cpu")
KEPT = "train.checkpoints={every: 1, keep: 99}"


def make_rows(seeds=2, **bounds):
    """Bounds of -100 with an error of 1, but for those given."""
    means = {prior: -100.0 for prior in PRIORS} | bounds
    other = {"ELBO": -105.0, "weights": 1e6}
    return {name: [{"bound": mean + shift, **other} for shift in (-1, 1)[:seeds]] for name, mean in means.items()}


@pytest.mark.parametrize(("bound", "holds"), [(-97.9, True), (-98.1, None), (-103.0, False)])
def test_a_prior_is_judged_beside_the_standard_normal_by_both_errors(bound, holds):
    found = claims(make_rows(vamp=bound))
    assert [one.holds for one in found] == [holds, None]
    assert [one.holds for one in claims(make_rows(seeds=1, vamp=-1.0))] == [None] * 2
    assert f"| vamp | {bound:.4g} ± 1 |" in report(make_rows(vamp=bound))


def test_the_page_of_the_study_has_the_marks():
    assert "new figures" in insert((PACKAGE.parent / "docs" / "priors.md").read_text(), "new figures")


def test_only_the_prior_differs(tmp_path):
    write_fashion_mnist(tmp_path / "data")
    data = f"data.data.root={tmp_path / 'data'}"
    coders = {}
    for prior in PRIORS:
        model = modkit.build(read_spec(prior, (data, *SMALL)))
        coder = model if PRIORS[prior] is None else model.autoencoder
        coders[prior] = {key: value.shape for key, value in coder.state_dict().items()}
    assert all(one == coders["normal"] for one in coders.values())


@pytest.mark.full
def test_a_study_that_was_killed_goes_on_to_the_same_figures(tmp_path):
    write_fashion_mnist(tmp_path / "data")
    overrides = (*SMALL, KEPT, f"data.data.root={tmp_path / 'data'}")
    plan = Plan(steps=2, seeds=1, draws=2, num=2, overrides=overrides)
    carry_out(plan, tmp_path / "whole", lambda line: None)
    whole = json.loads((tmp_path / "whole" / "study.json").read_bytes())
    kills = {"train": 1, "save": 1, "run": "vamp-0", "score": "_measure", "scores": 1}
    found = resume_after_kills(study, plan, tmp_path / "broken", **kills)
    assert found == whole and set(found["rows"]) == set(PRIORS)


def test_a_plan_that_measures_nothing_is_refused():
    with pytest.raises(ValueError, match="Plan expects a step, a seed and a draw or more .*, got 10000, 0, 500"):
        replace(Plan(), seeds=0)
