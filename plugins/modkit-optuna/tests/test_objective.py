"""Objectives: which scores of a report they are."""

import pytest
from modkit_optuna.objective import Value, read_objectives

from modkit.evaluation.report import Report
from modkit.types import Score

REPORT = Report(
    {
        "FD (classifier), class 3": Score(9.0, better="lower"),
        "FD (classifier)": Score(2.0, better="lower"),
        "coverage (classifier)": Score(0.5, better="higher"),
        "latency (s)": Score(0.1, better="lower"),
        "samples/s": Score(8.0, better="higher"),
        "NFE": Score(10),
    },
    {},
    seed=0,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fd", Value(2.0, "lower")),
        ("FD (classifier), class 3", Value(9.0, "lower")),
        ("Coverage", Value(0.5, "higher")),
        ("latency", Value(0.1, "lower")),
        ("samples/s", Value(8.0, "higher")),
        ("seconds", Value(0.125, "lower")),
    ],
)
def test_an_objective_is_a_score_by_its_title_or_its_beginning(name, value):
    assert read_objectives(REPORT, [name]) == {name: value}


def test_what_is_not_reported_is_left_out_and_what_is_not_directed_refused():
    assert read_objectives(REPORT, ["kid", "fd"]) == {"fd": Value(2.0, "lower")}
    with pytest.raises(ValueError, match="expects objectives with a better direction, got nfe: neither is for NFE"):
        read_objectives(REPORT, ["nfe"])
