"""What README.md and the pages behind it say; `tests/docs` carries out their blocks and follows their links."""

import re
from pathlib import Path

import pytest

import modkit
from tests.docs.blocks import blocks

ROOT = Path(__file__).parents[1]


@pytest.fixture
def spec(tmp_path):
    """The file that holds the first spec of the reference."""
    block = next(block for block in blocks("docs/spec.md") if block.language == "yaml")
    (tmp_path / "spec.yaml").write_text(block.text)
    return tmp_path / "spec.yaml"


def test_the_spec_is_one_that_trains(spec):
    report = modkit.check(modkit.load_spec(spec))
    assert [stage.steps for stage in report.stages] == [2000, 2000]


@pytest.mark.wide
def test_the_spec_draws_latents_of_unit_deviation(spec, tmp_path):
    """With `eps`, whose errors the first step multiplies by 631, the deviation was 861 after the whole training."""
    steps = ["train.steps=150", "train.batch_size=16"]
    shorter = [*steps, "train.device=cpu", "train.samples.num=4", "evaluate=null"]
    model = modkit.load(modkit.train(modkit.load_spec(spec, shorter), tmp_path / "run"))
    z = model.prior.sample(300, seed=0)
    assert abs(z.std() - 1) < 0.1 and abs(z.mean()) < 0.1
    refused = r"model\.prior\.parametrization: .* grows 631-fold .*mend it with model\.prior\.parametrization=v"
    with pytest.raises(modkit.SpecError, match=refused):
        modkit.train(modkit.load_spec(spec, ["model.prior.parametrization=eps"]), tmp_path / "eps")
    assert not (tmp_path / "eps").exists()


def test_readme_is_short_and_has_one_picture_before_its_links():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 500
    assert [part.count("![") for part in text.split("## Read on")] == [1, 1]


def test_every_example_is_in_the_table():
    text = (ROOT / "examples" / "README.md").read_text()
    listed = {Path(link).name for link in re.findall(r"\(([^)/]+\.(?:yaml|py))\)", text)}
    assert listed == {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".yaml")}
