"""Files of torch of both kinds, plain pickles and safetensors: what comes back is what was saved."""

import argparse
import collections
import io
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from modkit_checkpoints.pickled import read
from modkit_checkpoints.placeholder import Placeholder, attributes, module_state
from safetensors.torch import save_file

LEGACY = {"_use_new_zipfile_serialization": False}


def save(path, value, **options):
    torch.save(value, path, **options)
    return path


@pytest.fixture
def value():
    base = torch.arange(12.0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Identity())
    return {
        "state_dict": module.state_dict(),
        "views": (base, base[3:7], base.view(3, 4).T, base[::2]),
        "dtypes": [torch.tensor([1, 0, 1]).to(dtype) for dtype in DTYPES],
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "adam": torch.optim.Adam(module.parameters()).state_dict(),
        "module": module,
        "args": argparse.Namespace(lr=1e-3, name="x"),
        "path": pathlib.PurePosixPath("/etc"),
        "numpy": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3), ">i2")), np.array(["a", None])],
        "numbers": [np.float32(0.1), np.int64(-7), np.bool_(True), 2**100, -(2**70), -1, 255, 65536, 0.1, 3 + 4j, True],
        "text": ["", "é\n'\"\\", "\ud800", b"\x00\xff", bytearray(b"ab")],
        "containers": [collections.OrderedDict(a=1), collections.defaultdict(list, b=[2]), {1, 2}, frozenset("c"), ()],
        "types": [torch.float16, torch.Size([2, 3])],
    }


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.int8, torch.uint8, torch.bool, torch.complex64]


def check(found, value):
    assert list(found) == list(value)
    for key, tensor in value["state_dict"].items():
        assert torch.equal(found["state_dict"][key], tensor)
    assert module_state(found["module"]).keys() == value["state_dict"].keys()
    for one, other in zip(found["dtypes"], value["dtypes"]):
        assert one.dtype == other.dtype and torch.equal(one, other)
    for name in ("scalar", "empty", "parameter"):
        assert found[name].shape == value[name].shape and torch.equal(found[name], value[name])
    assert found["adam"] == value["adam"]
    assert isinstance(found["args"], Placeholder) and found["args"].name == "argparse.Namespace"
    assert attributes(found["args"]) == {"lr": 1e-3, "name": "x"}
    assert found["path"].called and found["path"].name == "pathlib.PurePosixPath"
    for one, other in zip(found["numpy"][:2], value["numpy"]):
        assert one.dtype == other.dtype and np.array_equal(one, other)
    assert isinstance(found["numpy"][2], Placeholder)
    assert found["numbers"] == value["numbers"]
    assert found["text"] == value["text"]
    assert found["containers"] == value["containers"]
    assert found["types"] == value["types"] and isinstance(found["types"][1], torch.Size)


@pytest.mark.parametrize("options", [{}, LEGACY])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_files_of_torch(tmp_path, value, options, protocol):
    found = read(save(tmp_path / "x.pt", value, pickle_protocol=protocol, **options))
    check(found, value)
    base, *views = found["views"]
    for one, other in zip(found["views"], value["views"]):
        assert torch.equal(one, other) and one.stride() == other.stride()
    assert all(view.untyped_storage().data_ptr() == base.untyped_storage().data_ptr() for view in views)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_hold_their_storages_as_files_of_torch(tmp_path, value, protocol):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
    check(read(tmp_path / "x.pkl"), value)


def test_one_object_under_two_names_is_one_object(tmp_path):
    shared = [1]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": shared, "b": shared}))
    found = read(tmp_path / "x.pkl")
    assert found["a"] is found["b"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_object_of_a_nested_class(tmp_path, protocol):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Outer.Inner(), protocol))
    found = read(tmp_path / "x.pkl")
    assert found.called and found.name == f"{__name__}.Outer.Inner" and found.args == ()


class Outer:
    class Inner:
        pass


def test_bytes_of_python_2(tmp_path):
    """Python 2 wrote bytes and text alike; an array's state and dtype are such strings."""
    dtype = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    values = b"(I1\n(I1\nt" + dtype + b"I00\nS'\\x00\\x00\\xc0\\xbf'\ntb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" + values
    (tmp_path / "x.pkl").write_bytes(b"(lp0\n" + array + b"aS'caf\\xc3\\xa9'\na.")
    found, text = read(tmp_path / "x.pkl")
    assert found.dtype == np.float32 and found.tolist() == [-1.5] and text == "café"


def test_safetensors(tmp_path):
    save_file({"a": torch.ones(2, 2)}, tmp_path / "x.bin")
    assert torch.equal(read(tmp_path / "x.bin")["a"], torch.ones(2, 2))
    content = (tmp_path / "x.bin").read_bytes()
    (tmp_path / "x.bin").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"x\.bin: damaged safetensors"):
        read(tmp_path / "x.bin")


def test_the_byte_order_of_a_big_machine(tmp_path):
    path = save(tmp_path / "x.pt", [torch.tensor([1.5, -2.0]), torch.tensor([1 + 2j])])
    source, swapped = zipfile.ZipFile(path), io.BytesIO()
    with zipfile.ZipFile(swapped, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            if "/data/" in name:
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            target.writestr(name, content)
    path.write_bytes(swapped.getvalue())
    found = read(path)
    assert found[0].tolist() == [1.5, -2.0] and found[1].tolist() == [1 + 2j]


def test_a_module_is_walked_as_torch_walks_it(tmp_path):
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1)})
            self.none = None
            self.register_parameter("absent", None)
            self.register_buffer("kept", torch.ones(1))
            self.register_buffer("left", torch.ones(1), persistent=False)

        def __reduce__(self):
            return Foreign, (), self.__dict__

    found = module_state(read(save(tmp_path / "x.pt", Own())))
    assert list(found) == ["kept", "inner.a.weight", "inner.a.bias"]
    with pytest.raises(ValueError, match="expected a pickled module"):
        module_state({"a": 1})


class Foreign(torch.nn.Module):
    pass


def test_a_persistent_class_has_the_attributes_of_its_state(tmp_path, monkeypatch):
    module = types.ModuleType("persistence")
    module.rebuilt = lambda meta: None
    module.rebuilt.__module__, module.rebuilt.__qualname__ = "persistence", "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = module.rebuilt
    monkeypatch.setitem(sys.modules, "persistence", module)
    meta = Meta(type="class", class_name="Net", state=torch.nn.Linear(2, 2).__dict__)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Reduced(module.rebuilt, meta)))
    found = read(tmp_path / "x.pkl")
    assert found.args[0].entries["class_name"] == "Net"
    assert list(module_state(found)) == ["weight", "bias"]


class Meta(dict):
    pass


class Reduced:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def test_no_file_and_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(ValueError, match="x: expected a checkpoint, got an empty file"):
        read(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"\x89PNG....")
    with pytest.raises(
        ValueError, match=r"expected a zip file, a pickle or safetensors, got a file that begins with b'\\x89PNG"
    ):
        read(tmp_path / "x")
