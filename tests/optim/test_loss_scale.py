import pytest

from modkit.optim.loss_scale import LossScale


def test_the_scale_doubles_after_enough_steps_in_a_row():
    scale = LossScale(value=4.0, patience=3)
    seen = []
    for finite in (True, True, False, True, True, True, True):
        scale.update(finite)
        seen.append((scale.value, scale.steps))
    assert seen == [(4.0, 1), (4.0, 2), (2.0, 0), (2.0, 1), (2.0, 2), (4.0, 0), (4.0, 1)]
    other = LossScale()
    other.load_state_dict(scale.state_dict())
    assert other.state_dict() == scale.state_dict()


def test_gradients_that_overflow_at_any_scale_are_an_error():
    scale = LossScale(value=2.0)
    scale.update(False)
    with pytest.raises(ValueError, match=r"not finite in float16 at a loss scale of 1: train\.precision=bf16"):
        scale.update(False)
