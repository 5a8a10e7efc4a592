import json
import time

import pytest
import torch

import modkit
from examples.studies import budget
from examples.studies.budget import Trial, fit_budget, fit_steps, measure_costs, stages, time_step
from modkit import Spec, use
from modkit.training.trainer import Trainer
from tests.refusals import refusals

MLP = use("mlp", width=8)
AUTOENCODER = use("autoencoder", encoder=MLP, bottleneck=use("gaussian", channels=2), decoder=MLP)
PRIOR = use("diffusion", network=use("mlp", width=8, depth=1))
TWO = Spec(
    name="two",
    data=use("digits", size=8),
    model=use("latent", autoencoder=AUTOENCODER, prior=PRIOR),
    train={
        "batch_size": 16,
        "stages": [{"players": ["autoencoder/*"], "steps": 100, "ema": 0.9}, {"players": ["prior/*"], "steps": 300}],
    },
)
ONE = Spec(name="one", data=use("digits", size=8), model=AUTOENCODER, train={"batch_size": 16})
GAN = Spec(name="gan", data=use("digits", size=8), model=use("gan"), train={"stages": [{"players": ["*"]}]})
SHORT = Trial(warmup=1, steps=2, seconds=0.0, rounds=2)


def steps(spec):
    return [stage["steps"] for stage in stages(spec)]


def test_stages_take_the_budget_in_the_ratio_of_the_specs_steps():
    fit = fit_steps(TWO, 10.0, [0.01, 0.02])
    assert steps(fit) == [143, 429]
    assert sum(n * cost for n, cost in zip(steps(fit), [0.01, 0.02])) == pytest.approx(10.0, rel=0.01)
    assert stages(fit)[0]["ema"] == 0.9 and fit.model == TWO.model


def test_stages_take_their_shares_of_the_budget():
    assert steps(fit_steps(TWO, 10.0, [0.01, 0.02], shares=[1, 3])) == [250, 375]
    assert steps(fit_steps(TWO, 1e-9, [0.01, 0.02], shares=[1, 3])) == [1, 1]


@pytest.mark.wide
def test_a_stage_that_fits_a_mixture_takes_no_steps():
    pytest.importorskip("modkit_sklearn", reason="modkit-sklearn is not installed")
    mixture = TWO.with_value("model.prior", use("sklearn/gaussian-mixture", num_components=2))
    costs = measure_costs(mixture, SHORT)
    assert costs[0] < 1 and costs[1] == float("inf")
    assert steps(fit_steps(mixture, 10.0, [0.01, costs[1]])) == [1000, 1]
    assert steps(fit_steps(mixture, 12.0, [0.01, costs[1]], shares=[1, 2])) == [400, 1]


def test_a_spec_without_stages_gets_those_of_its_model():
    assert stages(ONE) == [{"steps": 2000, "players": ["*"]}]
    fit = fit_steps(ONE, 4.0, [0.5])
    assert steps(fit) == [8]
    assert modkit.check(fit).parameters == modkit.check(ONE).parameters


test_a_number_a_stage_is_asked_for = refusals(
    ([0.1], None, r"a positive number a stage, 2, in cost, got \[0.1\]"),
    ([0.1, 0.0], None, "in cost"),
    ([0.1, 0.1], [1.0], "in shares"),
    ([0.1, 0.1], [1.0, -1.0], "in shares"),
    of=lambda cost, shares: fit_steps(TWO, 1.0, cost, shares=shares),
)


@pytest.mark.wide
def test_a_trial_counts_the_processor_and_not_the_clock(monkeypatch):
    busy, idle = 0.02, 0.2

    def work(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    take = Trainer._take_turns

    def slow(*turn):
        time.sleep(idle)
        work(busy)
        return take(*turn)

    monkeypatch.setattr(Trainer, "_take_turns", slow)
    (found,) = measure_costs(ONE, SHORT)
    assert busy < found < idle


def test_the_step_of_a_training_without_a_spec_is_timed_after_a_warm_up():
    taken = []

    def step():
        taken.append(torch.get_num_threads())
        end = time.process_time() + (0.1 if len(taken) < 3 else 0.01)
        time.sleep(0.02)
        while time.process_time() < end:
            pass

    assert 0.01 <= time_step(step, Trial(warmup=1, steps=2, seconds=0.0, rounds=3)) < 0.02
    assert taken == [1] * (1 + 2 * 3)


@pytest.mark.wide
def test_a_trial_plays_every_stage_and_late_players_too(monkeypatch):
    played = []
    take = Trainer._take_turns

    def noted(*turn):
        losses, complete = take(*turn)
        played.append(sorted(name.rpartition("/")[0] for name in losses if not name.startswith("gradient_norm/")))
        return losses, complete

    monkeypatch.setattr(Trainer, "_take_turns", noted)
    assert len(measure_costs(TWO, SHORT)) == 2
    assert {name for names in played for name in names} == {"autoencoder/autoencoder", "prior/denoiser"}
    assert len(played) == 2 * (1 + 2 * 2)
    played.clear()
    late = GAN.with_value("train.players", {"*": {"clip": 1.0}, "discriminator": {"start": 100, "every": 2}})
    measure_costs(late, SHORT)
    assert all(("discriminator" in names) == (number % 2 == 0) for number, names in enumerate(played))
    assert all("generator" in names for names in played)


def test_figures_are_measured_once_and_again_when_the_spec_changes(tmp_path, monkeypatch):
    file, trials = tmp_path / "deep" / "steps.json", []

    def measured(spec, trial):
        trials.append(spec.name)
        return [0.01 * len(trials)] * len(stages(spec))

    monkeypatch.setattr(budget, "measure_costs", measured)
    first = fit_budget(TWO, 4.0, file)
    assert steps(first) == [100, 300]
    assert fit_budget(TWO.with_value("train.seed", 5), 4.0, file).with_value("train.seed", 0) == first.with_value(
        "train.seed", 0
    )
    assert steps(fit_budget(TWO, 8.0, file, shares=[1, 1])) == [400, 400]
    assert trials == ["two"]
    assert steps(fit_budget(ONE, 4.0, file)) == [200]
    assert steps(fit_budget(TWO.with_value("train.batch_size", 32), 4.0, file)) == [33, 100]
    assert trials == ["two", "one", "two"]
    assert json.loads(file.read_bytes())["one"]["seconds a step"] == [0.02]
    assert sorted(path.name for path in file.parent.iterdir()) == [".lock", "steps.json"]


def test_a_file_of_something_else_is_refused(tmp_path):
    file = tmp_path / "steps.json"
    file.write_text("[1]")
    with pytest.raises(ValueError, match="expects figures of its own in .*steps.json"):
        fit_budget(TWO, 1.0, file)
