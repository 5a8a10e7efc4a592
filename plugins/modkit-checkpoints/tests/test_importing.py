"""`modkit import`: a file and a configuration become a run, or one error and nothing written."""

import argparse
import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from modkit_checkpoints.importing import import_checkpoint, summarize

import modkit
from modkit.cli.app import app
from modkit.parts.registry import get_registry
from modkit.runs import checkpoint as store
from modkit.specs.spec import dump

from .taming import config, judge, second_config, second_stage, vq


@pytest.fixture(autouse=True)
def command():
    get_registry().call("modkit_commands", app=app)
    yield
    del app.commands["import"]


def run(*arguments, status=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout, result.stderr


@pytest.fixture
def vqgan(tmp_path):
    """A checkpoint as Lightning writes it, and its configuration."""
    callbacks = {argparse.Namespace: {"best": torch.tensor(1.0)}}
    whole = {"state_dict": {**vq()[0], **judge()[0]}, "epoch": 1, "callbacks": callbacks, "lr_schedulers": []}
    torch.save(whole, tmp_path / "last one.ckpt")
    (tmp_path / "model.yaml").write_text(dump(config()))
    return tmp_path


def run_import(folder, *more, format="taming-vqgan", status=0):
    arguments = ("--config", folder / "model.yaml", "--format", format, "--out", folder / "run")
    return run("import", folder / "last one.ckpt", *arguments, *more, status=status)


def test_a_checkpoint_becomes_a_run(vqgan):
    said, _ = run_import(vqgan)
    assert said.splitlines()[0].startswith("set aside: epoch, callbacks, lr_schedulers, loss.perceptual_loss.* (3)")
    assert said.splitlines()[-1] == f"run: {vqgan / 'run'}"
    model = modkit.load(vqgan / "run")
    assert torch.equal(model.encoder.conv_in.weight, vq()[0]["encoder.conv_in.weight"])
    assert "critic" in model.judges.parts and modkit.Run.open(vqgan / "run").finished
    kept = store.load(vqgan / "run" / "checkpoints" / "step-00000000").state["adopted"]
    assert kept["source"] == "last one.ckpt" and "loss.perceptual_loss.lin0.model.1.weight" in kept["aside"]
    text = (vqgan / "run" / "spec.yaml").read_text()
    assert text.startswith("name: last-one\n")
    assert "already holds a run" in run_import(vqgan, status=2)[1]
    run_import(vqgan, "--overwrite")


@pytest.mark.wide
def test_a_transformer_is_sampled_and_measured_from_the_command_line(tmp_path):
    torch.save(second_stage(), tmp_path / "last one.ckpt")
    (tmp_path / "model.yaml").write_text(json.dumps(second_config()))
    run_import(tmp_path, format="taming-transformer")
    run("sample", tmp_path / "run", "-n", 2, "--out", tmp_path / "x.npy")
    said, _ = run("sample", tmp_path / "run", "-n", 2, "sampler.top_k=1", "--out", tmp_path / "y.png")
    assert said.startswith("2 samples")
    _, error = run("evaluate", tmp_path / "run", status=2)
    assert "name them, as data=" in error


def test_a_file_that_does_not_fit_is_one_error_and_nothing_is_written(vqgan):
    state = {**vq()[0], **judge()[0]}
    state["encoder.conv_in.bias"][0] = torch.nan
    state["encoder.conv_out.weight"] = state["encoder.conv_out.weight"][:3]
    del state["decoder.conv_out.bias"]
    torch.save(state, vqgan / "last one.ckpt")
    _, error = run_import(vqgan, status=2)
    assert (
        "last one.ckpt as taming-vqgan: the weights do not fit the model: 1 missing: decoder.conv_out.bias; " in error
    )
    assert "1 of another shape: encoder.conv_out.weight (3, 64, 3, 3) instead of (16, 64, 3, 3)" in error
    assert error.strip().endswith("1 not finite: encoder.conv_in.bias")
    assert not (vqgan / "run").exists()


@pytest.mark.parametrize(
    ("damage", "message", "status"),
    [
        ({"config": "a: [1"}, "model.yaml:", 2),
        ({"config": b"\xff\xfe\xff"}, "model.yaml: expected a configuration in UTF-8", 2),
        ({"config": " " * (2**20 + 1)}, "expected a configuration of at most", 2),
        ({"config": "model: {target: x.VQModel, params: {}}"}, "last one.ckpt as taming-vqgan: ", 2),
        ({"config": "model: 3"}, "is expected to be", 2),
        ({"checkpoint": b"\x80\x02N"}, "last one.ckpt: damaged pickle at byte 3: truncated", 2),
        ({"checkpoint": b"\x80\x02N."}, "as taming-vqgan: expected the checkpoint to be a state dict, got NoneType", 2),
        ({"checkpoint": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."}, "got Placeholder", 2),
        ({"checkpoint": None}, "last one.ckpt: No such file", 2),
        ({"config": None}, "model.yaml: No such file", 2),
    ],
)
def test_damage_is_told_in_one_line(vqgan, damage, message, status):
    if None in damage.values():
        (vqgan / ("model.yaml" if "config" in damage else "last one.ckpt")).unlink()
    elif "config" in damage:
        content = damage["config"]
        (vqgan / "model.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    else:
        (vqgan / "last one.ckpt").write_bytes(damage["checkpoint"])
    _, error = run_import(vqgan, status=status)
    assert message in error and not (vqgan / "run").exists()


def test_a_pipe_in_place_of_the_configuration_is_refused(vqgan):
    """The fault: the import waited for ever for the other end."""
    (vqgan / "model.yaml").unlink()
    os.mkfifo(vqgan / "model.yaml")
    _, error = run_import(vqgan, status=2)
    assert "expected a regular file, got a pipe or device" in error and not (vqgan / "run").exists()


def test_an_unknown_format_is_told_first(tmp_path):
    _, error = run("import", tmp_path / "none", "--format", "vqgan", "--out", tmp_path / "run", status=2)
    assert "--format expects one of taming-vqgan" in error


def test_without_a_configuration_a_format_that_needs_one_says_so(vqgan):
    with pytest.raises(ValueError, match=r"expects a configuration \(--config\)"):
        import_checkpoint(vqgan / "last one.ckpt", vqgan / "run", format="taming-vqgan")


def test_keys_are_summed_up_by_how_they_begin():
    assert summarize(["epoch", "a.b.c", "a.b.d", "a.x", "e.f.g"]) == "epoch, a.b.* (2), a.x, e.f"


def test_the_command_is_listed_without_torch():
    script = "import sys; from modkit.cli.app import main; sys.argv = ['modkit', '--help']\ntry: main()\nfinally: "
    script += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and " import " in done.stdout, done.stderr
