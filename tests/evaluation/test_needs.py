"""What an evaluation at the end of training would fail for is known before any folder exists."""

import os
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import modkit
from modkit.cli.app import app
from modkit.evaluation.extractors import make_extractor
from modkit.evaluation.needs import has_logits, list_offers
from modkit.evaluation.report import Report
from modkit.features.pixels import Pixels
from modkit.specs.overrides import apply
from modkit.types import TensorType
from tests.files import write_pictures
from tests.refusals import list_problems

GAN = {"use": "gan", "generator": {"use": "mlp", "width": 8}, "discriminator": {"use": "mlp", "width": 8}, "z_dim": 4}
AUTOENCODER = {"use": "autoencoder", "encoder": {"use": "mlp", "width": 8}, "decoder": {"use": "mlp", "width": 8}}
IDENTITY = {**AUTOENCODER, "bottleneck": "identity"}
LATENT = {"use": "latent", "autoencoder": AUTOENCODER, "prior": {"use": "diffusion", "network": "mlp"}}
DIGITS, RING = {"use": "digits", "size": 8}, {"use": "ring", "num": 64, "num_test": 32}


def make_spec(evaluate, model=GAN, data=DIGITS, **train):
    settings = {"steps": 2, "batch_size": 8, "device": "cpu", **train}
    return modkit.Spec.from_yaml(
        modkit.Spec(name="tiny", data=data, model=model, train=settings, evaluate=evaluate).to_yaml()
    )


@pytest.mark.parametrize(
    ("evaluate", "options", "message"),
    [
        ({"features": "pixels", "metrics": ["fd", "is"]}, {}, r"metrics\[1\].*InceptionScore requires logits"),
        ({"metrics": ["is"]}, {"data": RING}, r"metrics\[0\].*InceptionScore requires logits"),
        ({"metrics": ["label-accuracy"]}, {}, r"metrics\[0\].*LabelAccuracy requires labels"),
        ({"metrics": ["codebook"]}, {"model": AUTOENCODER}, r"metrics\[0\].*Codebook requires codes"),
        ({"metrics": ["reconstruction"]}, {}, r"metrics\[0\].*Reconstruction requires pairs"),
        ({"metrics": ["modes"]}, {}, r"metrics\[0\].*requires truth"),
        ({"metrics": ["latent-usage"]}, {}, r"metrics\[0\].*LatentUsage requires posterior"),
        ({"metrics": ["disentanglement"]}, {"model": AUTOENCODER}, r"metrics\[0\].*Disentanglement requires factors"),
        (
            {"watch": {"every": 1, "num": 8, "metrics": ["reconstruction"]}},
            {"model": AUTOENCODER},
            r"watch.metrics\[0\].*Reconstruction requires pairs",
        ),
        ({"watch": {"every": 1, "num": 5000}}, {}, "watch.num.*expected at most the 1437 training samples, got 5000"),
        (
            {"metrics": ["fd", "wasserstein"], "num": 5001, "features": "pixels"},
            {"data": {"use": "ring", "num": 6000, "num_test": 6000}},
            "evaluate.num.*expected at most the 5000 samples that Wasserstein compares, got 5001",
        ),
        (
            {"metrics": ["wasserstein"]},
            {"data": {"use": "ring", "num": 7000, "num_test": 6000}},
            "evaluate: expected at most the 5000 samples that Wasserstein .* got 6000; set evaluate.num",
        ),
        (
            {"watch": {"every": 1, "num": 6000, "metrics": ["wasserstein"]}},
            {"data": {"use": "ring", "num": 7000, "num_test": 60}},
            "evaluate.watch.num.*expected at most the 5000 samples that Wasserstein compares, got 6000",
        ),
        (
            {"metrics": ["prdc"], "num": 5},
            {},
            "evaluate.num.*expected at least the 6 samples that PRDC needs .*, got 5",
        ),
        ({"metrics": ["bound"]}, {}, r"metrics\[0\]: GAN has no lower bound on log p"),
        ({"metrics": ["log-likelihood"]}, {"model": AUTOENCODER}, r"metrics\[0\]: Autoencoder has no log p"),
        (
            {"metrics": ["bound"]},
            {"model": {**LATENT, "autoencoder": IDENTITY}},
            "bottleneck Identity has no densities",
        ),
        ({"metrics": ["log-likelihood"]}, {"model": {**LATENT, "prior": GAN}}, "GAN has no log p"),
        (
            {"metrics": ["bound"]},
            {"model": {**LATENT, "autoencoder": {**AUTOENCODER, "bottleneck": "vq"}}},
            r"metrics\[0\]: .* bottleneck VectorQuantizer, 'continuous' has no density, only 'codes'.*; .*`at: codes`",
        ),
        (
            {"metrics": ["bound"]},
            {"model": {**AUTOENCODER, "likelihood": "bernoulli"}},
            r"metrics\[0\]: .* likelihood Bernoulli gives the probability of 2 values of x, .*, got 17; expected such",
        ),
        ({"metrics": ["path-length"]}, {"model": "denoising-gan"}, "Model with sources, got DenoisingGAN.* none"),
        (
            {"metrics": [{"use": "path-length", "features": "nonsense"}]},
            {},
            r"metrics\[0\]: PathLength expects features .* got 'nonsense': .*nonsense",
        ),
        (
            {"metrics": [{"use": "path-length", "features": "classifier"}]},
            {},
            r"metrics\[0\]: PathLength expects features that are ready without training, got 'classifier'",
        ),
        (
            {"metrics": ["fd", {"use": "path-length", "features": "random-conv"}]},
            {"data": RING},
            r"metrics\[1\]: PathLength expects features .* got 'random-conv': RandomConv expects images",
        ),
        (
            {"metrics": ["fd", "sharpness"], "features": "pixels"},
            {"data": {"use": "digits", "size": 3}},
            r"metrics\[1\]: Sharpness expects images of shape \(c, h, w\) of at least 3×4, got .* \(1, 3, 3\)",
        ),
        (
            {"features": "pixels", "watch": {"every": 1, "num": 8, "metrics": ["sharpness"]}},
            {"data": {"use": "digits", "size": 3}},
            r"watch.metrics\[0\]: Sharpness expects images",
        ),
        (
            {"metrics": ["fd", {"use": "prdc", "k": 3}, {"use": "prdc", "k": 5}]},
            {},
            r"metrics\[2\]: expected each metric once, got PRDC, as in evaluate.metrics\[1\]",
        ),
        (
            {"watch": {"every": 1, "num": 8, "metrics": ["fd", "fd"]}},
            {},
            r"watch.metrics\[1\]: .* once, got FrechetDistance, as in evaluate.watch.metrics\[0\]",
        ),
        (
            {"watch": {"every": 1, "num": 8, "metrics": ["fd", "copying"]}},
            {},
            r"watch.metrics\[1\]: expected metrics that compare samples with training images, got Copying",
        ),
        ({"num": 1000}, {}, "evaluate.num.*1437 samples of the train and the 360 of the test split, got 1000"),
    ],
)
def test_what_metrics_lack_is_refused_by_path_before_training(evaluate, options, message, tmp_path, monkeypatch):
    """The fault: a metric that its features cannot feed was known after hours of training."""
    monkeypatch.chdir(tmp_path)
    spec = make_spec(evaluate, **options)
    (problem,) = list_problems(modkit.check, spec)
    (again,) = list_problems(modkit.train, spec, "run")
    assert problem == again and not os.listdir(tmp_path)
    with pytest.raises(modkit.SpecError, match=message):
        modkit.check(spec)


@pytest.mark.parametrize(
    ("evaluate", "options"),
    [
        ({"metrics": ["is", "fd", "prdc", "copying", "cost"]}, {}),
        ({"metrics": ["label-accuracy"]}, {"model": {**GAN, "conditioner": "label"}}),
        ({"metrics": ["modes", "fd"]}, {"data": RING}),
        ({"metrics": ["reconstruction", "reconstruction-fd"], "features": "pixels"}, {"model": AUTOENCODER}),
        ({"metrics": ["codebook"]}, {"model": {**AUTOENCODER, "bottleneck": "vq"}}),
        ({"watch": {"every": 1, "num": 8, "metrics": ["fd", "is"]}}, {}),
        ({"metrics": ["path-length", "sharpness"]}, {}),
        ({"metrics": [{"use": "path-length", "features": "classifier:digits"}]}, {}),
        ({"metrics": [{"use": "path-length", "features": "random-conv:3,dim=64"}]}, {}),
        ({"metrics": ["bound", "sharpness"]}, {"model": AUTOENCODER}),
        ({"metrics": ["bound", "log-likelihood", "path-length"]}, {"model": LATENT}),
        ({"metrics": ["fd"], "watch": {"every": 1, "num": 8, "metrics": ["fd"]}}, {}),
        (
            {"metrics": ["wasserstein"], "num": 5000, "features": "pixels"},  # exactly its most
            {"data": {"use": "ring", "num": 6000, "num_test": 6000}},
        ),
        ({"metrics": ["prdc"], "num": 6}, {}),  # exactly its fewest
    ],
)
def test_what_is_provided_is_not_refused(evaluate, options):
    modkit.check(make_spec(evaluate, **options))


@pytest.mark.parametrize("evaluate", [{}, {"num": 20}, {"metrics": ["prdc"], "num": 20}])
def test_data_without_held_out_samples_cannot_be_measured(evaluate, tmp_path):
    """The fault: with a number, the advice was to lower it to 0."""
    write_pictures(tmp_path)
    data = {"use": "image-folder", "root": str(tmp_path), "size": 8, "test": 0.0}
    with pytest.raises(
        modkit.SpecError, match="evaluate: expected at least 2 samples in the test split to measure, got 0"
    ):
        modkit.check(make_spec({"features": "pixels", **evaluate}, data=data))


@pytest.mark.parametrize("evaluate", [{}, {"num": 20}, {"metrics": ["prdc"]}, {"metrics": ["prdc"], "num": 20}])
def test_data_without_held_out_samples_can_be_watched_whatever_the_report_would_need(evaluate, tmp_path):
    """The fault: of metrics for the report, which is left out, more samples were wanted than the splits have."""
    write_pictures(tmp_path)
    data = {"use": "image-folder", "root": str(tmp_path), "size": 8, "test": 0.0}
    watch = {"every": 1, "num": 2}
    modkit.check(make_spec({"features": "pixels", "watch": watch, **evaluate}, data=data))


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(
    ("module", "evaluate", "loggers", "message"),
    [
        ("torch.utils.tensorboard", None, ["tensorboard"], "install it with `pip install modkit-generative"),
        ("torch_fidelity.feature_extractor_inceptionv3", {"features": "inception"}, [], "pip install 'torch-fidelity"),
    ],
)
def test_an_extra_that_is_not_installed_is_told_before_a_folder_exists(
    command, module, evaluate, loggers, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "tiny.yaml").write_text(make_spec(evaluate, loggers=loggers).to_yaml())
    result = CliRunner().invoke(app, [command, "tiny.yaml"])
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert os.listdir(tmp_path) == ["tiny.yaml"]


@pytest.fixture
def codes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("codes.npy", np.random.default_rng(0).integers(0, 9, (48, 2, 2)))
    return {"use": "array", "path": "codes.npy", "classes": 9}


MASKED = {"use": "masked", "network": {"use": "transformer", "width": 8, "depth": 1}}


@pytest.mark.parametrize(
    ("evaluate", "path"),
    [
        ({"metrics": ["fd"]}, r"metrics\[0\]: FrechetDistance requires features"),
        ({"metrics": ["sharpness"]}, r"metrics\[0\]: Sharpness requires images"),
        ({"metrics": ["bound"], "features": "pixels"}, "evaluate.features: .* Pixels expects continuous data"),
        ({"metrics": ["bound"], "watch": {"every": 1, "num": 8}}, "evaluate.watch.metrics: .* 9 classes have none"),
    ],
)
def test_what_compares_codes_by_features_that_they_do_not_have_is_refused_before_training(codes, evaluate, path):
    """The fault: check found no problem, and the run was trained to its end."""
    with pytest.raises(modkit.SpecError, match=path):
        modkit.check(make_spec(evaluate, MASKED, codes))


@pytest.mark.parametrize(("evaluate", "score"), [({}, "NFE"), ({"metrics": ["bound"]}, "ELBO")])
def test_codes_are_measured_by_what_needs_no_features(codes, evaluate, score):
    """The fault: pixels were made for them, whatever the metrics, and refused them."""
    run = modkit.train(make_spec(evaluate, MASKED, codes), "run")
    scores = Report.read(run.path / "evaluation.json").scores
    assert score in scores and not any("pixels" in name for name in scores)


def test_offers_follow_types_fields_and_features():
    image, vector = TensorType((1, 8, 8), range=(-1, 1)), TensorType((2,))
    nothing = {"truth": False, "factors": False, "features": True, "logits": False, "model": None}
    assert list_offers(vector, (), **nothing) == {"features", "points", "batch", "levels"}
    more = {"images", "range", "labels", "truth", "factors", "logits"}
    assert (
        list_offers(image, ("labels",), truth=True, factors=True, features=True, logits=True, model=None)
        - list_offers(vector, (), **nothing)
        == more
    )
    assert list_offers(TensorType((4, 4), classes=9), (), **{**nothing, "features": False}) == {"batch", "levels"}
    assert not has_logits(Pixels(image), image) and has_logits(make_extractor("classifier:digits", image), image)


def test_a_metric_that_a_swap_leaves_without_its_needs_is_dropped_with_a_notice(caplog):
    model = {**AUTOENCODER, "bottleneck": "vq"}
    spec = make_spec({"features": "pixels", "metrics": ["codebook", "reconstruction"]}, model=model)
    changed, _ = apply(spec, ["model.bottleneck=gaussian"])
    assert [one.use for one in modkit.check(changed).plan.resolved.at("evaluate.metrics")] == ["reconstruction"]
    notice = "swap: dropped evaluate.metrics[0] (nothing provides what it needs any more)"
    assert [record.getMessage() for record in caplog.records] == [notice]
    with pytest.raises(modkit.SpecError, match="Codebook requires codes"):
        modkit.check(apply(spec, ["model.bottleneck=gaussian", "evaluate.metrics=[codebook]"])[0])
