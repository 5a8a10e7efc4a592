import math

import pytest
import torch
from torch import nn

from modkit.engines.local import LocalEngine
from modkit.optim.guard import Guard
from modkit.optim.loss_scale import LossScale


class Other(LocalEngine):
    """An engine in which another process says whether it skips a step."""

    skips = False

    def agree(self, flag):
        return flag or self.skips


def play(guard, weight, optimizer, gradient, engine=None):
    factor = guard.begin()
    weight.grad = torch.tensor(gradient) * factor
    return guard.step(engine or LocalEngine("cpu"), optimizer)


def make(scale=LossScale, limit=None, clip=None, buffers=()):
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    module = nn.Module()
    for index, buffer in enumerate(buffers):
        module.register_buffer(f"buffer_{index}", buffer)
    guard = Guard([module], scale=scale and scale(), limit=limit, clip=clip)
    return guard, weight, torch.optim.Adam([weight], lr=0.1)


@pytest.mark.parametrize("limits", [{"scale": None, "limit": 9.0}, {}, {"limit": 9.0}])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_guarded_steps_are_those_of_plain_gradients(clip, limits):
    guard, weight, optimizer = make(**limits, clip=clip)
    plain = nn.Parameter(weight.detach().clone())
    reference = torch.optim.Adam([plain], lr=0.1)
    for gradient in ([3.0, -4.0], [0.01, 0.02], [-1.0, 1e-6]):
        assert play(guard, weight, optimizer, gradient) is None
        plain.grad = torch.tensor(gradient)
        if clip:
            nn.utils.clip_grad_norm_([plain], clip)
        reference.step()
    torch.testing.assert_close(weight, plain, rtol=1e-5, atol=0)  # clipping adds 1e-6 to a norm, scaled or not
    assert clip or torch.equal(weight, plain)
    assert weight.grad is None and guard.skipped == 0


def make_moved(**given):
    """A guard after a step, and what a turn has done to a buffer since."""
    buffer = torch.zeros(3)
    guard, weight, optimizer = make(buffers=[buffer], **given)
    assert play(guard, weight, optimizer, [1.0, 1.0]) is None
    factor = guard.begin()
    buffer.add_(7)  # what losses do to statistics
    return guard, weight, optimizer, buffer, factor


def check_unmoved(guard, weight, optimizer, buffer, reason):
    before, state = weight.detach().clone(), {k: v.clone() for k, v in optimizer.state[weight].items()}
    assert guard.step(LocalEngine("cpu"), optimizer) == reason
    assert torch.equal(weight, before) and not buffer.any() and weight.grad is None and guard.skipped == 1
    assert all(torch.equal(value, state[key]) for key, value in optimizer.state[weight].items())


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_moves_nothing_and_halves_the_scale(wrong, clip):
    guard, weight, optimizer, buffer, factor = make_moved(clip=clip)
    weight.grad = torch.tensor([factor, wrong])
    check_unmoved(guard, weight, optimizer, buffer, "its gradients overflow float16")
    assert guard.state_dict() == {"skipped": 1, "loss_scale": {"value": 2.0**15, "steps": 0}}


@pytest.mark.parametrize(
    ("gradient", "said"),
    [([3.0, -4.0], "5"), ([0.0, 4.4], "4.4"), ([math.inf, 0.0], "inf"), ([math.nan, 0.0], "nan")],
)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_beyond_the_limit_moves_nothing_though_it_would_be_clipped(gradient, said, clip):
    guard, weight, optimizer, buffer, factor = make_moved(scale=None, limit=4.3, clip=clip)
    assert factor == 1
    weight.grad = torch.tensor(gradient)
    reason = f"its gradient's norm of {said} exceeds 4.3"
    check_unmoved(guard, weight, optimizer, buffer, reason)
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
    guard = Guard([], limit=4.9)
    guard.begin()
    weights[0].grad, weights[2].grad = torch.tensor([0.0, 3.0]), torch.tensor([4.0, 0.0])
    assert guard.step(LocalEngine("cpu"), optimizer) == "its gradient's norm of 5 exceeds 4.9"


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
    assert guard.step(LocalEngine("cpu"), optimizer) is None and guard.scale.steps == 1


def test_a_state_from_before_steps_were_counted_is_restored():
    guard = make()[0]
    guard.load_state_dict({"loss_scale": {"value": 4.0, "steps": 3}})
    assert guard.state_dict() == {"skipped": 0, "loss_scale": {"value": 4.0, "steps": 3}}


@pytest.mark.parametrize("given", [{}, {"clip": 0.3}, {"scale": LossScale()}, {"limit": 9.0, "clip": 0.3}])
def test_the_norm_is_measured_before_gradients_are_clipped(given):
    weights = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in ((), (3,), (2, 3), (4,))]
    optimizer, guard = torch.optim.SGD(weights, lr=1.0), Guard([], **given)
    factor, gradients = guard.begin(), [torch.randn_like(one) for one in weights[:3]]
    for weight, gradient in zip(weights, gradients):
        weight.grad = factor * gradient
    assert guard.step(LocalEngine("cpu"), optimizer) is None
    norm = math.sqrt(sum(float(value) ** 2 for gradient in gradients for value in gradient.flatten()))
    assert guard.norm.item() == pytest.approx(norm, rel=1e-12)
    moved = math.sqrt(sum(float(value) ** 2 for weight in weights for value in weight.detach().flatten()))
    assert moved == pytest.approx(min(norm, given.get("clip", norm)), rel=1e-5)  # clipping adds 1e-6 to the norm


def test_a_turn_without_a_gradient_or_with_an_overflow_has_no_norm():
    guard, weight, optimizer = make()
    assert play(guard, weight, optimizer, [1.0, 1.0]) is None and guard.norm == pytest.approx(2**0.5)
    assert play(guard, weight, optimizer, [math.inf, 1.0]) and guard.norm is None
    assert guard.step(LocalEngine("cpu"), optimizer) is None and guard.norm is None


def test_a_guard_that_never_skips_copies_no_buffers():
    module = nn.BatchNorm1d(2)
    assert Guard([module])._held.buffers == [] and len(Guard([module], limit=1.0)._held.buffers) == 3
