"""The study of searches: the volume of a front, what is found of a made-up one, and how it goes on after a kill."""

import json
import random

import pytest

pytest.importorskip("optuna", reason="optuna is not installed")
pytest.importorskip("modkit_optuna", reason="modkit-optuna is not installed")

from examples.search_front import study
from examples.search_front.study import Plan, carry_out, search_cells
from examples.search_front.volume import measure_volume, scale

PLAN = Plan(samplers=("euler", "heun"), steps=(1, 2), grids=("even",), seeds=2, marks=(2, 4), num=4, rounds=1)
SMALL = ("train.batch_size=8", "train.stages[0].steps=1", "train.stages[1].steps=1", "model.prior.network.width=8")


def test_the_volume_is_the_area_that_random_points_would_find():
    draw = random.Random(0)
    points = [(draw.random(), draw.random()) for _ in range(5)]
    tries = [(draw.random(), draw.random()) for _ in range(20_000)]
    found = sum(any(a <= x and b <= y for a, b in points) for x, y in tries) / len(tries)
    assert measure_volume(points) == pytest.approx(found, abs=0.012)  # 3.4 standard errors of a share
    assert measure_volume([]) == 0 and measure_volume([(0, 0)]) == 1


def test_points_are_scaled_as_logarithms():
    assert scale([(1, 8), (10, 2), (100, 4)]) == [(0, 1), (0.5, 0), (1, pytest.approx(0.5))]
    with pytest.raises(ValueError, match="differ in each coordinate"):
        scale([(1, 2), (1, 3)])


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2", "random"])
def test_a_search_tries_each_cell_once(algorithm):
    figures = {cell: (float(cell[1]), 1 / float(cell[1])) for cell in PLAN.cells}
    cells = search_cells(PLAN, figures, algorithm, 0)
    assert sorted(cells) == sorted(PLAN.cells)
    assert cells == search_cells(PLAN, figures, algorithm, 0)


@pytest.mark.wide
def test_a_study_goes_on_after_a_kill_and_reports_its_front(tmp_path, monkeypatch):
    plan = Plan(**{**vars(PLAN), "overrides": SMALL})
    said, measure = [], study._measure

    def kill(*arguments):
        if len(said) == 3:
            raise KeyboardInterrupt
        said.append(arguments[1])
        return measure(*arguments)

    monkeypatch.setattr(study, "_measure", kill)
    with pytest.raises(KeyboardInterrupt):
        carry_out(plan, tmp_path, lambda line: None)
    monkeypatch.setattr(study, "_measure", measure)
    lines = []
    text = carry_out(plan, tmp_path, lines.append)
    assert [line for line in lines if line.startswith("measuring")] == ["measuring heun 2 even"]
    kept = json.loads((tmp_path / "study.json").read_text())
    for name, rows in kept["shares"].items():
        assert [row[-1] for row in rows] == [1, 1]  # all four cells were tried
        assert f"- {name}: 4 trials have 100.0% of the front's hypervolume, median of 2 seeds: 95% **reached**" in text
    assert text == (tmp_path / "report.md").read_text()
