import dataclasses
import os
import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import nn

from modkit import Spec, SpecError, TensorType, build, load, resume, train, use
from modkit.evaluation.evaluate_run import evaluate_run
from modkit.evaluation.report import Report, find_report
from modkit.kinds import Initial
from modkit.parts.registry import get_registry
from modkit.publishing.average import rebuild_average
from modkit.publishing.export import export
from modkit.publishing.import_weights import import_weights
from modkit.runs.files import hash_data
from modkit.runs.layout import LOCK
from modkit.runs.lock import encode
from modkit.runs.run import Run
from modkit.types import Score
from tests.command import run as run_command
from tests.files import write_pictures
from tests.play import MLP, VAE, spec
from tests.plugin_factory import make_plugin
from tests.run_folders import contents

DENOISER = use("diffusion", network=use("mlp", width=8, depth=1), sampler=use("ddim", steps=2))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was measured at its last checkpoint, and once before."""
    run = train(spec(VAE, steps=2, ema=0.5, checkpoints={"every": 1}), tmp_path_factory.mktemp("runs") / "vae")
    score = Score(1.25, 0.5, "lower", counts={"fake": 9})
    made = {"counts": {"fake": 9}, "seed": 3, "floor": {"FD (pixels)": Score(0.5)}}
    Report({"FD (pixels)": score, "copies|near": Score(2.0)}, checkpoint="step-00000002", notes=("few",), **made).save(
        run.path
    )
    Report({"FD (pixels)": score}, checkpoint="step-00000001", overrides=("model.x=1",), **made).save(run.path)
    return run


@pytest.fixture
def exported(run, tmp_path):
    return export(run, tmp_path / "out" / "vae")


def test_what_is_exported_is_a_run_that_samples_the_same(run, exported):
    assert torch.equal(load(exported).sample(3, seed=0), load(run).sample(3, seed=0))
    files = "README.md evaluation.json manifest.json model.safetensors modkit.lock samples spec.yaml state.json"
    assert sorted(os.listdir(exported)) == files.split()
    assert os.listdir(exported.parent) == ["vae"] and os.listdir(exported / "samples") == ["step-00000002.png"]
    kept = load_file(exported / "model.safetensors")
    averaged = run.load_weights()
    assert kept.keys() == averaged.keys() and all(torch.equal(kept[key], averaged[key]) for key in kept)
    there = Run.open(exported)
    assert there.exported and there.finished and there.kept == ["step-00000002"] and there.find_checkpoint() == exported
    assert there.find_checkpoint("step-00000002") == exported and there.lock["parts"] == run.lock["parts"]
    with pytest.raises(ValueError, match="has no checkpoint 'best'; available: step-00000002"):
        there.find_checkpoint("best")
    assert load(there, locked=True)
    again = export(exported, exported.parent / "again")
    for name in ("model.safetensors", "spec.yaml", "modkit.lock"):
        assert (again / name).read_bytes() == (exported / name).read_bytes()


def test_all_of_an_export_is_synced_before_it_has_its_name(run, tmp_path, monkeypatch):
    events, replace = [], os.replace

    def rename(source, target):
        events.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda file: events.append(Path(os.readlink(f"/proc/self/fd/{file}")).name))
    monkeypatch.setattr(os, "replace", rename)
    out = export(run, tmp_path / "new" / "out")
    synced = events[: events.index("out")]
    assert {path.name for path in out.rglob("*")} <= set(synced) and synced[0] == tmp_path.name
    assert synced[-1].startswith(".out.tmp-") and events[-1] == "new"


def test_scores_of_another_sampler_are_left_out_of_the_card(tmp_path, caplog):
    """The fault: a model of one step was published with the scores and NFE of the sampler that its spec had before."""
    made = spec(DENOISER, steps=1)
    run = train(made, tmp_path / "run")
    first = hash_data(run.spec_text)
    measured = Report({"FD (pixels)": Score(3.5)}, {"fake": 9}, 0, checkpoint="step-00000001", spec=first)
    measured.save(run.path)
    run = resume(run, ["model.sampler.steps=1"])
    caplog.clear()
    out = export(run, tmp_path / "first")
    assert "FD" not in (out / "README.md").read_text() and not (out / "evaluation.json").exists()
    said = f"{run.path}: the report of step-00000001 is left out: the run's spec has changed since"
    assert caplog.messages == [said]
    now = dataclasses.replace(measured, spec=hash_data(run.spec_text))
    dataclasses.replace(now, settings={"precision": "bf16"}, seed=1).save(run.path)
    dataclasses.replace(now, settings={"checkpoint": "best"}).save(run.path)
    out = export(run, tmp_path / "second")
    text = (out / "README.md").read_text()
    assert "With `precision=bf16`:\n\n| score" in text and "checkpoint=best" not in text
    assert find_report(Run.open(out)).settings == {"checkpoint": "best"}


def test_reports_that_differ_in_how_they_were_measured_have_titles_of_their_own(run, tmp_path):
    """The fault: two tables of one checkpoint, with different scores, stood in the card without a word between them."""
    shutil.copytree(run.path, tmp_path / "run")
    settings = {"num": 32, "metrics": ["fd"], "checkpoint": "best"}
    again = Report({"FD (pixels)": Score(1.5)}, {"fake": 32}, 3, checkpoint="step-00000002", settings=settings)
    again.save(tmp_path / "run")
    text = (export(tmp_path / "run", tmp_path / "out") / "README.md").read_text()
    options = "-n 32 --metrics fd --checkpoint best"
    assert f"With `{options}`:\n\n| score" in text and text.count("With `") == 1
    results = YAML(typ="safe").load(text.split("---\n")[1])["model-index"][0]["results"]
    names = ["Image generation", f"Image generation with {options}"]
    assert [one["task"]["name"] for one in results] == names


def test_another_checkpoint_is_exported_by_its_name(run, tmp_path):
    out = export(run, tmp_path / "out", checkpoint="step-00000001")
    assert torch.equal(load(out).sample(3, seed=0), load(run, checkpoint="step-00000001").sample(3, seed=0))
    assert Run.open(out).kept == ["step-00000001"] and "FD" in (out / "README.md").read_text()
    assert not (out / "evaluation.json").exists() and len(list((out / "evaluations").iterdir())) == 1
    with pytest.raises(ValueError, match="has no checkpoint 'step-7'; available: step-00000001, step-00000002"):
        export(run, tmp_path / "other", checkpoint="step-7")


def test_the_card_says_what_it_is_how_good_and_how_to_load_it(run, exported):
    _, matter, text = (exported / "README.md").read_text().split("---\n", 2)
    metrics = [
        {"type": "fd", "name": "FD (pixels)", "value": 1.25},
        {"type": "copies-near", "name": "copies|near", "value": 2.0},
    ]
    task = {"type": "unconditional-image-generation", "name": "Image generation"}
    result = {"task": task, "dataset": {"type": "digits", "name": "digits"}, "metrics": metrics}
    assert YAML(typ="safe").load(matter) == {
        "library_name": "modkit",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["modkit", "autoencoder"],
        "datasets": ["digits"],
        "model-index": [{"name": "toy", "results": [result]}],
    }
    number = sum(value.numel() for value in load(run).parameters())
    for line in (
        "![samples](samples/step-00000002.png)",
        "pip install modkit-generative==",
        'model = modkit.load(".")',
        "size 8; 1,437 train, 360 test samples; one sample is 1×8×8 in [-1, 1].",
        "| FD (pixels) | 1.25 | 0.5 | 0.5 | lower |",
        "| copies\\|near | 2 |  |  |  |",
        "9 fake; seed 3.",
        "Note: few",
        f"| `autoencoder` | encoder, bottleneck, decoder | {number:,} |",
        "checkpoint step-00000002, training seed 0, torch ",
    ):
        assert line in text, line
    assert "frozen" not in text and "cannot be sampled" not in text
    hub = pytest.importorskip("huggingface_hub")
    (result,) = hub.ModelCard.load(exported / "README.md").data.eval_results[:1]
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("fd", 1.25, "digits")


def test_the_card_of_a_model_by_class_names_the_classes(tmp_path):
    """The fault: its task was to generate pictures without conditions, and nothing said which class was number 1."""
    for number in range(6):
        folder = tmp_path / "photos" / ("cat", "dog_1")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(folder / f"{number}.png")
    data = use("image-folder", root=str(tmp_path / "photos"), size=8, channels=1, test=0.0)
    model = use("diffusion", network=use("mlp", width=8), sampler=use("ddim", steps=2), conditioner=use("label"))
    made = Spec(name="photos", data=data, model=model, train={"steps": 1, "batch_size": 4, "device": "cpu"})
    out = export(train(made, tmp_path / "run"), tmp_path / "out")
    text = (out / "README.md").read_text()
    assert "Classes of `labels`: 0 cat, 1 dog\\_1." in text and "unconditional" not in text


@pytest.mark.wide
def test_it_loads_in_a_new_environment_and_samples_the_same(run, exported, tmp_path):
    exported.rename(tmp_path / "moved")
    venv.create(tmp_path / "env", with_pip=False)
    site = next((tmp_path / "env").rglob("site-packages"))
    (site / "here.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    root = Path(__file__).parents[2]
    (site / "modkit.pth").write_text(f"{root}\n")  # where the tests run on a tree that is not installed
    program = "import modkit, safetensors.torch as st; x = modkit.load('moved', locked=True).sample(3, seed=0)"
    program += "; st.save_file({'x': x}, 'x')"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    python = tmp_path / "env" / "bin" / "python"
    done = subprocess.run([python, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert torch.equal(load_file(tmp_path / "x")["x"], load(run).sample(3, seed=0))


def test_neither_an_export_nor_its_counts_need_the_data(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32))
    data = use("array", path=str(tmp_path / "x.npy"))
    settings = {"batch_size": 8, "device": "cpu", "ema": {"std": 0.1, "every": 1}, "samples": {"num": 1}}
    run = train(Spec(data=data, model=use("gan", z_dim=2), train=settings), tmp_path / "run", steps=2)
    (tmp_path / "x.npy").rename(tmp_path / "y.npy")
    paths = (
        export(run, tmp_path / "a"),
        rebuild_average(run, 0.08, tmp_path / "b").path,
        export(tmp_path / "a", tmp_path / "c"),
    )
    for path in paths:
        assert "57 train, 7 test samples; one sample is 2" in (path / "README.md").read_text()
    lock = {name: value for name, value in run.lock.items() if name != "splits"}  # as before they were kept
    (run.path / LOCK).write_bytes(encode(lock))
    card = (export(run.path, tmp_path / "d") / "README.md").read_text()
    assert "one sample is 2" in card and "samples; one" not in card


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "state.json", "modkit.lock", "spec.yaml"])
def test_what_is_damaged_is_refused_by_name(exported, name):
    data = bytearray((exported / name).read_bytes())
    data[len(data) // 2] ^= 1
    (exported / name).write_bytes(data)
    for _ in ("changed", "missing"):
        with pytest.raises(ValueError) as error:
            load(exported)
        assert str(exported) in str(error.value) and name in str(error.value)
        (exported / name).unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["spec.yaml", "modkit.lock", "state.json", "manifest.json", "model.safetensors"])
def test_a_pipe_in_an_export_is_refused(exported, name):
    """The fault: loading it waited for ever for the other end."""
    (exported / name).unlink()
    os.mkfifo(exported / name)
    with pytest.raises(ValueError, match=f"expected a regular file|without {name}|{name} is not a regular file"):
        load(exported)


@pytest.mark.parametrize(
    "name, old, new",
    [("spec.yaml", "likelihood: {use: mse}", "likelihood: {use: l1}"), ("modkit.lock", '"seed": 0', '"seed": 1')],
)
def test_what_was_edited_is_refused(exported, name, old, new):
    text = (exported / name).read_text()
    assert text.count(old) == 1
    (exported / name).write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f"{name}.* was changed after .*: its SHA-256 differs from"):
        load(exported)
    (exported / name).write_text(text)
    (exported / "README.md").write_text("mine")
    assert load(exported)


def test_a_folder_that_holds_something_is_refused_and_what_fails_leaves_nothing(run, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    for path in (tmp_path / "full", tmp_path / "full" / "mine"):
        with pytest.raises(ValueError, match="expects a folder that is absent or empty, got"):
            export(run, path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("modkit.publishing.export.write_model_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(run, tmp_path / "empty")
    assert sorted(os.listdir(tmp_path)) == ["empty", "full"] and os.listdir(tmp_path / "full") == ["mine"]
    monkeypatch.undo()
    assert load(export(run, tmp_path / "empty"))


def test_nothing_goes_on_from_what_was_exported_but_a_piece(exported, tmp_path):
    before = contents(exported)
    with pytest.raises(ValueError, match="cannot be resumed: it was exported"):
        train(spec(VAE), exported, resume=True)
    with pytest.raises(ValueError, match="holds an exported run, which cannot be replaced"):
        train(spec(VAE), exported, overwrite=True)
    assert before == contents(exported)
    model = build(spec(use("latent", autoencoder=use("run", path=str(exported)), prior=DENOISER)))
    kept = Run.open(exported).load_weights()
    assert all(torch.equal(value, kept[name]) for name, value in model.autoencoder.state_dict().items())


@pytest.mark.wide
def test_a_trained_piece_comes_along_and_is_the_folders_own(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "piece")
    latent = spec(use("latent", autoencoder=use("run", path=str(tmp_path / "piece")), prior=DENOISER), steps=1)
    made = train(latent, tmp_path / "run")
    out = export(made, tmp_path / "out")
    x = load(made).sample(2, seed=0)
    for path in ("piece", "run"):
        shutil.rmtree(tmp_path / path)
    moved = out.rename(tmp_path / "moved")
    assert torch.equal(load(moved).sample(2, seed=0), x) and str(tmp_path) not in (moved / "spec.yaml").read_text()
    text = (moved / "spec.yaml").read_text()
    fresh = build(Spec.from_yaml(text, str(moved / "spec.yaml")))
    kept = Run.open(moved).load_weights()
    assert all(torch.equal(v, kept[f"autoencoder.{k}"]) for k, v in fresh.autoencoder.state_dict().items())
    assert [player.name for player in fresh.list_active_players()] == ["prior/denoiser"]
    frozen = sum(parameter.numel() for parameter in fresh.autoencoder.parameters())
    assert f"| frozen |  | {frozen:,} |" in (moved / "README.md").read_text()


@pytest.mark.wide
def test_data_of_a_folder_stay_where_they_are(tmp_path):
    write_pictures(tmp_path / "pictures")
    data = use("image-folder", root=str(tmp_path / "pictures"), size=8)
    run = train(spec(VAE, data, steps=1), tmp_path / "run")
    out, x = export(run, tmp_path / "out"), load(run).sample(2, seed=0)
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    assert torch.equal(load(out).sample(2, seed=0), x)
    assert str(tmp_path) not in "".join(path.read_text() for path in (out / "spec.yaml", out / "README.md"))
    with pytest.raises(SpecError, match="data: .*pictures"):
        evaluate_run(Run.open(out))
    overrides = [f"data.root={tmp_path / 'elsewhere'}"]
    assert torch.equal(load(out, overrides).sample(2, seed=0), x)
    run_command("evaluate", out, *overrides, "--features", "pixels", "--metrics", "fd", "-n", 4)
    (report,) = (out / "evaluations").glob("*.json")
    assert Report.from_json(report.read_bytes()).checkpoint == "step-00000001"


@pytest.mark.wide
def test_an_export_holds_no_path_of_the_machine(tmp_path, monkeypatch):
    """The fault: the lock held the user's whole file, and reports the overrides, as they were typed."""
    home = tmp_path / "home" / "alice"
    for name in ("pictures", "others"):
        write_pictures(home / name)
    (home / "spec.yaml").write_text(f"# {home}\n" + spec(VAE, steps=1).to_yaml())
    monkeypatch.chdir(home)
    pictures = ["data={use: image-folder, root: %s, size: 8}" % (home / name) for name in ("pictures", "others")]
    run_command("train", home / "spec.yaml", pictures[0], "--out", home / "run")
    run_command("resume", home / "run", "train.steps=2")
    run_command("branch", home / "run", pictures[1], "train.steps=3", "--out", home / "branch")
    for name, steps in (("run", 2), ("branch", 3)):
        options = {"features": "pixels", "metrics": ["fd"], "num": 4}
        evaluate_run(home / name, overrides=[f"data.root={home / 'others'}"], **options).save(home / name)
        assert "home/alice" in (home / name / "modkit.lock").read_text()
        out = export(home / name, tmp_path / "out" / name)
        assert len(list((out / "evaluations").iterdir())) == 1 and Run.open(out).kept == [f"step-{steps:08d}"]
        for file in (path for path in out.rglob("*") if path.is_file()):
            assert not {b"home", b"alice"} & set(re.findall(rb"\w+", file.read_bytes() + bytes(file))), file
        assert load(out, locked=True)


class Local(nn.Module):
    """A local encoder."""

    def __init__(
        self, x: TensorType, *, note: str = "", start: Annotated[str | None, "First weights.", Initial] = None
    ) -> None:
        super().__init__()
        self.frozen, self.start = start is not None, start
        self.h = TensorType((2,))
        self.inner = nn.Linear(x.numel, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.flatten(1))

    def load_pretrained(self) -> None:
        if self.start:
            self.inner.load_state_dict(torch.load(self.start))


def test_a_local_part_is_refused(tmp_path):
    local = spec(use("autoencoder", encoder=use(Local), decoder=MLP["decoder"]), steps=1)
    run = import_weights(local, build(local).state_dict(), tmp_path / "run")
    with pytest.raises(SpecError, match="model.encoder: got the local .*Local, which cannot be loaded by name"):
        export(run, tmp_path / "out")
    assert os.listdir(tmp_path) == ["run"]


NOTED = """
    from modkit.part import Part, hookimpl

    @hookimpl
    def modkit_parts():
        return [Part("encoder", "noted", "tests.publishing.test_export:Local", "")]
"""


@pytest.mark.wide
def test_of_a_path_that_only_a_new_model_reads_the_name_is_kept(site, tmp_path):
    make_plugin(site, "acme", NOTED)
    start = tmp_path / "start.pt"
    torch.save(nn.Linear(64, 2).state_dict(), start)
    noted = use("autoencoder", encoder=use("acme/noted", start=str(start)), decoder=MLP["decoder"])
    made = train(spec(noted, steps=1), tmp_path / "run")
    taken = train(spec(use("run", path=str(made.path), at="model", train=True), steps=1), tmp_path / "taken")
    start.unlink()
    for source, where in ((made, "out"), (taken, "again")):
        out = export(source, tmp_path / where)
        assert str(tmp_path) not in (out / "spec.yaml").read_text("utf-8")
        (tmp_path / where).rename(tmp_path / "moved")
        loaded = load(tmp_path / "moved")
        assert loaded.encoder.start == "start.pt" and loaded.encoder.frozen
        assert torch.equal(loaded.encoder.inner.weight, load(source).encoder.inner.weight)
        (tmp_path / "moved").rename(tmp_path / f"{where}-moved")


@pytest.mark.wide
def test_a_path_of_this_machine_in_the_model_is_refused(site, tmp_path):
    make_plugin(site, "acme", NOTED)
    noted = use("autoencoder", encoder=use("acme/noted", note="/home/me/x"), decoder=MLP["decoder"])
    made = train(spec(noted, steps=1), tmp_path / "run")
    with pytest.raises(ValueError, match="without absolute paths, got '/home/me/x' at model.encoder.note"):
        export(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shared_tensor_is_stored_once_and_each_is_contiguous(tmp_path, run):
    weight = torch.arange(6.0).reshape(2, 3)
    (tmp_path / "out").mkdir()
    tensors = {"a": weight, "b": weight, "c": weight.T}
    Run.export(tmp_path / "out", run.spec_text, run.lock, "step-1", tensors)
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == {"a", "c"}
    back = Run.open(tmp_path / "out").load_weights()
    assert all(torch.equal(back[key], tensors[key]) for key in tensors) and back["a"] is back["b"]


FORMATS = """
    from modkit.part import hookimpl

    @hookimpl
    def modkit_exporters():
        return {name: f"exporting_of_acme:{function}" for name, function in FORMATS.items()}

    FORMATS = {"plain": "export", "absent": "nothing", "bad": "bad"}
"""
TARGETS = """
def export(run, out, *, checkpoint):
    (out / "told").write_text(f"{run.path} {checkpoint}")

def bad(run, out, *, checkpoint):
    (out / "half").write_text("")
    raise ValueError("bad holds no autoencoder")
"""


def test_other_layouts_come_from_plugins(run, site, tmp_path):
    command = ("export", run.path, tmp_path / "o", "--to")
    make_plugin(site, "acme", FORMATS)
    (site / "exporting_of_acme.py").write_text(TARGETS)
    for name, message in {
        "plian": "unknown format 'plian'; did you mean 'plain'?; available: absent, bad, ",
        "absent": "format absent: module exporting_of_acme has no 'nothing'",
        "bad": "bad holds no autoencoder",
    }.items():
        assert message in run_command(*command, name, status=2)[1] and not (tmp_path / "o").exists()
    assert run_command(*command, "plain") == (f"exported: {tmp_path / 'o'}\n", "")
    assert (tmp_path / "o" / "told").read_text() == f"{run.path} None" and sorted(os.listdir(tmp_path)) == ["o", "site"]
    make_plugin(site, "other", FORMATS.replace('"export"', '"bad"'))
    get_registry.cache_clear()
    message = "'plain' is declared more than once, by exporting_of_acme:export and"
    assert message in run_command(*command, "plain", status=2)[1]
