"""What README.md says; its blocks are carried out by `tests/docs`, its links followed there."""

import re
from dataclasses import replace
from pathlib import Path

import modkit
from modkit.parts.registry import Registry, get_registry
from tests.docs.blocks import blocks
from tests.plugin_factory import make_plugin

ROOT = Path(__file__).parents[1]


def test_the_spec_is_one_that_trains(tmp_path):
    (block,) = (block for block in blocks("README.md") if block.language == "yaml")
    (tmp_path / "spec.yaml").write_text(block.text)
    report = modkit.check(modkit.load_spec(tmp_path / "spec.yaml"))
    assert [stage.steps for stage in report.stages] == [300, 2500]


def test_the_spec_draws_latents_of_its_priors_scale(tmp_path):
    """The fault: noise was predicted by default, so that latents had a deviation of 861 in place of 1."""
    (block,) = (block for block in blocks("README.md") if block.language == "yaml")
    (tmp_path / "spec.yaml").write_text(block.text)
    short = ["train.device=cpu", "train.stages[0].steps=60", "train.stages[1].steps=200"]
    spec = replace(modkit.load_spec(tmp_path / "spec.yaml", short), evaluate=None)
    model = modkit.load(modkit.train(spec, out=tmp_path / "run"))
    assert 0.9 < model.prior.sample(1024, seed=0).std() < 1.1


def test_the_part_in_a_package_declares_and_computes_what_it_says(site):
    import torch

    files = {block.file: block.text for block in blocks("README.md")}
    make_plugin(site, "acme", files["acme/__init__.py"].replace("acme.weights", "acme_weights"))
    (site / "acme_weights.py").write_text(files["acme/weights.py"])
    part = Registry.load().find("loss-weight", "acme/truncated-snr")
    schedule = get_registry().find("schedule", "linear").load()()
    weight = part.load()(schedule, get_registry().find("parametrization", "eps").load()(schedule))
    t = torch.tensor([0.1, 1.0], dtype=torch.float64)
    alpha, sigma = schedule.scales(t)
    snr = (alpha / sigma) ** 2
    torch.testing.assert_close(weight(t), torch.stack([snr[0], torch.ones(()).double()]) / snr)


def test_every_example_is_in_the_table():
    text = (ROOT / "README.md").read_text()
    listed = {Path(link).name for link in re.findall(r"\(examples/([^)]+\.(?:yaml|py))\)", text)}
    assert listed == {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".yaml")}
