"""Training is a function of the seed with any number of threads, if their number stays the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import deterministic

from modkit import Batch, CondType, Rng, Step, TensorType, train, use
from modkit.runs.run import Run
from modkit.starters.model import Gaussian
from modkit.training.determinism import find_nondeterministic, use_deterministic, warn_instead
from tests.play import spec
from tests.run_folders import differing

CPU = torch.device("cpu")


class Indexed(Gaussian):
    """Looks up every value of a batch in a table of 64, whose gradient several threads add up."""

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        x, table = batch.tensor.flatten().repeat(8), self.density.mean.flatten()
        noise = step.rng.normal("noise", batch.tensor).flatten().repeat(8)
        return {"nll": (table[((x + 1) * 31).long()] - noise).square().mean()}


@pytest.fixture
def threads() -> Iterator[None]:
    """Several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def read_flags() -> Mapping[str, bool]:
    return {
        "enabled": torch.are_deterministic_algorithms_enabled(),
        "warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fills": deterministic.fill_uninitialized_memory,
    }


def test_training_with_several_threads_is_a_function_of_the_seed(threads: None, tmp_path: Path) -> None:
    """The fault: the last bits of a gradient depended on which thread came first."""
    indexed = spec(use(Indexed), batch_size=1024, optimizer=use("sgd", lr=100.0), checkpoints={"keep": 1})
    first, *others = (train(indexed, tmp_path / str(number), steps=6).path for number in range(3))
    for other in others:
        assert not differing(first, other)


@pytest.mark.parametrize("asked", [True, False])
def test_the_setting_holds_while_training_and_no_longer(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen, losses = read_flags(), [], Gaussian.losses

    def look(*arguments: object) -> dict[str, Tensor]:
        seen.append(read_flags())
        return losses(*arguments)

    monkeypatch.setattr(Gaussian, "losses", look)
    train(spec(use(Gaussian), deterministic=asked, steps=1), tmp_path / "run")
    assert read_flags() == before == {"enabled": False, "warns": False, "fills": True}
    assert seen[-1] == ({"enabled": True, "warns": False, "fills": False} if asked else before)


def test_a_refusal_that_the_caller_asked_for_stays() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with use_deterministic(CPU):
            assert read_flags() == {"enabled": True, "warns": False, "fills": False}
        assert read_flags() == {"enabled": True, "warns": False, "fills": True}
    finally:
        torch.use_deterministic_algorithms(False)


class Placing(Gaussian):
    """Places values in its losses from a step on, or as it is prepared: `put_` has no deterministic form."""

    def __init__(self, x: TensorType, cond: CondType, *, start: int = 0, prepares: bool = False) -> None:
        super().__init__(x, cond)
        self._start, self._prepares = start, prepares

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        if self._prepares:
            self.density.mean.data += 1
            place()

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        losses = super().losses(player, batch, step)
        if step.index >= self._start and not self._prepares and self.device.type != "meta":
            place()
        return losses


def place() -> None:
    torch.zeros(4).put_(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]))


@pytest.mark.filterwarnings("ignore:put_ does not have a deterministic implementation")
@pytest.mark.parametrize(("options", "step"), [({}, 0), ({"start": 3}, 2), ({"prepares": True}, 0)])
def test_where_an_operation_has_no_such_algorithm_training_begins_again_and_says_so(
    options: Mapping[str, Any], step: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"steps": 6, "checkpoints": {"every": 2, "keep": 9}}
    free = train(spec(use(Placing, **options), **settings, deterministic=False), tmp_path / "free")
    placed = spec(use(Placing, **options), **settings)
    run = train(placed, tmp_path / "run", steps=4)
    (record,) = caplog.records
    assert "put_ has no deterministic form on this device (cpu)" in record.getMessage()
    assert f"training begins again at step {step}, " in record.getMessage()
    assert run.lock["nondeterministic"] == "put_" and "nondeterministic" not in free.lock
    assert read_flags() == {"enabled": False, "warns": False, "fills": True}

    run = train(placed, run.path, resume=True)
    assert len(caplog.records) == 1 and Run.open(run.path).lock["nondeterministic"] == "put_"
    found, expected = (run.load_weights() for run in (run, free))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [row for row in run.read_metrics() if "losses" in row] == free.read_metrics()


def test_what_the_caller_refuses_ends_training(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
            train(spec(use(Placing)), tmp_path / "run")
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (RuntimeError("put_ does not have a deterministic implementation, but you set"), "put_"),
        (RuntimeError("this operation is not deterministic because it uses CuBLAS and you have"), "cuBLAS"),
        (RuntimeError("out of memory"), None),
        (ValueError("put_ does not have a deterministic implementation"), None),
    ],
)
def test_the_operation_that_torch_refuses_is_found_in_its_error(error: Exception, name: str | None) -> None:
    assert find_nondeterministic(error) == name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_the_gradient_of_fused_attention_has_the_same_bits_on_a_card() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v, g = torch.randn(4, 8, 4, 1024, 64, device="cuda", dtype=torch.bfloat16, generator=generator)
    with use_deterministic(torch.device("cuda")):
        q.requires_grad_()
        first, *others = (
            torch.autograd.grad(torch.nn.functional.scaled_dot_product_attention(q, k, v), q, g)[0] for _ in range(8)
        )
    assert all(torch.equal(first, other) for other in others)


def test_cublas_is_told_unless_the_user_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in ((None, ":4096:8"), (":16:8", ":16:8")):
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", value or "")
        if value is None:
            monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
        with use_deterministic(torch.device("cuda")):
            assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == expected


def test_the_last_of_several_trainings_to_end_restores_the_flags() -> None:
    before, first, second = read_flags(), use_deterministic(CPU), use_deterministic(CPU)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert read_flags() == {"enabled": True, "warns": False, "fills": False}
    assert warn_instead() and read_flags()["warns"]
    second.__exit__(None, None, None)
    assert read_flags() == before and not warn_instead()
