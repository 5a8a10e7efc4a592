import dataclasses

import pytest
import safetensors.torch
import torch

from modkit.metrics.reference import Reference, ReferenceCache
from modkit.runs import checkpoint
from tests.refusals import check_refusal

REFERENCE = Reference(data="d0", split="train", features="f0", preprocessing="resize 16", count=100)
TENSORS = {
    "mean": torch.arange(4.0, dtype=torch.float64),
    "cov": torch.eye(4, dtype=torch.float64).t(),
    "n": torch.tensor(9),
}


@pytest.fixture
def cache(tmp_path):
    return ReferenceCache(tmp_path / "references")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def test_statistics_come_back_bit_for_bit_and_are_computed_once(cache):
    calls = []

    def compute():
        calls.append(1)
        return TENSORS

    assert cache.load(REFERENCE) is None and not cache.folder.exists()
    assert same(cache.get(REFERENCE, compute), TENSORS)
    assert same(cache.get(REFERENCE, compute), TENSORS)
    assert len(calls) == 1
    assert [path.name for path in cache.folder.iterdir()] == [f"{REFERENCE.digest}.safetensors"]


OTHER = {"data": "d1", "split": "test", "features": "f1", "preprocessing": "none", "count": 99, "statistics": "x"}


@pytest.mark.parametrize("name", OTHER)
def test_every_field_makes_another_entry(cache, name):
    cache.save(REFERENCE, TENSORS)
    assert cache.load(dataclasses.replace(REFERENCE, **{name: OTHER[name]})) is None


def test_an_entry_of_another_description_is_refused(cache):
    other = dataclasses.replace(REFERENCE, split="test")
    cache.save(other, TENSORS).rename(cache.locate(REFERENCE))
    check_refusal('ReferenceCache expects .*"train".* got .*"test".*remove it', cache.load, REFERENCE)
    check_refusal("remove it", cache.get, REFERENCE, lambda: pytest.fail("computed over a file that is not ours"))


def test_damage_is_refused(cache):
    path = cache.save(REFERENCE, TENSORS)
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[:40], b"\xff" * 64, whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(content)
        check_refusal(f"ReferenceCache expects .*{path.name}", cache.load, REFERENCE)
    safetensors.torch.save_file({"mean": torch.ones(2)}, path)
    check_refusal("got None; remove it", cache.load, REFERENCE)


def test_a_writer_that_fails_leaves_the_former_entry(cache, monkeypatch):
    cache.save(REFERENCE, TENSORS)

    def killed(descriptor, data):
        raise OSError("no space")

    monkeypatch.setattr(checkpoint.os, "write", killed)
    check_refusal("no space", cache.save, REFERENCE, {"mean": torch.ones(2)}, error=OSError)
    assert same(cache.load(REFERENCE), TENSORS)
    assert len(list(cache.folder.iterdir())) == 1


def test_what_cannot_be_saved_is_computed_each_time(tmp_path, caplog):
    """The fault: the folder's OSError ended whatever asked."""
    (tmp_path / "file").write_bytes(b"")
    cache, calls = ReferenceCache(tmp_path / "file" / "references"), []
    for count in (1, 2):
        assert same(cache.get(REFERENCE, lambda: calls.append(1) or TENSORS), TENSORS)
        assert len(calls) == len(caplog.records) == count
    assert "references cannot be written, so that moments of train will be computed again" in caplog.text
    check_refusal("ReferenceCache expects one or more tensors to save, got none", cache.get, REFERENCE, dict)


def test_the_default_folder_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path))
    assert ReferenceCache().folder == tmp_path / "references"


def test_what_describes_nothing_is_refused(cache):
    check_refusal("Reference expects texts, got none for data", dataclasses.replace, REFERENCE, data="")
    check_refusal("Reference expects count to be at least 1, got 0", dataclasses.replace, REFERENCE, count=0)
    check_refusal("ReferenceCache expects one or more tensors to save, got none", cache.save, REFERENCE, {})
