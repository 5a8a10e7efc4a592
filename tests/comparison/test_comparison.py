"""Runs compared: labels, groups of seeds, what is ranked, the page as a browser reads it, and what is refused."""

import base64
import io
import json
import math
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import modkit
from modkit import Spec
from modkit.cli.app import app
from modkit.comparison import compare
from modkit.evaluation.report import Report
from modkit.runs.files import hash_data
from modkit.runs.run import Run
from modkit.types import Score
from tests.refusals import check_refusal

SCRIPT = "<script>alert(1)<&>"
BASE = "ldm (base: sampler=ddim)"  # which was evaluated with another sampler as well
DIGITS = "data: {use: digits, size: 8}\n"
TRAIN = "train: {{seed: {seed}, device: cpu, batch_size: 8, steps: 2, log: {{every: 1}}, samples: {{num: 4}}}}\n"
MLP = "{use: mlp, width: 8, depth: 1}"
VAE = f"model: {{use: autoencoder, encoder: {MLP}, bottleneck: {{use: gaussian, channels: 2}}, decoder: {MLP}}}\n"
GAN = f"model: {{use: gan, z_dim: 4, generator: {MLP}, discriminator: {MLP}}}\n"
AE = f"{{encoder: {MLP}, bottleneck: {{use: gaussian, channels: 2}}, decoder: {MLP}}}"
DENOISER = f"{{use: diffusion, network: {MLP}, sampler: {{use: ddim, steps: 2}}}}"
LDM = f"model: {{use: latent, autoencoder: {AE}, prior: {DENOISER}}}\n"
LAST = "step-00000004"  # of two stages
COUNTS = {"real": 100, "fake": 100}
CPU = {"device": "cpu", "threads": 1, "batch size": 64}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def trained(path, name, model, seed=0):
    text = f"name: {json.dumps(name)}\n{DIGITS}{model}{TRAIN.format(seed=seed)}"
    return modkit.train(Spec.from_yaml(text), path)


def report(fd, coverage, speed, *, counts=COUNTS, overrides=(), notes=(), checkpoint="step-00000002", **more):
    scores = {
        "FD (pixels)": Score(fd, 0.1, "lower", counts, settings={"groups": 10}),
        "coverage (pixels)": Score(coverage, 0.02, "higher", counts, settings={"k": 5}),
        "samples/s": Score(speed, 5.0, "higher", settings=CPU),
        "parameters": Score(1234, None, "lower"),
        **more,
    }
    floor = {"FD (pixels)": Score(0.5, 0.05, "lower", counts, settings={"groups": 10})}
    settings = {"num": 50, "features": "pixels", "metrics": ["fd", "cost"], "raw": True}
    return Report(scores, counts, 0, notes, floor, overrides, checkpoint, settings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three families, one of them with two seeds and a second sampler."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "vae": trained(folder / "vae", "vae", VAE),
        "gan": trained(folder / "gan", SCRIPT, GAN),
        "ldm-0": trained(folder / "ldm-0", "ldm", LDM, 0),
        "ldm-1": trained(folder / "ldm-1", "ldm", LDM, 1),
    }
    report(9.0, 0.5, 2000.0).save(made["vae"].path)
    report(3.0, 0.7, 1000.0, notes=("a note </dd><script>alert(2)</script>",)).save(made["gan"].path)
    report(1.0, 0.8, 30.0, checkpoint=LAST).save(made["ldm-0"].path)
    report(2.0, 0.9, 40.0, checkpoint=LAST).save(made["ldm-1"].path)
    few, heun = {"real": 50, "fake": 50}, ("model.prior.sampler=heun",)
    report(0.2, 0.1, 20.0, counts=few, overrides=heun, checkpoint=LAST).save(made["ldm-0"].path)
    return made


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    return compare(list(runs.values()), tmp_path_factory.mktemp("page") / "comparison.html")


@pytest.fixture(scope="module")
def found(compared):
    return json.loads(compared.data.read_bytes())


class Page:
    """The cells, links, pictures and plain text of a page, whose elements are all closed."""

    def __init__(self, text):
        whole = re.sub(r"<(meta|link|img|input)\b([^>]*?)/?>", r"<\1\2/>", re.sub("(?i)<!doctype[^>]*>", "", text))
        root = ElementTree.fromstring(whole)
        nodes = list(root.iter())
        self.tags, self.ids = {node.tag for node in nodes}, {node.get("id") for node in nodes}
        self.urls = [node.get(name) for node in nodes for name in ("src", "href") if node.get(name)]
        self.pictures = [node.attrib for node in root.iter("img")]
        rows = [[cell for cell in row if cell.tag in ("td", "th")] for row in root.iter("tr")]
        self.rows = [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in rows]
        self.text = "".join(root.find("body").itertext())

    def row(self, label, containing):
        """The cells of the first row of a label that has some text."""
        return next(row for row in self.rows if row[0].startswith(label) and any(containing in cell for cell in row))


@pytest.fixture(scope="module")
def page(compared):
    return Page(compared.page.read_text())


@pytest.mark.wide
def test_entries_and_systems(found):
    labels = ["vae", SCRIPT, "ldm (ldm-0)", "ldm (ldm-1)", "ldm sampler=heun"]
    assert [one["label"] for one in found["entries"]] == labels
    assert [one["label"] for one in found["systems"]] == ["vae", SCRIPT, BASE, "ldm sampler=heun"]
    seeds = found["systems"][2]
    assert seeds["entries"] == ["ldm (ldm-0)", "ldm (ldm-1)"]
    mean = seeds["scores"]["FD (pixels)"]
    assert mean["value"] == 1.5 and mean["error"] == pytest.approx(math.sqrt(0.5) / math.sqrt(2), rel=1e-14)


def test_only_equal_counts_are_ranked(found):
    ranking = found["rankings"]["FD (pixels)"]
    assert ranking["ranks"] == {"vae": 3, SCRIPT: 2, BASE: 1} and ranking["best"] == [BASE]
    reason = "number of real is 50 instead of 100; number of fake is 50 instead of 100"
    assert ranking["unranked"] == {"ldm sampler=heun": reason}
    assert found["rankings"]["samples/s"]["ranks"]["vae"] == 1  # cost has no counts, so all are ranked


def test_the_front_leaves_the_unranked_out(found, compared):
    assert found["trilemma"]["axes"]["quality"] == {"score": "FD (pixels)", "better": "lower"}
    assert compared.front == ("vae", SCRIPT, BASE)
    assert found["trilemma"]["floor"] == {"quality": 0.5}


def test_differences_by_path(found):
    differences = found["differences"]
    assert differences["model.use"][SCRIPT] == "gan" and differences["model.use"]["vae"] == "autoencoder"
    assert differences["model.prior.sampler.use"]["ldm (ldm-0)"] == "ddim"
    assert differences["model.prior.sampler.use"]["ldm sampler=heun"] == "heun"
    assert differences["train.seed"]["ldm (ldm-1)"] == 1
    assert not [path for path in differences if path.startswith(("data", "train.batch_size"))]


def test_nearest_images_by_brute_force(found, runs):
    x = modkit.load(runs["gan"].path).sample(8, seed=0).clamp(-1, 1)
    data = modkit.find("data", "digits").load()(size=8)
    train = data.read("train", range(1437), modkit.Rng(0)).x
    distances = torch.cdist(x.double().flatten(1), train.double().flatten(1))
    samples = found["entries"][1]["samples"]
    assert samples["distances"] == pytest.approx(distances.min(1).values.tolist(), rel=1e-5)
    held = data.read("test", range(64), modkit.Rng(0)).x
    median = torch.cdist(held.double().flatten(1), train.double().flatten(1)).min(1).values.median()
    assert samples["held_out"] == pytest.approx(float(median), rel=1e-6)


def test_tables_of_the_page(page):
    best = page.row(BASE, "1.50 ± 0.50")
    assert best[0] == f"{BASE} mean of 2 seeds" and "★" in best[1]
    assert page.row("ldm (ldm-1)", "2.00 ± 0.10")[0] == "ldm (ldm-1) seed 1"
    assert "★" not in page.row(SCRIPT, "3.00 ± 0.10")[1]
    assert page.row("ldm sampler=heun", "0.20 ± 0.10a")  # the footnote's letter
    assert page.row("held-out images", "0.500 ± 0.050")
    assert page.row("model.prior.sampler", "heun")[3].startswith("ddim steps=2")
    assert page.row("vae", "2,000.0 ± 5.0")
    for text in (
        "Shown but not ranked: number of real is 50 instead of 100; number of fake is 50 instead of 100.",
        "On the Pareto front of quality, coverage and speed by FD (pixels), coverage (pixels) and samples/s: ",
        "ldm sampler=heun is shown but not ranked in FD (pixels) and coverage (pixels)",
    ):
        assert text in page.text


def test_the_page_holds_all_it_needs(page, compared):
    assert all(url.startswith(("data:image/", "data:,", "#")) for url in page.urls)
    assert {url[1:] for url in page.urls if url.startswith("#")} <= page.ids
    assert not page.tags & {"script", "iframe", "object", "embed", "form"}
    text = compared.page.read_text()
    assert not re.search(r"(?i)@import|url\(", text) and not re.search(r"https?://", text)
    assert len(page.pictures) >= 3 + 1 + 2 * 5  # radars, scatters, curves, data, and two for each entry
    assert all(picture["alt"] for picture in page.pictures)
    for picture in page.pictures:
        kind, _, content = picture["src"].partition(";base64,")
        if kind == "data:image/png":
            Image.open(io.BytesIO(base64.b64decode(content))).verify()


def test_what_runs_say_is_escaped(page, compared):
    text = compared.page.read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;&amp;&gt;" in text
    assert "a note </dd><script>alert(2)</script>" in page.text


def test_commands_name_the_run_and_what_was_measured(found, runs):
    train, measure = found["entries"][4]["commands"]
    path = runs["ldm-0"].path
    assert train == f"modkit train {path}/spec.yaml --out {path}-again"
    assert measure == (
        f"modkit evaluate {path} model.prior.sampler=heun --seed 0 -n 50 --features pixels --metrics fd,cost --raw "
        f"--checkpoint {LAST}"
    )


@pytest.mark.wide
def test_again_is_the_same(runs, tmp_path):
    once = compare([runs["vae"]], tmp_path / "page.html")
    before = once.data.read_bytes(), once.page.read_bytes()
    again = compare([str(runs["vae"].path)], tmp_path / "page.html")
    assert (again.data.read_bytes(), again.page.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.json"]


@pytest.mark.wide
def test_what_a_run_no_longer_is_is_left_out_and_named(tmp_path, caplog):
    """The fault: scores of the sampler before a change of the spec were labelled with that after it."""
    spec = Spec.from_yaml(f"name: ldm\n{DIGITS}{LDM}{TRAIN.format(seed=0)}")
    run = modkit.train(spec, tmp_path / "run")
    old, now = (hash_data(text) for text in (run.spec_text, _change(spec, run).spec_text))
    overrides = ("model.prior.sampler.steps=3",)
    replace(report(1.0, 0.5, 9.0, checkpoint=LAST), spec=old).save(run.path)
    message = f"got {run.path} with the report of {LAST} .the run's spec has changed since.; evaluate it"
    check_refusal(message, compare, [run.path], tmp_path / "page.html")
    replace(report(1.0, 0.5, 9.0, checkpoint="step-00000003", overrides=overrides), spec=now).save(run.path)
    asked = {"checkpoint": "step-00000003"}
    replace(report(1.0, 0.5, 9.0, checkpoint=asked["checkpoint"]), spec=now, settings=asked).save(run.path)
    caplog.clear()
    assert compare([run.path], tmp_path / "page.html").entries == ("ldm checkpoint=step-00000003",)
    assert caplog.messages == [
        f"{run.path}: left out the report of {LAST} (the run's spec has changed since)",
        f"{run.path}: left out the report of step-00000003 with {overrides[0]} (the last checkpoint is {LAST} now)",
    ]


@pytest.mark.wide
def test_a_report_of_another_model_than_was_trained_is_left_out_and_named(tmp_path, caplog):
    """An earlier version measured runs with overrides of what they were trained with."""
    run = modkit.train(Spec.from_yaml(f"name: ldm\n{DIGITS}{LDM}{TRAIN.format(seed=0)}"), tmp_path / "run")
    now = hash_data(run.spec_text)
    replace(report(1.0, 0.5, 9.0, checkpoint=LAST), spec=now).save(run.path)
    override = "model.prior.parametrization=x0"
    replace(report(1.0, 0.5, 9.0, checkpoint=LAST, overrides=(override,)), spec=now).save(run.path)
    assert compare([run.path], tmp_path / "page.html").entries == ("ldm",)
    reason = "it changes model.prior.parametrization, with which the run was trained"
    assert caplog.messages == [f"{run.path}: left out the report of {LAST} with {override} ({reason})"]


def _change(spec, run):
    """Resumes a finished run with other steps of its sampler."""
    return modkit.resume(run, ["model.prior.sampler.steps=1"])


@pytest.mark.wide
def test_another_checkpoint_and_precision_are_systems_of_their_own(tmp_path):
    """The fault: equal labels, or a mean over what was measured in another precision."""
    paths = [trained(tmp_path / str(seed), "vae", VAE, seed).path for seed in (0, 1)]
    for path in paths:
        for settings in ({}, {"checkpoint": "step-00000002"}, {"precision": "bf16"}):
            replace(report(1.0, 0.5, 9.0), settings=settings).save(path)
    found = json.loads(compare(paths, tmp_path / "page.html").data.read_bytes())["systems"]
    assert [one["label"] for one in found] == ["vae", "vae checkpoint=step-00000002", "vae precision=bf16"]
    assert [len(one["entries"]) for one in found] == [2, 2, 2]


@pytest.mark.wide
def test_equal_names_get_their_directories(runs, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(runs["vae"].path, tmp_path / name)
    found = compare([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")  # the same seed: not one group
    assert found.entries == ("vae (a)", "vae (b)")


@pytest.mark.wide
def test_the_base_of_a_sweep_has_its_own_values(runs, tmp_path):
    """The fault: of `ldm` and `ldm sampler=heun` nobody saw which sampler the first had."""
    shutil.copytree(runs["ldm-1"].path, tmp_path / "a")
    for overrides in (("model.prior.sampler.steps=3",), ("model.prior.sampler=heun", "model.prior.sampler.churn=0.5")):
        report(1.0, 0.5, 9.0, overrides=overrides, checkpoint=LAST).save(tmp_path / "a")
    found = compare([tmp_path / "a"], tmp_path / "page.html").entries
    assert set(found) == {
        "ldm (base: sampler=ddim sampler.steps=2)",  # ddim has no churn
        "ldm sampler.steps=3",
        "ldm sampler=heun sampler.churn=0.5",
    }
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found = compare([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html").entries
    assert {f"ldm ({name}; base: sampler=ddim sampler.steps=2)" for name in "ab"} <= set(found)


@pytest.fixture(scope="module")
def mixed(runs, tmp_path_factory):
    """Systems of two data sets."""
    folder = tmp_path_factory.mktemp("mixed")
    text = f"name: larger\n{DIGITS.replace('8', '16')}{VAE}{TRAIN.format(seed=0)}"
    larger = modkit.train(Spec.from_yaml(text), folder / "larger")
    found = report(1.0, 0.5, 500.0)
    replace(found, floor={"FD (pixels)": replace(found.floor["FD (pixels)"], value=0.9)}).save(larger.path)
    compared = compare([larger, runs["vae"], runs["gan"]], folder / "page.html")
    return compared, Page(compared.page.read_text())


@pytest.mark.wide
def test_references_are_named_where_data_differ(mixed):
    """The fault: references went by the labels of systems, the reason was "other data"."""
    compared, page = mixed
    assert "it was measured on digits size=16 instead of digits size=8." in page.text
    assert [row[:2] for row in page.rows if row[0].startswith("held-out")] == [
        ["held-out images of digits size=16", "0.900 ± 0.050"],
        ["held-out images of digits size=8", "0.500 ± 0.050"],
    ]
    assert "training data of digits size=16" in page.text and "training data of digits size=8" in page.text
    assert "Dotted: held-out images of digits size=8." in page.text  # with which the ranked systems are compared
    assert re.search(r"closer than [\d.]+ \(digits size=16\), [\d.]+ \(digits size=8\) to a training", page.text)
    entries = json.loads(compared.data.read_bytes())["entries"]
    assert [one["reference"] for one in entries] == ["digits size=16", "digits size=8", "digits size=8"]


def test_references_have_no_names_where_data_agree(page):
    assert "held-out images the floor" in [row[0] for row in page.rows]
    assert "digits" not in page.text.partition("8. How it was measured")[0].partition("2. Scores")[2]


@pytest.mark.wide(1)
@pytest.mark.parametrize("stored", [True, False])
def test_scores_belong_to_the_content_that_was_measured(tmp_path, stored):
    """The fault: seeds of one path were averaged, and ranked, by what its file holds when they are compared."""
    runs, keys = [], []
    for seed, value in enumerate((-0.5, 0.5)):
        np.save(tmp_path / "x.npy", np.full((20, 3, 3), value, np.float32))
        data = f"data: {{use: array, path: {tmp_path / 'x.npy'}, bounds: [-1, 1], test: 0.5}}\n"
        spec = Spec.from_yaml(f"name: gan\n{data}{GAN}{TRAIN.format(seed=seed)}")
        run = modkit.train(spec, tmp_path / str(seed), evaluate=False)
        made = modkit.evaluate_run(run, features="pixels", metrics=["fd"], num=4)
        keys.append(run.lock["data"])
        assert made.data == keys[-1]
        (made if stored else replace(made, data=None)).save(run.path)  # an earlier version stored none
        runs.append(run)
    compared = compare(runs, tmp_path / "page.html")
    found = json.loads(compared.data.read_bytes())
    assert [one["data"] for one in found["entries"]] == keys and len(set(keys)) == 2
    assert [one["entries"] for one in found["systems"]] == [["gan (0)"], ["gan (1)"]]
    names = [f"array with content {key[:8]}" for key in keys]
    reason = f"it was measured on {names[0]} instead of {names[1]}"
    assert found["rankings"]["FD (pixels)"]["unranked"]["gan (0)"] == reason
    assert [bool(one["samples"]["distances"]) for one in found["entries"]] == [False, True]
    assert any(text.startswith("The data of gan (0) have changed") for text in compared.findings)
    page = compared.page.read_text()
    assert f"training data of {names[1]}" in page and f"training data of {names[0]}" not in page


@pytest.mark.wide
def test_data_that_an_override_changes_have_not_changed_since(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 3, 3), np.float32))
    data = f"data: {{use: array, path: {tmp_path / 'x.npy'}, bounds: [-1, 1], test: 0.5}}\n"
    spec = Spec.from_yaml(f"name: gan\n{data}{GAN}{TRAIN.format(seed=0)}")
    run = modkit.train(spec, tmp_path / "run", evaluate=False)
    made = modkit.evaluate_run(run, overrides=["data.test=0.4"], features="pixels", metrics=["fd"], num=4)
    made.save(run.path)
    assert made.data != run.lock["data"]
    assert not any("have changed" in text for text in compare([run], tmp_path / "page.html").findings)


def test_data_that_have_moved_are_read_where_an_override_says(tmp_path):
    file = tmp_path / "x.npy"
    np.save(file, np.zeros((20, 3, 3), np.float32))
    data = f"data: {{use: array, path: {file}, bounds: [-1, 1], test: 0.5}}\n"
    run = modkit.train(
        Spec.from_yaml(f"name: gan\n{data}{GAN}{TRAIN.format(seed=0)}"), tmp_path / "run", evaluate=False
    )
    modkit.evaluate_run(run, features="pixels", metrics=["fd"], num=4).save(run.path)
    page, new = tmp_path / "page.html", tmp_path / "y.npy"
    file.rename(new)
    assert not any("have changed" in text for text in compare([run], page, overrides=[f"data.path={new}"]).findings)
    done = CliRunner().invoke(app, ["compare", str(run.path), f"data.path={new}", "--out", str(page)])
    assert done.exit_code == 0, done.output
    np.save(new, np.ones((20, 3, 3), np.float32))
    assert any("have changed" in text for text in compare([run], page, overrides=[f"data.path={new}"]).findings)
    page.unlink()
    with pytest.raises(ValueError, match=r"compare expects overrides of `data`, .*, got model.z_dim=3"):
        compare([run], page, overrides=["model.z_dim=3"])
    assert not page.exists()


@pytest.mark.wide
def test_one_system_alone_has_no_radar(runs, tmp_path):
    """The fault: with nothing to be compared with, it was outermost in everything."""
    text = compare([runs["vae"]], tmp_path / "page.html").page.read_text()
    assert "Radar of quality" not in text and "Scatter plots of each pair" in text


@pytest.mark.wide
def test_scores_that_no_system_has_together_are_not_plotted(runs, tmp_path):
    """The fault: an empty plot with invented axes."""
    for name, score in (("vae", "FD (pixels)"), ("gan", "coverage (pixels)")):
        shutil.copytree(runs[name].path, tmp_path / name)
        (tmp_path / name / "evaluation.json").unlink()
        found = report(1.0, 0.5, 9.0)
        replace(found, scores={score: found.scores[score]}).save(tmp_path / name)
    text = compare([tmp_path / "vae", tmp_path / "gan"], tmp_path / "page.html").page.read_text()
    assert "Scatter plots" not in text and "Not drawn: no system has two of quality" in text


@pytest.mark.wide
def test_seeds_that_were_not_all_measured_are_named(runs, tmp_path):
    """The fault: scores that some seeds lack vanished without a word, or were said not to have been measured."""
    made = [runs["ldm-0"], runs["ldm-1"], trained(tmp_path / "ldm-2", "ldm", LDM, 2)]
    paths = [tmp_path / run.path.name for run in made]
    for run, path in zip(made, paths):
        if run.path != path:
            shutil.copytree(run.path, path)
            shutil.rmtree(path / "evaluations", ignore_errors=True)
            (path / "evaluation.json").unlink()
        found = report(1.0, 0.5, 9.0, checkpoint=LAST)
        names = ["FD (pixels)"] if path.name == "ldm-1" else ["FD (pixels)", "coverage (pixels)"]
        replace(found, scores={name: found.scores[name] for name in names}).save(path)
    made = compare(paths, tmp_path / "page.html")
    assert "ldm is shown but not ranked in coverage (pixels): only seeds 0 and 2 were measured." in made.findings
    assert "Not measured: speed; use `modkit evaluate RUN --metrics` to measure more." in made.findings
    assert "Shown but not ranked: only seeds 0 and 2 were measured." in Page(made.page.read_text()).text


def test_the_page_has_a_dark_mode_and_prints_in_light(compared):
    style = re.search("<style>(.*?)</style>", compared.page.read_text(), re.DOTALL)[1]
    light = re.search(r"(?s):root \{ color-scheme: light dark;(.*?)\}", style)[1]
    dark = re.search(r"(?s)@media screen and \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", style)[1]
    names = set(re.findall(r"(--[a-z]+):", light))
    assert names == set(re.findall(r"(--[a-z]+):", dark)) >= {"--paper", "--ink", "--line", "--shadow"}
    rest = style.replace(light, "").replace(dark, "")
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b|rgb\(", rest)  # every colour has both versions
    assert re.search(r"(?s)@media print \{\s*:root \{ color-scheme: light; \}", style)


def test_what_scrolls_can_be_seen_and_reached(page, compared):
    """The fault: nothing showed on a phone that a table goes on; figures were as small as the screen."""
    text = compared.page.read_text()
    wide = re.findall(r'<div class="wide"[^>]*>', text)
    assert len(wide) == text.count("<table") + sum("svg" in picture["src"][:30] for picture in page.pictures)
    assert all('tabindex="0"' in one and "scrolls sideways" in one for one in wide)
    assert re.search(r"(?s)\.wide \{ overflow-x: auto; background: .*? local,.*? scroll; \}", text)


def test_the_page_opens_with_what_a_reader_wants_to_know(compared):
    text = compared.page.read_text()
    ids = re.findall(r'<h2 id="(\w+)"', text)
    assert ids == ["trilemma", "samples", "scores", "cost", "nearest", "curves", "differences", "measured"]
    assert ids == re.findall(r'<li><a href="#(\w+)"', text)
    assert text.index('aria-label="Verdict"') < text.index('<h2 id="trilemma"')
    folded = text.partition("<details>")[2].partition("</details>")[0]
    assert 'id="differences"' in folded.partition("</summary>")[0] and "sampler" in folded
    clocks = re.findall('<input type="radio" name="clock".*', text)
    assert [line.count(' checked="checked"') for line in clocks] == [1, 0, 0]


@pytest.mark.wide
def test_a_long_title_counts_the_systems(page, compared, runs, tmp_path):
    assert f"<h1>Comparison of vae, {escape(SCRIPT)}, {BASE} and ldm sampler=heun</h1>" in compared.page.read_text()
    several = []
    for number in range(4):
        shutil.copytree(runs["vae"].path, tmp_path / f"a directory of a rather long name {number}")
        several.append(tmp_path / f"a directory of a rather long name {number}")
    assert "<h1>Comparison of 4 systems</h1>" in compare(several, tmp_path / "page.html").page.read_text()


@pytest.mark.wide
def test_in_training_scores_come_first(runs, tmp_path):
    shutil.copytree(runs["vae"].path, tmp_path / "vae")
    with Run.open(tmp_path / "vae") as run:
        run.log({"stage": 0, "step": 2, "scores": {"FD (pixels)": 4.5}})
    text = compare([tmp_path / "vae"], tmp_path / "page.html").page.read_text()
    assert (
        0
        < text.index("Scores during training, against the step: FD (pixels)")
        < text.index("Losses during training, against the step: autoencoder/nll")
    )


def test_points_of_the_plane(tmp_path):
    model = f"model: {{use: gan, z_dim: 2, generator: {MLP}, discriminator: {MLP}}}\n"
    text = f"name: ring\ndata: {{use: ring, num: 500, num_test: 64}}\n{model}{TRAIN.format(seed=0)}"
    run = modkit.train(Spec.from_yaml(text), tmp_path / "ring")
    Report({"mode KL": Score(0.3, None, "lower")}, {"fake": 10}, 0).save(run.path)
    found = compare([run], tmp_path / "page.html")
    assert found.front == () and "Not measured: coverage, quality and speed" in " ".join(found.findings)
    samples = json.loads(found.data.read_bytes())["entries"][0]["samples"]
    assert len(samples["distances"]) == 8 and samples["held_out"] is not None
    assert 'alt="Samples of ring"' in found.page.read_text()


@pytest.mark.wide
def test_a_model_that_cannot_be_sampled_says_why(tmp_path):
    model = f"model: {{use: autoencoder, encoder: {MLP}, bottleneck: {{use: vq, num_codes: 4}}, decoder: {MLP}}}\n"
    run = trained(tmp_path / "vq", "vq", model)
    Report({"PSNR": Score(12.0, None, "higher")}, {"fake": 10}, 0).save(run.path)
    assert "No samples: " in compare([run], tmp_path / "page.html").page.read_text()


def test_refusals(runs, tmp_path):
    check_refusal("at least one run, got none", compare, [])
    check_refusal(r"ending in \.html, got page\.txt", compare, [runs["vae"]], "page.txt")
    twice = [runs["vae"], runs["vae"].path]
    check_refusal("each run once, got .*vae several times", compare, twice, tmp_path / "page.html")
    shutil.copytree(runs["vae"].path, tmp_path / "bare")
    report = tmp_path / "bare" / "evaluation.json"
    report.write_text(report.read_text().replace('"error": 0.1', '"error": NaN'))
    check_refusal("evaluation.json: Report.from_json expects", compare, [tmp_path / "bare"], tmp_path / "page.html")
    report.unlink()
    message = "runs that were evaluated, got .*bare; evaluate it with: modkit evaluate .*bare"
    check_refusal(message, compare, [runs["gan"], tmp_path / "bare"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


class Local(torch.nn.Module):
    """A local denoiser."""

    def __init__(self, x: modkit.TensorType, cond: modkit.CondType):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(x.shape))

    def forward(self, x, cond):
        return x + self.shift


def test_a_run_of_local_parts_is_refused_before_anything_is_read(tmp_path):
    """The fault: the refusal was that of its spec, as if that were wrong, or advised a command that fails."""
    model = modkit.use("diffusion", network=modkit.use(Local), sampler=modkit.use("ddim", steps=2))
    train = {"steps": 1, "batch_size": 8, "device": "cpu"}
    data = modkit.use("ring", num=32, num_test=8)
    run = modkit.train(Spec(name="local", data=data, model=model, train=train), tmp_path / "run")
    message = (
        r"got .*run with local parts: tests\..*:Local; give a function that composes its model: models={run: make}"
    )
    check_refusal(message, compare, [run], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("content", ["report", '{"format": 2, "runs": {}, "trials": []}', "[1]", "{", "[" * 10**5])
def test_another_file_beside_the_page_is_kept(tmp_path, content):
    """The fault: `--out RUN/evaluation.html` replaced the run's report by the comparison."""
    beside = tmp_path / "page.json"
    beside.write_text(report(1.0, 0.5, 9.0).to_json() if content == "report" else content)
    before = beside.read_bytes()
    message = r"compare writes .*page\.json beside its page and expects an earlier comparison or no file there"
    check_refusal(message, compare, ["no run, for it is refused before any is read"], tmp_path / "page.html")
    assert beside.read_bytes() == before and list(tmp_path.iterdir()) == [beside]


@pytest.mark.wide
def test_a_path_that_is_no_text_is_escaped(runs, tmp_path):
    """The fault: after all its work, the page could not be encoded; its data had been written."""
    path = tmp_path / os.fsdecode(b"caf\xe9 \xe2\x80\xae")  # half a character, and what reorders the rest of a line
    shutil.copytree(runs["vae"].path, path)
    made = compare([path], tmp_path / "page.html")
    text = made.page.read_bytes().decode()
    assert f"<code>{tmp_path}/caf\\udce9 \\u202e</code>" in text and "\u202e" not in text
    assert json.loads(made.data.read_bytes())["entries"][0]["run"] == str(path)


@pytest.mark.wide
def test_the_logarithm_is_left_where_the_floor_has_none(runs, tmp_path):
    """The fault: beside a floor of 0, all systems were the worst; the caption must not speak of a logarithm, either."""
    for name, fd in (("vae", 100.0), ("gan", 1.0)):
        shutil.copytree(runs[name].path, tmp_path / name)
        found = report(fd, 0.5, 9.0)
        replace(found, floor={"FD (pixels)": replace(found.floor["FD (pixels)"], value=-1e-3)}).save(tmp_path / name)
    paths = [tmp_path / "vae", tmp_path / "gan"]
    caption = "Quality is FD (pixels){}, coverage is"
    assert caption.format("") in compare(paths, tmp_path / "page.html").page.read_text()
    for path, fd in zip(paths, (100.0, 1.0)):
        report(fd, 0.5, 9.0).save(path)
    assert caption.format(" (its logarithm)") in compare(paths, tmp_path / "page.html").page.read_text()


@pytest.mark.wide
def test_only_features_are_called_so(runs, tmp_path):
    """The fault: the heading "Features: , PSNR (dB) by class"."""
    shutil.copytree(runs["vae"].path, tmp_path / "vae")
    names = ("PSNR (dB), class 3", "FD (pixels), class 3", "PSNR (dB)")
    report(1.0, 0.5, 9.0, **{name: Score(1.0, None, "higher") for name in names}).save(tmp_path / "vae")
    text = compare([tmp_path / "vae"], tmp_path / "page.html").page.read_text()
    scores = text.partition('id="scores"')[2].partition('id="cost"')[0]
    headings = ["Features: pixels", "PSNR (dB) by class", "Features: pixels, FD by class"]
    assert re.findall("<h3>(.*?)</h3>", scores) == headings
    captions = ["by the features pixels", ", PSNR (dB) by class", "by the features pixels, FD by class", ""]
    found = [" ".join(caption.split()) for caption in re.findall(r"</b> Scores(.*?), value ±", scores)]
    assert found == captions


@pytest.mark.system
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_reads_the_page(compared, tmp_path):
    quiet = ("quic", "background-networking", "component-update", "sync", "gpu")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
        *(f"--disable-{what}" for what in quiet), "--window-size=1100,2000",
    ]  # fmt: skip
    checked = tmp_path / "checked.html"  # the page, and a script that writes down what the browser made of its pictures
    script = """<script>addEventListener("load", () => { document.title = "broken: " + [...document.images]
    .filter(one => !one.complete || !one.naturalWidth).length + " of " + document.images.length +
        ", " + (document.documentElement.scrollWidth > innerWidth ? "too wide" : "fits"); });</script></body>"""
    checked.write_text(compared.page.read_text().replace("</body>", script))
    dom = subprocess.run([*command, "--dump-dom", checked.as_uri()], capture_output=True, timeout=60, check=True).stdout
    title = re.search("<title>(.*?)</title>", dom.decode())
    pictures = len(Page(compared.page.read_text()).pictures)
    assert title is not None and title[1] == f"broken: 0 of {pictures}, fits"
    read = Page(dom.decode())
    assert read.row(BASE, "1.50 ± 0.50") and read.row(SCRIPT, "3.00 ± 0.10")

    shot = tmp_path / "page.png"
    subprocess.run(
        [*command, f"--screenshot={shot}", compared.page.as_uri()], capture_output=True, timeout=60, check=True
    )
    with Image.open(shot) as image:
        assert image.size == (1100, 2000)
        assert len(image.convert("L").getcolors()) > 50  # text and pictures, no blank page
    assert Path(shot).stat().st_size > 50_000
