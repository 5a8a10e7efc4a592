"""The study of recipes: its judgement of made-up figures, its specs, the plain loop, and a run of it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import modkit
from examples.recipes import __main__ as command
from examples.recipes import plain, study
from examples.recipes.plain import Loop, Plain, Sampling
from examples.recipes.plan import BASELINE, FLOOR, LATENT, RECIPES, Plan
from examples.recipes.study import carry_out, read_spec
from examples.recipes.verdict import judge, report
from examples.studies.budget import Trial
from examples.studies.page import insert
from tests.files import write_fashion_mnist
from tests.test_architecture import PACKAGE

SMALL = Plain(channels=(8, 16), groups=4, lr=3e-3, warmup=5, batch_size=8)


def draw_pictures(num=64):
    """Bright or dark squares of 16×16."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(num, 1, 1, 1, generator=rng).sign().expand(-1, 1, 16, 16) * 0.8


def make_rows(seeds=2, **figures):
    """FDs of 10 with an error of 1, and those given of the recipe."""
    means = {FLOOR: {}, BASELINE: {}, "unet": figures}
    return {
        name: [{one: given.get(one, 10.0) + shift for one in ("FD", "FD (random-conv)")} for shift in (-1, 1)[:seeds]]
        for name, given in means.items()
    }


def test_a_recipe_is_better_if_its_distance_is_lower_by_more_than_both_errors_in_either_features():
    assert [claim.holds for claim in judge(make_rows(FD=7.9))] == [True, None]
    assert [claim.holds for claim in judge(make_rows(**{"FD (random-conv)": 8.1}))] == [None, None]
    assert [claim.holds for claim in judge(make_rows(**{"FD (random-conv)": 12.1}))] == [None, False]
    assert {claim.holds for claim in judge(make_rows(seeds=1, FD=0.0))} == {None}
    text = report(make_rows(FD=1.0))
    assert text.count("**confirmed**") == 1 and "| unet | 1 ± 1 |" in text and f"| {FLOOR} | 10 ± 1 |" in text


def test_the_page_of_the_study_has_a_place_for_its_figures():
    assert "new figures" in insert((PACKAGE.parent / "docs" / "recipes.md").read_text(), "new figures")


@pytest.mark.wide
def test_all_systems_have_as_many_weights_and_the_recipes_as_many_evaluations(tmp_path):
    write_fashion_mnist(tmp_path / "data")
    plan = Plan(overrides=(f"data.root={tmp_path / 'data'}",))
    baseline = sum(one.numel() for one in plan.plain.make_network(1, 32).parameters())
    for recipe in RECIPES:
        spec = read_spec(recipe, plan)
        assert 0.9 < modkit.check(spec).parameters / baseline < 1.1
        model = spec.model["prior"] if recipe.startswith(LATENT) else spec.model
        assert (model["sampler"]["use"], model["sampler"]["steps"]) == ("dpm-solver++", 32)


@pytest.mark.wide
def test_the_losses_of_the_plain_loop_fall():
    loop = Loop(SMALL, draw_pictures(), 50, seed=0)
    losses = [loop.step() for _ in range(50)]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


@pytest.mark.wide
def test_the_plain_loop_repeats_a_run_by_its_seed_and_leaves_a_finished_one_alone(tmp_path):
    drawn = {}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        state = torch.get_rng_state()
        plain.train(SMALL, draw_pictures(), 3, seed, tmp_path / name)
        assert torch.equal(torch.get_rng_state(), state)
        sampling = Sampling.load(tmp_path / name, SMALL, (1, 16, 16), 4)
        drawn[name] = sampling.sample(5, seed=2, batch_size=3)
    assert torch.equal(drawn["one"], drawn["same"]) and not torch.equal(drawn["one"], drawn["other"])
    assert drawn["one"].shape == (5, 1, 16, 16) and drawn["one"].abs().max() <= 1
    before = (tmp_path / "one" / "training.json").read_bytes()
    plain.train(SMALL, draw_pictures(), 4, 5, tmp_path / "one")
    assert (tmp_path / "one" / "training.json").read_bytes() == before and json.loads(before)["steps"] == 3


def test_the_average_of_the_plain_loop_is_that_of_diffusers_warm_up():
    loop = Loop(SMALL, draw_pictures(), 60, seed=0)
    average = loop.network.conv_in.weight.detach().clone()
    for step in range(1, 6):
        loop.step()
        decay = 1 - step**-0.75
        average = decay * average + (1 - decay) * loop.network.conv_in.weight.detach()
    loop.use_average()
    torch.testing.assert_close(loop.network.conv_in.weight.detach(), average)


def test_a_loop_whose_losses_cease_to_be_finite_is_no_run(tmp_path):
    wild = replace(SMALL, lr=1e30, warmup=0)
    with pytest.raises(ValueError, match="expects losses that stay finite, got .*nan"):
        plain.train(wild, draw_pictures(), 4, 0, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.wide
def test_recipes_and_the_plain_loop_are_trained_measured_and_judged(tmp_path, monkeypatch):
    def read_small(recipe, plan):
        at = "model.prior" if recipe.startswith(LATENT) else "model"
        small = "width=16" if recipe.endswith("dit") else "channels=[8, 16]"
        return read_spec(recipe, replace(plan, overrides=(*plan.overrides, f"{at}.network.{small}")))

    monkeypatch.setattr(study, "read_spec", read_small)
    trial = Trial(1, 1, 0.0, 1)
    words = ("data={use: digits, size: 16}", "train.batch_size=8", "train.samples.num=1", "train.device=cpu")
    plan = Plan(
        0.2, 0.0, seeds=1, num=24, evaluations=2, lengths=(0.1, 0.15), plain=SMALL, trial=trial, overrides=words
    )
    carry_out(plan, tmp_path, lambda line: None, recipes=["dit", "latent-edm2-unet"])
    found = json.loads((tmp_path / "study.json").read_bytes())
    assert list(found["rows"]) == [FLOOR, BASELINE, "dit", "latent-edm2-unet"]
    _, plain_row, dit, latent = (rows[0] for rows in found["rows"].values())
    for row in (plain_row, dit, latent):
        assert row["FD"] > 0 and row["FD (random-conv)"] > 0 and row["CPU s a sample"] > 0
        assert row["steps"] >= 1 and row["weights"] > 1000
    assert len(found["claims"]) == 4
    (tried,) = (json.loads(file.read_bytes()) for file in tmp_path.glob("averages/*/lengths.json"))
    assert [std for _, std in tried] == [0.1, 0.15]
    assert latent["average"] == min(tried)[1] and "average" not in dit
    told = []
    carry_out(plan, tmp_path, told.append, recipes=["dit"])
    assert [line.partition(":")[0] for line in told if ":" in line] == ["training-pictures-0", "diffusers-0", "dit-0"]


@pytest.mark.parametrize(("words", "changed", "recipes"), [
    ([], {}, RECIPES),
    (["--quick", "--seeds", "2"], {"seconds": 60.0, "seeds": 2, "num": 500}, RECIPES),
    (["--minutes", "2", "--data", "there"], {"seconds": 120.0, "overrides": ("data.root=there",)}, RECIPES),
    (["--only", "latent-dit", "unet"], {}, ("unet", "latent-dit")),
])  # fmt: skip
def test_the_command_sizes_the_plan(words, changed, recipes, monkeypatch):
    plans = []
    monkeypatch.setattr(command, "run_study", lambda given, plan, do: plans.append((plan, given.out, do.keywords)))
    monkeypatch.setattr(sys, "argv", ["recipes", *words])
    command.main()
    assert plans == [(replace(Plan(), **changed), Path("runs/recipes"), {"recipes": list(recipes)})]


def test_a_plan_without_time_beside_the_reserve_is_refused():
    with pytest.raises(ValueError, match="Plan expects seconds above the reserve, .* got 30.0, 40.0, 3, 32 and 2000"):
        Plan(30.0)


def test_averages_are_not_chosen_on_a_seed_that_is_judged():
    with pytest.raises(ValueError, match="Plan expects seeds below 10, on which averages are chosen, got 11"):
        Plan(seeds=11)
