import math

import pytest
import torch
from torch import nn

from modkit.engines.local import LocalEngine
from modkit.nn.held import Held
from modkit.optim.loss_scale import LossScale


class Other(LocalEngine):
    """An engine in which another process says whether its gradients overflow."""

    overflows = False

    def agree(self, flag):
        return flag or self.overflows


def play(scale, weight, optimizer, gradient, engine=None, max_norm=None):
    factor = scale.begin()
    weight.grad = torch.tensor(gradient) * factor
    return scale.step(engine or LocalEngine("cpu"), optimizer, max_norm)


def make(value=2.0**16, patience=2000, buffers=()):
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    module = nn.Module()
    for index, buffer in enumerate(buffers):
        module.register_buffer(f"buffer_{index}", buffer)
    return LossScale(Held([module]), value=value, patience=patience), weight, torch.optim.Adam([weight], lr=0.1)


@pytest.mark.parametrize("max_norm", [None, 0.3])
def test_scaled_steps_are_those_of_plain_gradients(max_norm):
    scale, weight, optimizer = make()
    plain = nn.Parameter(weight.detach().clone())
    reference = torch.optim.Adam([plain], lr=0.1)
    for gradient in ([3.0, -4.0], [0.01, 0.02], [-1.0, 1e-6]):
        assert play(scale, weight, optimizer, gradient, max_norm=max_norm)
        plain.grad = torch.tensor(gradient)
        if max_norm:
            nn.utils.clip_grad_norm_([plain], max_norm)
        reference.step()
    torch.testing.assert_close(weight, plain, rtol=1e-5, atol=0)  # clipping adds 1e-6 to a norm, scaled or not
    assert max_norm or torch.equal(weight, plain)
    assert weight.grad is None


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_moves_nothing_and_halves_the_scale(wrong, max_norm):
    buffer = torch.zeros(3)
    scale, weight, optimizer = make(buffers=[buffer])
    assert play(scale, weight, optimizer, [1.0, 1.0])
    before, state = weight.detach().clone(), {k: v.clone() for k, v in optimizer.state[weight].items()}
    factor = scale.begin()
    buffer.add_(7)  # what losses do to statistics
    weight.grad = torch.tensor([factor, wrong])
    assert not scale.step(LocalEngine("cpu"), optimizer, max_norm)
    assert torch.equal(weight, before) and not buffer.any() and weight.grad is None
    assert all(torch.equal(value, state[key]) for key, value in optimizer.state[weight].items())
    assert scale.state_dict() == {"value": 2.0**15, "steps": 0}


def test_an_overflow_in_another_process_skips_the_step_here():
    scale, weight, optimizer = make()
    engine = Other("cpu")
    engine.overflows = True
    assert not play(scale, weight, optimizer, [1.0, 1.0], engine) and scale.value == 2.0**15
    assert weight.tolist() == [1.0, 2.0]


def test_the_scale_doubles_after_enough_steps_in_a_row():
    scale, weight, optimizer = make(value=4.0, patience=3)
    seen = []
    for finite in (True, True, False, True, True, True, True):
        play(scale, weight, optimizer, [1.0, 1.0 if finite else math.inf])
        seen.append((scale.value, scale.steps))
    assert seen == [(4.0, 1), (4.0, 2), (2.0, 0), (2.0, 1), (2.0, 2), (4.0, 0), (4.0, 1)]
    other = LossScale(Held([]))
    other.load_state_dict(scale.state_dict())
    assert other.state_dict() == scale.state_dict()


def test_gradients_that_overflow_at_any_scale_are_an_error():
    scale, weight, optimizer = make(value=2.0)
    assert not play(scale, weight, optimizer, [math.inf, 1.0])
    with pytest.raises(ValueError, match=r"not finite in float16 at a loss scale of 1: train\.precision=bf16"):
        play(scale, weight, optimizer, [math.inf, 1.0])


def test_a_player_whose_losses_reach_no_parameter_takes_its_step():
    scale, weight, optimizer = make()
    scale.begin()
    assert scale.step(LocalEngine("cpu"), optimizer, None) and scale.steps == 1
