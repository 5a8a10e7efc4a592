"""The number of threads depends on the size of a step and on no clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from modkit import check, train, use
from modkit.starters.model import Gaussian
from modkit.training import threads as module
from modkit.training.threads import choose_threads, use_threads
from tests.play import spec


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight cores, whose user has chosen no number."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: 8)


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({"flops": [1e7, 2.5e9, 1e12]}, (1, 2, 8)),
        ({"flops": [1e12], "processes": 4}, (2,)),
        ({"flops": [1e12], "processes": 16}, (1,)),
        ({"flops": [0]}, (8,)),
        ({"flops": [1e7, 1e7], "kept": [4]}, (4, 1)),
        ({"flops": [1e7], "kept": [4, 2]}, (4,)),
        ({"flops": [1e12, 1e7], "asked": 3, "kept": [4, 4]}, (3, 3)),
        ({"flops": []}, ()),
    ],
)
def test_the_numbers_are_chosen_by_the_size_of_a_step(
    eight: None, given: dict[str, Any], numbers: tuple[int, ...]
) -> None:
    assert choose_threads(**{"asked": "auto", **given}) == numbers


def test_what_the_user_has_set_wins(eight: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert choose_threads("auto", [1e7], kept=[4]) == (8,)


def test_a_step_is_counted_in_forward_and_backward_passes() -> None:
    """Each weight of a product takes a multiplication and an addition, and as many twice in the backward pass."""
    layers = {"encoder": use("mlp", depth=0), "decoder": use("mlp", depth=0)}
    report = check(spec(use("autoencoder", **layers, bottleneck=use("gaussian", channels=8))))
    weights = sum(one[0] * one[1] for one in report.state.values() if len(one) == 2)
    assert weights and report.count_flops(rows=5) == [3 * 5 * 2 * weights]


def test_a_run_keeps_its_numbers_by_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen, losses, before = [], Gaussian.losses, torch.get_num_threads()

    def look(*arguments: object) -> object:
        seen.append(torch.get_num_threads())
        return losses(*arguments)

    monkeypatch.setattr(Gaussian, "losses", look)
    with use_threads(2):
        run = train(spec(use(Gaussian), threads=3), tmp_path / "run", steps=1)
        assert [seen[-1]] == run.lock["stage_threads"] == [3]
        train(spec(use(Gaussian)), run.path, resume=True)
        assert seen[-1] == 3 and torch.get_num_threads() == 2
        monkeypatch.setattr("modkit.training.training.choose_threads", lambda *_: (1, 2))
        stages = [{"players": ["*"], "steps": 2}, {"players": ["*"], "steps": 1}]
        train(spec(use(Gaussian), stages=stages), tmp_path / "two")
        assert seen[-3:] == [1, 1, 2] and torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Settings expects threads to be in \[1, 1024\] or 'auto', got 0"):
        check(spec(use(Gaussian), threads=0))
