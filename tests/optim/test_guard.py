import math

import pytest
import torch
from torch import nn

from modkit.engines.local import LocalEngine
from modkit.nn.buffer_snapshot import BufferSnapshot
from modkit.optim.guard import Guard
from modkit.optim.loss_scale import LossScale


class Other(LocalEngine):
    """An engine in which another process says whether it skips a step."""

    skips = False

    def agree(self, flag):
        return flag or self.skips


def play(guard, weight, optimizer, gradient, engine=None, max_norm=None):
    factor = guard.begin()
    weight.grad = torch.tensor(gradient) * factor
    return guard.step(engine or LocalEngine("cpu"), optimizer, max_norm)


def make(scale=LossScale, limit=None, buffers=()):
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    module = nn.Module()
    for index, buffer in enumerate(buffers):
        module.register_buffer(f"buffer_{index}", buffer)
    guard = Guard(BufferSnapshot([module]), scale=scale and scale(), limit=limit)
    return guard, weight, torch.optim.Adam([weight], lr=0.1)


@pytest.mark.parametrize("limits", [{"scale": None, "limit": 9.0}, {}, {"limit": 9.0}])
@pytest.mark.parametrize("max_norm", [None, 0.3])
def test_guarded_steps_are_those_of_plain_gradients(max_norm, limits):
    guard, weight, optimizer = make(**limits)
    plain = nn.Parameter(weight.detach().clone())
    reference = torch.optim.Adam([plain], lr=0.1)
    for gradient in ([3.0, -4.0], [0.01, 0.02], [-1.0, 1e-6]):
        assert play(guard, weight, optimizer, gradient, max_norm=max_norm) is None
        plain.grad = torch.tensor(gradient)
        if max_norm:
            nn.utils.clip_grad_norm_([plain], max_norm)
        reference.step()
    torch.testing.assert_close(weight, plain, rtol=1e-5, atol=0)  # clipping adds 1e-6 to a norm, scaled or not
    assert max_norm or torch.equal(weight, plain)
    assert weight.grad is None and guard.skipped == 0


def make_moved(**given):
    """A guard after a step, and what a turn has done to a buffer since."""
    buffer = torch.zeros(3)
    guard, weight, optimizer = make(buffers=[buffer], **given)
    assert play(guard, weight, optimizer, [1.0, 1.0]) is None
    factor = guard.begin()
    buffer.add_(7)  # what losses do to statistics
    return guard, weight, optimizer, buffer, factor


def check_unmoved(guard, weight, optimizer, buffer, reason, engine=None, max_norm=None):
    before, state = weight.detach().clone(), {k: v.clone() for k, v in optimizer.state[weight].items()}
    assert guard.step(engine or LocalEngine("cpu"), optimizer, max_norm) == reason
    assert torch.equal(weight, before) and not buffer.any() and weight.grad is None and guard.skipped == 1
    assert all(torch.equal(value, state[key]) for key, value in optimizer.state[weight].items())


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_moves_nothing_and_halves_the_scale(wrong, max_norm):
    guard, weight, optimizer, buffer, factor = make_moved()
    weight.grad = torch.tensor([factor, wrong])
    check_unmoved(guard, weight, optimizer, buffer, "its gradients overflow float16", max_norm=max_norm)
    assert guard.state_dict() == {"skipped": 1, "loss_scale": {"value": 2.0**15, "steps": 0}}


@pytest.mark.parametrize(
    ("gradient", "said"),
    [([3.0, -4.0], "5"), ([0.0, 4.4], "4.4"), ([math.inf, 0.0], "inf"), ([math.nan, 0.0], "nan")],
)
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_gradient_beyond_the_limit_moves_nothing_though_it_would_be_clipped(gradient, said, max_norm):
    guard, weight, optimizer, buffer, factor = make_moved(scale=None, limit=4.3)
    assert factor == 1
    weight.grad = torch.tensor(gradient)
    reason = f"its gradient's norm of {said} exceeds 4.3"
    check_unmoved(guard, weight, optimizer, buffer, reason, max_norm=max_norm)
    assert guard.state_dict() == {"skipped": 1}


def test_a_scaled_gradient_has_the_norm_of_the_loss_itself_and_a_limit_leaves_the_scale():
    guard, weight, optimizer = make(limit=4.3)
    assert play(guard, weight, optimizer, [3.0, 3.0]) is None
    assert play(guard, weight, optimizer, [3.0, 4.0]) == "its gradient's norm of 5 exceeds 4.3"
    assert play(guard, weight, optimizer, [math.inf, 0.0]) == "its gradients overflow float16"
    assert guard.state_dict() == {"skipped": 2, "loss_scale": {"value": 2.0**15, "steps": 0}}
    other = make(limit=4.3)[0]
    other.load_state_dict(guard.state_dict())
    assert other.state_dict() == guard.state_dict()


def test_the_norm_is_that_of_all_parameters():
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": weights[:2]}, {"params": weights[2:]}], lr=1.0)
    guard = Guard(BufferSnapshot([]), limit=4.9)
    guard.begin()
    weights[0].grad, weights[2].grad = torch.tensor([0.0, 3.0]), torch.tensor([4.0, 0.0])
    assert guard.step(LocalEngine("cpu"), optimizer, None) == "its gradient's norm of 5 exceeds 4.9"


@pytest.mark.parametrize("limits", [{}, {"scale": None, "limit": 9.0}])
def test_a_step_that_another_process_skips_is_skipped_here(limits):
    guard, weight, optimizer = make(**limits)
    engine = Other("cpu")
    engine.skips = True
    assert play(guard, weight, optimizer, [1.0, 1.0], engine) and guard.skipped == 1
    assert guard.scale is None or guard.scale.value == 2.0**15
    assert weight.tolist() == [1.0, 2.0]


def test_a_player_whose_losses_reach_no_parameter_takes_its_step():
    guard, weight, optimizer = make(limit=1.0)
    guard.begin()
    assert guard.step(LocalEngine("cpu"), optimizer, None) is None and guard.scale.steps == 1


def test_a_state_from_before_steps_were_counted_is_restored():
    guard = make()[0]
    guard.load_state_dict({"loss_scale": {"value": 4.0, "steps": 3}})
    assert guard.state_dict() == {"skipped": 0, "loss_scale": {"value": 4.0, "steps": 3}}
