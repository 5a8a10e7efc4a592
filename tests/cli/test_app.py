import errno
import json
import os
import re
import shutil

import click
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import modkit
from modkit import Run, use
from modkit.cli.app import app
from modkit.parts.registry import get_registry
from tests.command import run
from tests.plugin_factory import make_plugin

TINY = """
name: tiny
data: {use: digits, size: 8}
model:
  use: diffusion
  network: {use: mlp, width: 8, depth: 1}
  conditioner: {use: label, width: 4}
  guidance: {use: cfg, scale: 1.5}
  sampler: {use: ddim, steps: 4, eta: 0.5}
train: {steps: 3, batch_size: 8, device: cpu, log: {every: 1}, samples: {num: 4}}
"""
BAD = TINY.replace("width: 8,", "widht: 8,")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(TINY)
    run("train", folder / "tiny.yaml", "--out", folder / "run")
    return folder / "run"


def test_help_names_every_command_and_explains_each_option():
    text, _ = run("--help")
    commands = re.findall(r"^  ([a-z][a-z-]*)  ", text, re.M)
    assert {"check", "doctor", "list", "sample", "show", "train"} <= set(commands)
    for command in commands:
        words, _ = run(command, "-h")
        assert re.match(rf"Usage: \S+ {command} ", words)
        assert all(option.help for option in app.commands[command].params if isinstance(option, click.Option))
    assert run("--version")[0] == f"modkit, version {modkit.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("lsit",),
        ("show", "sampler"),
        ("train",),
        ("train", "tiny.yaml", "--stpes", "3"),
        ("train", "tiny.yaml", "--steps", "-1"),
        ("train", "tiny.yaml", "--steps", "many"),
        ("sample", "run", "-n", "0"),
        ("sample", "run", "--seed", "x"),
    ],
    ids=" ".join,
)
def test_a_wrong_use_of_the_command_line_is_status_2(arguments, here):
    _, said = run(*arguments, status=2)
    assert said.startswith("Usage: ") and "Error: " in said
    assert sorted(os.listdir(here)) == ["bad.yaml", "tiny.yaml"]


def test_list_prints_every_part_or_those_of_a_kind():
    rows = json.loads(run("list", "--json")[0])
    assert {"kind", "name", "distribution", "version", "summary"} == set(rows[0])
    assert len(rows) == len(get_registry().list_parts())
    samplers = json.loads(run("list", "sampler", "--json")[0])
    assert [row for row in rows if row["kind"] == "sampler"] == samplers
    table = run("list", "sampler")[0].splitlines()
    assert table[0].split() == ["kind", "name", "distribution", "summary"] and len(table) == 1 + len(samplers)
    _, said = run("list", "samplr", status=2)
    assert said.startswith("modkit: unknown kind 'samplr'; did you mean 'sampler'?")


def test_show_prints_a_part_with_its_parameters():
    part = json.loads(run("show", "network", "unet", "--json")[0])
    (channels,) = [one for one in part["parameters"] if one["name"] == "channels"]
    assert (channels["type"], channels["default"], channels["required"]) == ("int | list[int]", [64, 128], False)
    text, _ = run("show", "network", "unet")
    assert text.startswith("network unet: ")
    (row,) = [line for line in text.splitlines() if line.startswith("channels ")]
    assert row.split()[:6] == ["channels", "int", "|", "list[int]", "[64,", "128]"], "brackets are text, not styles"
    _, said = run("show", "network", "unte", status=2)
    assert said.startswith("modkit: no network is called 'unte'; did you mean 'unet'?; there are: ")


def test_show_prints_what_a_part_implies_and_what_others_imply_for_it():
    text, _ = run("show", "schedule", "edm")
    assert "\nimplies times log-normal, parametrization edm, sampler heun\n" in text
    implied = {"times": "log-normal", "parametrization": "edm", "sampler": "heun"}
    part = json.loads(run("show", "schedule", "edm", "--json")[0])
    assert (part["implies"], part["implied"]) == (implied, {})
    text, _ = run("show", "model", "diffusion")
    assert "\nschedule edm implies times log-normal, parametrization edm, sampler heun\n" in text
    part = json.loads(run("show", "model", "diffusion", "--json")[0])
    assert (part["implies"], part["implied"]["schedule edm"]) == ({}, implied)
    assert "implies" not in run("show", "schedule", "cosine")[0]


@pytest.mark.wide
def test_training_prints_and_runs_lists_the_scores_of_the_present_checkpoint_alone():
    """The fault: what `train --no-evaluate` printed as its own was another sampler's report, or of earlier weights."""
    train = ("train", "tiny.yaml", "--resume", "--no-evaluate", "--out", "runs/one")
    measure = ("evaluate", "runs/one", "--features", "pixels", "--metrics", "fd", "-n", 4)

    def list_scores():
        (listed,) = json.loads(run("runs", "--json")[0])
        return [*listed["scores"]]

    run(*train)
    run(*measure, "sampler.steps=3")
    assert "FD" not in run(*train)[0] and list_scores() == []
    run(*measure)
    assert "FD (pixels)" in run(*train)[0] and list_scores() == ["FD (pixels)"]
    assert "FD" not in run("resume", "runs/one", "train.steps=4", "--no-evaluate")[0] and list_scores() == []


def test_doctor_tells_versions_and_plugins(site):
    make_plugin(site, "acme", "raise RuntimeError('broken [red]')")
    (row,) = [row for row in json.loads(run("doctor", "--json")[0])["plugins"] if row["plugin"] == "acme"]
    assert row["status"] == "failed"
    text, _ = run("doctor")
    assert f"modkit {modkit.__version__}, python " in text and "broken [red]" in text


def test_doctor_tells_what_each_op_runs_and_why(monkeypatch):
    rows = json.loads(run("doctor", "--json")[0])["ops"]
    assert {"op": "nearest", "device": "cpu", "runs": "reference", "reason": "tensors on cpu"} in rows
    monkeypatch.setenv("MODKIT_OPS", "reference")
    assert {row["reason"] for row in json.loads(run("doctor", "--json")[0])["ops"]} == {"MODKIT_OPS=reference"}
    monkeypatch.setenv("MODKIT_OPS", "fast")
    said = "MODKIT_OPS expects one of auto, reference, triton, got 'fast'"
    assert said in run("doctor", status=2)[1]


def test_a_plugin_adds_commands(site, monkeypatch):
    source = """
        import click
        from modkit.part import hookimpl

        @hookimpl
        def modkit_commands(app):
            @app.command("hello")
            def hello():
                click.echo("hello from acme")
    """
    make_plugin(site, "acme", source)
    monkeypatch.setattr("sys.argv", ["modkit", "hello"])
    with pytest.raises(SystemExit) as ended:
        modkit.cli.app.main()
    assert ended.value.code == 0 and run("hello") == ("hello from acme\n", "")
    del app.commands["hello"]


@pytest.mark.parametrize("before", [None, "active"])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(before, monkeypatch):
    monkeypatch.setenv("KMP_BLOCKTIME", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr("sys.argv", ["modkit", "--version"])
    with pytest.raises(SystemExit):
        modkit.cli.app.main()
    assert os.environ["OMP_WAIT_POLICY"] == (before or "passive") and os.environ["KMP_BLOCKTIME"] == "1"


def test_a_plugin_neither_replaces_a_command_nor_prints_into_the_output_of_one(site, monkeypatch, capsys):
    source = """
        from modkit.part import hookimpl

        @hookimpl
        def modkit_commands(app):
            print("hello from acme")

            @app.command()
            def doctor():
                print("I am not well")
    """
    make_plugin(site, "acme", source)
    monkeypatch.setattr("sys.argv", ["modkit", "list", "doctor", "--json"])
    before = dict(modkit.cli.app.app.commands)
    failed = "plug-in acme failed in modkit_commands: ValueError: modkit has a command doctor already"
    with pytest.raises(SystemExit), pytest.warns(match=failed):
        modkit.cli.app.main()
    text, said = capsys.readouterr()
    assert text == "" and said.startswith("hello from acme\nmodkit: unknown kind")
    assert modkit.cli.app.app.commands["doctor"] is before["doctor"]


@pytest.mark.smoke
def test_check_prints_the_graph_and_writes_nothing(here):
    text, said = run("check", "tiny.yaml", "train.steps=9")
    assert said == ""
    (row,) = [line for line in text.splitlines() if line.startswith("model.network ")]
    cells = r"mlp +x 1×8×8 in \[-1, 1\], out 1×8×8 unbounded, cond .*time.* +1×8×8 unbounded +[\d,]+$"
    assert re.search(cells, row.strip())
    assert "stage 0: denoiser, 9 steps" in text
    assert re.search(r"^x: 1×8×8 in \[-1, 1\]; [\d,]+ parameters; no problems found$", text, re.M)
    assert sorted(os.listdir(here)) == ["bad.yaml", "tiny.yaml"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_check_draws_the_model_and_its_json_stays_alone(here, options):
    """The fault: the path of the drawing was printed below the JSON."""
    text, said = run("check", "tiny.yaml", "--graph", "g.svg", *options)
    assert "graph: g.svg" in (said if options else text) and b"<svg" in (here / "g.svg").read_bytes()
    if options:
        assert json.loads(text)["parameters"] > 0


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["bad.yaml"], r"bad.yaml:6:23: model.network.widht: got an unknown key 'widht', .*\(did you mean 'width'\?\)"),
        (["bad.yaml", "train.seed=x"], "bad.yaml:6:23: .*\n<override 1>:1:12: train.seed: .*\n$"),
        (["nowhere.yaml"], "cannot read nowhere.yaml: No such file or directory"),
        (["."], "cannot read .: Is a directory"),
        (["tiny.yaml", "model.sampler=dimm"], "<override 1>:1:15: model.sampler: no sampler is called 'dimm'"),
        (["tiny.yaml", "train.steps=1", "train.seed=x"], "<override 2>:1:12: train.seed: expected int, got 'x'"),
        (["tiny.yaml", "model.sampler"], "<override 1>:1:1: got 'model.sampler', expected path=value"),
        (["tiny.yaml", "model.sampler.steps=2000"], "<override 1>:1:.*tiny.yaml|tiny.yaml:9:12: model.sampler: .*1000"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_spec_is_status_2_and_nothing_is_written(command, arguments, message, here):
    text, said = run(command, *arguments, status=2)
    assert text == "" and re.match(f"modkit: ({message})", said), said
    assert sorted(os.listdir(here)) == ["bad.yaml", "tiny.yaml"]


@pytest.mark.parametrize("command", ["check", "train"])
def test_what_a_swap_dropped_is_said_beside_the_output(command):
    text, said = run(command, "tiny.yaml", "model.sampler=unipc")
    assert said == "modkit: swap model.sampler: dropped eta (unknown to unipc)\n"
    assert "dropped" not in text


def test_train_makes_a_run_and_says_where(here):
    text, said = run("train", "tiny.yaml", "train.seed=4", "--steps", 2)
    picture = sorted((here / "runs/tiny/samples").iterdir())[-1].relative_to(here)
    assert said == "" and text.splitlines()[-1] == f"run: runs/tiny, pictures: {picture}"
    assert re.search(r"^stage: .*denoiser.*, 2 steps$", text, re.M)
    assert text.startswith("data: 1,437 train and 360 test samples\ndata: labels of 10 classes: 0 (178), 1 (182)")
    assert re.search(r"^step 2/2  \S*denoising ", text, re.M)
    run_ = modkit.Run.open("runs/tiny")
    assert run_.finished and run_.lock["seed"] == 4 and [row["step"] for row in run_.read_metrics()] == [1, 2]
    _, said = run("train", "tiny.yaml", "train.seed=4", status=2)
    assert "runs/tiny already holds a run; use --resume" in said
    run("train", "tiny.yaml", "train.seed=4", "--resume", "--steps", 3)
    assert [row["step"] for row in modkit.Run.open("runs/tiny").read_metrics()] == [1, 2, 3]
    run("train", "tiny.yaml", "--overwrite", "--steps", 1)
    assert [row["step"] for row in modkit.Run.open("runs/tiny").read_metrics()] == [1]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--resume", "--overwrite"], "train expects --resume or --overwrite, got both"),
        (["--out", "tiny.yaml"], "Run.create expects a directory, got the file tiny.yaml"),
        (["--out", "tiny.yaml/x"], "Run.create cannot create the directory tiny.yaml/x: "),
        (["--out", "."], "Run.create expects an empty directory or a run, got . with bad.yaml, tiny.yaml"),
    ],
)
def test_what_cannot_hold_a_run_is_refused(options, message, here):
    _, said = run("train", "tiny.yaml", "--steps", 1, *options, status=2)
    assert said.startswith(f"modkit: {message}")
    assert sorted(os.listdir(here)) == ["bad.yaml", "tiny.yaml"]


def test_a_model_that_memory_cannot_hold_is_refused_before_anything_is_written(here):
    huge = ["model.network.width=400000", "model.network.depth=8"]
    assert "no problems found" in run("check", "tiny.yaml", *huge)[0]
    _, said = run("train", "tiny.yaml", *huge, status=2)
    message = r"modkit: training expects weights and a batch to fit into memory: [\d,]+ parameters and 8 samples"
    assert re.match(message, said)
    assert not (here / "runs").exists()


def test_a_loss_that_is_not_finite_is_status_1(here):
    _, said = run("train", "tiny.yaml", "train.optimizer.lr=1e+30", "train.steps=20", status=1)
    assert re.match(r"modkit: the loss denoising of denoiser is (nan|inf) at step \d+ ", said)


def test_sample_writes_pictures_and_numbers(trained, here):
    assert run("sample", trained, "-n", 5, "--seed", 3, "--out", "x.npy") == ("5 samples: x.npy\n", "")
    samples = np.load("x.npy")
    assert samples.shape == (5, 1, 8, 8) and samples.dtype == np.float32 and np.abs(samples).max() <= 1
    run("sample", trained, "-n", 5, "--seed", 3, "--out", "deep/er/x.safetensors")
    assert torch.equal(load_file("deep/er/x.safetensors")["samples"], torch.from_numpy(samples))
    expected = modkit.load(trained).sample(5, seed=3)
    assert torch.equal(expected, torch.from_numpy(samples))
    run("sample", trained, "-n", 5, "--seed", 3, "--batch-size", 2, "--out", "y.npy")
    assert np.abs(np.load("y.npy") - samples).max() < 1e-5
    run("sample", trained, "-n", 5, "--seed", 3, "--out", "x.png")
    with Image.open("x.png") as picture:
        assert picture.mode == "L"
    run("sample", trained, "-n", 2)
    assert (trained / "samples" / "seed-0.png").exists()
    run("sample", trained, "-n", 5, "--seed", 3, "--out", "many/of/them")
    files = sorted((here / "many" / "of" / "them").iterdir())
    assert [file.name for file in files] == [f"{number:05d}.png" for number in range(5)]
    run("sample", trained, "-n", 5, "--seed", 3, "--precision", "bf16", "--out", "narrow.npy")
    narrow = np.load("narrow.npy")
    assert narrow.dtype == np.float32
    assert torch.equal(modkit.load(trained).sample(5, seed=3, precision="bf16"), torch.from_numpy(narrow))
    assert 0 < np.abs(narrow - samples).max() < 0.1  # 8 bits
    with Image.open(files[4]) as picture:
        assert np.abs(np.asarray(picture) / 127.5 - 1 - samples[4, 0]).max() <= 1 / 255
    assert (
        "expects an empty or new folder, got many/of/them"
        in run("sample", trained, "--out", "many/of/them", status=2)[1]
    )


@pytest.mark.wide
def test_samples_are_written_beside_their_noise_and_a_flow_trains_on_the_pairs(trained, here):
    words = ("sample", trained, "sampler.eta=0", "-n", 5, "--seed", 3, "--label", 2)
    run(*words, "--out", "x.npy", "--noise", "noise.npy", "--batch-size", 2)
    x, noise = (torch.from_numpy(np.load(name)) for name in ("x.npy", "noise.npy"))
    assert x.shape == noise.shape == (5, 1, 8, 8) and noise.unique().numel() == noise.numel()
    model = modkit.load(trained).with_parts(sampler=use("ddim", steps=4, eta=0.0))
    torch.testing.assert_close(model.sample(5, seed=0, start_noise=noise, labels=2), x, rtol=0, atol=1e-5)
    pairs = ["data={use: array, path: x.npy, fields: {noise: noise.npy}, test: 0.2, bounds: [-1, 1]}"]
    pairs += ["model.coupling=pairs", "model.conditioner=none", "model.guidance=none", "model.sampler.eta=0"]
    run("train", "tiny.yaml", *pairs, "train.batch_size=2", "--out", "straight")
    assert Run.open("straight").finished


@pytest.mark.parametrize(("words", "message"), [
    (["--out", "x.npy"], r"noise expects a model whose samples are made of noise alone \(sampler=ddim"),
    (["sampler.eta=0", "--out", "x.npy"], "noise expects all fields that the model reads, got no labels"),
    (["--out", "x.png"], "--noise expects a .npy file beside another of --out, and no --grid, got noise.npy and x.png"),
    (["--out", "noise.npy"], "--noise expects a .npy file beside another of --out"),
])  # fmt: skip
def test_noise_is_written_where_samples_are_made_of_it_alone(words, message, trained, here):
    before = sorted(os.listdir(here))
    assert re.match(f"modkit: {message}", run("sample", trained, *words, "--noise", "noise.npy", status=2)[1])
    assert sorted(os.listdir(here)) == before


STYLES = (
    "{use: gan, z_dim: 4, generator: {use: stylegan2, channels: 4, style: 4%s}, discriminator: {use: mlp, width: 8}}"
)
VAE = "{encoder: {use: mlp, width: 8}, decoder: {use: mlp, width: 8}}"
PRIOR = f"{{use: latent, autoencoder: {VAE}, prior: {{use: autoencoder, {VAE[1:]}}}"


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (STYLES % "", "samples that are made of their noise alone, got others"),
        (STYLES % ", noise: false", ""),
        (PRIOR, "samples that are made of their noise alone, got others"),
        ("{use: bidirectional, encoder: mlp, game: infogan, categories: 2}", "a model whose samples are made of noise"),
    ],
    ids=["noise in layers", "mixing in training alone", "a likelihood", "a category"],
)
def test_noise_is_refused_where_parts_draw_more(model, message, here):
    """The fault: samples of StyleGAN2 were written beside z, of which they are no function."""
    train = "{steps: 3, batch_size: 8, device: cpu, optimizer: {use: adam, lr: 0.01}, samples: {num: 4}}"
    (here / "gan.yaml").write_text(f"name: gan\ndata: {{use: digits, size: 8}}\nmodel: {model}\ntrain: {train}\n")
    run("train", "gan.yaml", "--out", "run")
    _, said = run("sample", "run", "-n", 3, "--out", "x.npy", "--noise", "noise.npy", status=2 if message else 0)
    if message:
        assert f"noise expects {message}" in said and not (here / "x.npy").exists()
        return
    x, noise = (torch.from_numpy(np.load(name)) for name in ("x.npy", "noise.npy"))
    torch.testing.assert_close(modkit.load("run").sample(3, seed=7, start_noise=noise), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors", "x.png"])
def test_a_full_disk_leaves_the_samples_of_before(trained, here, name, monkeypatch):
    run("sample", trained, "-n", 2, "--out", name)
    before = (here / name).read_bytes()

    def fill(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        assert "No space left on device" in run("sample", trained, "-n", 3, "--out", name, status=1)[1]
    assert (here / name).read_bytes() == before
    assert sorted(os.listdir(here)) == ["bad.yaml", "tiny.yaml", name]


@pytest.mark.wide
def test_what_uses_an_older_checkpoint_says_so_and_what_it_does_not_read_does_not_matter(trained, here):
    path = shutil.copytree(trained, here / "run")
    run("resume", path, "train.steps=4", "train.checkpoints.every=1")
    commands = {
        "sample": ("sample", path, "-n", 2, "--out", "x.npy"),
        "evaluate": ("evaluate", path, "--features", "pixels", "--metrics", "fd, kd", "-n", 4),
        "export": ("export", path, "out"),
    }
    newest = path / "checkpoints" / "step-00000004"
    for file, said in {"optimizer-denoiser": False, "model": True}.items():
        data = bytearray((newest / f"{file}.safetensors").read_bytes())
        data[-1] ^= 1
        (newest / f"{file}.safetensors").write_bytes(data)
        for name, command in commands.items():
            shutil.rmtree(here / "out", ignore_errors=True)
            warning = run(*command)[1]
            words = ("step-00000004 is damaged (model.safetensors is damaged", "older checkpoint step-00000003 is used")
            assert all((text in warning) == said for text in words), (name, warning)
            assert warning.count("is used instead") == said
        used = f"step-0000000{4 - said}"
        assert modkit.Run.open(here / "out").kept == [used]
        assert json.loads((path / "evaluation.json").read_bytes())["checkpoint"] == used


@pytest.mark.wide
def test_samples_are_of_the_checkpoint_that_is_asked_for(trained, here):
    path = shutil.copytree(trained, here / "run")
    run("resume", path, "train.steps=4", "train.checkpoints.every=1")
    run("sample", path, "-n", 2, "--checkpoint", "step-00000003", "--out", "x.npy")
    x, last = torch.from_numpy(np.load("x.npy")), modkit.load(path).sample(2, seed=0)
    assert torch.equal(x, modkit.load(path, checkpoint="step-00000003").sample(2, seed=0)) and not torch.equal(x, last)
    _, said = run("sample", path, "--checkpoint", "best", status=2)
    assert "has no checkpoint 'best'; no score was watched during training" in said


@pytest.mark.wide
def test_sample_takes_a_label_and_short_overrides(trained):
    def drawn(*arguments):
        run("sample", trained, "-n", 4, "--out", "x.npy", *arguments)
        return torch.from_numpy(np.load("x.npy"))

    plain, three = drawn("--label", 2), drawn("--label", 2, "guidance.scale=3")
    assert not torch.equal(plain, three) and not torch.equal(plain, drawn("--label", 3))
    model = modkit.load(trained, ["model.guidance.scale=3"])
    assert torch.equal(model.sample(4, seed=0, labels=2), three)
    solver = drawn("sampler=dpm-solver++", "sampler.steps=5", "guidance.scale=3")
    full = ["model.sampler=dpm-solver++", "model.sampler.steps=5", "model.guidance.scale=3"]
    assert torch.equal(modkit.load(trained, full).sample(4, seed=0), solver)
    assert torch.equal(drawn("model.sampler=dpm-solver++", "model.sampler.steps=5", "model.guidance.scale=3"), solver)
    _, said = run("sample", trained, "-n", 1, "--out", "x.npy", "sampler=unipc")
    assert "modkit: swap model.sampler: dropped eta (unknown to unipc)\n" in said


@pytest.mark.wide
def test_sample_draws_a_grid_with_one_row_a_class(trained, here):
    model = modkit.load(trained)
    said, _ = run("sample", trained, "--grid", "classes", "-n", 3, "--seed", 4, "--out", "x.npy")
    assert said == "30 samples: x.npy\n"
    x = torch.from_numpy(np.load("x.npy"))
    assert torch.equal(x[6:9], model.sample(3, seed=4, labels=2))
    run("sample", trained, "--grid", "labels", "-n", 3, "--seed", 4, "--out", "x.png")
    with Image.open("x.png") as picture:
        width, height = picture.size
    assert (height - 1) / 10 == (width - 1) / 3
    assert run("sample", trained, "--grid", "classes")[0].startswith("80 samples: ")
    assert (trained / "samples" / "seed-0-classes.png").exists()


@pytest.mark.wide
def test_a_label_is_given_by_the_field_that_a_model_reads(here):
    """The fault: only a field called `labels` was known."""
    model = "{use: diffusion, network: {use: mlp, width: 8}, conditioner: {use: label, field: shape}, sampler: ddim}"
    data = "{use: sprites, size: 8, num_test: 730000}"
    (here / "s.yaml").write_text(f"name: s\ndata: {data}\nmodel: {model}\ntrain: {{steps: 1, batch_size: 4}}\n")
    run("train", "s.yaml", "--out", "run")
    run("sample", "run", "sampler.steps=2", "--label", 1, "-n", 2, "--out", "x.npy")
    model = modkit.load("run").with_parts(sampler=use("ddim", steps=2))
    assert np.array_equal(model.sample(2, seed=0, shape=1).numpy(), np.load("x.npy"))
    run("train", "tiny.yaml", "model.conditioner=none", "model.guidance=none", "--out", "plain")
    _, said = run("sample", "plain", "--label", 1, "--out", "y.npy", status=2)
    assert "samples of a class expect a model that is conditioned on a class, got one that is unconditional" in said


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "Run.open expects the directory of a run, got nowhere without modkit.lock"),
        (["RUN", "--out", "x.jpg"], "out expects a folder or a file ending in .png, .npy or .safetensors, got x.jpg"),
        (
            ["RUN", "smapler=ddim"],
            ".*`smapler` cannot be changed here; .* one of: guidance, sampler .*did you mean 'sampler'",
        ),
        (["RUN", "sampler=nonsense"], ".*no sampler is called 'nonsense'"),
        (["RUN", "sampler.stpes=3"], ".*got an unknown key 'stpes'"),
        (["RUN", "--label", "10"], ".*10"),
        (["RUN", "--label", "1", "--grid", "classes"], "sample expects a label or a grid of classes, got both"),
        (["RUN", "--grid", "rows"], "samples of a class expect a field of classes, one of: labels; got 'rows'"),
        (["RUN", "--label", "-1"], ".*-1"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_sampled_is_status_2_and_nothing_is_written(arguments, message, trained, here):
    given = [str(trained) if argument == "RUN" else argument for argument in arguments]
    _, said = run("sample", *given, *([] if "--out" in given else ["--out", "x.npy"]), status=2)
    assert re.match(f"modkit: {message}", said), said
    assert sorted(os.listdir(here)) == ["bad.yaml", "tiny.yaml"]


def test_a_file_that_cannot_be_written_is_status_1(trained):
    _, said = run("sample", trained, "-n", 1, "--out", "tiny.yaml/x.npy", status=1)
    assert said.startswith("modkit: ") and "tiny.yaml" in said


def test_the_home_folder_is_written_out_where_no_shell_does_it(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    run("train", "~/tiny.yaml", "--out=~/made", "--steps", "1")
    run("sample", "~/made", "-n", "2", "--out", "~/two.png")
    assert (here / "made" / "spec.yaml").is_file() and (here / "two.png").is_file()
    assert not (here / "~").exists()
