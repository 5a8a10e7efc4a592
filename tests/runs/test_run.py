import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from modkit.runs.checkpoint import Checkpoint, list_names, load, save
from modkit.runs.files import hash_data
from modkit.runs.rows import Mark
from modkit.runs.run import Run
from tests.forks import fork_python

LOCK = {"format": 1, "parts": []}
SPEC = SimpleNamespace(to_yaml=lambda: "name: ü\nmodel: 1\n")

KILLED = """
import json, os, sys
from pathlib import Path
from types import SimpleNamespace
import torch
from PIL import Image
from modkit.runs.rows import Mark
from modkit.runs.run import Run
from tests.runs.kills import kill_before_each_call

def create(root, text, **options):
    return Run.create(root / "run", SimpleNamespace(to_yaml=lambda: text), {text: 1}, **options)

def make(root):
    create(root, "new")

def begin(root):
    with create(root, "old") as run:
        run.log({"loss": 1.0})
        assert run.mark().size == 14
        run.log({"loss": 2.0})
        run.write_picture("a", torch.zeros(1, 2, 2, dtype=torch.uint8))
        run.finish()

def replace(root):
    create(root, "new", overwrite=True)

def cut(root):
    Run.open(root / "run").cut(Mark(14))

def draw(root):
    Run.open(root / "run").write_picture("a", torch.ones(1, 2, 2, dtype=torch.uint8))

def check(action, root, killed):
    if action is make:
        if not (root / "run" / "spec.yaml").exists():  # begins again without being asked to overwrite
            make(root)
        assert Run.open(root / "run").spec_text == "new"
    elif action is replace:
        try:
            run = Run.open(root / "run")
            assert (run.spec_text, run.lock) in (("old", {"old": 1}), ("new", {"new": 1})), (run.spec_text, run.lock)
        except ValueError:
            assert killed
        replace(root)
        run = Run.open(root / "run")
        assert run.spec_text == "new" and run.read_metrics() == []
        assert sorted(os.listdir(run.path)) == [".lock", "modkit.lock", "spec.yaml"], os.listdir(run.path)
    elif action is cut:
        run = Run.open(root / "run")
        assert run.read_metrics() in ([{"loss": 1.0}], [{"loss": 1.0}, {"loss": 2.0}])
        assert not killed or run.status in ("started", "finished")
        run.cut(Mark(14))
        assert run.read_metrics() == [{"loss": 1.0}] and run.status == "started"
    else:
        assert Image.open(root / "run" / "samples" / "a.png").getpixel((0, 0)) in (0, 1)
        Run.open(root / "run").cut()
        assert os.listdir(root / "run" / "samples") == ["a.png"]

folder, counts = Path(sys.argv[1]), {}
(folder / "empty").mkdir()
begin(folder / "begun")
for action in (make, replace, cut, draw):
    for killed in kill_before_each_call(action, folder / ("empty" if action is make else "begun"), folder / "root"):
        check(action, folder / "root", killed)
        counts[action.__name__] = counts.get(action.__name__, 0) + killed
print(json.dumps(counts))
"""


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", SPEC, LOCK)


@pytest.mark.wide
def test_a_kill_before_every_system_call_leaves_a_run_or_a_place_for_one(tmp_path):
    killed = json.loads(fork_python("-c", KILLED, tmp_path, cwd=tmp_path).stdout)
    assert list(killed) == ["make", "replace", "cut", "draw"] and min(killed.values()) >= 4, killed


def test_a_run_is_found_again(tmp_path):
    run = Run.create(tmp_path / "a" / "b", SPEC, LOCK | {"seed": 0})
    again = Run.open(str(tmp_path / "a" / "b"))
    assert again.spec_text == run.spec_text == "name: ü\nmodel: 1\n"
    assert again.lock == run.lock == LOCK | {"seed": 0}
    assert again.status == "started" and not again.finished and again.read_metrics() == []
    assert again.checkpoints == tmp_path / "a" / "b" / "checkpoints" and again.samples == run.path / "samples"
    run.finish()
    assert again.status == "finished" and again.finished


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got .*absent without modkit\.lock"):
        Run.open(tmp_path / "absent")
    path = Run.create(tmp_path / "run", SPEC, LOCK).path
    for data, message in ((b"{", "damaged"), (b"[]", "expected a JSON object, got list"), (b"[" * 100_000, "damaged")):
        (path / "modkit.lock").write_bytes(data)
        with pytest.raises(ValueError, match=message):
            Run.open(path)
    (path / "spec.yaml").unlink()
    with pytest.raises(ValueError, match=r"without spec\.yaml"):
        Run.open(path)


def test_a_run_is_not_made_over_anything_unasked(tmp_path):
    path = tmp_path / "run"
    with Run.create(path, SPEC, LOCK) as run:
        run.log({"loss": 1.0})
        run.log_time({"seconds": 1.0})
        run.write_picture("a", torch.zeros(1, 2, 2, dtype=torch.uint8))
        save(run.checkpoints, "step-1", Checkpoint())
        run.finish()
    (path / "notes.txt").write_text("the reader's own")
    message = (
        r"already holds a run; use --resume \(in Python resume=True\) to continue it or --overwrite \(overwrite=True\)"
    )
    with pytest.raises(ValueError, match=message):
        Run.create(path, SPEC, LOCK)
    assert len(Run.open(path).read_metrics()) == 1
    Run.create(path, SPEC, LOCK, overwrite=True)
    assert sorted(os.listdir(path)) == [".lock", "modkit.lock", "notes.txt", "spec.yaml"]
    (path / "modkit.lock").unlink()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="expects an empty directory or a run, got .* with notes.txt, spec.yaml"):
            Run.create(path, SPEC, LOCK, overwrite)
        with pytest.raises(ValueError, match="got the file"):
            Run.create(path / "notes.txt", SPEC, LOCK, overwrite)
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", SPEC, LOCK).status == "started"


def test_a_run_that_could_not_be_made_lets_its_folder_go(tmp_path, monkeypatch):
    def fail(path, data):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("modkit.runs.run.replace_file", fail)
        with pytest.raises(OSError, match="No space left") as kept:  # noqa: F841  # the run is in its traceback
            Run.create(tmp_path / "run", SPEC, LOCK)
    Run.create(tmp_path / "run", SPEC, LOCK).close()


def test_a_run_without_results_is_replaced_unasked_but_not_one_with_weights_from_elsewhere(tmp_path):
    with Run.create(tmp_path / "run", SPEC, LOCK) as run:
        run.save("step-00000000", Checkpoint({"model": {"w": torch.ones(1)}}, {}, {"model": ["w"]}))
    with Run.create(tmp_path / "run", SPEC, LOCK) as run:
        assert list_names(run.checkpoints) == []
        run.save("step-00000001", Checkpoint())
    with pytest.raises(ValueError, match="already holds a run"):
        Run.create(tmp_path / "run", SPEC, LOCK)
    with Run.create(tmp_path / "imported", SPEC, LOCK | {"imported": True}) as run:
        run.save("step-00000000", Checkpoint())
    with pytest.raises(ValueError, match="already holds a run"):
        Run.create(tmp_path / "imported", SPEC, LOCK)


def test_a_run_is_withdrawn_with_the_folders_that_were_made_for_it(tmp_path):
    with Run.create(tmp_path / "a" / "b", SPEC, LOCK) as run:
        run.mark()
        run.save("step-00000000", Checkpoint())
        assert run.withdraw()
    assert os.listdir(tmp_path) == []
    with Run.create(tmp_path / "run", SPEC, LOCK) as run:
        run.save("step-00000005", Checkpoint())
        assert not run.withdraw() and run.withdraw("step-00000005")
    with Run.create(tmp_path / "run", SPEC, LOCK) as run:
        (run.path / "notes.txt").write_text("the reader's own")
        assert run.withdraw()
    assert sorted(os.listdir(tmp_path / "run")) == [".lock", "modkit.lock", "notes.txt"]
    Run.create(tmp_path / "run", SPEC, LOCK).close()


def test_a_run_with_results_and_one_that_was_moved_are_not_withdrawn(tmp_path):
    with Run.create(tmp_path / "run", SPEC, LOCK) as run:
        run.log({"step": 1})
        assert not run.withdraw() and run.read_metrics()
    with Run.create(tmp_path / "other", SPEC, LOCK) as run:
        run.path.rename(tmp_path / "moved")
        Run.create(tmp_path / "other", SPEC, LOCK).close()
        with pytest.raises(FileNotFoundError, match="moved"):
            run.withdraw()
    assert Run.open(tmp_path / "moved") and Run.open(tmp_path / "other")


def test_floats_come_back_exactly_and_what_is_no_number_is_refused(tmp_path):
    rows = [{"step": 1, "loss": 0.1 + 0.2, "tiny": 5e-324}, {"step": 2, "loss": -1e300 / 3, "stage": "ü"}]
    with Run.create(tmp_path / "run", SPEC, LOCK) as run:
        for row in rows:
            run.log(row)
            assert run.read_metrics()[-1] == row
        for value in (float("nan"), float("inf"), torch.ones(1)):
            for write in (run.log, run.log_time):
                with pytest.raises(ValueError, match="rows of plain values and finite numbers"):
                    write({"loss": value})
    assert Run.open(tmp_path / "run").read_metrics() == rows and not (tmp_path / "run" / "timing.jsonl").exists()


def test_cut_takes_the_metrics_back_and_keeps_the_timing(run):
    marks = [run.mark()]
    for step in range(4):
        run.log({"step": step})
        run.log_time({"step": step})
        marks.append(run.mark())
    assert [mark.size for mark in marks] == [0, 12, 24, 36, 48]
    save(run.checkpoints, "step-1", Checkpoint())
    save(run.averages, "step-1", Checkpoint())
    for folder in (run.checkpoints, run.averages):
        (folder / ".step-2.tmp-5").mkdir()
    run.finish()
    for name in ("metrics.jsonl", "timing.jsonl"):
        with (run.path / name).open("ab") as file:
            file.write(b'{"step": 4')
    assert len(run.read_metrics()) == 4
    run.cut(marks[2])
    assert run.read_metrics() == [{"step": 0}, {"step": 1}] and run.status == "started"
    assert (run.path / "timing.jsonl").read_bytes().count(b"\n") == 4
    for folder in (run.checkpoints, run.averages):
        assert os.listdir(folder) == ["step-1"] and list_names(folder) == ["step-1"]
    run.log({"step": 2})
    run.log_time({"step": 4})
    assert run.read_metrics() == [{"step": 0}, {"step": 1}, {"step": 2}] and run.mark() == marks[3]
    assert json.loads((run.path / "timing.jsonl").read_bytes().split(b"\n")[4]) == {"step": 4}
    run.cut(Mark(13))
    assert run.read_metrics() == [{"step": 0}]
    for mark in (13, -1):
        with pytest.raises(ValueError, match=rf"a mark in \[0, 12\], .* got {mark}"):
            run.cut(Mark(mark))
    run.cut()
    assert run.read_metrics() == []
    run.close()


def test_a_damaged_line_is_named_and_a_torn_last_one_left_out(run):
    (run.path / "metrics.jsonl").write_bytes(b'{"a": 1}\n{"a"')
    assert run.read_metrics() == [{"a": 1}]
    lines = {b'{"a"': "not a row", b"[1]": "got list", b'{"a": NaN}': "NaN is not valid JSON", b"\xff": "not a row"}
    for line, message in lines.items():
        (run.path / "metrics.jsonl").write_bytes(b'{"a": 1}\n' + line + b"\n")
        with pytest.raises(ValueError, match=rf"metrics\.jsonl:2 .*{message}"):
            run.read_metrics()


def test_pictures_are_written_pixel_for_pixel(run):
    grid = torch.arange(24, dtype=torch.uint8).view(3, 2, 4)
    path = run.write_picture("step-00000010", grid)
    assert path == run.path / "samples" / "step-00000010.png"
    assert torch.equal(torch.tensor(np.asarray(Image.open(path))).permute(2, 0, 1), grid)
    run.write_picture("step-00000010", grid[:1])
    assert torch.equal(torch.tensor(np.asarray(Image.open(path))), grid[0])
    assert os.listdir(run.samples) == ["step-00000010.png"]
    for name in ("../a", "", ".a", "a/b"):
        with pytest.raises(ValueError, match="a name of letters"):
            run.write_picture(name, grid)
    with pytest.raises(ValueError, match=r"uint8 picture c h w"):
        run.write_picture("a", grid.float())


def test_files_are_closed_at_the_end(tmp_path):
    with Run.create(tmp_path / "run", SPEC, LOCK) as run:
        run.log({"a": 1})
        file = run._metrics._file
        assert not file.closed
    assert file.closed and run._metrics._file is None
    run.log({"a": 2})
    run.close()
    assert run.read_metrics() == [{"a": 1}, {"a": 2}]


def test_a_run_is_held_from_the_start_until_it_is_closed(tmp_path):
    path = tmp_path / "run"
    with Run.create(path, SPEC, LOCK) as run:
        for act in (Run.open(path).hold, lambda: Run.create(path, SPEC, LOCK, overwrite=True)):
            with pytest.raises(ValueError, match="run is being written by another process: wait until it ends, or"):
                act()
        assert run.hold() is run
    with Run.open(path).hold() as again, pytest.raises(ValueError, match="is being written by another process"):
        run.hold()
    again.finish()
    Run.create(path, SPEC, LOCK | {"seed": 1}, overwrite=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="run was changed by another process since it was opened"):
            again.hold()
    Run.open(path).hold().close()


def test_every_write_notices_that_the_run_is_gone(run):
    grid = torch.zeros(1, 2, 2, dtype=torch.uint8)
    run.log({"step": 1})
    run.path.rename(run.path.with_name("moved"))
    writes = {
        "log": lambda: run.log({"step": 2}),
        "log_time": lambda: run.log_time({"step": 2}),
        "mark": run.mark,
        "write_picture": lambda: run.write_picture("a", grid),
        "save": lambda: run.save("step-1", Checkpoint()),
        "finish": run.finish,
    }
    for write in writes.values():
        with pytest.raises(
            FileNotFoundError, match="run was removed, moved or replaced while this process wrote to it"
        ):
            write()
    run.close()
    assert os.listdir(run.path.parent) == ["moved"]
    assert sorted(os.listdir(run.path.with_name("moved"))) == [".lock", "metrics.jsonl", "modkit.lock", "spec.yaml"]


def test_a_new_run_is_synced_where_it_appears(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    Run.create(tmp_path / "runs" / "a", SPEC, LOCK)
    assert synced[:2] == [str(tmp_path), str(tmp_path / "runs")]


def test_a_spec_that_was_changed_is_refused(tmp_path):
    text = SPEC.to_yaml()
    path = Run.create(tmp_path / "run", SPEC, LOCK | {"spec": hash_data(text)}).path
    assert Run.open(path).spec_text == text
    (path / "spec.yaml").write_text(text.replace("1", "2"))
    with pytest.raises(
        ValueError, match=r"spec\.yaml was changed after the run was made: its SHA-256 differs from the"
    ):
        Run.open(path)


def test_a_checkpoint_keeps_the_mark_of_the_metrics_and_its_run(tmp_path):
    with Run.create(tmp_path / "run", SPEC, LOCK | {"run": "mine"}) as run:
        run.log({"step": 1})
        path = run.save("step-1", Checkpoint({}, {"cursor": 3}))
        run.log({"step": 2})
    mark = {"size": 12, "sha256": hash_data('{"step": 1}\n')}
    assert load(path).state == {"cursor": 3, "metrics": mark, "run": "mine"}
    for metrics in (mark, 12):  # older versions kept the size alone
        save(run.checkpoints, "step-1", Checkpoint({}, {"metrics": metrics}))
        again = Run.open(run.path)
        assert again.rewind(again.read_last()) == {} and again.read_metrics() == [{"step": 1}]
    (run.path / "metrics.jsonl").write_text('{"step": 7}\n')
    save(run.checkpoints, "step-1", Checkpoint({}, {"metrics": mark}))
    with pytest.raises(ValueError, match=r"metrics\.jsonl was changed: its first 12 bytes are not the rows"):
        again.rewind(again.read_last())
    assert again.read_metrics() == [{"step": 7}]
