"""The swap matrix of quality: its cells, its verdicts, and a study of three cells that is stopped and resumed."""

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from examples.swaps import study
from examples.swaps.cells import BASES, Cell, Swap, draw_pairs, list_product, list_single, make_base
from examples.swaps.report import judge, make_report
from examples.swaps.study import Plan, carry_out, list_cells
from modkit.building.plan import plan
from modkit.features import Classifier
from modkit.parts.registry import get_registry
from tests.forks import server

SAMPLER = Swap("model.prior.sampler", "sampler", "ddim", "steps: 35")
X0 = Swap("model.prior.parametrization", "parametrization", "x0")
BASE, DDIM, PREDICTS = Cell("ldm"), Cell("ldm", (SAMPLER,)), Cell("ldm", (X0,))


def make_row(fd, other=None):
    each = {"error": 0.01, "precision": 0.9, "coverage": 0.9}
    return {"size": 16, "scores": {"classifier": {"FD": fd, **each}, "random-conv": {"FD": other or fd, **each}}}


FLOOR = {"16": {"scores": make_row(0.2)["scores"]}}


@pytest.mark.wide(2)
@pytest.mark.parametrize("base", BASES)
def test_every_part_of_every_slot_is_a_cell(base):
    cells = [cell for cell in list_single(base) if cell.swaps]
    parts = plan(make_base(base)).parts
    kinds = ("schedule", "parametrization", "sampler", "network", "generator", "bottleneck", "encoder")
    for path, part in parts.items():
        if path.startswith("model.") and part.kind in kinds:
            names = {entry.part.name for entry in get_registry().list_parts(part.kind)} - {part.name}
            assert {cell.swaps[0].part for cell in cells if cell.swaps[0].path == path} == names
    assert len({cell.name for cell in cells}) == len(cells)


def test_samplers_share_a_training_and_take_the_same_evaluations():
    assert DDIM.training == BASE and DDIM.sampling == ["model.prior.sampler={use: ddim, steps: 35}"]
    samplers = {
        cell.swaps[0].part: cell.swaps[0] for cell in list_single("ldm") if cell.training == BASE and cell.swaps
    }
    assert (samplers["euler"].params, samplers["dpm-solver++"].params) == ("steps: 36", "steps: 36")
    assert PREDICTS.training == PREDICTS


def test_the_product_has_every_schedule_with_every_parametrization_and_sampler():
    cells = list(list_product("ldm"))
    own = [entry.part.name for kind in ("schedule", "parametrization", "sampler")
           for entry in get_registry().list_parts(kind) if "/" not in entry.part.name]  # fmt: skip
    assert len(cells) == len(set(cells)) == 8 * 6 * 9 and len(own) == 23


def test_pairs_are_drawn_by_their_seed_from_slots_beside_each_other():
    cells = [cell for base in ("ldm", "dcgan") for cell in list_single(base)]
    assert draw_pairs(cells, 10, 3) == draw_pairs(cells, 10, 3) != draw_pairs(cells, 10, 4)
    for cell in draw_pairs(cells, 10, 3):
        one, other = (swap.path for swap in cell.swaps)
        assert one != other and not one.startswith(f"{other}.") and not other.startswith(f"{one}.")


@pytest.mark.parametrize(
    "row, verdict",
    [
        (make_row(0.55), "fine"),  # .35 above the floor, the base .15
        (make_row(0.7), "worse"),
        (make_row(0.55, 0.7), "worse"),  # on one extractor
        ({"failed": "samples are not finite"}, "failed"),
        ({"refused": "model.prior: …"}, "refused"),
    ],
)
def test_the_verdict_compares_with_the_base_above_the_floor(row, verdict):
    found = {BASE: make_row(0.35), PREDICTS: row}
    assert judge(PREDICTS, found, FLOOR, {}) == verdict
    for pattern in (PREDICTS.name, "ldm+*=x0"):
        excused = judge(PREDICTS, found, FLOOR, {"ldm+*=eps": "another's", pattern: "measured"})
        assert excused == ("explained" if verdict in ("worse", "failed") else verdict)
    head, counts = (
        ("| base | fine |", "| all | 2 |") if verdict == "fine" else (f"| fine | {verdict} |", "| all | 1 | 1 |")
    )
    report = make_report(found, FLOOR, 60.0)
    assert head in report and counts in report


def test_the_report_lists_the_cells_of_each_reason():
    """Which swap of a cell is to blame does not tell reasons apart."""
    cells = [Cell("ldm", (Swap("model.prior", "model", part),)) for part in ("flow", "masked", "cascade")]
    why = [f"<override {number}>:1:9: model.prior: no (diffusion, <override {number}>:1:9)" for number in (1, 2)]
    rows = [{"refused": why[0]}, {"refused": why[1]}, {"failed": "samples are not finite"}]
    report = make_report({BASE: make_row(0.35), **dict(zip(cells, rows))}, FLOOR, 60.0)
    assert f"## Refused\n\n- `{cells[0].name}`, `{cells[1].name}`: model.prior: no (diffusion)" in report
    assert f"## Failed\n\n- `{cells[2].name}`: samples are not finite" in report


@pytest.mark.wide
def test_a_study_resumes_and_reports_every_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "make_pool", partial(ProcessPoolExecutor, mp_context=server()))
    monkeypatch.setattr(study, "Classifier", partial(Classifier, epochs=1))
    few = Plan(seconds=0.3, num=32, only=(BASE.name, "ldm+model.prior.sampler=ddim"), jobs=1)
    cells = [cell for cell in list_cells(few) if cell.group == "alone"]
    assert [cell.training for cell in cells] == [BASE, BASE]
    text = carry_out(few, tmp_path, lambda line: None)
    assert "| `ddim` |" in text and len(list((tmp_path / "runs").iterdir())) == 1
    (tmp_path / "cells" / f"{cells[1].name}.json").unlink()
    said = []
    assert carry_out(few, tmp_path, said.append) == text
    assert len([line for line in said if "ddim" in line]) >= 1
    with pytest.raises(ValueError, match="another seconds"):
        carry_out(Plan(seconds=1.0, num=32, only=few.only, jobs=1), tmp_path)
    known = tmp_path / "study.json"
    rows = json.loads(known.read_text())["cells"]
    assert set(rows) == set(few.only)
    rows[cells[1].name]["key"] = "of another spec"
    known.write_text(json.dumps({"cells": rows}))
    said.clear()
    for name in ("other", "third"):  # the same classifier
        shutil.copytree(tmp_path / "features", tmp_path / name / "features")
        shutil.copy(tmp_path / "floor.json", tmp_path / name)
    again = carry_out(replace(few, known=known), tmp_path / "other", said.append)
    assert all("ddim" in line for line in said[1:]) and (tmp_path / "other" / "runs").exists()
    assert carry_out(replace(few, known=tmp_path / "other" / "study.json"), tmp_path / "third", said.append) == again
    assert not (tmp_path / "third" / "runs").exists()


def test_what_is_found_after_the_check_is_a_failure(tmp_path, monkeypatch):
    """A refusal comes before anything is trained."""

    def train(*given):
        raise ValueError("no prior to sample from")

    monkeypatch.setattr(study, "fit_budget", lambda spec, *given, **options: spec)
    monkeypatch.setattr(study, "train_run", train)
    assert study._run_cell(BASE, Plan(seconds=0.3, num=32), tmp_path) == {
        "failed": "ValueError: no prior to sample from"
    }
