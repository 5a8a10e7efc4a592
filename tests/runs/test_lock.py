import functools
import hashlib
import json
import platform
import shutil
import subprocess
from collections import namedtuple
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import modkit.types
from modkit.part import Part
from modkit.runs.lock import compare, decode, encode, find_drift, make_lock, suggest_install
from tests.plugin_factory import make_plugin

Entry = namedtuple("Entry", "part distribution version")
TYPE = Entry(Part("bottleneck", "acme/fsq", "modkit.types:TensorType", ""), "acme-parts-of-nobody", "1.2")
SOURCE = hashlib.sha256(Path(modkit.types.tensor_type.__file__).read_bytes()).hexdigest()
KEYS = {"b": (3,), "a": (2, 3)}
partial = functools.partial(functools.partial(modkit.types.split_levels))


@functools.wraps(modkit.types.split_levels)
def wrapped(event):
    return modkit.types.split_levels(event)


def made(*entries, seed=0, spec_text="model: 1\n", keys=KEYS, places=None):
    return make_lock(entries or (TYPE,), spec_text=spec_text, seed=seed, keys=keys, places=places or {})


@pytest.fixture(autouse=True)
def outside(tmp_path, monkeypatch):
    """A working directory that no checkout holds."""
    monkeypatch.chdir(tmp_path)


def test_the_lock_states_versions_and_hashes():
    part = {"kind": "bottleneck", "name": "acme/fsq", "distribution": "acme-parts-of-nobody", "version": "1.2"}
    want = {
        "format": 2,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "packages": {},
        "commit": None,
        "seed": 3,
        "spec": hashlib.sha256(b"model: 1\n").hexdigest(),
        "model": hashlib.sha256(b'[["a", [2, 3]], ["b", [3]]]').hexdigest(),
        "state": {"a": [2, 3], "b": [3]},
        "parts": [part | {"sha256": SOURCE, "at": ["model.a", "model.b"]}],
    }
    want["run"] = hashlib.sha256(json.dumps(want).encode()).hexdigest()
    found = made(seed=3, places={("bottleneck", "acme/fsq"): ["model.b", "model.a"], ("encoder", "acme/fsq"): ["c"]})
    assert found == want and json.loads(json.dumps(found)) == want


def test_the_versions_are_those_of_what_the_parts_distributions_require(site):
    requires = ["torch>1", "einops>=0", "pluggy>=1; python_version>='3'", "nothing-of-ours"]
    make_plugin(site, "requiring", requires=requires)
    found = made(TYPE._replace(distribution="modkit-requiring"))["packages"]
    assert found == {"einops": metadata.version("einops"), "pluggy": metadata.version("pluggy")}
    assert compare(made() | {"packages": {"einops": "0", "x": "1"}}, made() | {"packages": found}) == [
        f"einops is 0 in the first run, {found['einops']} in the second"
    ]


def test_the_lock_does_not_depend_on_orders_or_repetitions():
    other = Entry(Part("encoder", "conv", "modkit.part:Part", ""), "modkit-generative", "0.1")
    assert made(TYPE, other, TYPE) == made(other, TYPE, keys={"a": torch.Size([2, 3]), "b": [3]})
    assert made(keys={"a": (2, 3), "b": (3, 1)})["model"] != made()["model"]


def test_the_source_is_where_the_target_is_defined_not_where_it_is_imported():
    for target in ("modkit.types:split_levels", "modkit.types:TensorType.__str__", "modkit:TensorType"):
        assert made(Entry(Part("encoder", "n", target, ""), "d", "1"))["parts"][0]["sha256"] == SOURCE
    with pytest.raises(ValueError, match="has no 'Absent'"):
        made(Entry(Part("encoder", "n", "modkit.types:Absent", ""), "d", "1"))


def test_partials_and_wrappers_are_followed_and_builtins_have_no_source(monkeypatch):
    for target in (partial, wrapped):
        monkeypatch.setattr(Part, "load", lambda self, target=target: target)
        assert made()["parts"][0]["sha256"] == SOURCE
    monkeypatch.setattr(Part, "load", lambda self: len)
    assert made()["parts"][0]["sha256"] is None


def test_equal_locks_do_not_differ():
    assert compare(made(), json.loads(json.dumps(made()))) == []
    assert compare(made() | {"runs": ["provenance"]}, made()) == []


def test_differences_are_told():
    newer = made(TYPE._replace(version="1.3"), keys={"a": (2, 3)}) | {"torch": "9.0"}
    newer["parts"][0]["sha256"] = "0" * 64
    assert compare(made(), newer) == [
        "acme-parts-of-nobody is 1.2 in the first run, 1.3 in the second",
        f"torch is {torch.__version__} in the first run, 9.0 in the second",
        "bottleneck acme/fsq: its source file differs",
        "the model's state-dict keys or shapes differ",
    ]


def test_a_part_that_one_run_does_not_have_is_not_missing():
    """The fault: each part that only one run had was called missing or new, and the seed and model changed."""
    other = Entry(Part("encoder", "conv", "modkit.part:Part", ""), "modkit-generative", "0.1")
    one, two = made(TYPE), made(TYPE, other, seed=1, spec_text="model: 2\n", keys={"a": (2, 3)})
    assert compare(one, two) == compare(two, one) == compare(one | {"parts": []}, two) == []


def test_a_part_of_another_distribution_is_told():
    moved = made(TYPE._replace(distribution="others", version="2"))
    assert compare(made(), moved) == [
        "bottleneck acme/fsq comes from acme-parts-of-nobody 1.2 in the first run, from others 2 in the second"
    ]


def test_a_missing_part_comes_with_its_remedy():
    numpy = Entry(Part("encoder", "np", "modkit.part:Part", ""), "numpy", "0.1")
    spiteful = Entry(Part("sampler", "x", "modkit.part:Part", ""), "a; rm -rf b", "1")
    assert [suggest_install(row) for row in made(TYPE, numpy, spiteful)["parts"]] == [
        "bottleneck acme/fsq is missing: it came with acme-parts-of-nobody 1.2, it is not installed; install it with: "
        "pip install acme-parts-of-nobody==1.2",
        f"encoder np is missing: it came with numpy 0.1, {np.__version__} is installed; "
        "install it with: pip install numpy==0.1",
        "sampler x is missing: it came with a; rm -rf b 1, it is not installed; "
        "install it with: pip install 'a; rm -rf b==1'",
    ]


def test_a_lock_of_format_1_is_compared_in_what_it_has():
    new, old = made(), made() | {"numpy": "0"}
    old = {key: old[key] for key in old.keys() - {"packages", "commit", "state"}} | {"format": 1}
    old["parts"] = [{key: row[key] for key in row.keys() - {"at"}} for row in old["parts"]]
    found = compare(old, new | {"commit": {"commit": "a", "dirty": False}})
    assert found == [f"numpy is 0 in the first run, {np.__version__} in the second"]


def test_what_drifts_is_known_by_its_former_name_too():
    was = made(*(TYPE._replace(part=replace(TYPE.part, name=name)) for name in ("acme/old", "gone")))
    now = TYPE._replace(part=replace(TYPE.part, aliases=("acme/old",)))
    assert find_drift(was, [now]) == find_drift(was, []) == []
    was["parts"][0]["sha256"] = None
    want = ["acme-parts-of-nobody 1.2 was replaced by others 2", "bottleneck acme/old: its source file has changed"]
    assert find_drift(was, [now._replace(distribution="others", version="2")]) == want


def test_what_is_no_lock_is_refused():
    for damaged in ({}, made() | {"format": 3}, made() | {"parts": {}}):
        with pytest.raises(ValueError, match="expected a lock of format 1 or 2"):
            compare(damaged, made())
    for row in (7, {}, made()["parts"][0] | {"version": 1.2}):
        with pytest.raises(ValueError, match="parts of a lock to have kind, name, distribution, version and sha256"):
            compare(made(), made() | {"parts": [row]})
    with pytest.raises(ValueError, match="parts of a lock to have a list of paths `at`, got 'model'"):
        compare(made(), made() | {"parts": [made()["parts"][0] | {"at": "model"}]})


def test_values_of_another_type_are_refused():
    for name, value, expected in (
        ("revisions", {}, "expected `revisions` to be a list, got {}"),
        ("splits", [8], r"expected `splits` to be a dict, got \[8\]"),
        ("splits", {"train": "8"}, "expected `splits` to be numbers of samples by name, got {'train': '8'}"),
        ("data", 8, "expected `data` to be a str, got 8"),
        ("modules", {"model.a": "b"}, "expected `modules` to be lists of names by path, got {'model.a': 'b'}"),
    ):
        with pytest.raises(ValueError, match=expected):
            decode(encode(made() | {name: value}))


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    if not shutil.which("git"):
        pytest.skip("needs git")
    git(tmp_path, "init", "-q", "checkout")
    folder = tmp_path / "checkout"
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("1")
    git(folder, "add", ".")
    return folder


def test_the_commit_is_that_of_the_working_directory(checkout, monkeypatch):
    monkeypatch.chdir(checkout / "inner")
    assert made()["commit"] is None, "there is no commit yet"
    git(checkout, "commit", "-qm", "one")
    git(checkout, "tag", "v1")
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "new").write_text("is not tracked")
    one = made()
    assert one["commit"] == {"commit": head, "dirty": False} and len(head) == 40
    (checkout / "inner" / "file").write_text("22")
    two = made()
    assert two["commit"] == {"commit": head, "dirty": True}
    assert compare(one, two) == [f"commit is {head} in the first run, {head} and changes in the second"]
    monkeypatch.setenv("PATH", "")
    assert made()["commit"] == {"commit": head, "dirty": None}, "git alone knows whether files were changed"


def test_a_part_of_a_checkout_has_its_commit(checkout, site):
    git(checkout, "commit", "-qm", "one")
    for name in ("edited", "copied"):
        make_plugin(site, name)
        told = {"url": (checkout / "inner").as_uri(), "dir_info": {"editable": name == "edited"}}
        (site / f"modkit_{name}-1.0.dist-info" / "direct_url.json").write_text(json.dumps(told))
    other = Entry(Part("encoder", "n", "modkit.part:Part", ""), "modkit-copied", "1.0")
    rows = made(TYPE._replace(distribution="modkit-edited"), other)["parts"]
    assert [row.get("commit") for row in rows] == [{"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}, None]
