"""Damage of a run's files is told or does no harm: no command gives another result in silence, or a traceback."""

import os
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from modkit.cli.app import app
from tests.cli.test_crafted import SPEC
from tests.command import run
from tests.run_folders import contents

COMMANDS = {
    "sample": ["sample", "run", "-n", "3", "--out", "out.npy"],
    "export": ["export", "run", "out"],
    "evaluate": ["evaluate", "run", "-n", "8", "--features", "pixels", "--metrics", "fd"],
    "diff": ["diff", "run", "whole"],
    "branch": ["branch", "run", "train.optimizer.lr=1e-4", "--out", "out"],
    "resume": ["resume", "run", "train.steps=3"],
}
"""Each writes `out`, `out.npy` or in the run, or prints what it finds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "tiny.yaml").write_text(SPEC)
    run("train", folder / "tiny.yaml", "--out", folder / "whole")
    (folder / "elsewhere").write_text("elsewhere")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MODKIT_CACHE", str(folder / "cache"))


@pytest.fixture(scope="module")
def intact():
    """Results with an intact run, by command."""
    return {}


def flip(path, random_):
    data = bytearray(path.read_bytes())
    data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(data)


def truncate(path, random_):
    os.truncate(path, random_.randrange(path.stat().st_size))


def append(path, random_):
    path.write_bytes(path.read_bytes() + random_.randbytes(random_.randrange(1, 100)))


def delete(path, random_):
    path.unlink()


def make_folder(path, random_):
    path.unlink()
    path.mkdir()


def make_link(path, random_):
    path.unlink()
    path.symlink_to(Path("elsewhere").absolute())


def make_pipe(path, random_):
    path.unlink()
    os.mkfifo(path)


KINDS = [flip, flip, truncate, append, delete, make_folder, make_link, make_pipe]


def clear():
    for left in ("run", "out"):
        shutil.rmtree(left, ignore_errors=True)
    Path("out.npy").unlink(missing_ok=True)
    shutil.copytree("whole", "run")


def attempt(command, leave_out=""):
    """Runs a command; returns its status, what it made, and what it warned of."""
    result = CliRunner().invoke(app, COMMANDS[command])
    assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
    made = result.stdout if command in ("diff", "evaluate") else ""
    files = contents(Path("run" if command == "resume" else "out"))
    files |= {"out.npy": Path("out.npy").read_bytes()} if command == "sample" and result.exit_code == 0 else {}
    return result.exit_code, (made, {name: data for name, data in files.items() if name != leave_out}), result.stderr


def list_files():
    return sorted(
        str(path.relative_to("whole")) for path in Path("whole").rglob("*") if path.is_file() and path.stat().st_size
    )


@pytest.mark.wide
def test_a_checkpoint_under_the_name_of_a_later_step_is_told_by_what_reads_it(here):
    for command in COMMANDS.keys() - {"diff"}:
        clear()
        last = max(Path("run/checkpoints").iterdir())
        shutil.copytree(last, last.with_name("step-00000030"))
        status, _, told = attempt(command)
        said = f"so its name should be {last.name}"
        renamed = Path("run/checkpoints/damaged-step-00000030").is_dir()
        assert status == 0 and (renamed if command == "resume" else said in told), (command, told)
    clear()
    shutil.copytree(last, last.with_name("step-00000030"))
    for command in ("sample", "export", "evaluate"):
        result = CliRunner().invoke(app, [*COMMANDS[command], "--checkpoint", "step-00000030"])
        assert result.exit_code == 2 and said in result.stderr, (command, result.stderr)


@pytest.mark.wide(1)
@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(6, 80))])
def test_damage_is_told_or_does_no_harm(here, intact, seed):
    random_ = random.Random(seed)
    for _ in range(2):
        name, damage = random_.choice(list_files()), random_.choice(KINDS)
        state = random_.getstate()
        for command in COMMANDS:
            if command not in intact:
                clear()
                intact[command] = attempt(command)
                assert intact[command][0] == 0, (command, intact[command])
            clear()
            random_.setstate(state)
            damage(Path("run") / name, random_)
            status, made, told = attempt(command, name)
            if status == 0 and not told:
                expected = intact[command][1]
                assert made == (expected[0], {key: data for key, data in expected[1].items() if key != name}), (
                    f"{command} after {damage.__name__} of {name}"
                )
            else:
                assert status in (0, 1, 2) and told.strip(), (command, damage.__name__, name)
            assert Path("elsewhere").read_text() == "elsewhere"
