import json

import pytest

import modkit

SPEC = """
name: tiny
data: {use: digits, size: 8}
model: {use: autoencoder, encoder: {use: mlp, width: 8, depth: 1}, decoder: {use: mlp, width: 8, depth: 1},
  bottleneck: {use: vq, num_codes: 4, channels: 2}}
train: {steps: 1, batch_size: 8, device: cpu, samples: {num: 4}}
"""


def test_a_run_logs_what_ran(tmp_path):
    run = modkit.train(modkit.Spec.from_yaml(SPEC), tmp_path / "run")
    (row,) = map(json.loads, (run.path / "timing.jsonl").read_text().splitlines())
    assert row["ops"]["nearest"] == ["reference: tensors on cpu"]


def test_a_run_is_refused_before_it_begins_if_the_choice_is_not_valid(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_OPS", "fast")
    with pytest.raises(ValueError, match="^MODKIT_OPS expects one of auto, reference, triton, got 'fast'$"):
        modkit.train(modkit.Spec.from_yaml(SPEC), tmp_path / "run")
    assert not (tmp_path / "run").exists()
