"""Every metric and every extractor on a run of every family: scores, or a refusal in the list below."""

import json
import math

import pytest

import modkit
from modkit.building.session import load_run
from modkit.engines.local import LocalEngine
from modkit.evaluation.evaluate_run import evaluate_run, measure_run
from modkit.evaluation.report import Report
from modkit.metrics import LogLikelihood, PathLength
from modkit.parts.registry import get_registry
from tests.refusals import check_refusal
from tests.swap.hosts import HOSTS

NEEDS = {  # what a run must have, by metric
    "is": "logits",
    "label-accuracy": "logits",
    "class-modes": "logits",
    "modes": "truth",
    "reconstruction": "pairs",
    "reconstruction-fd": "feature-pairs",
    "codebook": "codes",
    "sharpness": "images",
    "latent-usage": "posterior",
    "disentanglement": "factors",
}
ENCODE = ("vae", "decoded", "critic", "vq-vae", "aae", "flow", "denoising", "conditional-vae", "bidirectional")
HAS = {
    "truth": {"gan-ring", "diffusion-ring", "denoising-gan-ring"},
    "codes": {"vq-vae", "latent-vq", "latent-autoregressive", "latent-masked", "latent-cascade"},
    "pairs": {host.name for host in HOSTS if host.name in ENCODE or host.name[:7] == "latent-"},
    "logits": set(),  # of pixels
    "factors": set(),  # of digits and rings
    "images": {host.name for host in HOSTS if not host.name.endswith("-ring")},
}
HAS["feature-pairs"] = HAS["pairs"]
HAS["posterior"] = HAS["pairs"] - HAS["codes"] - {"flow", "latent-flow", "bidirectional"}
UNBOUNDED = {
    **dict.fromkeys(("gan", "gan-ring", "cgan", "latent-gan", "super-resolution-gan"), "GAN has no lower bound"),
    **dict.fromkeys(("denoising-gan", "denoising-gan-ring"), "DenoisingGAN has no lower bound"),
    **dict.fromkeys(("latent-vq", "latent-cascade"), "'continuous' has no density"),
    "bidirectional": "Bidirectional has no lower bound",
}
WITHOUT_LOG_P = {
    **dict.fromkeys(("vae", "critic", "aae", "vq-vae", "denoising", "conditional-vae", "latent-vae"), "Autoencoder"),
    "decoded": "Decoded",
    "latent-masked": "Masked",
}
WITHOUT_SOURCE = {
    "decoded",
    "latent-autoregressive",
    "latent-masked",
    "latent-cascade",
    "denoising-gan",
    "denoising-gan-ring",
    "vq-vae",
}
WITHOUT_PRIOR = {"vq-vae": "has no prior to sample from"}
METRICS = [entry.part.name for entry in get_registry().list_parts("metric") if entry.part.name != "cost"]
OF_IMAGES = ("classifier:digits", "random-conv", "pixels")


def refused(host, metric):
    if metric == "bound":
        return UNBOUNDED.get(host)
    if metric == "log-likelihood":
        name = WITHOUT_LOG_P.get(host)
        return f"{name} has no log p" if name else UNBOUNDED.get(host, "").replace("lower bound", "log p") or None
    if metric == "path-length" and host in WITHOUT_SOURCE:
        return "PathLength expects a Model with sources"
    if (need := NEEDS.get(metric)) and host not in HAS[need]:
        return f"{metric} requires {need}"
    return (
        None
        if metric in ("reconstruction", "reconstruction-fd", "codebook", "latent-usage")
        else WITHOUT_PRIOR.get(host)
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = {}

    def run(host):
        if host.name not in made:
            made[host.name] = modkit.train(host, tmp_path_factory.mktemp("runs") / host.name, steps=1)
        return made[host.name]

    return run


@pytest.mark.wide(1)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_every_metric_scores_every_family_or_refuses_it(host, runs):
    reasons = {metric: refused(host.name, metric) for metric in METRICS}
    fits = [metric for metric, reason in reasons.items() if reason is None and metric != "precision-recall"]
    short = {"path-length": PathLength(num=24), "log-likelihood": LogLikelihood(steps=1)}
    fits = [short.get(metric, metric) for metric in fits]
    report = evaluate_run(runs(host), features="pixels", metrics=fits, num=24)
    assert len(report.scores) >= len(fits) - 1
    for name, score in report.scores.items():
        counts = {count for side, count in score.counts.items() if side != "train"}
        assert math.isfinite(score.value) and counts <= {24}, name
    assert Report.from_json(report.to_json()) == report
    assert json.loads(report.to_json())["seed"] == 0
    loaded = load_run(runs(host), needs=("data", "evaluate"))
    for metric, reason in reasons.items():
        if reason:
            options = {"features": "pixels", "metrics": [metric], "num": 24}
            check_refusal(reason, measure_run, loaded, LocalEngine("cpu"), **options)


@pytest.mark.wide(1)
@pytest.mark.parametrize("features", OF_IMAGES)
def test_every_extractor_that_needs_no_weights_serves_a_run(features, runs):
    host = next(host for host in HOSTS if host.name == "cgan")
    report = evaluate_run(runs(host), features=features, metrics=["fd", "prdc", "copying"], num=24)
    names = {name.partition("(")[2].partition(":")[0].rstrip(")") for name in report.scores}
    assert names == {features.partition(":")[0]}
    assert len(report.floor) == 5


def test_a_model_without_a_prior_is_measured_on_what_it_encodes(runs):
    host = next(host for host in HOSTS if host.name == "vq-vae")
    report = evaluate_run(runs(host), features="pixels", num=24)
    names = {"PSNR", "SSIM", "reconstruction FD (pixels)", "codebook usage", "perplexity"}
    assert set(report.scores) == names
    assert any("samples were not measured: VectorQuantizer has no prior" in note for note in report.notes)


@pytest.mark.wide
def test_codebooks_of_a_hierarchy_are_scored_level_by_level(runs):
    host = next(host for host in HOSTS if host.name == "latent-cascade")
    report = evaluate_run(runs(host), features="pixels", metrics=["codebook"], num=24)
    each = [f"{name}, level {level}" for level in (0, 1) for name in ("codebook usage", "perplexity")]
    assert list(report.scores) == each
    assert all(1 <= report.scores[f"perplexity, level {level}"].value <= 8 for level in (0, 1))
