import re
import shlex
from pathlib import Path

import pytest

import modkit
from modkit.registry import Registry, registry
from tests.plugin_factory import make_plugin

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SWAPS = [line for line in README.splitlines() if line.startswith("modkit train") and "=" in line]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def test_the_spec_is_one_that_trains(tmp_path):
    (text,) = blocks("yaml")
    (tmp_path / "spec.yaml").write_text(text)
    report = modkit.check(modkit.load_spec(tmp_path / "spec.yaml"))
    assert [stage.steps for stage in report.rounds] == [300, 2500]


@pytest.mark.parametrize("line", SWAPS)
def test_swaps_fit(line):
    _, _, spec, *overrides = shlex.split(line.partition(" --out")[0])
    assert modkit.check(modkit.load_spec(ROOT / spec, overrides)).parameters > 0


def test_the_part_in_a_package_declares_and_computes_what_it_says(tmp_path, monkeypatch):
    import torch

    weights, declaration = (code for code in blocks("python") if code.startswith("# acme/"))
    monkeypatch.syspath_prepend(tmp_path)
    make_plugin(tmp_path, "acme", declaration.replace("acme.weights", "acme_weights"))
    (tmp_path / "acme_weights.py").write_text(weights)
    part = Registry.load().find("loss-weight", "acme/truncated-snr")
    schedule = registry().find("schedule", "linear").load()()
    weight = part.load()(schedule, registry().find("parametrization", "eps").load()(schedule))
    t = torch.tensor([0.1, 1.0], dtype=torch.float64)
    alpha, sigma = schedule.scales(t)
    snr = (alpha / sigma) ** 2
    torch.testing.assert_close(weight(t), torch.stack([snr[0], torch.ones(()).double()]) / snr)


def test_every_example_is_in_the_table():
    listed = {Path(link).name for link in re.findall(r"\(examples/([^)]+\.(?:yaml|py))\)", README)}
    assert listed == {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".yaml")}


def test_links_lead_somewhere():
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [target for target in targets if not (ROOT / target).exists()] == []
