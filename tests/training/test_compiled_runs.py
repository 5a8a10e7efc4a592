"""Compiled training equals eager training, and no network has more variants of its code than it needs.

A variant is made for each of: a player's own turn, its rivals' turns, calls without gradients, and batches of one
sample, where a Model is first asked whether it can be sampled.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

from modkit import Spec, evaluate_run, load, train, use
from modkit.building import session
from modkit.cli.app import app
from modkit.evaluation import evaluate_run as evaluation
from modkit.models.compiling import compile_networks
from modkit.nn import compiled
from modkit.publishing import samples
from modkit.runs.run import Run
from modkit.specs.node import Node
from modkit.specs.settings import Compilation
from modkit.training import training

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself

MLP = use("mlp", width=8, depth=1)
CONV = use("conv", channels=[4])
CODER = use(
    "autoencoder",
    encoder=CONV,
    bottleneck=use("vq", num_codes=8, channels=2),
    decoder=CONV,
    critic=use("patch", channels=4, layers=1, norm="none"),
    critic_start=10,
    judges={"perceptual": use("perceptual", features=use("random-conv", dim=8))},
    weights={"perceptual": 0.5, "adversarial": use("adaptive", against=["nll", "perceptual"])},
)
VAE = use("autoencoder", encoder=MLP, bottleneck=use("gaussian", channels=4), decoder=MLP)
TRANSFORMER = use("transformer", width=8, depth=2, heads=2, dropout=0.0)  # inductor draws another dropout
R1 = {"r1": use("r1")}
LAZY = {"terms": {"*r1": {"every": 4}}}
TWO = {"stages": [{"players": ["autoencoder/*"], "steps": 30}, {"players": ["prior/*"], "steps": 30}]}
SYSTEMS: Mapping[str, tuple[Node, Mapping[str, Any]]] = {
    "vqgan": (use("latent", autoencoder=CODER, prior=use("autoregressive", network=TRANSFORMER)), TWO),
    "gan": (use("gan", generator=MLP, discriminator=MLP, regularizers=R1), LAZY),
    "ddgan": (use("denoising-gan", network=MLP, discriminator=MLP, steps=2, regularizers=R1), LAZY),
    "ldm": (use("latent", autoencoder=VAE, prior=use("diffusion", network=MLP, sampler=use("ddim", steps=4))), TWO),
}
MOST = 6


def train_small(model: Node, more: Mapping[str, Any], out: Path, compile: Any) -> Run:
    """Sixty steps, with pictures and scores of a number of samples that is no multiple of the batch."""
    settings = {"batch_size": 8, "steps": 60, "device": "cpu", "log": {"every": 1}, "samples": {"every": 30, "num": 7}}
    data = use("digits", size=8)
    scores = {"metrics": ["fd"], "num": 67, "features": "pixels", "watch": {"every": 30, "num": 9, "metrics": ["fd"]}}
    return train(Spec(model=model, data=data, train={**settings, **more, "compile": compile}, evaluate=scores), out)


def count_variants(model: torch.nn.Module) -> dict[str, int]:
    """Counts the variants of compiled modules, by name."""
    calls = {name: one.forward._call for name, one in model.named_modules() if "forward" in vars(one)}
    return {
        name: len(_debug_get_cache_entry_list(call._torchdynamo_orig_callable.__code__)) for name, call in calls.items()
    }


def read_rows(run: Run) -> list[dict[str, Any]]:
    return [*map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())]


@pytest.mark.wide
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.full)])
def test_compiled_equals_eager(name, backend, tmp_path, monkeypatch, caplog):
    model, more = SYSTEMS[name]
    made: list[torch.nn.Module] = []
    monkeypatch.setattr(training, "compile_networks", lambda m, how: (made.append(m), compile_networks(m, how)))
    torch.compiler.reset()
    eager = train_small(model, more, tmp_path / "eager", False)
    with torch._functorch.config.patch(donated_buffer=True), caplog.at_level(logging.WARNING, compiled.__name__):
        run = train_small(model, more, tmp_path / "compiled", {"backend": backend})
        variants = [count_variants(one) for one in made]
    assert not [one.message for one in caplog.records if one.name == compiled.__name__]
    print(name, variants)
    assert len(variants) == 2 and variants[0] and max(variants[0].values()) <= MOST
    for row, other in zip(read_rows(eager), read_rows(run), strict=True):
        assert row.get("losses", {}) == pytest.approx(other.get("losses", {}), rel=1e-3, abs=1e-4)
        # where a drawn number is between two codes, rounding decides which one is sampled
        assert row.get("scores", {}) == pytest.approx(other.get("scores", {}), rel=2e-2)
    for key, value in eager.load_weights().items():
        torch.testing.assert_close(run.load_weights()[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.wide
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling a network on the CPU needs a C++ compiler")
def test_a_trained_model_is_compiled_when_it_is_loaded_sampled_and_evaluated(tmp_path, monkeypatch, pytestconfig):
    run = train_small(SYSTEMS["gan"][0], {"steps": 2}, tmp_path / "run", False)
    made: list[torch.nn.Module] = []
    full = pytestconfig.getoption("--full")

    def compile_model(model: torch.nn.Module) -> None:  # by inductor, once at least
        compile_networks(model, *[] if full or not made else [Compilation(backend="aot_eager")])
        made.append(model)

    for module in (session, evaluation, samples):
        monkeypatch.setattr(module, "compile_networks", compile_model)
    expected = load(run).sample(5, seed=1)
    torch.testing.assert_close(load(run, compile=True).sample(5, seed=1), expected)
    words = ["sample", str(run.path), "-n", "5", "--seed", "1", "--compile", "--out", str(tmp_path / "x.npy")]
    assert CliRunner().invoke(app, words).exit_code == 0
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "x.npy")), expected)
    reports = [evaluate_run(run, metrics=["fd"], features="pixels", num=67, compile=way) for way in (False, True)]
    plain, faster = (report.scores["FD (pixels)"].value for report in reports)
    assert faster == pytest.approx(plain, rel=1e-4) and reports[1].settings["compile"] is True
    assert len(made) == 3 and all("forward" in vars(model.generator) for model in made)
