import errno
import hashlib
import json
import os
import pickle
import secrets
import shutil
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modkit.runs import checkpoint, verified
from modkit.runs.checkpoint import (
    Checkpoint,
    CheckpointError,
    find_latest,
    list_names,
    load,
    prune,
    read_latest,
    recover,
    save,
    set_aside,
)
from tests.forks import fork_python

KILLED = """
import json, os, shutil, sys
from pathlib import Path
import torch
from modkit.runs.checkpoint import Checkpoint, find_latest, list_names, load, prune, recover, save
from tests.runs.kills import kill_before_each_call

def checkpoint(value):
    tensors = {"model": {name: torch.full((64,), float(value)) for name in "wf"}, "ema": {}}
    return Checkpoint(tensors, {"value": value}, {"model": ["f"]})

def value(path):
    whole = load(path)
    assert all(torch.equal(whole.tensors["model"][k], torch.full((64,), float(whole.state["value"]))) for k in "wf")
    return whole.state["value"]

def add(root):
    save(root, "step-3", checkpoint(3))

def replace(root):
    save(root, "step-2", checkpoint(20))

def remove(root):
    prune(root, 1)

def mend(root):
    os.rename(root / "step-2", root / ".step-2.old")
    shutil.copytree(root / "step-1", root / ".step-3.tmp-1")
    recover(root)

start, root = Path(sys.argv[1], "start"), Path(sys.argv[1], "root")
for step in (1, 2):
    save(start, f"step-{step}", checkpoint(step))
counts = {}
for action in (add, replace, remove, mend):
    for killed in kill_before_each_call(action, start, root):
        found, latest = {name: value(root / name) for name in list_names(root)}, value(find_latest(root))
        if action is add:
            assert found["step-2"] == 2 and latest in (2, 3)
        elif action is replace:
            assert list(found) == ["step-1", "step-2"] and latest in (2, 20) and found["step-2"] in (2, 20)
        else:
            assert latest == 2 and list(found) in [["step-1", "step-2"], ["step-2"]][: 2 if action is remove else 1]
        recover(root)
        save(root, "step-9", checkpoint(9))
        assert load(root / "step-9").state == {"value": 9}
        left = [entry.name for entry in root.iterdir() if entry.name.startswith(".")]
        assert not left, left
        counts[action.__name__] = counts.get(action.__name__, 0) + killed
print(json.dumps(counts))
"""


def small(value=1.0):
    return Checkpoint({"model": {"w": torch.tensor([value, 2.0, 3.0])}}, {"step": 7})


def forge(path: Path, file: str, data: bytes, tensors=None):
    """Puts other content into a checkpoint, with hashes that fit it."""
    if file != "manifest.json":
        (path / file).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest["files"][file] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    sign(path, manifest if tensors is None else manifest | {"tensors": tensors})


def sign(path: Path, manifest: dict):
    manifest = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(manifest, indent=1).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest | {"sha256": digest}, indent=1))


def refuse(path: Path, message: str):
    with pytest.raises(CheckpointError, match=message):
        load(path)


@pytest.mark.wide
def test_a_kill_before_every_system_call_leaves_a_whole_checkpoint(tmp_path):
    killed = json.loads(fork_python("-c", KILLED, tmp_path, cwd=tmp_path).stdout)
    assert list(killed) == ["add", "replace", "remove", "mend"], killed
    assert min(killed.values()) >= 4 and killed["add"] >= 15, killed


def test_everything_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    events, paths = [], {}
    functions = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace")}

    def opened(path, *args, **kwargs):
        descriptor = functions["open"](path, *args, **kwargs)
        paths[descriptor] = Path(path).name
        return descriptor

    def replaced(source, target):
        events.append(("replace", Path(source).name))
        functions["replace"](source, target)

    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "replace", replaced)
    for name in ("write", "fsync"):

        def traced(descriptor, *args, name=name):
            events.append((name, paths[descriptor]))
            return functions[name](descriptor, *args)

        monkeypatch.setattr(os, name, traced)
    save(tmp_path, "step-1", Checkpoint({"model": {"w": torch.ones(2)}, "ema": {"w": torch.ones(2)}}))
    temporary = f".step-1.tmp-{os.getpid()}-00000000"
    files = ["model.safetensors", "ema.safetensors", "state.json", "manifest.json"]
    written = [(name, file) for file in files for name in ("write", "fsync")]
    after = [("fsync", temporary), ("replace", temporary), ("fsync", tmp_path.name)]
    assert events == [("fsync", tmp_path.name), *written, *after]


@pytest.mark.smoke
def test_tensors_of_every_dtype_come_back_bit_for_bit(tmp_path):
    floats = torch.tensor([0.1, -0.0, float("nan"), float("inf"), 1e-40, 3e38])
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64)
    tensors = {str(dtype): floats.to(dtype) for dtype in dtypes}
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool):
        tensors[str(dtype)] = torch.arange(5).to(dtype)
    tensors |= {"scalar": torch.tensor(2**53 + 1), "flag": torch.tensor(True), "empty": torch.empty(0, 3)}
    tensors |= {"strided": torch.arange(12.0).view(3, 4).T, "conjugate": torch.tensor([1 + 2j]).conj()}
    tensors["leaf"] = torch.nn.Parameter(torch.randn(2, 3))
    restored = load(save(tmp_path, "a", Checkpoint({"optimizer": tensors}))).tensors["optimizer"]
    assert list(restored) == list(tensors)
    for key, value in tensors.items():
        assert restored[key].dtype == value.dtype and restored[key].shape == value.shape, key
        plain = value.detach().resolve_conj().contiguous()
        assert restored[key].reshape(-1).view(torch.uint8).tolist() == plain.reshape(-1).view(torch.uint8).tolist(), key


def test_state_comes_back_equal(tmp_path):
    state = {"b": [0.1 + 0.2, 5e-324, -0.0, 10**30], "a": {"": None, "ü\ud800\n": True}, "stage": 0, "": []}
    restored = load(save(tmp_path, "a", Checkpoint({}, state)))
    assert restored == Checkpoint({}, state) and repr(restored.state) == repr(state)


def test_a_shared_tensor_is_stored_once_and_comes_back_shared(tmp_path):
    linear = torch.nn.Linear(100, 100, bias=False)
    tied = {"encoder.weight": linear.weight, "decoder.weight": linear.weight, "same": linear.weight.detach()}
    tensors = tied | {"transposed": linear.weight.T, "row": linear.weight[0], "empty": torch.empty(0)}
    path = save(tmp_path, "a", Checkpoint({"model": tensors}))
    restored = load(path).tensors["model"]
    assert list(restored) == list(tensors)
    assert restored["encoder.weight"] is restored["decoder.weight"] is restored["same"]
    assert torch.equal(restored["transposed"], linear.weight.T) and torch.equal(restored["row"], linear.weight[0])
    restored["encoder.weight"].zero_()
    assert torch.equal(restored["row"], linear.weight[0])
    assert 80_400 < (path / "model.safetensors").stat().st_size < 81_500
    before = linear.weight.clone()
    linear.weight.data.zero_()
    assert torch.equal(load(path).tensors["model"]["same"], before)


@settings(max_examples=10, deadline=None)
@given(st.dictionaries(st.text(max_size=5).filter(lambda key: key.isprintable()), st.integers(0, 3), max_size=5))
def test_keys_of_any_text_come_back_in_order(tmp_path_factory, sizes):
    tensors = {key: torch.arange(float(size)) for key, size in sizes.items()}
    restored = load(save(tmp_path_factory.mktemp("c"), "a", Checkpoint({"g": tensors}))).tensors["g"]
    assert list(restored) == list(tensors) and all(torch.equal(restored[key], tensors[key]) for key in tensors)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    first, second = (save(tmp_path / name, "a", small()) for name in "xy")
    for file in ("model.safetensors", "state.json", "manifest.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "manifest.json"])
def test_every_flipped_byte_is_noticed(tmp_path, file):
    path = save(tmp_path, "step-1", small())
    whole = (path / file).read_bytes()
    for index in range(len(whole)):
        (path / file).write_bytes(whole[:index] + bytes([whole[index] ^ (1 << index % 8)]) + whole[index + 1 :])
        refuse(path, file)
    (path / file).write_bytes(whole)
    assert load(path).state == {"step": 7}


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("keep", [0, 1, 8, -1, None])
def test_truncated_missing_and_longer_files_are_refused_and_the_one_before_is_offered(tmp_path, file, keep):
    save(tmp_path, "step-9", small())
    path = save(tmp_path, "step-10", small())
    data = (path / file).read_bytes()
    (path / file).write_bytes(data + b" " if keep is None else data[:keep])
    refuse(path, rf"step-10: {file} .*; the last intact one before it is .*step-9$")
    assert find_latest(tmp_path) == tmp_path / "step-9"
    (path / file).unlink()
    refuse(path, rf"{file} cannot be opened: No such file")
    (tmp_path / "step-9" / "state.json").unlink()
    refuse(path, "there is no intact one before it")
    assert find_latest(tmp_path) is None


def test_forged_tensors_are_refused(tmp_path):
    path = save(tmp_path, "a", small())
    entry = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
    forged = {
        "huge header": struct.pack("<Q", 2**63) + b"{}",
        "header past the end": struct.pack("<Q", 10_000) + b"{}",
        "pickle": pickle.dumps({"w": [1.0, 2.0]}),
        "empty": b"",
        "huge shape": {"w": entry | {"shape": [2**40, 2**40]}},
        "outside": {"w": entry | {"data_offsets": [0, 2**40]}},
        "negative": {"w": entry | {"data_offsets": [-4, 8]}},
        "dtype": {"w": entry | {"dtype": "OBJECT"}},
        "overlap": {"w": entry, "v": entry},
        "list": [entry],
        "another key": {"v": entry},
        "none": {},
    }
    for header in forged.values():
        if not isinstance(header, bytes):
            text = json.dumps(header).encode()
            header = struct.pack("<Q", len(text)) + text + (b"\0" * 12 if header else b"")
        forge(path, "model.safetensors", header)
        refuse(path, "model.safetensors")


def test_forged_state_is_refused(tmp_path):
    path = save(tmp_path, "a", small())
    states = [b'{\n "loss": NaN\n}', b'{\n "loss": 1e999\n}', b'{\n "a": 1,\n "a": 2\n}', b"[]", b"7", b"", b"\xff\xfe"]
    for state in (*states, b"[" * 100_000, b"1" * 5000, pickle.dumps({"a": 1})):
        forge(path, "state.json", state)
        refuse(path, "state.json")


def test_forged_manifests_are_refused(tmp_path):
    path = save(tmp_path / "in", "a", small())
    (tmp_path / "evil.safetensors").write_bytes((path / "model.safetensors").read_bytes())
    good = json.loads((path / "manifest.json").read_bytes())
    row = good["files"]["model.safetensors"]
    for manifest in (
        good | {"files": []},
        good | {"files": {}},
        good | {"files": {"state.json": 7}},
        good | {"files": good["files"] | {"model.safetensors": row | {"size": "many"}}},
        good | {"tensors": ["model"]},
        good | {"tensors": {"model": ["w"]}},
        good | {"tensors": {}},
        good | {"files": good["files"] | {"../../evil.safetensors": row}, "tensors": {"../../evil": {"w": "w"}}},
    ):
        sign(path, manifest)
        refuse(path, r"manifest\.json")
    sign(path, good | {"format": 3})
    refuse(path, "format 3; this version of modkit reads formats 1 and 2")
    sign(path, good | {"tensors": {"model": {"w": "v"}}})
    refuse(path, "differ in the keys")
    sign(path, good)
    assert load(path).state == {"step": 7}


def test_a_pipe_or_a_folder_in_place_of_a_file_is_refused(tmp_path):
    path = save(tmp_path, "a", small())
    for make in (os.mkfifo, os.mkdir):
        (path / "state.json").unlink()
        make(path / "state.json")
        refuse(path, "state.json is not a regular file")
    refuse(tmp_path / "b", "the folder does not exist")


def test_mistakes_of_the_writer_are_refused_before_anything_is_written(tmp_path):
    tensor = torch.ones(2)
    for tensors, state, message in (
        ({"model": {"w": 3.0}}, {}, "got float at model/w"),
        ({"model": {"w": tensor.to_sparse()}}, {}, "sparse"),
        ({"model": {"w": tensor.to("meta")}}, {}, "on meta"),
        ({"model": {"w": tensor.to(torch.complex128)}}, {}, "complex128"),
        ({"model": {"__metadata__": tensor}}, {}, "__metadata__"),
        ({"a/b": {"w": tensor}}, {}, "a group's name .* got 'a/b'"),
        ({}, {"a": [1, float("nan")]}, r"float nan at state\.a\[1\]"),
        ({}, {"a": {1: 2}}, r"the key 1 in state\.a"),
        ({}, {"a": (1, 2)}, r"tuple \(1, 2\) at state\.a"),
        ({}, {"a": tensor}, r"Tensor .* at state\.a"),
        ({}, [1], "list"),
    ):
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "c", "a", Checkpoint(tensors, state))
    for name in ("", ".hidden", "../up", "a/b", "a\n"):
        with pytest.raises(ValueError, match="a name of letters"):
            save(tmp_path / "c", name, small())
    assert not (tmp_path / "c").exists()


def test_an_error_while_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    save(tmp_path, "step-1", small())

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, "step-2", small())
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["step-1"]


def test_names_are_in_order_of_their_numbers(tmp_path):
    assert list_names(tmp_path / "absent") == [] and find_latest(tmp_path / "absent") is None
    for name in ("step-10", "step-9", "best", "step-100"):
        save(tmp_path, name, small())
    (tmp_path / "step-200").mkdir()
    (tmp_path / ".step-300.tmp-1").mkdir()
    assert list_names(tmp_path) == ["best", "step-9", "step-10", "step-100"]
    assert find_latest(tmp_path) == tmp_path / "step-100"


def test_prune_keeps_the_last_and_the_spared(tmp_path):
    for step in range(8, 13):
        save(tmp_path, f"step-{step}", small())
    save(tmp_path, "best", small())
    prune(tmp_path, 2, {"best", "step-9"})
    assert list_names(tmp_path) == ["best", "step-9", "step-11", "step-12"]
    prune(tmp_path, 7)
    prune(tmp_path, 1)
    assert os.listdir(tmp_path) == ["step-12"]
    with pytest.raises(ValueError, match="prune expects keep to be at least 1, got 0"):
        prune(tmp_path, 0)


def test_one_put_aside_is_found_until_it_is_recovered(tmp_path):
    path = save(tmp_path, "step-1", small())
    os.rename(path, tmp_path / ".step-1.old")
    (tmp_path / ".step-2.tmp-77").mkdir()
    assert list_names(tmp_path) == ["step-1"] and find_latest(tmp_path) == path and load(path).state == {"step": 7}
    recover(tmp_path)
    assert os.listdir(tmp_path) == ["step-1"]


def test_what_is_not_read_may_be_damaged(tmp_path):
    tensors = {name: {"w": torch.ones(2)} for name in ("model", "ema", "optimizer-0")}
    for name in ("step-1", "step-2"):
        path = save(tmp_path, name, Checkpoint(tensors, {"name": name}))
    (path / "optimizer-0.safetensors").write_bytes(b"")
    assert load(path, ("model", "ema")).tensors.keys() == {"model", "ema"}
    latest = read_latest(tmp_path, ("model", "ema", "absent"))
    assert latest.path == path and latest.checkpoint.state == {"name": "step-2"} and not latest.faults
    assert read_latest(tmp_path, ()).checkpoint.tensors == {}
    latest = read_latest(tmp_path)
    assert latest.path == tmp_path / "step-1" and "optimizer-0.safetensors has 0 bytes" in latest.faults["step-2"]
    (tmp_path / "step-1" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no intact checkpoint: step-2: optimizer-0.*; step-1: manifest\.json"):
        read_latest(tmp_path)
    assert read_latest(tmp_path / "absent") is None


def test_what_is_frozen_is_written_once_and_stays_as_long_as_it_is_referred_to(tmp_path):
    def list_frozen():
        return sorted(path.name for path in tmp_path.glob("frozen-*.safetensors"))

    def add(step, frozen):
        tensors = {"model": {"w": torch.full((2,), float(step)), "f": torch.full((99,), frozen)}, "ema": {}}
        return save(tmp_path, f"step-{step}", Checkpoint(tensors, {}, {"model": {"f", "absent"}}))

    path = add(1, 7.0)
    (first,) = list_frozen()
    kept = (tmp_path / first).stat()
    assert (path / "model.safetensors").stat().st_size < 200 < kept.st_size
    add(2, 7.0)
    assert (tmp_path / first).stat().st_mtime_ns == kept.st_mtime_ns and list_frozen() == [first]
    assert load(path).tensors["model"].keys() == {"w", "f"} and torch.equal(
        load(path).tensors["model"]["f"], torch.full((99,), 7.0)
    )
    add(3, 8.0)
    assert len(list_frozen()) == 2 and list_names(tmp_path) == ["step-1", "step-2", "step-3"]
    prune(tmp_path, 2)
    assert len(list_frozen()) == 2
    whole = (tmp_path / first).read_bytes()
    (tmp_path / first).write_bytes(whole[:-1] + b"x")
    refuse(tmp_path / "step-2", f"{first} is damaged: its SHA-256")
    assert find_latest(tmp_path) == tmp_path / "step-3" and load(tmp_path / "step-2", ("ema",)).tensors == {"ema": {}}
    (tmp_path / first).unlink()
    refuse(tmp_path / "step-2", f"{first} cannot be opened: No such file")
    (tmp_path / first).write_bytes(b"torn")
    add(4, 7.0)
    assert (tmp_path / first).read_bytes() == whole
    prune(tmp_path, 1)
    assert list_frozen() == [first] and list_names(tmp_path) == ["step-4"]


def test_a_checkpoint_says_whose_it_is(tmp_path):
    for name, state in {"step-1": {}, "step-2": {"run": "mine"}, "step-3": {"run": "other"}}.items():
        save(tmp_path, name, Checkpoint({}, state))
    latest = read_latest(tmp_path, owner="mine")
    assert latest.path.name == "step-2" and latest.faults == {
        "step-3": "it belongs to the run other, this is the run mine"
    }
    assert load(tmp_path / "step-1", owner="mine").state == {} and read_latest(tmp_path).path.name == "step-3"


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path):
    for step in (5, 10):
        save(tmp_path, f"step-{step:08d}", Checkpoint({}, {"cursor": {"step": step}}))
    shutil.copytree(tmp_path / "step-00000010", tmp_path / "step-00000030")
    message = "it was written at step 10, so its name should be step-00000010"
    with pytest.raises(CheckpointError, match=f"{message}; the last intact one before it is .*-00000010"):
        load(tmp_path / "step-00000030")
    latest = read_latest(tmp_path)
    assert latest.path.name == "step-00000010" and latest.faults == {"step-00000030": message}
    shutil.copytree(tmp_path / "step-00000010", tmp_path / "kept")
    assert load(tmp_path / "kept").state == {"cursor": {"step": 10}}, "a name that states no step"


def test_what_is_set_aside_is_renamed_and_no_longer_listed(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, f"step-{step}", small())
    (tmp_path / "step-3" / "manifest.json").unlink()
    (tmp_path / "step-9").mkdir()  # holds nothing of a checkpoint
    moved = set_aside(tmp_path, tmp_path / "step-1")
    assert moved == {"step-2": "damaged-step-2", "step-3": "damaged-step-3"}
    assert sorted(os.listdir(tmp_path / "damaged-step-3")) == ["model.safetensors", "state.json"]
    save(tmp_path, "step-2", small())
    assert set_aside(tmp_path, tmp_path / "step-1") == {"step-2": "damaged-step-2-2"}
    assert list_names(tmp_path) == ["step-1"] and find_latest(tmp_path) == tmp_path / "step-1"
    assert load(tmp_path / "damaged-step-2").state == {"step": 7}
    prune(tmp_path, 1)
    assert len(os.listdir(tmp_path)) == 5


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("call", ["open", "listdir", "lstat"])
def test_an_error_of_the_disk_is_no_damage(tmp_path, monkeypatch, code, call):
    """As another user than root, a file of mode 000 gives EACCES."""
    for step in (1, 2):
        save(tmp_path, f"step-{step}", small())
    function = getattr(os, call)

    def fail(path, *args, **kwargs):
        if "step-2" in str(path):
            raise OSError(code, os.strerror(code), str(path))
        return function(path, *args, **kwargs)

    monkeypatch.setattr(os, call, fail)
    for read in (read_latest, find_latest):
        with pytest.raises(OSError, match=f"{os.strerror(code)}: .*step-2"):
            read(tmp_path)


def test_a_failed_read_names_the_file(tmp_path, monkeypatch):
    path = save(tmp_path, "step-1", small())

    def fail(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, pytest.raises(OSError) as error:
        patch.setattr(os, "fstat", fail)
        load(path)
    assert error.value.filename == str(path / "manifest.json")


def test_a_reader_finds_the_latest_while_it_is_replaced(tmp_path, monkeypatch):
    """With one checkpoint kept, the one that is being read is removed at any moment."""
    read_data, step = checkpoint.read_data, iter(range(1, 1000))
    save(tmp_path, "best", small())

    def replace():
        save(tmp_path, f"step-{next(step)}", small())
        prune(tmp_path, 1, {"best"})

    def interfere(path, entry):
        if path.name == "state.json" and "step" in str(path) and times:
            times.pop()
            replace()
        return read_data(path, entry)

    replace()
    monkeypatch.setattr(checkpoint, "read_data", interfere)
    for number in range(5):
        times = [None] * number
        latest = read_latest(tmp_path)
        assert (
            latest.path.name == list_names(tmp_path)[-1] and latest.path.name.startswith("step") and not latest.faults
        )
    times = [None] * 1000
    with pytest.raises(CheckpointError, match="replaced faster than they can be read"):
        read_latest(tmp_path)


def measure_private():
    """Bytes of memory that are this process's own, which no file backs."""
    rows = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return int(rows["Anonymous"].split()[0]) * 1024


@pytest.mark.wide
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux, which tells what memory is for")
def test_what_is_mapped_stays_in_its_file_until_it_is_looked_up(tmp_path):
    rows, size = 256, 2**16
    path = save(tmp_path, "step-1", Checkpoint({"model": {"w": torch.ones(rows, size), "n": torch.tensor(3)}}))
    before = measure_private()
    found = read_latest(tmp_path, mapped=True).checkpoint.tensors["model"]
    assert {name: tuple(value.shape) for name, value in found.items()} == {"w": (rows, size), "n": ()}
    part = found["w"][:3].clone()
    assert measure_private() - before < 4 * rows * size / 4
    found["n"].add_(1)
    assert torch.equal(part, torch.ones(3, size)) and found["n"] == 4
    assert torch.equal(load(path).tensors["model"]["n"], torch.tensor(3)), "the file stays as it is"
    shutil.rmtree(path)
    assert torch.equal(found["w"], torch.ones(rows, size))


def test_finding_the_latest_verifies_its_tensors_and_keeps_none(tmp_path, monkeypatch):
    """The fault: a run's last message read a whole checkpoint into memory to name it."""
    save(tmp_path, "step-1", small())
    path, mapped = save(tmp_path, "step-2", small()), []
    read_tensors = verified.read_tensors
    monkeypatch.setattr(
        checkpoint, "read_tensors", lambda *given, **how: mapped.append(how["mapped"]) or read_tensors(*given, **how)
    )
    assert find_latest(tmp_path) == path and mapped and all(mapped)
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)
    assert find_latest(tmp_path) == tmp_path / "step-1"


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_what_is_mapped_is_verified(tmp_path, damage):
    path = save(tmp_path, "step-1", Checkpoint({"model": {"w": torch.ones(1000)}}))
    file = path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data if damage == "flip" else data[:-4])
    with pytest.raises(CheckpointError, match="is damaged" if damage == "flip" else "bytes, but the manifest expects"):
        read_latest(tmp_path, mapped=True)
