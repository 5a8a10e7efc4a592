"""Parts of one's own: registered in a process, or by the files of `--parts`, also in processes that are started."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import modkit
from modkit import Run, SpecError
from modkit.cli.app import app
from modkit.part import Registered
from modkit.parts.registered import add_file
from modkit.parts.registry import get_registry
from modkit.runs.sources import copy_sources

PARTS = """
import modkit
from torch import Tensor, nn

from modkit import TensorType


class Thin(nn.Module):
    \"\"\"A linear map.\"\"\"

    def __init__(self, x: TensorType, *, width: int = 4) -> None:
        super().__init__()
        self.h = TensorType((width,))
        self.net = nn.Linear(x.numel, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1))


modkit.register("encoder", "thin", Thin)
"""
SPEC = """
name: own
data: {use: digits, size: 8}
model: {use: autoencoder, encoder: {use: thin, width: 3}, decoder: {use: mlp, width: 8, depth: 1}}
train: {device: cpu, batch_size: 32, steps: 2, samples: {num: 4}}
evaluate: {features: pixels, metrics: [fd], num: 32}
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """A registry of the test's own."""
    monkeypatch.setenv("MODKIT_PARTS", "")
    get_registry.cache_clear()
    yield
    get_registry.cache_clear()
    sys.modules.pop("modkit_parts_mine", None)


@pytest.fixture
def files(tmp_path):
    """A file of parts, and a spec."""
    (tmp_path / "mine.py").write_text(PARTS)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return [str(tmp_path / name) for name in ("mine.py", "spec.yaml")]


def say(*words):
    result = CliRunner().invoke(app, list(map(str, words)))
    return result.exit_code, result.output


def test_a_class_of_ones_own_is_a_part_in_this_process():
    scope = {}
    exec(PARTS, scope)
    assert modkit.find("encoder", "thin").summary == "A linear map."
    assert get_registry().find_entry("encoder", "thin").plugin == "this process"
    model = modkit.build(modkit.Spec.from_yaml(SPEC))
    assert type(model.encoder) is scope["Thin"] and model.encoder.net.out_features == 3
    assert modkit.spec_of(model).at("model.encoder.use") == "thin"
    with pytest.raises(SpecError, match="model.encoder.width: expected int, got 'x'"):
        modkit.check(modkit.Spec.from_yaml(SPEC.replace("width: 3", "width: x")))
    exec(PARTS.replace("A linear", "Another linear"), scope)
    assert modkit.find("encoder", "thin").summary == "Another linear map."


def test_a_class_inside_a_function_has_a_name():
    class Halved:
        """Half of a value."""

        def __init__(self, *, value: float = 1.0) -> None:
            self.value = value / 2

        def __call__(self, *given):
            return self.value

    modkit.register("weight", "halved", Halved)
    spec = modkit.Spec.from_yaml(SPEC.replace("use: thin, width: 3", "use: mlp, width: 3"))
    weighted = spec.with_value("model.weights", {"nll": modkit.use("halved", value=4.0)})
    assert modkit.spec_of(modkit.build(weighted)).at("model.weights.nll.use") == "halved"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("encoder", "mlp", "register expects a name that is free, got the encoder mlp of modkit-generative"),
        ("coder", "thin", "part coder thin: unknown kind 'coder'; did you mean 'encoder'"),
        ("encoder", "my/thin", "expects a name without blanks and slashes, got 'my/thin'"),
    ],
)
def test_what_cannot_be_registered_is_refused(kind, name, message):
    with pytest.raises(ValueError, match=message):
        modkit.register(kind, name, torch.nn.Linear)
    assert get_registry().list_parts("encoder") == type(get_registry()).load().list_parts("encoder")


@pytest.mark.wide
def test_commands_have_the_parts_of_a_file_and_a_run_keeps_it(files, tmp_path):
    (parts, spec), run = files, tmp_path / "run"
    code, said = say("check", spec)
    assert code == 2 and "no encoder is called 'thin'" in said
    assert say("train", spec, "--out", run, "--parts", parts)[0] == 0
    assert (run / "parts" / "mine.py").read_text() == PARTS
    (row,) = [row for row in Run.open(run).lock["parts"] if row["name"] == "thin"]
    assert row["distribution"] == "this process" and row["sha256"]
    for words in (("resume", run, "train.steps=3"), ("evaluate", run), ("branch", run, "--out", tmp_path / "branch")):
        code, said = say(*words, "--parts", parts)
        assert code == 0, said
    assert say("sample", run, "-n", 2, "--out", tmp_path / "x.png", "--parts", parts)[0] == 0
    page = tmp_path / "page.html"
    assert say("compare", run, tmp_path / "branch", "--out", page, "--parts", parts)[0] == 0 and page.exists()
    assert say("export", run, tmp_path / "out", "--parts", parts)[0] == 0
    assert not (tmp_path / "out" / "parts").exists()
    assert say("sample", tmp_path / "out", "-n", 2, "--out", tmp_path / "y.png", "--parts", parts)[0] == 0


def test_an_export_has_the_files_of_parts_if_asked_and_loads_by_them_elsewhere(files, tmp_path, monkeypatch):
    (parts, spec), run, out = files, tmp_path / "run", tmp_path / "out"
    assert say("train", spec, "--out", run, "--parts", parts, "--steps", 1, "--no-evaluate")[0] == 0
    assert say("export", run, out, "--with-parts")[0] == 0
    assert (out / "parts" / "mine.py").read_text() == PARTS
    samples = modkit.sample_run(run, num=2, device="cpu").x
    monkeypatch.setenv("MODKIT_PARTS", "")
    get_registry.cache_clear()
    Path(parts).unlink()
    with pytest.raises(ValueError, match="encoder thin is missing"):
        modkit.load(out)
    add_file(str(out / "parts" / "mine.py"))
    assert torch.equal(modkit.sample_run(out, num=2, device="cpu").x, samples)


def test_an_export_of_a_run_without_such_files_is_refused(files, tmp_path):
    exec(PARTS, {"__name__": "script"})
    run = modkit.train(modkit.load_spec(files[1]), tmp_path / "run", steps=1, evaluate=False)
    code, said = say("export", run.path, tmp_path / "out", "--with-parts")
    assert code == 2 and "a run with copies of its parts, got" in said and not (tmp_path / "out").exists()


def test_a_run_says_how_its_parts_are_registered(files, tmp_path, caplog):
    (parts, spec), run = files, tmp_path / "run"
    assert say("train", spec, "--out", run, "--parts", parts, "--steps", 1)[0] == 0
    os.environ["MODKIT_PARTS"] = ""
    get_registry.cache_clear()
    with pytest.raises(ValueError, match=r"thin is missing: .* `--parts FILE.py` does it .*folder `parts` has a copy"):
        modkit.load(run)
    (tmp_path / "mine.py").write_text(PARTS.replace("flatten(1)", "flatten(1).neg()"))
    assert say("sample", run, "-n", 2, "--out", tmp_path / "x.png", "--parts", parts)[0] == 0
    assert "encoder thin: its source file has changed" in caplog.text


@pytest.mark.wide
def test_a_process_that_is_started_has_the_parts(files, tmp_path):
    parts, spec = files
    code, said = say("sweep", spec, "seed=0,1", "--out", tmp_path / "sweep", "--steps", 1, "--parts", parts)
    assert code == 0, said
    assert len(list((tmp_path / "sweep").glob("**/modkit.lock"))) == 2


@pytest.mark.parametrize("by_file", [True, False])
def test_what_a_new_process_lacks_is_not_measured_in_one(files, tmp_path, by_file):
    """The fault: it ended in an error, since the process that measures memory had not registered the part."""
    if by_file:
        add_file(files[0])
    else:
        exec(PARTS, {"__name__": "script"})
    run = modkit.train(modkit.load_spec(files[1]), tmp_path / "run", evaluate=False)
    scores = modkit.evaluate_run(run, metrics=["cost"], num=8).scores
    assert ("peak memory (MiB)" in scores) == by_file and "samples/s" in scores


def test_files_of_one_name_are_told_apart(files, tmp_path):
    """The fault: the second took the place of the first, whose code was kept and hashed no more."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text("")
    code, said = say("list", "encoder", "--parts", files[0], "--parts", tmp_path / "other" / "mine.py")
    assert code == 2 and "files of different names" in said
    modules = {}
    for name in ("one", "two"):
        path = tmp_path / name / "net.py"
        path.parent.mkdir()
        path.write_text(f"class Net:\n    {name} = 1\n")
        modules[name] = run_path(f"{name}.net", path)
    copy_sources(
        [Registered("encoder", name, "net:Net", "", object=one.Net) for name, one in modules.items()], tmp_path / "to"
    )
    assert sorted(one.name for one in (tmp_path / "to").iterdir()) == ["net.py", "two.net.py"]


def run_path(name, path):
    found = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_completing_a_word_runs_no_file(files, tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit")
    app.make_context("modkit", ["list", "encoder", "--parts", files[0]], resilient_parsing=True)
    context = app.commands["list"].make_context("list", ["encoder", "--parts", files[0]], resilient_parsing=True)
    assert context.params["kind"] == "encoder"


def test_a_file_that_fails_is_named(tmp_path):
    (tmp_path / "bad.py").write_text("import nowhere_at_all")
    (tmp_path / "mine.txt").write_text("")
    for name, reason in (("bad.py", "cannot register its parts: .*nowhere_at_all"), ("mine.txt", "a Python file")):
        code, said = say("list", "encoder", "--parts", tmp_path / name)
        assert code == 2 and re.search(reason, " ".join(said.replace("│", "").split()))
    code, said = say("list", "encoder", "--parts", tmp_path / "absent.py")
    assert code == 2 and "absent.py" in said
