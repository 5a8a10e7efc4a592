"""Hostile and damaged files: one clear error or a placeholder, and nothing is imported, called or run."""

import os
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import zipfile

import pytest
import torch
from modkit_checkpoints.pickled import read
from modkit_checkpoints.placeholder import Placeholder, module_state


class Evil:
    """Pickles as what the test says."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def evil(mark):
    """The command that would leave a mark."""
    return f"touch {mark}"


def text(value):
    return b"V" + value.encode() + b"\n"


def attacks(mark):
    """Pickles that would run code, by how."""
    command = evil(mark)
    return {
        "reduce": pickle.dumps(Evil(os.system, (command,))),
        "reduce, protocol 0": pickle.dumps(Evil(os.system, (command,)), 0),
        "eval": pickle.dumps(Evil(eval, (f"__import__('os').system({command!r})",))),
        "inst": b"(" + text(command) + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + text(command) + b"o.",
        "newobj": b"csubprocess\nPopen\n(" + text(command) + b"t\x81.",
        "newobj_ex": b"csubprocess\nPopen\n(" + text(command) + b"t}" + text("shell") + b"\x88s\x92.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + text(command) + b"t R.".replace(b" ", b""),
        "build with setstate": b"c__main__\nX\n)\x81}"
        + text("__setstate__")
        + b"cos\nsystem\nsb"
        + text(command)
        + b"b.",
        "build of a global": b"cos\nenviron\n}" + text("x") + text("y") + b"sb.",
        "setitem of a global": b"cos\nenviron\n" + text("x") + text("y") + b"s.",
        "append to a global": b"csys\npath\n" + text("/evil") + b"a.",
        "extension": b"\x80\x02\x82\x01(" + text(command) + b"tR.",
        "copyreg": b"ccopyreg\n__newobj__\n(csubprocess\nPopen\n" + text(command) + b"tR.",
        "copyreg, keywords": b"ccopyreg\n__newobj_ex__\n(csubprocess\nPopen\n(" + text(command) + b"t}tR.",
        "reconstructor": b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\n" + text(command) + b"tR.",
        "import": b"cnot_imported_yet\nname\n.",
        "a call of a call": b"c__builtin__\ngetattr\n(cos\n__dict__\n"
        + text("system")
        + b"tR("
        + text(command)
        + b"tR.",
        "dunder path": b"\x80\x04\x8c\x02os\x8c\x0fpath.__class__.x\x93.",
        "hooks": b"ctorch._utils\n_rebuild_parameter\n(cos\nsystem\n\x88" + text(command) + b"tR.",
        "subclass": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\ncos\nsystem\n(" + text(command) + b"tNtR.",
        "set": b"cbuiltins\nset\n((cos\nsystem\n" + text(command) + b"ltR.",
        "torch.load": b"ctorch.serialization\nload\n(" + text(command) + b"tR.",
        "nested": b"ctorch.storage\n_load_from_bytes\n(cos\nsystem\ntR.",
        "numpy": b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\n(K\x00tcos\nsystem\ntR.",
    }


WATCHED = """
    import sys
    from modkit_checkpoints.pickled import read

    import encodings.cp437, encodings.raw_unicode_escape  # of zipfile's old names, and protocol 0's text
    read(sys.argv[1])

    seen = []
    def watch(event, args):
        if event.split(".")[0] in ("os", "subprocess", "exec", "import", "pickle", "compile", "ctypes", "socket"):
            seen.append((event, args))
    sys.addaudithook(watch)
    results = []
    for path in sys.argv[2:]:
        try:
            results.append("read " + type(read(path)).__name__)
        except ValueError as error:
            results.append("refused")
    events = [event for event in seen if event[0] != "os.fspath"]
    print(len(results), "read", sum(r.startswith("read") for r in results))
    print("events", events)
"""


def test_no_attack_runs_or_imports_anything(tmp_path):
    mark, paths = tmp_path / "mark", []
    for number, attack in enumerate(attacks(mark).values()):
        paths.append(tmp_path / f"{number}.pkl")
        paths[-1].write_bytes(attack)
        paths.append(tmp_path / f"{number}.pt")
        in_zip(paths[-1], attack)
    torch.save({"a": torch.ones(1)}, tmp_path / "honest")
    command = [sys.executable, "-c", textwrap.dedent(WATCHED), str(tmp_path / "honest"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "events []"
    assert done.stdout.startswith(f"{len(paths)} read ")
    assert not mark.exists()


def test_what_the_same_pickles_do_elsewhere(tmp_path):
    """The attacks are real: `pickle` runs them."""
    mark = tmp_path / "mark"
    for name in ("reduce", "inst", "obj", "stack global"):
        pickle.loads(attacks(mark)[name])
        assert mark.exists(), name
        mark.unlink()


@pytest.mark.parametrize(
    ("name", "placeholder"),
    [
        ("reduce", os.system.__module__ + ".system"),
        ("inst", "os.system"),
        ("obj", "os.system"),
        ("newobj", "subprocess.Popen"),
        ("newobj_ex", "subprocess.Popen"),
        ("stack global", "os.system"),
        ("extension", "copyreg.extension.1"),
        ("copyreg", "subprocess.Popen"),
        ("copyreg, keywords", "subprocess.Popen"),
        ("reconstructor", "os.system"),
    ],
)
def test_a_call_is_a_placeholder_that_keeps_its_arguments(tmp_path, name, placeholder):
    (tmp_path / "x").write_bytes(attacks("m")[name])
    found = read(tmp_path / "x")
    assert isinstance(found, Placeholder) and found.called and found.name == placeholder
    assert found.args == ("touch m",)
    assert found.kwargs == ({"shell": True} if name == "newobj_ex" else {})


def in_zip(path, content, storages=(), byteorder=b"little"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/byteorder", byteorder)
        for key, data in storages:
            archive.writestr(f"x/data/{key}", data)


def tensor_pickle(kind="FloatStorage", key="0", num=4, offset=0, size=(4,), stride=(1,)):
    """A tensor whose persistent id and view say what they like."""

    class Lying(pickle.Pickler):
        def persistent_id(self, value):
            return value.identity if isinstance(value, Storage) else None

    class Storage:
        identity = ("storage", getattr(torch, kind), key, "cpu", num)

    import io

    file = io.BytesIO()
    Lying(file, 2).dump(Evil(torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, {})))
    return file.getvalue()


FOUR = [("0", struct.pack("<4f", 1, 2, 3, 4))]


def test_an_honest_persistent_id(tmp_path):
    in_zip(tmp_path / "x", tensor_pickle(size=(2, 2), stride=(2, 1)), FOUR)
    assert read(tmp_path / "x").tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"key": "1"}, "expected a storage 'x/data/1', got none"),
        ({"key": "../byteorder"}, "expected a storage 'x/data/../byteorder', got none"),
        ({"num": 5}, "expected 5 values of torch.float32 in 'x/data/0', got 16 bytes"),
        ({"num": 10**12}, "expected 1000000000000 values of torch.float32 in 'x/data/0', got 16 bytes"),
        ({"num": -1}, "expected a storage's type, key and size"),
        ({"num": True}, "expected a storage's type, key and size"),
        ({"kind": "DoubleStorage"}, "expected 4 values of torch.float64 in 'x/data/0', got 16 bytes"),
        ({"size": (5,)}, r"expected a view of 4 values, got size \(5,\)"),
        ({"offset": 1}, "expected a view of 4 values"),
        ({"offset": -1}, "expected offset of whole numbers from 0 on"),
        ({"stride": (-1,)}, "expected stride of whole numbers from 0 on"),
        ({"stride": (2,)}, "expected a view of 4 values"),
        ({"size": (2**40,), "stride": (0,)}, "expected a view of 4 values"),
        ({"size": (2**62, 2**62), "stride": (0, 0)}, "expected a view of 4 values"),
        ({"size": (2, 2)}, "expected a dtype and a stride for each size"),
        ({"size": "4"}, "expected size of whole numbers"),
    ],
)
def test_a_persistent_id_or_a_view_that_lies(tmp_path, lie, message):
    in_zip(tmp_path / "x.pt", tensor_pickle(**lie), FOUR)
    with pytest.raises(ValueError, match=rf"x\.pt: .*{message}"):
        read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cos\nsystem\nQ.", "expected the persistent id of a storage, got Placeholder"),
        (b"Pstorage\n.", "expected the persistent id of a storage, got str"),
        (b"(l(lQ.", "expected the persistent id of a storage, got list"),
    ],
)
def test_a_persistent_id_of_another_kind(tmp_path, content, message):
    in_zip(tmp_path / "x", content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "x")
    (tmp_path / "y").write_bytes(b"(" + content)
    with pytest.raises(ValueError, match="got a persistent id outside a file of torch"):
        read(tmp_path / "y")


BOMB = b"(t\x85" + b"2\x86" * 64 + b"."  # ((((),), ((),)), …): 2^64 values of 130 bytes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "expected at most 10000000 values"),
        (b"]" + b"2\x86" * 64 + b".", "expected at most 10000000 values"),
        (b"(l" + b"\x85" * 5000 + b".", "expected containers nested at most 100 deep"),
        (b"]" * 300 + b"a" * 299 + b".", "expected containers nested at most 100 deep"),
        (b"]\x94h\x00a.", "expected containers that do not hold themselves"),
        (b"}\x94K\x01h\x00s.", "expected containers that do not hold themselves"),
        (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "truncated: expected 18446744073709551615 more bytes"),
        (b"\x80\x04\x95" + b"\xff" * 8 + b".", "truncated: expected a frame"),
        (b"\x80\x06N.", "expected protocol 0 to 5, got 6"),
        (b"I" + b"9" * 3000 + b"\n.", "expected a whole number of at most 640 digits"),
        (b"L" + b"9" * 99999 + b"L\n.", "expected a line of at most 4096 bytes"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "expected a whole number of at most 640 bytes"),
        (b"(BBBB", "truncated"),
        (b"}.", None),
        (b"N", "truncated: expected 1 more bytes at byte 1, got 0"),
        (b"N..", "expected the end of the file after a pickle, got 1 more bytes"),
        (b"Nt.", "expected a mark on the stack, got none"),
        (b"N0.", "expected a value on the stack, got none"),
        (b"(N(0a.", "expected a value on the stack, got none"),
        (b"NNs.", "expected a value on the stack, got none"),
        (b"K\x01Na.", "expected a list to append to, got int"),
        (b"}]Ns.", "expected a plain value as a key, got list"),
        (b"}(NtNs.", None),
        (b"}((NttNs.", "expected a plain value as a key, got tuple"),
        (b"Nh\x05.", "expected an object kept under 5, got none"),
        (b"N)R.", "expected a name to call, got NoneType"),
        (b"NNb.", "expected an object to set a state on, got NoneType"),
        (b"N\xff.", r"no opcode of pickle: b'\\xff'"),
        (b"N\x97.", r"no opcode of pickle: b'\\x97'"),
        (b"S'a\n.", "expected a quoted string"),
        (b"X\x01\x00\x00\x00\xff.", "expected text"),
        (b"Fabc\n.", "expected a number, got b'abc'"),
        (b"cnumpy\ndtype\n(Vf4\ntR0N.", None),
        (b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR.", "expected a state for an array before it is used"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(Vf4\ntRC\x01xtR.", "expected 4 bytes for"),
        (b"ctorch\nSize\n((J\xff\xff\xff\xffttR.", "expected size of whole numbers from 0 on"),
    ],
)
def test_bombs_and_broken_stacks(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content if content[:1] != b"c" else b"(" + content[:-1] + b"l.")
    if message is None:
        read(tmp_path / "x")
        return
    with pytest.raises(ValueError, match=f"x: .*{message}"):
        read(tmp_path / "x")


@pytest.mark.parametrize(
    "called",
    ["cbuiltins\nbytearray\n", "ccollections\nOrderedDict\n", "cbuiltins\ntuple\n", "c_codecs\nencode\n"],
)
def test_copies_of_copies(tmp_path, called):
    """Ten bytes an opcode, each of which would copy a megabyte."""
    items = {"OrderedDict": b"](" + b"(K\x01Nt" * 50_000 + b"e", "tuple": b"](" + b"N" * 10**5 + b"e"}
    name = called.split("\n")[1]
    big = items.get(name, b"X" + struct.pack("<I", 10**6) + b"a" * 10**6)
    (tmp_path / "x").write_bytes(b"(" + big + b"p0\n" + (called.encode() + b"(g0\ntR") * 1000 + b"l.")
    with pytest.raises(ValueError, match="got copy upon copy"):
        read(tmp_path / "x")


def test_a_file_in_a_file_in_a_file(tmp_path):
    content = b"N."
    for _ in range(3):
        content = b"(ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(content)) + content + b"tRl."
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="expected a file's bytes in at most 1 other"):
        read(tmp_path / "x")


def test_a_zip_of_something_else(tmp_path):
    def made(**options):
        return zipfile.ZipFile(tmp_path / "x", "w", **options)

    with made() as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(ValueError, match="expected a file of torch with one data.pkl"):
        read(tmp_path / "x")
    with made(compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"N" * 10**6)
    with pytest.raises(ValueError, match="expected entries stored as they are"):
        read(tmp_path / "x")
    with made() as archive:
        archive.writestr("x/data.pkl", b"N.")
        archive.writestr("x/constants.pkl", b"N.")
    with pytest.raises(ValueError, match="got a TorchScript program"):
        read(tmp_path / "x")
    in_zip(tmp_path / "x", b"N.", byteorder=b"middle")
    with pytest.raises(ValueError, match="expected byteorder little or big"):
        read(tmp_path / "x")
    in_zip(tmp_path / "x", b"N.N")
    with pytest.raises(ValueError, match=r"expected the end of data\.pkl"):
        read(tmp_path / "x")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_a_file_cut_at_any_byte_or_with_any_bit_turned(tmp_path, kind):
    path, value = tmp_path / "x", {"a": torch.arange(3.0), "b": [1, "é", (None, 2.5)], "c": {"d": b"e"}}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(value))
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file({"a": value["a"]}, path)
    else:
        torch.save(value, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="x: "):
            read(path)
    draw = random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 8))):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            read(path)
        except ValueError as error:
            assert str(error).startswith(str(path))


def test_bytes_of_the_data_are_checked_in_a_zip(tmp_path):
    path = tmp_path / "x"
    torch.save(torch.arange(64.0), path)
    whole = bytearray(path.read_bytes())
    place = whole.index(struct.pack("<f", 63.0))
    whole[place] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        read(path)


def test_a_module_that_holds_itself():
    module = Placeholder("torch.nn.Module", True)
    module.state = {"_parameters": {}, "_buffers": {}, "_modules": {"own": module}}
    with pytest.raises(ValueError, match="nested at most 100 deep"):
        module_state(module)
    module.state["_modules"]["again"] = Placeholder("torch.nn.Module", True, state=dict(module.state, _modules={}))
    with pytest.raises(ValueError, match="nested at most 100 deep"):
        module_state(module)
