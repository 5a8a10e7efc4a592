import hashlib
import os
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from modkit.features.weight_file import hash_tensors, import_optional, load_exactly, read_weights
from tests.refusals import check_refusal

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


class Bomb:
    """Touches the file that it is told to when it is unpickled freely."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def saved(path, tensors=TENSORS, **options):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, **options)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_named_tensors_come_back(tmp_path, name, zipped):
    path = saved(tmp_path / name, _use_new_zipfile_serialization=zipped)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for wanted in (None, sha256, sha256.upper()):
        found = read_weights("Owner", path, sha256=wanted)
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_is_not_run(tmp_path, zipped):
    path, mark = tmp_path / "w.pth", tmp_path / "touched"
    torch.save({"a": Bomb(mark)}, path, _use_new_zipfile_serialization=zipped)
    check_refusal("Owner expects weights in .*w.pth", read_weights, "Owner", path)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    check_refusal("Owner expects weights in .*w.pth", read_weights, "Owner", path)
    assert not mark.exists()


def test_the_hash_is_compared_before_the_file_is_opened(tmp_path, monkeypatch):
    path = saved(tmp_path / "w.pth")
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("opened"))
    with pytest.raises(ValueError, match=f"Owner expects .*w.pth to have SHA-256 {'0' * 64}, got"):
        read_weights("Owner", path, sha256="0" * 64)
    with pytest.raises(ValueError, match="Owner expects sha256 as 64 hexadecimal digits, got '6726825d'"):
        read_weights("Owner", path, sha256="6726825d")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"a": torch.ones(2), "epoch": 3}, "named dense tensors in .*, got int at 'epoch'"),
        ({1: torch.ones(2)}, "named dense tensors"),
        ({"a": torch.ones(2).to_sparse()}, "named dense tensors"),
        ([torch.ones(2)], "named tensors in .*, got list"),
        ({}, "named tensors"),
    ],
)
def test_anything_but_named_tensors_is_refused(tmp_path, content, match):
    torch.save(content, tmp_path / "w.pth")
    check_refusal(match, read_weights, "Owner", tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_damaged_files_are_refused(tmp_path, name):
    path = saved(tmp_path / name)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\xff" * 64, (2**60).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        check_refusal("Owner expects", read_weights, "Owner", path)


def test_what_is_no_plain_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="Owner expects a regular file, got something else at .*pipe"):
        read_weights("Owner", tmp_path / "pipe")
    check_refusal("Owner expects a readable file", read_weights, "Owner", tmp_path / "absent.pth")
    check_refusal("Owner expects", read_weights, "Owner", tmp_path)


def test_weights_must_be_the_networks():
    module = nn.BatchNorm1d(2)
    tensors = {name: torch.ones(2) for name in ("weight", "bias", "running_mean", "running_var")}
    other = {"weight": torch.ones(2, 2), "bias": torch.ones(3)}
    message = r"Owner expects .* in FILE; 1 differ: bias: expected \(2,\), got \(3,\)"
    check_refusal(message, load_exactly, "Owner", nn.Linear(2, 2), other, "FILE")
    net = nn.Sequential(module)
    load_exactly("Owner", net, {f"0.{key}": value for key, value in tensors.items()}, "FILE")  # without its counter
    assert torch.equal(module.running_mean, torch.ones(2))


def test_a_key_is_of_names_types_shapes_bits_and_settings():
    key = hash_tensors(TENSORS, "s", 1)
    assert key == hash_tensors(dict(reversed(list(TENSORS.items()))), "s", 1)
    for other in (
        hash_tensors(TENSORS, "s", 2),
        hash_tensors({"a": TENSORS["a"], "c": TENSORS["b"]}, "s", 1),
        hash_tensors({**TENSORS, "a": TENSORS["a"].view(3, 2)}, "s", 1),
        hash_tensors({**TENSORS, "b": TENSORS["b"].int()}, "s", 1),
        hash_tensors({**TENSORS, "a": TENSORS["a"] + 1}, "s", 1),
    ):
        assert other != key
    assert hash_tensors({"a": torch.tensor(True), "b": torch.ones(2, dtype=torch.bfloat16)})


def test_a_missing_library_says_what_installs_it():
    assert import_optional("Owner", "math", "math").pi > 3
    with pytest.raises(ValueError, match="Owner expects no_such_library: pip install 'no-such>=1'"):
        import_optional("Owner", "no_such_library.inner", "'no-such>=1'")
