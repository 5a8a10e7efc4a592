"""Training is a function of the seed with any number of threads, if their number stays the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils import deterministic

from modkit import Batch, Step, train, use
from modkit.starters.model import Gaussian
from modkit.training.determinism import use_deterministic
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
    assert seen[-1] == ({"enabled": True, "warns": True, "fills": False} if asked else before)


def test_a_refusal_that_the_caller_asked_for_stays() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with use_deterministic(CPU):
            assert read_flags() == {"enabled": True, "warns": False, "fills": False}
        assert read_flags() == {"enabled": True, "warns": False, "fills": True}
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_operation_that_has_no_such_algorithm_is_warned_of() -> None:
    with use_deterministic(CPU), pytest.warns(UserWarning, match="does not have a deterministic implementation"):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


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
    assert read_flags() == {"enabled": True, "warns": True, "fills": False}
    second.__exit__(None, None, None)
    assert read_flags() == before
