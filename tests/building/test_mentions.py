import pytest
from click.testing import CliRunner

from modkit import Spec, SpecError, build, check, train
from modkit.cli.app import app
from modkit.errors import Position
from modkit.runs.run import Run
from modkit.specs.load import load_spec
from modkit.specs.overrides import apply
from modkit.sweeps.trials import freeze
from tests.refusals import list_problems

LATENT = """\
data: {use: digits, size: 8}
model:
  use: latent
  autoencoder: {encoder: mlp, decoder: mlp, bottleneck: {use: gaussian, channels: 2}, weights: {kl: 0.5, nll: 2}}
  prior: {use: diffusion, network: mlp}
train:
  terms: {"*/kl": {every: 2}, "*": {every: 1}}
  players: {prior/denoiser: {clip: 1.0}, "*": {clip: 2.0}}
  checkpoints: {best: autoencoder/autoencoder/kl, keep: 3}
  stages:
    - {players: [autoencoder/*], steps: 7}
    - {players: ["*/denoiser", prior/*], steps: 9}
"""
GONE = "swap: dropped {} (it names no {} any more)"
FSQ = "model.autoencoder.bottleneck=fsq"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "latent.yaml"
    path.write_text(LATENT)
    return path


def check_swap(file, caplog, *overrides):
    """The checked spec of the file with overrides, and the notices about what names nothing any more."""
    report = check(load_spec(file, overrides))
    return report.plan, [message for message in caplog.messages if message.startswith("swap: ")]


def test_what_names_a_loss_that_a_swap_removes_is_dropped(file, caplog):
    planned, notices = check_swap(file, caplog, FSQ)
    paths = "model.autoencoder.weights.kl", "train.checkpoints.best", "train.terms.*/kl"
    assert notices == [GONE.format(path, "loss") for path in paths]
    resolved = planned.resolved
    assert resolved.at("model.autoencoder.weights") == {"nll": 2}
    assert "best" not in resolved.at("train.checkpoints")
    assert resolved.at("train.checkpoints.keep") == 3
    assert list(resolved.at("train.terms")) == ["*"]
    assert [stage["steps"] for stage in resolved.at("train.stages")] == [7, 9]


def test_what_names_a_player_that_a_swap_removes_is_dropped(file, caplog):
    planned, notices = check_swap(file, caplog, "model.prior={use: gan, generator: mlp, discriminator: mlp}")
    assert notices == [GONE.format("train.stages[1].players[0]", "player")]
    assert list(planned.resolved.at("train.players")) == ["*", "prior/*"]  # the swap has renewed them
    assert [stage["players"] for stage in planned.resolved.at("train.stages")] == [("autoencoder/*",), ("prior/*",)]


def test_a_stage_without_players_is_dropped_as_a_whole(file, caplog):
    planned, notices = check_swap(file, caplog, "model={use: diffusion, network: mlp}", "train.stages[1].steps=5")
    assert [notice for notice in notices if "stages" in notice] == [
        GONE.format(f"train.stages[{index}]", "player") for index in (0, 1)
    ]
    assert planned.resolved.at("train.stages") == ()


@pytest.mark.parametrize(
    "train, override",
    [
        ("stages: [{players: [autoencoder/*]}, {players: [prior/*]}]", "model={use: diffusion, network: mlp}"),
        ("checkpoints: {best: autoencoder/autoencoder/kl}", FSQ),
        ("players: {prior/denoiser: {clip: 1.0}}", "model.prior={use: autoencoder, encoder: mlp, decoder: mlp}"),
    ],
)
def test_settings_of_which_nothing_is_left_are_the_defaults(file, train, override):
    file.write_text(f"{LATENT.partition('train:')[0]}train: {{{train}}}\n")
    settings = check(load_spec(file, [override])).plan.resolved.train
    assert settings == check(Spec.from_yaml("{data: ring, model: gan}")).plan.resolved.train


def test_the_model_that_held_a_weight_stays(file):
    file.write_text(LATENT.replace(", weights: {kl: 0.5, nll: 2}", ", weights: {kl: 0.5}"))
    planned = check(load_spec(file, [FSQ])).plan
    assert planned.spec.at("model.autoencoder.bottleneck") == "fsq"
    assert "weights" not in planned.spec.at("model.autoencoder")


def test_positions_follow_what_is_left(file):
    override = "model={use: gan, generator: mlp, discriminator: mlp}"
    text = LATENT.replace('["*/denoiser", prior/*]', '["*"]')
    file.write_text(text)
    planned = check(load_spec(file, [override])).plan
    assert [stage["steps"] for stage in planned.resolved.at("train.stages")] == [9]
    assert planned.spec.find_position("train.stages[0].steps") == Position(str(file), 12, 31)


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    "override, position",
    [
        ("model.autoencoder.weights.kl=2", "<override 2>:1:30: "),
        ("model.autoencoder.weights.kl=0.5", "<override 2>:1:30: "),  # written again
        ("model.autoencoder.weights={kl: 0.5}", "<override 2>:1:32: "),
        ("model.autoencoder.weights.kk=2", "<override 2>:1:30: "),
    ],
)
def test_a_weight_that_an_override_writes_is_refused(file, override, position):
    problems = list_problems(lambda: check(load_spec(file, [FSQ, override])))
    assert any(problem.startswith(f"{position}model.autoencoder.weights.k") for problem in problems)


def test_what_named_nothing_before_is_refused(file):
    file.write_text(LATENT.replace("nll: 2", "nl: 2"))
    with pytest.raises(SpecError, match=r"4:110: model\.autoencoder\.weights\.nl: got a weight of 'nl'"):
        check(load_spec(file, [FSQ]))


def test_without_a_swap_nothing_is_dropped(file):
    file.write_text(LATENT.replace("gaussian, channels: 2", "fsq"))
    with pytest.raises(SpecError, match=r"model\.autoencoder\.weights\.kl: got a weight of 'kl'"):
        check(load_spec(file, ["train.seed=1"]))


def test_leftovers_of_several_swaps_are_dropped(file, caplog):
    first = load_spec(file, ["model.autoencoder.bottleneck=vq", "model.autoencoder.weights.commitment=0.3"])
    second, _ = apply(first, [FSQ])
    weights = check(second).plan.resolved.at("model.autoencoder.weights")
    assert weights == {"nll": 2}
    dropped = [GONE.format(f"model.autoencoder.weights.{name}", "loss") for name in ("commitment", "kl")]
    assert [message for message in caplog.messages if ".weights." in message] == dropped


def test_models_are_built_without_the_weights_that_a_swap_left(file):
    model = build(load_spec(file, [FSQ]))
    assert list(model.weights("autoencoder/autoencoder")) == ["autoencoder/nll"]


def test_the_weight_of_an_opponent_has_its_place_in_the_spec():
    gan = "{use: gan, discriminators: {a: mlp, b: mlp}, generator: mlp, weights: {adversarial/c: 2.0}}"
    with pytest.raises(SpecError, match=r"model\.weights\.adversarial/c: .*: adversarial, adversarial/a, "):
        check(Spec.from_yaml(f"{{data: ring, model: {gan}}}"))


@pytest.mark.wide
def test_runs_do_not_hold_what_a_swap_left(file, tmp_path):
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["train", str(file), FSQ, "train.device=cpu", "--steps", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.count(GONE.format("model.autoencoder.weights.kl", "loss")) == 1
    kept = Spec.from_yaml(Run.open(out).spec_text)
    assert kept.at("model.autoencoder.weights") == {"nll": 2}
    assert check(kept).plan.resolved == kept


@pytest.mark.wide
def test_trials_of_a_sweep_do_not_hold_what_their_swaps_left(file):
    trials = freeze(load_spec(file), ["model.autoencoder.bottleneck=fsq,gaussian", "seed=0,1"])
    weights = [Spec.from_yaml(trial.spec).at("model.autoencoder.weights") for trial in trials]
    assert weights == [{"nll": 2}] * 2 + [{"kl": 0.5, "nll": 2}] * 2


@pytest.mark.wide
def test_the_stage_of_a_part_that_another_run_replaces_is_dropped(file, caplog, tmp_path):
    run = train(load_spec(file, ["train.stages=[{players: ['*'], steps: 1}]", "train.device=cpu"]), tmp_path / "run")
    piece = f"{{use: run, path: {run.path}, at: model.autoencoder}}"
    planned, notices = check_swap(file, caplog, f"model.autoencoder={piece}")
    assert GONE.format("train.stages[0]", "player") in notices
    assert [stage["players"] for stage in planned.resolved.at("train.stages")] == [("*/denoiser", "prior/*")]
