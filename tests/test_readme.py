"""What README.md says; its blocks are carried out by `tests/docs`, its links followed there."""

import re
from pathlib import Path

import pytest

import modkit
from modkit.parts.registry import Registry
from tests.docs.blocks import blocks
from tests.plugin_factory import make_plugin

ROOT = Path(__file__).parents[1]


@pytest.fixture
def spec(tmp_path):
    """The file that holds the page's spec."""
    (block,) = (block for block in blocks("README.md") if block.language == "yaml")
    (tmp_path / "spec.yaml").write_text(block.text)
    return tmp_path / "spec.yaml"


def test_the_spec_is_one_that_trains(spec):
    report = modkit.check(modkit.load_spec(spec))
    assert [stage.steps for stage in report.stages] == [300, 2500]


@pytest.mark.wide
def test_the_spec_draws_latents_of_unit_deviation(spec, tmp_path):
    """With `eps`, whose errors the first step multiplies by 631, the deviation was 861 after the whole training."""
    steps = ["train.stages[0].steps=20", "train.stages[1].steps=150", "train.batch_size=16"]
    shorter = [*steps, "train.device=cpu", "train.samples.num=4", "evaluate=null"]
    model = modkit.load(modkit.train(modkit.load_spec(spec, shorter), tmp_path / "run"))
    z = model.prior.sample(300, seed=0)
    assert abs(z.std() - 1) < 0.1 and abs(z.mean()) < 0.1
    refused = r"model\.prior\.parametrization: .* grows 631-fold .*mend it with model\.prior\.parametrization=v"
    with pytest.raises(modkit.SpecError, match=refused):
        modkit.train(modkit.load_spec(spec, ["model.prior.parametrization=eps"]), tmp_path / "eps")
    assert not (tmp_path / "eps").exists()


def test_the_part_in_a_package_declares_and_computes_what_it_says(site):
    import torch

    files = {block.file: block.text for block in blocks("README.md")}
    make_plugin(site, "acme", files["acme/__init__.py"].replace("acme.weights", "acme_weights"))
    (site / "acme_weights.py").write_text(files["acme/weights.py"])
    part = Registry.load().find("loss-weight", "acme/truncated-snr")
    snr = torch.tensor([9.0, 0.1], dtype=torch.float64)
    weight = part.load()()(snr, 1 / snr)  # on the error of eps
    torch.testing.assert_close(weight, torch.tensor([9.0, 1.0]).double() / snr)


def test_every_example_is_in_the_table():
    text = (ROOT / "README.md").read_text()
    listed = {Path(link).name for link in re.findall(r"\(examples/([^)]+\.(?:yaml|py))\)", text)}
    assert listed == {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".yaml")}
