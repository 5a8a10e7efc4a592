import errno
import os
import pickle
from types import SimpleNamespace

import pytest
import torch

from modkit.rng import Rng
from modkit.training import stored_view
from modkit.training.stored_view import StoredView, ViewWriter
from modkit.types import Batch
from tests.refusals import check_refusal


def make(num):
    rows = torch.arange(num)
    values = torch.linspace(-1, 1, 6 * num).view(num, 2, 3)
    x = (values.bfloat16(), values.double(), rows.to(torch.int32).view(num, 1))
    return Batch(x, {"mask": values > 0, "labels": rows, "empty": torch.zeros(num, 0)})


def write(folder, batch, *parts):
    """Each part is written by a process of its own; the first completes the view."""
    with ViewWriter(folder, len(batch)) as first:
        for part in parts:
            with ViewWriter(folder, len(batch)) as writer:
                for start in part:
                    writer.write(start, batch.rows(slice(start, start + 2)))
        first.write(parts[0][0], batch.rows(slice(parts[0][0], parts[0][0] + 2)))
        first.complete()


def assert_same(found, batch):
    assert [value.dtype for value in found.x] == [value.dtype for value in batch.x]
    assert all(torch.equal(*pair) for pair in zip(found.x, batch.x)) and found.fields.keys() == batch.fields.keys()
    assert all(torch.equal(value, batch.fields[name]) for name, value in found.fields.items())


def test_rows_of_any_dtype_are_written_in_any_order_and_read_in_any_order_and_process(tmp_path):
    batch, order = make(6), [4, 0, 5, 5]
    write(tmp_path, batch, (2,), (4, 0))
    want = Batch(tuple(v[order] for v in batch.x), {name: value[order] for name, value in batch.fields.items()})
    for view in (StoredView(tmp_path), pickle.loads(pickle.dumps(StoredView(tmp_path)))):
        assert_same(view.read("train", order, Rng(0)), want)


@pytest.mark.smoke
def test_a_view_is_found_when_it_is_complete_and_whole(tmp_path):
    with ViewWriter(tmp_path, 6) as writer:
        writer.write(0, make(6))
        check_refusal("view.json", StoredView, tmp_path, error=FileNotFoundError)
        writer.complete()
    assert len(StoredView(tmp_path).read("train", range(6), Rng(0))) == 6
    data = (tmp_path / "4.bin").read_bytes()
    (tmp_path / "4.bin").write_bytes(bytes(len(data)))
    check_refusal("damaged: 4.bin differs from its SHA-256", StoredView(tmp_path).verify)
    (tmp_path / "4.bin").write_bytes(data)
    StoredView(tmp_path).verify()
    text = (tmp_path / "view.json").read_text()
    for wrong, message in (
        (text.replace('"num": 6', '"num": 7'), "damaged.*expected 84 bytes in 0.bin"),
        (text.replace('"format": 2', '"format": 1'), "expected format 2, got 1"),
        (text.replace("bfloat16", "load"), "expected a dtype, got load"),
        (text.replace("bfloat16", "unheard_of"), "damaged.*unheard_of"),
        (text[:-1], "is damaged"),
        ("[]", "is damaged"),
    ):
        (tmp_path / "view.json").write_text(wrong)
        check_refusal(message, StoredView, tmp_path)


def test_a_full_disk_is_told_before_or_when_it_is_full(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stored_view.shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * 10**8))
        message = r"expects 0.8 GB for 10,000,000 samples, got 0.3 GB free; MODKIT_CACHE sets another folder"
        check_refusal(message, ViewWriter(tmp_path, 10**7).write, 0, make(2), error=OSError)

    def fill(descriptor, data=b""):
        raise OSError(errno.ENOSPC, "No space left on device")

    with ViewWriter(tmp_path, 6) as writer, monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        check_refusal(f"No space left on device: '{tmp_path}'", writer.write, 0, make(6), error=OSError)
        patch.undo()
        writer.write(0, make(6))
        patch.setattr(os, "fsync", fill)
        check_refusal(f"No space left on device: '{tmp_path}'", writer.sync, error=OSError)
