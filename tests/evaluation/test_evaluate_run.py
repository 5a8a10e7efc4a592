import importlib
import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import modkit
from modkit.building.session import load_run
from modkit.cli.app import app
from modkit.data.corrupted import Corrupted
from modkit.data.corruptions import Mask
from modkit.data.digits import Digits
from modkit.data.loader import draw_permutation
from modkit.data.splits import read_samples
from modkit.engines.device import find_device
from modkit.engines.local import LocalEngine
from modkit.evaluation import sources
from modkit.evaluation.evaluate import compute_statistics
from modkit.evaluation.evaluate_run import evaluate_run, measure_run
from modkit.evaluation.extractors import choose_features
from modkit.evaluation.report import Report, read_reports
from modkit.evaluation.sources import make_source
from modkit.features.classifier import Classifier
from modkit.features.pixels import Pixels
from modkit.models import GAN
from modkit.models.model import reconstruct_batch
from modkit.rng import Rng
from tests.files import write_images, write_pictures
from tests.play import Notes
from tests.refusals import check_refusal

DATA = "data: {use: digits, size: 8}\n"
TRAIN = "train: {steps: 2, batch_size: 8, samples: {num: 4}}\n"
MLP = "{use: mlp, width: 8}"
SPEC = f"name: tiny\n{DATA}model: {{use: gan, generator: {MLP}, discriminator: {MLP}, z_dim: 4}}\n{TRAIN}"
CONDITIONAL = SPEC.replace("z_dim: 4", "z_dim: 4, conditioner: label")
DIFFUSION = f"""
name: diffusion
model: {{use: diffusion, network: {MLP}, sampler: {{use: ancestral}}, schedule: {{use: linear, num: 20}}}}
{DATA}{TRAIN}"""
WATCHED = """
name: watched
data: {use: digits, size: 8}
model: {use: autoencoder, encoder: {use: mlp, width: 8}, decoder: {use: mlp, width: 8}}
train: {steps: 6, batch_size: 8, samples: {num: 4}, checkpoints: {every: 2, keep: 1}}
evaluate: {features: pixels, num: 16, metrics: [fd], watch: {every: 2, num: 16}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return modkit.train(modkit.Spec.from_yaml(SPEC), tmp_path_factory.mktemp("run") / "tiny")


def test_a_model_streams_the_samples_that_one_call_gives(run):
    model = modkit.load(run)
    whole = model.sample(300, seed=3, batch_size=300)
    streamed = torch.cat([batch.tensor for _, batch in make_source(model, "fake", num=300, seed=3).number_batches()])
    torch.testing.assert_close(streamed, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.sample(4, seed=3, first=7), whole[7:11], rtol=1e-5, atol=1e-6)


def test_the_model_of_a_run_samples_on_the_device_of_the_features(run, floats, monkeypatch):
    devices = []
    monkeypatch.setattr(sources, "load", lambda run, *, device: devices.append(device) or modkit.load(run))
    modkit.evaluate(real=floats[0], fake=run, features="pixels", metrics=["fd"])
    compute_statistics(run, features="pixels", num=4)
    assert devices == [str(find_device("auto"))] * 2


@pytest.mark.wide
def test_a_run_is_measured_beside_its_floor(run):
    result = CliRunner().invoke(app, ["evaluate", str(run.path), "-n", "32", "--metrics", "fd,is", "--json"])
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)["scores"]
    assert set(scores) == {"FD (classifier:digits)", "IS (classifier:digits)"}
    assert scores == json.loads((run.path / "evaluation.json").read_text())["scores"]
    table = CliRunner().invoke(app, ["evaluate", str(run.path), "-n", "32", "--metrics", "fd"])
    assert "held-out images" in table.output and "32 reference, 32 held-out, 32 fake" in table.output


@pytest.mark.wide
def test_a_run_is_measured_by_its_directory(run):
    options = {"metrics": ["fd"], "features": "pixels", "num": 16, "device": "cpu"}
    assert modkit.evaluate_run(str(run.path), **options) == modkit.evaluate_run(run, **options)
    with pytest.raises(ValueError, match="expects the directory of a run"):
        modkit.evaluate_run(run.path.parent / "none", **options)


@pytest.mark.wide
def test_the_floor_is_held_out_images_against_the_same_training_images(run):
    """Both sides by hand: the reference is the training split's subset of a fixed permutation."""
    data, model = Digits(size=8), modkit.load(run)
    report = evaluate_run(run, num=64, metrics=["fd", "copying"], seed=5)
    order = {split: draw_permutation(modkit.Rng(0, "evaluate", split), n)[:64] for split, n in data.splits.items()}
    real = data.read("train", order["train"].tolist(), modkit.Rng(0)).tensor
    held = data.read("test", order["test"].tolist(), modkit.Rng(0)).tensor
    name = "FD (classifier:digits)"
    for fake, found in ((model, report.scores[name]), (held, report.floor[name])):
        by_hand = modkit.evaluate(real=real, fake=fake, features="classifier:digits", metrics=["fd"], num=64, seed=5)
        assert found.value == pytest.approx(by_hand.scores[name].value, rel=1e-6)
        assert found.counts == {"real": 64, "fake": 64}
    train = data.read("train", range(1437), modkit.Rng(0)).tensor
    copying = modkit.evaluate(
        real=held, fake=model, train=train, features="classifier:digits", metrics=["copying"], num=64, seed=5
    )
    assert report.scores["copying (classifier:digits)"].value == copying.scores["copying (classifier:digits)"].value
    assert report.checkpoint == "step-00000002" and not report.overrides


@pytest.mark.wide
def test_the_same_samples_score_the_same_from_the_run_a_file_and_pictures(run, floats, tmp_path):
    x = modkit.load(run).sample(24, seed=7)
    np.save(tmp_path / "x.npy", x.numpy())
    pictures = write_images(tmp_path / "pictures", ((x[:, 0] + 1) * 127.5).round().byte())
    first, *others = (
        modkit.evaluate(real=floats[0], fake=form, features="random-conv", num=24, seed=7).scores
        for form in (run, run.path, str(tmp_path / "x.npy"), pictures)
    )
    for found in others:
        for name, score in found.items():
            assert score.value == pytest.approx(first[name].value, rel=1e-5), name


@pytest.mark.wide
def test_reconstructions_are_scored_in_the_range_of_the_data(tmp_path):
    x = Digits(size=8).read("train", range(64), Rng(0)).tensor
    for name, bounds, values in (("wide", [-1.0, 1.0], x), ("unit", [0.0, 1.0], (x + 1) / 2)):
        np.save(tmp_path / f"{name}.npy", values.numpy())
        data = modkit.use("array", path=str(tmp_path / f"{name}.npy"), bounds=bounds, test=0.3)
        model = modkit.use("autoencoder", encoder=modkit.use("mlp", width=8), decoder=modkit.use("mlp", width=8))
        spec = modkit.Spec(model=model, data=data, train={"steps": 1, "batch_size": 8, "samples": {"num": 4}})
        run = modkit.train(spec, tmp_path / name)
        psnr = evaluate_run(run, features="pixels", metrics=["reconstruction"], raw=True).scores["PSNR"]
        assert psnr.settings == {"range": bounds, "raw": True}
        loaded = load_run(run, needs=("data", "evaluate"))
        data = loaded.data
        held = read_samples(data, "test", range(data.splits["test"]), Rng(0))
        y = reconstruct_batch(loaded.model.eval(), held).detach().clamp(*bounds)
        errors = (held.tensor - y).double().square().flatten(1).mean(1) / (bounds[1] - bounds[0]) ** 2
        assert psnr.value == pytest.approx(float(-10 * errors.log10().mean()), rel=1e-5)


@pytest.mark.wide
def test_a_conditional_model_is_scored_per_class_and_read_by_the_classifier(tmp_path):
    run = modkit.train(modkit.Spec.from_yaml(CONDITIONAL), tmp_path / "run")
    report = evaluate_run(run, per_class=True, metrics=["fd", "label-accuracy"], num=200)
    each = [report.scores[f"FD (classifier:digits), class {k}"].value for k in range(10)]
    assert report.scores["FD (classifier:digits), mean over classes"].value == pytest.approx(sum(each) / 10)
    assert 0 <= report.scores["label accuracy (classifier:digits)"].value <= 1
    assert report.floor["label accuracy (classifier:digits)"].value > 0.9
    counts = [report.scores[f"FD (classifier:digits), class {k}"].counts for k in range(10)]
    assert counts[3]["real"] == counts[3]["fake"] and sum(each["real"] for each in counts) == 200
    alone = evaluate_run(run, metrics=["fd"], num=200)
    assert report.scores["FD (classifier:digits)"] == alone.scores["FD (classifier:digits)"], "of the same reference"
    assert report.floor["FD (classifier:digits)"] == alone.floor["FD (classifier:digits)"]


def test_scores_per_class_expect_labels(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).uniform(-1, 1, (40, 2)).astype(np.float32))
    data = modkit.use("array", path=str(tmp_path / "x.npy"), bounds=[-1.0, 1.0], test=0.3)
    spec = modkit.Spec(model=modkit.use("gan", generator="mlp"), data=data, train={"steps": 1, "batch_size": 8})
    run = modkit.train(spec, tmp_path / "run")
    message = "evaluate expects data with labels for scores per class, got the fields: none"
    check_refusal(message, evaluate_run, run, per_class=True, metrics=["fd"])


def test_too_few_samples_of_a_class_are_refused_before_any_is_drawn(tmp_path, monkeypatch):
    """The fault: after all samples were drawn, `class 1: Moments.covariance expects at least 2 samples, got 1`."""
    run = modkit.train(modkit.Spec.from_yaml(CONDITIONAL), tmp_path / "run", steps=0)
    drawn = []
    monkeypatch.setattr("modkit.evaluation.evaluate_run.score", lambda *_, **__: drawn.append(1))
    how = {"per_class": True, "features": "pixels", "num": 20}
    message = r"at least 2 samples of each class for fd per class, got 1 of class .*; compare more than 20 samples"
    check_refusal(message, evaluate_run, run, metrics=["label-accuracy", "fd"], **how)
    check_refusal(
        "at least 6 samples of each class for prdc per class, got", evaluate_run, run, metrics=["prdc"], **how
    )
    check_refusal(
        "PRDC expects at least 31 samples of 'real', got 20", evaluate_run, run, metrics=["prdc"], k=30, num=20
    )
    assert not drawn


@pytest.mark.parametrize("num", [2, 5])
def test_usual_metrics_that_need_more_samples_are_left_out_with_a_note(run, num):
    """The fault: an evaluation of few samples passed the check, and failed after training."""
    loaded = load_run(run, needs=("data", "evaluate"))
    report = measure_run(loaded, LocalEngine("cpu"), num=num, features="pixels", named=None)
    assert f"prdc was left out: PRDC expects at least 6 samples of 'real', got {num}" in report.notes
    titles = " ".join(report.scores)
    assert "FD (" in titles and "NFE" in titles and "precision" not in titles and len(report.floor) == 2


@pytest.mark.wide
def test_training_watches_scores_and_keeps_the_best_checkpoint(tmp_path):
    run = modkit.train(modkit.Spec.from_yaml(WATCHED), tmp_path / "run")
    rows = [row for row in run.read_metrics() if "scores" in row]
    assert [row["step"] for row in rows] == [2, 4, 6]
    values = [row["scores"]["FD (pixels)"] for row in rows]
    best = 2 * (1 + values.index(min(values)))
    assert run.find_checkpoint("best").name == f"step-{best:08d}"
    model = modkit.load(run, checkpoint="best")
    data = Digits(size=8)
    order = draw_permutation(modkit.Rng(0, "evaluate", "train"), 1437)[:16]
    real = data.read("train", order.tolist(), modkit.Rng(0)).tensor
    again = modkit.evaluate(real=real, fake=model, features="pixels", metrics=["fd"], num=16, seed=0)
    assert again.scores["FD (pixels)"].value == pytest.approx(min(values), rel=1e-6)
    assert set(Report.from_json((run.path / "evaluation.json").read_bytes()).floor) == {"FD (pixels)"}
    check_refusal("has no checkpoint 'nowhere'", modkit.load, run, checkpoint="nowhere")


WATCH_ALONE = {"features": "pixels", "watch": {"every": 1, "num": 8}}
FEW = "expected at least 2 samples in the test split to measure, got 0"


@pytest.mark.wide
def test_what_was_watched_stays_where_nothing_is_held_out(tmp_path, caplog):
    """The fault: training went to its end and failed there."""
    write_pictures(tmp_path / "pictures")
    data = modkit.use("image-folder", root=str(tmp_path / "pictures"), size=8, test=0.0)
    spec = replace(modkit.Spec.from_yaml(SPEC), data=data, evaluate=WATCH_ALONE)
    run = modkit.train(spec, tmp_path / "run")
    assert run.finished and not read_reports(run.path) and FEW in caplog.text
    assert sum("scores" in row for row in run.read_metrics()) == 2
    check_refusal(f"evaluate: {FEW}", evaluate_run, run)


def test_tensors_can_be_watched(tmp_path, caplog):
    """The fault: a bare KeyError, for they have no split for testing at all."""
    model = GAN(modkit.TensorType((2,)), generator="mlp", discriminator="mlp", z_dim=2)
    points = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    settings = {"steps": 1, "batch_size": 8, "device": "cpu", "evaluate": WATCH_ALONE}
    run = modkit.fit(model, points, tmp_path / "run", **settings)
    assert run.finished and FEW in caplog.text and any("scores" in row for row in run.read_metrics())


@pytest.mark.wide
def test_a_score_without_a_better_direction_chooses_no_checkpoint(tmp_path):
    """The fault: the checkpoint with the lowest sharpness, the most blurred one, was kept as the best."""
    watched = "watch: {every: 2, num: 16, metrics: [sharpness]}"
    text = WATCHED.replace("watch: {every: 2, num: 16}", watched)
    shown = Notes()
    run = modkit.train(modkit.Spec.from_yaml(text), tmp_path / "alone", evaluate=False, progress=shown)
    notes = [note for note in shown.texts if "sharpness" in note]
    assert len(notes) == 3 and all("no checkpoint is kept as the best" in note for note in notes)
    check_refusal("best", run.find_checkpoint, "best")
    assert run.kept == ["step-00000006"]
    both = text.replace("[sharpness]", "[sharpness, fd]")
    run = modkit.train(modkit.Spec.from_yaml(both), tmp_path / "both", evaluate=False)
    values = [row["scores"]["FD (pixels)"] for row in run.read_metrics() if "scores" in row]
    assert run.find_checkpoint("best").name == f"step-{2 * (1 + values.index(min(values))):08d}"


@pytest.mark.wide
def test_the_evaluation_at_the_end_can_be_left_out_and_made_up_for(tmp_path):
    spec = modkit.Spec.from_yaml(WATCHED)
    run = modkit.train(spec, tmp_path / "run", evaluate=False)
    assert run.finished and not read_reports(run.path)
    modkit.train(spec, tmp_path / "run", resume=True)
    (report,) = read_reports(run.path)
    modkit.train(spec, tmp_path / "run", resume=True)
    assert read_reports(run.path) == [report]


@pytest.mark.parametrize(
    "evaluate, path",
    [
        ("{watch: {every: 0}}", "evaluate.watch"),
        ("{num: 1}", "evaluate.num"),
        ("{metrics: [nothing]}", "evaluate.metrics"),
        ("{features: {use: classifier, weights: nowhere.safetensors}}", "evaluate.features"),
        ("{features: inception, colour: red}", "evaluate.colour"),
    ],
)
def test_what_a_spec_says_of_its_evaluation_is_checked_before_training(tmp_path, evaluate, path):
    with pytest.raises(modkit.SpecError, match=path):
        modkit.train(modkit.Spec.from_yaml(f"{SPEC}evaluate: {evaluate}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.wide
def test_overrides_have_a_report_of_their_own(tmp_path):
    run = modkit.train(modkit.Spec.from_yaml(DIFFUSION), tmp_path / "run")
    options = ["sampler=ddim", "sampler.steps=3", "-n", "32", "--metrics", "fd,cost", "--json"]
    result = CliRunner().invoke(app, ["evaluate", str(run.path), *options])
    assert result.exit_code == 0, result.output
    file = run.path / "evaluations" / "model.sampler=ddim,model.sampler.steps=3.json"
    assert file.read_text() == result.stdout.rstrip("\n")
    assert read_reports(run.path)[0].scores["NFE"].value == 3


@pytest.mark.wide
def test_features_of_the_data_are_made_once(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path))
    made = []
    forward = Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda self, x: made.append(len(x)) or forward(self, x))
    first = evaluate_run(run, num=48, metrics=["fd"])
    spent = sum(made)
    made.clear()
    again = evaluate_run(run, num=48, metrics=["fd"])
    assert again == first and spent - sum(made) == 2 * 48
    for file in tmp_path.glob("references/*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    check_refusal("ReferenceCache expects", evaluate_run, run, num=48, metrics=["fd"])


@pytest.mark.parametrize("changed", ["acme_features.py", "acme_values.py"])
def test_features_whose_code_has_changed_are_computed_anew(run, tmp_path, monkeypatch, changed):
    """The fault: the features of real images were those of the former code, and of samples those of the new one."""
    texts = {
        "acme_features.py": (
            "from acme_values import scale\nfrom modkit.features.pixels import Pixels\nPOWER = 1\n\n"
            "class Scaled(Pixels):\n    def forward(self, x):\n        return super().forward(scale * x**POWER)\n"
        ),
        "acme_values.py": "scale = 1\n",
    }
    monkeypatch.syspath_prepend(tmp_path)
    # Python takes its bytecode for fresh by size and second, and both edits of a fast machine have the same.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    scores = []
    for cache, edited in (("one", False), ("one", True), ("two", True)):
        for name, text in texts.items():
            other = re.sub(" = 1$", " = 3", text, flags=re.M)
            (tmp_path / name).write_text(other if edited and name == changed else text)
            monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
        importlib.invalidate_caches()
        monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / cache))
        features = importlib.import_module("acme_features").Scaled(modkit.TensorType((1, 8, 8)))
        (score,) = evaluate_run(run, num=32, metrics=["fd"], features=features).scores.values()
        scores.append(score.value)
    assert scores[1] == scores[2] != scores[0]


@pytest.mark.wide
def test_a_classifier_is_trained_once_for_data_that_have_labels(tmp_path, cache, monkeypatch):
    folder = tmp_path / "pictures"
    write_pictures(folder)
    spec = modkit.Spec.from_yaml(SPEC.replace("use: digits, size: 8", f"use: image-folder, root: {folder}, size: 8"))
    run = modkit.train(spec, tmp_path / "run")
    report = evaluate_run(run, metrics=["fd"])
    (name,) = report.scores
    assert name.startswith("FD (classifier:image-folder@")
    monkeypatch.setattr(Classifier, "prepare", lambda *_: pytest.fail("trained again"))
    assert evaluate_run(run, metrics=["fd"]) == report


class Shifted(Digits):
    """A data set under another name, whose class names its own features."""

    features = "random-conv"


@pytest.mark.parametrize("data", [Shifted(size=8), Digits(size=8)])
def test_a_data_set_names_the_features_that_suit_it(run, data):
    loaded = load_run(run, needs=("data", "evaluate"))
    loaded.site.data = data
    loaded.plan.parts["data"] = replace(loaded.plan.parts["data"], name="elsewhere")
    report = measure_run(loaded, LocalEngine("cpu"), metrics=["fd"], num=24)
    want = "random-conv:0" if isinstance(data, Shifted) else "classifier:digits"
    assert set(report.scores) == {f"FD ({want})"}


@pytest.mark.wide
def test_data_on_which_the_run_was_not_trained_are_told(tmp_path, caplog, run):
    """The fault: scores against other pictures, or classes whose numbers had been swapped, came without a word."""
    folder, options = tmp_path / "pictures", {"metrics": ["fd"], "features": "pixels"}
    write_pictures(folder)
    text = CONDITIONAL.replace("use: digits, size: 8", f"use: image-folder, root: {folder}, size: 8")
    of_pictures = modkit.train(modkit.Spec.from_yaml(text), tmp_path / "run")
    told = "the run was trained on other data than it is measured on: .*, hash {} in training, .*, hash .* here"
    assert not any("other data" in note for note in evaluate_run(of_pictures, **options).notes) and not caplog.messages
    (folder / "a").rename(folder / "c")  # now the second class
    others = {"overrides": ["data={use: subset, data: {use: digits, size: 8}, num: 400}"]}
    for measured, more in ((of_pictures, {}), (run, others)):
        caplog.clear()
        report = evaluate_run(measured, **options, **more)
        message = told.format(measured.lock["data"])
        assert re.search(message, report.notes[-1]) and re.search(message, caplog.text)


def test_a_data_set_without_features_of_its_own_has_the_usual_ones():
    made = Corrupted(data=lambda: Shifted(size=8), corruption=Mask)
    assert choose_features(SimpleNamespace(x=made.x, fields=made.fields)) == "classifier"


@pytest.mark.parametrize(
    ("channels", "shape", "classes", "expected"),
    [
        (1, (), None, "pixels"),
        (1, (), 1, "pixels"),
        (1, (), 2, "classifier"),
        (3, (), 2, "classifier"),
        (4, (), 2, "pixels"),
        (1, (6,), 2, "pixels"),
    ],
)
def test_labels_and_images_that_no_classifier_takes_train_none(channels, shape, classes, expected):
    """The fault: a classifier was chosen, and refused them when training was over."""
    x, labels = modkit.TensorType((channels, 8, 8), range=(-1.0, 1.0)), modkit.TensorType(shape, classes=classes)
    assert choose_features(SimpleNamespace(x=x, fields={"labels": labels})) == expected


@pytest.mark.wide
def test_a_spec_that_lists_the_cost_measures_all_of_it(tmp_path):
    """The fault: memory was measured only where the metric was given by its name."""
    spec = modkit.Spec.from_yaml(f"{SPEC}evaluate: {{metrics: [cost], num: 16}}\n")
    scores = evaluate_run(modkit.train(spec, tmp_path / "tiny")).scores
    assert {"samples/s", "peak memory (MiB)"} <= scores.keys()


@pytest.mark.wide
def test_scores_state_the_precision_of_samples_and_metrics_are_computed_in_float32(run, tmp_path):
    seen = []

    class Spy(Pixels):
        def __call__(self, x):
            assert not torch.is_autocast_enabled("cpu")
            seen.append(x.dtype)
            return super().__call__(x)

    given = {"metrics": ["fd", "cost"], "num": 32, "features": Spy(Digits(size=8).x)}
    full, narrow = (evaluate_run(run, **given, precision=precision) for precision in (None, "bf16"))
    assert set(seen) == {torch.float32} and narrow.settings["precision"] == "bf16" and "precision" not in full.settings
    name = "FD (pixels)"
    assert 0 < abs(narrow.scores[name].value / full.scores[name].value - 1) < 0.02  # 8 bits of three layers
    assert narrow.scores[name].settings["precision"] == narrow.scores["samples/s"].settings["precision"] == "bf16"
    assert narrow.scores["peak memory (MiB)"].settings["precision"] == "bf16"
    assert not narrow.scores[name].is_comparable_to(full.scores[name])
    assert "precision" not in full.scores[name].settings and narrow.floor == full.floor
    said = CliRunner().invoke(
        app, ["evaluate", str(run.path), "-n", "32", "--metrics", "fd", "--features", "pixels", "--precision", "bf16"]
    )
    assert said.exit_code == 0, said.output
    file = run.path / "evaluations" / "precision=bf16.json"
    assert Report.read(file).scores[name] == narrow.scores[name] and not narrow.settings.keys() & {"checkpoint"}
    assert "precision" not in evaluate_run(run, **given, precision="float32").settings  # which is the run's own
    again = modkit.evaluate(
        real=torch.zeros(32, 1, 8, 8), fake=modkit.load(run), features="pixels", metrics=["fd"], precision="bf16"
    )
    assert again.scores[name].settings["precision"] == "bf16"
    check_refusal("tf32 expects an NVIDIA GPU", evaluate_run, run, precision="tf32", device="cpu")


@pytest.mark.wide
def test_a_spec_states_the_precision_of_its_samples_and_watched_ones_are_in_that_of_training(tmp_path):
    text = WATCHED.replace("num: 16, m", "num: 16, precision: fp16, m").replace(
        "steps: 6,", "steps: 2, precision: bf16,"
    )
    run = modkit.train(modkit.Spec.from_yaml(text), tmp_path / "run")
    (report,) = read_reports(run.path)
    assert report.scores["FD (pixels)"].settings["precision"] == "fp16" and not report.settings
    watched = next(row["scores"]["FD (pixels)"] for row in run.read_metrics() if "scores" in row)
    model = modkit.load(run)
    values = []
    for precision in ("bf16", "float32"):
        real = make_source(Digits(size=8).read("train", watched_indices(), modkit.Rng(0)).tensor, "real")
        found = modkit.evaluate(
            real=real, fake=model, features="pixels", metrics=["fd"], num=16, seed=0, precision=precision
        )
        values.append(found.scores["FD (pixels)"].value)
    assert watched == pytest.approx(values[0], rel=1e-6) and watched != pytest.approx(values[1], rel=1e-6)
    with pytest.raises(ValueError, match="tf32 expects an NVIDIA GPU"):
        spec = modkit.Spec.from_yaml(WATCHED.replace("num: 16, m", "num: 16, precision: tf32, m"))
        modkit.train(spec, tmp_path / "refused", overrides=["train.device=cpu"])
    assert not (tmp_path / "refused").exists()


def watched_indices():
    """The training images that watched scores compare with."""
    return draw_permutation(modkit.Rng(0, "evaluate", "train"), Digits(size=8).splits["train"])[:16].tolist()


@pytest.mark.wide
def test_a_report_says_what_was_asked_for(run):
    metric = modkit.find("metric", "fd").load()()
    report = evaluate_run(run, num=32, metrics=[metric], features="pixels", seed=2)
    assert report.settings == {"num": 32, "features": "pixels", "metrics": [f"<{type(metric).__name__}>"], "seed": 2}
    assert evaluate_run(run, metrics=["fd"], features="pixels").settings == {"features": "pixels", "metrics": ["fd"]}
