import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete, get_completion_class

from modkit.building.schema import make_schema
from modkit.cli import completion
from modkit.cli.app import app
from modkit.kinds import KINDS, Default
from modkit.parts.registry import get_registry
from modkit.parts.signature import read_parameters
from tests.plugin_factory import make_plugin
from tests.processes import run_python
from tests.traps import set_traps

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAIN = ("train", str(EXAMPLES / "ldm.yaml"))


def completed(*words):
    """What a shell is offered for the last word, after those before."""
    *before, incomplete = words
    return [item.value for item in ShellComplete(app, {}, "modkit", "").get_completions(before, incomplete)]


def make_run(path):
    path.mkdir(parents=True)
    (path / "modkit.lock").touch()
    (path / "spec.yaml").write_text(Path(TRAIN[1]).read_text())


def names(kind, start=""):
    return [entry.part.name for entry in get_registry().list_parts(kind) if entry.part.name.startswith(start)]


def test_kinds_and_names_of_parts():
    assert completed("show", "samp") == completed("list", "samp") == ["sampler"]
    assert completed("show", "sampler", "d") == names("sampler", "d")
    assert "ddim" in completed("show", "sampler", "") == names("sampler")
    assert completed("show", "samplers", "d") == []


@pytest.mark.parametrize("command", ["train", "check", "diff", "sweep"])
def test_spec_files_and_the_folders_that_lead_to_them(command, tmp_path, monkeypatch):
    for name in ("a.yaml", "b.yml", "ab.txt", ".hidden.yaml", "among/c.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert completed(command, "") == ["a.yaml", "among/", "b.yml"]
    assert completed(command, "a") == ["a.yaml", "among/"]
    assert completed(command, "among/") == ["among/c.yaml"]
    assert completed(command, ".h") == [".hidden.yaml"]
    assert completed(command, f"{tmp_path}/b") == [f"{tmp_path}/b.yml"]
    assert completed(command, "example:vae-") == ["example:vae-2d", "example:vae-gan"]
    assert completed(command, "./a") == ["./a.yaml", "./among/"]
    assert completed(command, "nowhere/") == []


@pytest.mark.wide
def test_a_path_in_the_home_folder_stays_as_it_is_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.yaml").touch()
    make_run(tmp_path / "runs/ldm")
    assert completed("train", "~/") == ["~/a.yaml", "~/runs/"]
    assert completed("sample", "~/runs/") == ["~/runs/ldm"]
    assert completed("sample", "~/runs/ldm", "samp") == ["sampler=", "sampler."]


def test_names_that_no_reply_can_hold_and_folders_that_cannot_be_read_are_skipped(tmp_path, monkeypatch):
    for name in (b"caf\xe9", b"two\nlines", "café".encode()):
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    monkeypatch.chdir(tmp_path)
    assert completed("sample", "") == completed("train", "") == ["café/"]

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert completed("sample", "") == completed("train", "") == []


@pytest.mark.parametrize("words", [
    ("train", "a.yaml", "--out"), ("branch", "runs/a", "--out"), ("sample", "runs/a", "--out"),
    ("sample", "runs/a", "--noise"), ("latent", "runs/a", "--out"), ("ema", "runs/a", "--out"), ("export", "runs/a"),
    ("check", "a.yaml", "--graph"), ("compare", "runs/a", "--out"), ("sweep", "a.yaml", "--out"), ("runs", "--in"),
    ("evaluate", "--real"), ("new-plugin", "acme", "--out"),
], ids=" ".join)  # fmt: skip
def test_the_shell_completes_paths_that_commands_write(words):
    (item,) = ShellComplete(app, {}, "modkit", "").get_completions(list(words), "ru")
    assert (item.type, item.value) == ("file", "ru")


def test_values_of_an_override_are_the_parts_of_the_slot_or_the_choices():
    assert completed(*TRAIN, "model.prior.sampler=dd") == [f"model.prior.sampler={n}" for n in names("sampler", "dd")]
    precisions = [f"train.precision={name}" for name in ("float32", "tf32", "bf16", "fp16")]
    assert completed("check", TRAIN[1], "train.precision=") == precisions
    assert completed(*TRAIN, "train.compile=t") == ["train.compile=true"]
    assert completed(*TRAIN, "train.optimizer=ad") == [f"train.optimizer={n}" for n in names("optimizer", "ad")]
    assert completed(*TRAIN, "evaluate.metrics=") == completed(*TRAIN, "model.nothing.sampler=") == []


def test_paths_of_an_override_are_those_of_the_spec_s_parts_and_their_defaults():
    assert completed(*TRAIN, "") == ["model=", "model.", "data=", "data.", "train.", "evaluate."]
    assert completed(*TRAIN, "model.prior.samp") == ["model.prior.sampler=", "model.prior.sampler."]
    assert completed(*TRAIN, "model.autoencoder.likelihood.") == []
    assert "model.autoencoder.encoder.channels=" in completed(*TRAIN, "model.autoencoder.encoder.")
    assert completed(*TRAIN, "model.autoencoder.weights.") == ["model.autoencoder.weights.kl="]
    assert completed(*TRAIN, "train.samples.") == ["train.samples.every=", "train.samples.num="]
    assert "train.optimizer.lr=" in completed(*TRAIN, "train.optimizer.")
    assert completed(*TRAIN, "model.prior.network.x") == []  # that is given, and no keyword


def test_an_override_before_counts():
    swap = "model.autoencoder.bottleneck=lfq"
    assert "model.autoencoder.bottleneck.bits=" in completed(*TRAIN, swap, "model.autoencoder.bottleneck.")
    assert completed(*TRAIN, "model=gan", "model.gen") == ["model.generator=", "model.generator."]


def test_an_axis_of_a_sweep_is_an_override_with_several_values():
    sweep = ("sweep", TRAIN[1])
    assert completed(*sweep, "samp") == ["sampler=", "sampler."]
    assert completed(*sweep, "sampler=ddim,he") == [f"sampler=ddim,{name}" for name in names("sampler", "he")]
    assert completed(*sweep, "train.precision=tf32,bf16,fl") == ["train.precision=tf32,bf16,float32"]
    assert completed(*sweep, "sampler=ddim", "train.compile=t") == ["train.compile=true"]


def test_of_a_run_its_folder_and_the_slots_that_sampling_uses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/ldm")
    run.mkdir(parents=True)
    assert completed("sample", "runs/") == ["runs/ldm/"]
    run.rmdir()
    make_run(run)
    for command in ("sample", "branch", "latent", "ema", "evaluate", "compare", "export"):
        assert completed(command, "runs/") == ["runs/ldm"], command
    assert completed("runs", "tag", "runs/") == completed("compare", "runs/ldm", "runs/") == ["runs/ldm"]
    assert completed("evaluate", "runs/ldm", "samp") == ["sampler=", "sampler."]
    assert completed("sample", "runs/ldm", "samp") == ["sampler=", "sampler."]
    assert completed("sample", "runs/ldm", "sampler=dd") == [f"sampler={n}" for n in names("sampler", "dd")]
    assert "sampler.eta=" in completed("sample", "runs/ldm", "sampler=ddim", "sampler.")
    assert completed("sample", "runs/ldm", "guidance=c") == ["guidance=cfg"]


def test_a_spec_that_is_wrong_or_absent_offers_nothing(tmp_path):
    (tmp_path / "wrong.yaml").write_text("name: [")
    for name in ("wrong.yaml", "absent.yaml"):
        assert completed("train", str(tmp_path / name), "model.") == []
    (tmp_path / "unknown.yaml").write_text("name: x\nmodel: {use: gann}")
    assert completed("train", str(tmp_path / "unknown.yaml"), "model.") == []
    assert completed(*TRAIN, "model.prior[") == completed(*TRAIN, "model=[", "model.") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_s_parameters_are_those_of_its_signature(kind):
    for part in (entry.part for entry in get_registry().list_parts(kind)):
        inside = completion.SchemaPlace("here", {"$ref": f"#/definitions/{kind}"}, part.name).inside
        known = read_parameters(part)
        assert list(inside) == list(known), str(part)
        for name, one in known.items():
            slot = one.slot.kind if one.slot and not one.slot.container else None
            assert inside[name].kind == slot, f"{part} {name}"
            if isinstance(one.default, Default):
                assert inside[name].schema["default"] == one.default.name


PLUGIN = """
    from typing import Literal
    from modkit.kinds import Slot, Weight
    from modkit.part import Part, hookimpl

    print("noise")
    Word = Literal["{word}", "b"]

    class Odd:
        def __init__(
            self, *, word: Word | None = None, on: bool | None = None, each: dict[str, Slot[Weight]] | None = None
        ):
            pass

    @hookimpl
    def modkit_parts():
        return [Part("optimizer", "odd", f"{__name__}:Odd", "", aliases=("strange",))]
"""


@pytest.fixture
def fresh(site, tmp_path, monkeypatch):
    """A cache and a path with nothing in them; the function forgets what is kept in this process."""

    def forget():
        get_registry.cache_clear()
        completion._load_schema.cache_clear()

    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    forget()
    yield forget
    forget()


@pytest.mark.wide
def test_the_schema_is_made_anew_when_a_source_changes_and_only_then(fresh, site, tmp_path, monkeypatch, capfd):
    mark = set_traps(tmp_path)
    monkeypatch.chdir(tmp_path)
    module = site / f"{make_plugin(site, source=PLUGIN.replace('{word}', 'a'))}.py"
    odd = (*TRAIN, "train.optimizer=acme/odd")
    assert completed(*odd, "train.optimizer.word=") == ["train.optimizer.word=a", "train.optimizer.word=b"]
    assert completed(*odd, "train.optimizer.on=t") == ["train.optimizer.on=true"]
    assert completed(*TRAIN, "train.optimizer=acme/strange", "train.optimizer.w") == ["train.optimizer.word="]
    named = (*odd, "train.optimizer.each={kl: 1}")
    assert completed(*named, "train.optimizer.each.") == ["train.optimizer.each.kl="]
    assert completed(*named, "train.optimizer.each.kl=") == [f"train.optimizer.each.kl={n}" for n in names("weight")]
    module.write_text(module.read_text().replace('"a"', '"c"'))
    fresh()
    assert completed(*odd, "train.optimizer.word=c") == ["train.optimizer.word=c"]
    fresh()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", None)
        assert completed(*odd, "train.optimizer.word=c") == ["train.optimizer.word=c"]
    printed = capfd.readouterr()
    assert not mark.exists()
    assert printed.out == "" and set(printed.err.split()) == {"noise"}  # by the registry, on stderr


@pytest.mark.wide
def test_a_cache_that_is_broken_or_missing_is_made_again_and_no_failure_is_printed(fresh, tmp_path, monkeypatch, capfd):
    made = [json.dumps(make_schema()).encode()]
    answer = lambda command, **options: subprocess.CompletedProcess(command, 0, made[-1], b"!")  # noqa: E731
    monkeypatch.setattr(subprocess, "run", answer)
    assert completed(*TRAIN, "dat") == ["data=", "data."]
    (kept,) = (tmp_path / "cache").iterdir()
    before = kept.read_bytes()
    for content in ("", "{", '["another state", {}]'):
        kept.write_text(content)
        fresh()
        assert completed(*TRAIN, "dat") == ["data=", "data."]
        assert kept.read_bytes() == before
    kept.unlink()
    made.append(b"Traceback")
    fresh()
    assert completed(*TRAIN, "dat") == []
    assert completed("show", "sampler", "dd") == names("sampler", "dd")
    assert capfd.readouterr() == ("", "")


@pytest.mark.wide
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_words_that_it_splits_and_quotes_what_it_inserts(tmp_path, monkeypatch):
    for name in ("z_dim=2,seed=0", "z_dim=2,seed=1", "my runs/a $b"):
        make_run(tmp_path / "runs" / name)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/modkit"
    path = f"import sys; sys.path.insert(0, {str(EXAMPLES.parent)!r})"
    program.write_text(f"#!{sys.executable}\n{path}\nfrom modkit.cli.app import main\nmain()\n")
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INPUTRC", os.devnull)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    expected = {
        "sample runs/z\t0\t --seed": ["sample", "runs/z_dim=2,seed=0", "--seed"],  # bash ends words at `=`
        "export 'runs/z\t1\tx": ["export", "runs/z_dim=2,seed=1", "x"],
        "evaluate runs/my\ta\tx": ["evaluate", "runs/my runs/a $b", "x"],
        'compare "runs/my\ta\t x': ["compare", "runs/my runs/a $b", "x"],
        "compare 'runs/my\ta\t x": ["compare", "runs/my runs/a $b", "x"],
        "new-plugin --kind=samp\tx": ["new-plugin", "--kind=sampler", "x"],
        "train ~/ru\tx": ["train", f"{tmp_path}/runs/x"],
        f"train {TRAIN[1]} model.prior.sampler=ddi\tx": ["train", TRAIN[1], "model.prior.sampler=ddim", "x"],
    }
    assert complete_in_bash(expected, tmp_path) == list(expected.values())


def complete_in_bash(lines, folder):
    """Types lines after `modkit` into a terminal, and returns the words that bash reads from each."""
    source = get_completion_class("bash")(app, {}, "modkit", "_MODKIT_COMPLETE").source()
    (folder / "rc").write_text(f"{source}\nread_words() {{ printf '%s\\0' \"$@\" >> words; echo >> words; }}\n")
    terminal, end = pty.openpty()
    typed = [f"modkit {line}\x01read_words \n" for line in lines]  # Ctrl-A: what follows is put before the line
    ends = ["exit\n", "'\nexit\n", '"\nexit\n']  # the last two if a quote was left open
    os.write(terminal, "".join([*typed, *ends]).encode())
    command = ["bash", "--noprofile", "--rcfile", folder / "rc", "-i"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    try:
        subprocess.run(command, cwd=folder, stdin=end, timeout=600, check=True, **quiet)
    finally:
        os.close(terminal)
        os.close(end)
    return [line.split("\0")[1:-1] for line in (folder / "words").read_text().splitlines()]


def test_a_script_of_an_earlier_version_is_answered(monkeypatch):
    monkeypatch.delenv("COMP_LINE", raising=False)
    monkeypatch.setenv("COMP_WORDS", "modkit show samp")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert get_completion_class("bash")(app, {}, "modkit", "_MODKIT_COMPLETE").complete() == "plain,sampler"


def test_fish_keeps_what_follows_a_comma():
    source = get_completion_class("fish")(app, {}, "modkit", "_MODKIT_COMPLETE").source()
    assert '(string split -m 1 "," $completion)' in source


@pytest.mark.wide
def test_a_shell_is_answered_without_torch():
    program = "import atexit, sys; from modkit.cli.app import main; sys.argv = ['modkit']\n"
    program += "atexit.register(lambda: print({'torch', 'numpy'} & set(sys.modules), file=sys.stderr)); main()"
    line = f"modkit train {TRAIN[1]} model.prior.sampler=dpm"
    asked = {"_MODKIT_COMPLETE": "bash_complete", "COMP_LINE": line, "COMP_REPLACED": "dpm"}
    told = run_python("-c", program, **asked)
    assert told.stdout.splitlines() == [f"plain,{name}" for name in names("sampler", "dpm")]
    assert told.stderr.strip() == "set()"
