"""Several threads evaluate one model at once, each as if it were the only one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn

from modkit import models, use
from modkit.models import Diffusion
from modkit.models.evaluating import evaluate_mode
from modkit.types import TensorType
from tests.replays import RecordedCapture

THREADS = 12


def read_modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_the_last_of_several_evaluations_restores_the_modes() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    model[1][0].eval()
    before = read_modes(model)
    first, second, third = evaluate_mode(model), evaluate_mode(model[1]), evaluate_mode(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert read_modes(model) == [True, True, False, False, False]  # the rest is evaluated by nobody any more
    third.__enter__()
    second.__exit__(None, None, None)
    assert not any(read_modes(model))
    third.__exit__(None, None, None)
    assert read_modes(model) == before == [True, True, True, False, True]


def test_what_an_evaluation_switches_back_is_evaluated_within_it() -> None:
    """As batch norm that is measured while a player is prepared."""
    model = nn.Dropout()
    with evaluate_mode(model):
        model.train()
        with evaluate_mode(model):
            assert not model.training
        assert model.training


@pytest.mark.wide(1)
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_threads_that_sample_at_once_draw_what_one_draws(
    graphs: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = use("unet", channels=[4], blocks=1, dropout=0.5)
    model = Diffusion(TensorType((1, 4, 4), (-1, 1)), network=network, sampler=use("ddim", steps=6))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    want = [model.sample(2, seed=seed, precision=precision) for seed in range(THREADS)]
    capture = RecordedCapture() if graphs else None
    monkeypatch.setattr(models.model, "find_capture", lambda device: capture)
    model.train()
    barrier = Barrier(THREADS)

    def draw(seed: int) -> list[Tensor]:
        barrier.wait()
        return [model.sample(2, seed=seed, precision=precision) for _ in range(2)]

    with ThreadPoolExecutor(THREADS) as pool:
        drawn = list(pool.map(draw, range(THREADS)))
    for expected, got in zip(want, drawn, strict=True):
        assert all(torch.equal(one, expected) for one in got)
    assert all(read_modes(model))
    for module in model.modules():
        assert not {"forward", "narrowed", "holders"} & vars(module).keys()
    assert not capture or capture.replayed
