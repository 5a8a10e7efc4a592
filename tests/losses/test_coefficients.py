import math

import pytest
import torch

from modkit.losses.coefficients import Adaptive, Constant, Cyclical, Warmup
from modkit.specs.settings import Term
from tests.play import turn


def test_constant():
    assert Constant()(turn(), {}, None) == 1.0
    assert Constant(value=0.3)(turn(index=10**6), {}, None) == 0.3


def test_warmup_rises_linearly():
    part = Warmup(value=2.0, steps=10, start=5)
    assert [part(turn(index=index), {}, None) for index in (0, 5, 6, 10, 14, 15, 1000)] == pytest.approx(
        [0, 0, 0.2, 1, 1.8, 2, 2]
    )
    assert Warmup()(turn(index=250), {}, None) == 0.25
    falling = Warmup(value=1.0, initial=4.0, steps=10, start=5)
    assert [falling(turn(index=index), {}, None) for index in (0, 5, 10, 15, 99)] == [4.0, 4.0, 2.5, 1.0, 1.0]


def test_cyclical_rises_again_and_again_and_stays_after_the_last_cycle():
    part = Cyclical(value=2.0, steps=10, cycles=3, rise=0.4)
    cycle = [0, 0.5, 1, 1.5, 2, 2, 2, 2, 2, 2]
    assert [part(turn(index=index), {}, None) for index in range(40)] == pytest.approx(3 * cycle + 10 * [2])
    assert part(turn(index=10**6), {}, None) == 2


def losses(last, x):
    """Gradients by hand: nll [3, 4] of norm 5, perceptual [0, 8], adversarial [0.6, 0.8] of norm 1."""
    out = last * x
    return {
        "nll": (torch.tensor([3.0, 4.0]) * out).sum(),
        "perceptual": (torch.tensor([0.0, 8.0]) * out).sum(),
        "adversarial": (torch.tensor([0.6, 0.8]) * out).sum(),
    }


@pytest.mark.smoke
def test_adaptive_is_the_ratio_of_gradient_norms():
    last = torch.tensor([1.0, -2.0], requires_grad=True)
    terms = losses(last, torch.ones(2))
    weight = Adaptive("adversarial")(turn(), terms, last)
    torch.testing.assert_close(weight.item(), 5 / (1 + 1e-4))
    assert not weight.requires_grad
    both = Adaptive("adversarial", against=["nll", "perceptual"], value=0.5, tiny=1.0)(turn(), terms, last)
    torch.testing.assert_close(both.item(), 0.5 * math.hypot(3, 12) / 2)  # the norm of the sum
    (weight * terms["adversarial"] + terms["nll"]).backward()  # the graph is still there
    torch.testing.assert_close(last.grad, torch.tensor([3.0, 4.0]) + weight * torch.tensor([0.6, 0.8]))


def test_adaptive_compares_with_what_is_due_at_the_step():
    last = torch.tensor([1.0, -2.0], requires_grad=True)
    terms = losses(last, torch.ones(2))
    part = Adaptive("adversarial", against=["nll", "perceptual"], tiny=1.0)
    step = turn(index=1, terms={"perceptual": Term(every=2)})
    del terms["perceptual"]
    torch.testing.assert_close(part(step, terms, last).item(), 5 / 2)
    idle = part(turn(index=1, terms={"*": Term(every=2)}), {"adversarial": terms["adversarial"]}, last)
    assert idle.item() == 0 and idle.device == last.device
    with pytest.raises(ValueError, match=r"expects losses \['perceptual'\], got \['nll', 'adversarial'\]"):
        part(turn(index=2, terms={"perceptual": Term(every=2)}), terms, last)


def test_adaptive_is_clamped_before_its_value_multiplies():
    last = torch.ones(2, requires_grad=True)
    terms = {"nll": 5e4 * last.sum(), "adversarial": (0 * last).sum()}
    assert Adaptive("adversarial", value=0.5)(turn(), terms, last).item() == 5e3
    assert Adaptive("adversarial", max=7.0)(turn(), terms, last).item() == 7
    floor = Adaptive("adversarial")(turn(), {"nll": 1e-4 * last[0], "adversarial": (0 * last).sum()}, last)
    torch.testing.assert_close(floor.item(), 1.0)


def test_adaptive_norms_are_float32_at_least():
    last = torch.ones(4096, dtype=torch.bfloat16, requires_grad=True)
    weight = Adaptive("adversarial")(turn(), {"nll": last.sum(), "adversarial": last.sum() / 64}, last)
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight.item(), 64 / (1 + 1e-4), rtol=1e-6, atol=0)


def test_refuses():
    last = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="of 'adversarial' expects a decoder with a last layer, got None"):
        Adaptive("adversarial")(turn(), losses(last, torch.ones(2)), None)
    with pytest.raises(ValueError, match=r"expects losses \['nll'\], got \['adversarial'\]"):
        Adaptive("adversarial")(turn(), {"adversarial": last.sum()}, last)
    with pytest.raises(
        ValueError, match="of 'kl' expects this loss and nll to depend on the decoder's last layer, got one"
    ):
        Adaptive("kl")(turn(), {"nll": last.sum(), "kl": torch.ones((), requires_grad=True)}, last)
    with pytest.raises(ValueError, match="Adaptive expects `against` to name losses other than 'nll', got"):
        Adaptive("nll")
    with pytest.raises(ValueError, match="Adaptive expects tiny to be above 0, got 0"):
        Adaptive("adversarial", tiny=0)
    with pytest.raises(ValueError, match="Warmup expects steps to be at least 1, got 0"):
        Warmup(steps=0)
    with pytest.raises(ValueError, match="Cyclical expects cycles to be at least 1, got 0"):
        Cyclical(cycles=0)
