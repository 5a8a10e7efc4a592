import functools
import hashlib
import json
import platform
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

import modkit.types
from modkit.lock import compare, lock
from modkit.part import Part

Entry = namedtuple("Entry", "part distribution version")
TYPE = Entry(Part("bottleneck", "acme/fsq", "modkit.types:TensorType", ""), "acme-parts-of-nobody", "1.2")
KEYS = {"b": (3,), "a": (2, 3)}
partial = functools.partial(functools.partial(modkit.types.levels))


@functools.wraps(modkit.types.levels)
def wrapped(event):
    return modkit.types.levels(event)


def made(*entries, seed=0, spec_text="model: 1\n", keys=KEYS):
    return lock(entries or (TYPE,), spec_text=spec_text, seed=seed, keys=keys)


def test_the_lock_states_versions_and_hashes():
    source = hashlib.sha256(Path(modkit.types.__file__).read_bytes()).hexdigest()
    part = {"kind": "bottleneck", "name": "acme/fsq", "distribution": "acme-parts-of-nobody", "version": "1.2"}
    want = {
        "format": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "seed": 3,
        "spec": hashlib.sha256(b"model: 1\n").hexdigest(),
        "model": hashlib.sha256(b'[["a", [2, 3]], ["b", [3]]]').hexdigest(),
        "parts": [part | {"sha256": source}],
    }
    assert made(seed=3) == want and json.loads(json.dumps(made(seed=3))) == want


def test_the_lock_does_not_depend_on_orders_or_repetitions():
    other = Entry(Part("encoder", "conv", "modkit.part:Part", ""), "modkit-generative", "0.1")
    assert made(TYPE, other, TYPE) == made(other, TYPE, keys={"a": torch.Size([2, 3]), "b": [3]})
    assert made(keys={"a": (2, 3), "b": (3, 1)})["model"] != made()["model"]


def test_the_source_is_where_the_target_is_defined_not_where_it_is_imported():
    for target in ("modkit.types:levels", "modkit.types:TensorType.__str__", "modkit:TensorType"):
        source = made(Entry(Part("encoder", "n", target, ""), "d", "1"))["parts"][0]["sha256"]
        assert source == hashlib.sha256(Path(modkit.types.__file__).read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="has no 'Absent'"):
        made(Entry(Part("encoder", "n", "modkit.types:Absent", ""), "d", "1"))


def test_partials_and_wrappers_are_followed_and_builtins_have_no_source(monkeypatch):
    source = hashlib.sha256(Path(modkit.types.__file__).read_bytes()).hexdigest()
    for target in (partial, wrapped):
        monkeypatch.setattr(Part, "load", lambda self, target=target: target)
        assert made()["parts"][0]["sha256"] == source
    monkeypatch.setattr(Part, "load", lambda self: len)
    assert made()["parts"][0]["sha256"] is None


def test_equal_locks_do_not_differ():
    assert compare(made(), json.loads(json.dumps(made()))) == []
    assert compare(made() | {"runs": ["provenance"]}, made()) == []


def test_differences_are_told():
    newer = made(TYPE._replace(version="1.3"), seed=1, spec_text="model: 2\n", keys={"a": (2, 3)}) | {"torch": "9.0"}
    newer["parts"][0]["sha256"] = "0" * 64
    assert compare(made(), newer) == [
        "acme-parts-of-nobody was 1.2, is 1.3",
        "bottleneck acme/fsq: its source file has changed",
        f"torch was {torch.__version__}, is 9.0",
        "seed was 0, is 1",
        "the resolved spec has changed",
        "the model's state-dict keys or shapes have changed",
    ]


def test_a_missing_part_comes_with_its_remedy():
    numpy = Entry(Part("encoder", "np", "modkit.part:Part", ""), "numpy", "0.1")
    spiteful = Entry(Part("sampler", "x", "modkit.part:Part", ""), "a; rm -rf b", "1")
    nothing = made() | {"parts": []}
    assert compare(made(TYPE, numpy, spiteful), nothing) == [
        "bottleneck acme/fsq is missing: it came with acme-parts-of-nobody 1.2, it is not installed: "
        "pip install acme-parts-of-nobody==1.2",
        f"encoder np is missing: it came with numpy 0.1, {np.__version__} is installed: pip install numpy==0.1",
        "sampler x is missing: it came with a; rm -rf b 1, it is not installed: pip install 'a; rm -rf b==1'",
    ]
    assert compare(nothing, made()) == ["bottleneck acme/fsq of acme-parts-of-nobody is new"]


def test_what_is_no_lock_is_refused():
    for damaged in ({}, made() | {"format": 2}, made() | {"parts": {}}):
        with pytest.raises(ValueError, match="lock of format 1"):
            compare(damaged, made())
    for row in (7, {}, made()["parts"][0] | {"version": 1.2}):
        with pytest.raises(ValueError, match="parts with kind, name, distribution, version and sha256"):
            compare(made(), made() | {"parts": [row]})
