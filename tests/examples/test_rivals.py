"""The study of rivals: its judgement of made-up figures, its specs, and a run of it."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import modkit
from examples.rivals import __main__ as command
from examples.rivals.plan import FIGURES, PLANS, Plan
from examples.rivals.study import carry_out, read_spec
from examples.rivals.verdict import judge, report
from examples.studies import timed
from examples.studies.page import insert
from tests.files import write_fashion_mnist
from tests.test_architecture import PACKAGE

SMALL = ("train.batch_size=4", "train.samples.num=1", "train.device=cpu", "model.generator.channels=4")


def make_rows(seeds=2, **figures):
    """Figures of 10 with an error of 1; those of the rival are given."""
    return {
        name: [{one: means.get(one, 10.0) + shift for one in FIGURES} for shift in (-1, 1)[:seeds]]
        for name, means in {"DCGAN": {}, "other": figures}.items()
    }


@pytest.mark.parametrize("figure", FIGURES)
def test_a_rival_is_better_by_more_than_both_errors_in_the_figure_s_own_direction(figure):
    better = 1 if FIGURES[figure] else -1
    for apart, holds in ((2.1, True), (1.9, None), (-1.9, None), (-2.1, False)):
        found = [claim.holds for claim in judge(make_rows(**{figure: 10 + better * apart}))]
        assert found == [holds if one == figure else None for one in FIGURES]


def test_one_seed_decides_nothing_and_the_report_has_all_systems():
    assert {claim.holds for claim in judge(make_rows(seeds=1, FD=0.0))} == {None}
    text = report(make_rows(FD=1.0))
    assert text.count("**confirmed**") == 1 and "| other | 1 ± 1 | 10 ± 1 |" in text


@pytest.mark.parametrize("part", PLANS)
def test_the_page_of_the_study_has_a_place_for_each_part(part):
    assert "new figures" in insert((PACKAGE.parent / "docs" / "rivals.md").read_text(), "new figures", part=part)


@pytest.mark.parametrize("part", PLANS)
def test_rivals_have_as_many_weights(part, tmp_path):
    write_fashion_mnist(tmp_path / "data")
    plan = replace(PLANS[part], overrides=(f"data.root={tmp_path / 'data'}",) if part == "gans-fashion" else ())
    sizes = [sum(one.numel() for one in modkit.build(read_spec(name, plan)).parameters()) for name in plan.systems]
    assert all(0.9 < size / sizes[0] < 1.1 for size in sizes)


@pytest.mark.wide
def test_a_part_is_trained_measured_and_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(timed, "fit_budget", lambda spec, *given, **more: spec.with_value("train.steps", 2))
    plan = replace(PLANS["gans-few"], seeds=1, num=24, overrides=SMALL)
    carry_out(plan, tmp_path, lambda line: None)
    found = json.loads((tmp_path / "study.json").read_bytes())
    assert set(found["rows"]) == {"DCGAN", "ADA"}
    assert all(set(FIGURES) <= set(row) and row["steps"] == 2 for (row,) in found["rows"].values())
    assert len(found["claims"]) == len(FIGURES)


@pytest.mark.parametrize(("words", "changed"), [
    ([], {}),
    (["--quick", "--seeds", "2"], {"seconds": 30.0, "seeds": 2}),
    (["--minutes", "2", "--data", "there"], {"seconds": 120.0, "overrides": ("data.root=there",)}),
])  # fmt: skip
def test_the_command_sizes_the_plan(words, changed, monkeypatch):
    plans = []
    monkeypatch.setattr(command, "run_study", lambda given, plan, *_: plans.append((plan, given.out)))
    monkeypatch.setattr(sys, "argv", ["rivals", "gans-digits", *words])
    command.main()
    assert plans == [(replace(PLANS["gans-digits"], **changed), Path("runs/rivals/gans-digits"))]


def test_the_help_names_no_option_that_is_not_there(monkeypatch, capsys):
    """The fault: `--only`, for parts of two systems."""
    monkeypatch.setattr(sys, "argv", ["rivals", "--help"])
    with pytest.raises(SystemExit):
        command.main()
    told, _, options = capsys.readouterr().out.partition("positional arguments:")
    assert set(re.findall("--[a-z]+", told)) <= set(re.findall("--[a-z]+", options))


def test_a_plan_without_a_rival_is_refused():
    with pytest.raises(
        ValueError, match="Plan expects seconds above 0, .* a baseline with rivals, got 300.0, 3, 1, 1437"
    ):
        Plan("gans", {"DCGAN": ("dcgan.yaml",)})
