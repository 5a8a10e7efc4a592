"""The study of modes: its judgement of made-up figures, its plans, and each part from its start to its report."""

import json
import sys
from dataclasses import replace

import pytest

import modkit
from examples.modes import __main__ as command
from examples.modes.plan import PACGAN, PLANS, RING, STACKED, Plan, make_quick
from examples.modes.study import carry_out
from examples.modes.verdict import judge, report
from examples.studies.page import insert
from tests.test_architecture import PACKAGE

SMALL = ("train.batch_size=8", "train.device=cpu", "train.samples.num=1")
BASE = {"modes": 4.0, "high quality": 0.5, "mode KL": 1.0, "steps to all": 9000.0, "found all": 1.0}
TINY = {
    "ring": (*SMALL, "model.generator.width=4"),
    "pacgan": (*SMALL, "model.generator.width=4", "data.num=64", "data.num_test=64"),
    "stacked": (*SMALL, "model.generator.channels=2", "data.num=64", "data.num_test=64"),
}


def make_rows(part, seeds=2, **changes):
    """Figures with an error of a hundredth of each; `changes` are factors, by system and figure."""
    base = {"classes": 400.0, "class KL": 3.0} if part == "stacked" else BASE
    return {
        name: [
            {one: value * changes.get(name, {}).get(one, 1.0) * shift for one, value in base.items()}
            for shift in (0.99, 1.01)[:seeds]
        ]
        for name in PLANS[part].systems
    }


def find(claims, *words):
    (found,) = [claim for claim in claims if all(word in str(claim) for word in words)]
    return found.holds


@pytest.mark.parametrize(
    ("part", "system", "other", "figure", "better"),
    [
        ("ring", "D2GAN", "GAN", "high quality", 1.1),
        ("ring", "D2GAN", "GAN", "steps to all", 0.9),
        ("ring", "minibatch discrimination", "GAN, small batches", "mode KL", 0.9),
        ("pacgan", "grid, PacGAN2", "grid, GAN", "modes", 1.1),
        ("pacgan", "ring, PacGAN4", "ring, GAN", "mode KL", 0.9),
        ("pacgan", "grid, ALI", "grid, GAN", "modes", 1.1),
        ("stacked", "PacDCGAN2", "DCGAN", "classes", 1.1),
        ("stacked", "relativistic, R1 and R2", "plain, R1 and R2", "class KL", 0.9),
        ("stacked", "plain, R1 and R2", "plain, R1", "classes", 1.1),
    ],
)
def test_a_published_order_holds_where_the_means_are_apart_by_more_than_both_errors(
    part, system, other, figure, better
):
    more, less = (system, other) if better > 1 else (other, system)
    words = f"{figure}: {more} above {less} by"
    for factor, holds in ((better, True), (1 + 0.05 * (better - 1), None), (1 / better, False)):
        assert find(judge(part, make_rows(part, **{system: {figure: factor}})), words) is holds
    assert find(judge(part, make_rows(part, seeds=1, **{system: {figure: better}})), words) is None


def test_all_modes_are_found_in_each_run_or_not():
    rows = make_rows("ring")
    assert find(judge("ring", rows), "D2GAN finds all 8 modes") is False
    assert find(judge("ring", rows), "GAN finds fewer than 8 modes") is True
    rows["D2GAN"], rows["GAN"] = ([{**BASE, "modes": 8.0}] * 2 for _ in range(2))
    assert find(judge("ring", rows), "D2GAN finds all 8 modes") is True
    assert find(judge("ring", rows), "GAN finds fewer than 8 modes") is False


def test_a_system_fails_where_each_of_its_runs_has_a_single_class():
    rows, words = make_rows("stacked"), "plain, R1 fails in each run"
    assert find(judge("stacked", rows), words) is False
    rows["plain, R1"][0]["classes"] = 1.0
    assert find(judge("stacked", rows), words) is None
    rows["plain, R1"][1]["classes"] = 1.0
    assert find(judge("stacked", rows), words) is True
    assert find(judge("stacked", make_rows("stacked", seeds=1)), words) is None


@pytest.mark.parametrize("part", PLANS)
def test_a_report_has_all_systems_beside_what_was_published(part):
    text = report(part, make_rows(part))
    assert all(f"\n| {name} | " in text for name in PLANS[part].systems)
    assert text.count("\n- ") == len(judge(part, make_rows(part)))
    if part == "pacgan":
        assert "| grid, GAN | 4 ± 0.04 | 17.3 ± 0.8 | 0.5 ± 0.005 | 0.948 ± 0.007 | 1 ± 0.01 | 0.70 ± 0.07 |" in text


def test_packs_are_as_many_as_the_samples_of_a_plain_critic():
    words = [PACGAN.systems[f"grid, {name}"] for name in ("GAN", "PacGAN2", "PacGAN4")]
    assert [one[1:3] for one in words] == [
        (f"model.discriminator.num={num}", f"train.batch_size={num * 100}") for num in (1, 2, 4)
    ]


def test_critics_of_stacked_digits_are_a_quarter_as_wide_as_generators():
    for name in ("dcgan", "r3gan"):
        model = modkit.load_spec(PACKAGE.parent / "examples" / "modes" / f"{name}.yaml").model
        critic = model["discriminator"].get("discriminator", model["discriminator"])
        assert model["generator"]["channels"] == 4 * critic["channels"]


@pytest.mark.wide(1)
@pytest.mark.parametrize("part", PLANS)
def test_a_part_is_carried_out_and_resumed(part, tmp_path):
    every = 1 if PLANS[part].every else None
    plan = replace(PLANS[part], steps=2, seeds=1, num=64, every=every, overrides=TINY[part])
    told = []
    text = carry_out(plan, tmp_path, told.append)
    rows = json.loads((tmp_path / "study.json").read_bytes())["rows"]
    assert list(rows) == list(plan.systems) and "**undecided**" in text and "**confirmed**" not in text
    if part == "ring":
        assert all(row["found all"] == 0.0 and row["steps to all"] == 2 for (row,) in rows.values())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert carry_out(plan, tmp_path, told.append) == text
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.wide
def test_the_steps_to_all_modes_are_those_at_which_all_were_counted_first(tmp_path):
    everywhere = "data={use: ring, modes: 1, radius: 0, std: 9}"  # where the generator starts
    plan = replace(RING, steps=4, seeds=1, num=64, every=2, overrides=(*TINY["ring"], everywhere))
    carry_out(plan, tmp_path, lambda line: None)
    (row,) = json.loads((tmp_path / "study.json").read_bytes())["rows"]["D2GAN"]
    assert row["found all"] == 1.0 and row["steps to all"] == 2


def test_claims_about_systems_that_were_left_out_are_left_out():
    rows = {name: seeds for name, seeds in make_rows("pacgan").items() if name.startswith("grid")}
    assert len(judge("pacgan", rows)) == 6 and "ring" not in report("pacgan", rows)


def test_a_plan_of_no_systems_is_refused():
    with pytest.raises(ValueError, match=r"Plan expects systems, and num, .* of at least 1, got \[\], 4, 1 and 1"):
        Plan("ring", {}, "modes", num=4, steps=1, more=1, seeds=1)


def test_the_command_runs_each_part_in_its_folder_and_fills_its_place(monkeypatch, tmp_path, capsys):
    plans = []
    monkeypatch.setattr(command, "carry_out", lambda plan, out, say: plans.append((plan, out)) or plan.part)
    page = tmp_path / "page.md"
    page.write_text((PACKAGE.parent / "docs" / "modes.md").read_text())
    for words in ("ring", "pacgan --full", "stacked --quick", "pacgan --only grid"):
        argv = ["modes", *words.split(), "--out", str(tmp_path), "--page", str(page)]
        monkeypatch.setattr(sys, "argv", argv)
        command.main()
    expected = [RING, replace(PACGAN, steps=400_000), make_quick(STACKED)]
    assert [plan for plan, _ in plans[:3]] == expected
    assert all(name.startswith("grid, ") for name in plans[3][0].systems) and len(plans[3][0].systems) == 4
    assert [out.name for _, out in plans] == ["ring", "pacgan", "stacked", "pacgan"]
    for part in PLANS:
        assert insert(page.read_text(), part, part) == page.read_text()
    (tmp_path / "page.md").write_text("<!-- figures of ring -->\n<!-- end of figures of ring -->")
    with pytest.raises(SystemExit):
        command.main()
    assert "<!-- figures of pacgan -->" in capsys.readouterr().err


def test_names_of_no_system_are_refused(monkeypatch, tmp_path, capsys):
    """The fault: a traceback, or a study without what was asked for if other names matched."""
    for words in (["zzz"], ["GAN", "zzz"]):
        monkeypatch.setattr(sys, "argv", ["modes", "ring", "--out", str(tmp_path), "--only", *words])
        with pytest.raises(SystemExit):
            command.main()
        told = capsys.readouterr().err
        assert "error: --only expects beginnings of GAN; D2GAN; " in told and "got 'zzz'" in told


def test_a_quick_study_counts_modes_all_the_same():
    assert make_quick(RING).steps == 500 and make_quick(RING).every == 50 and make_quick(STACKED).every is None
