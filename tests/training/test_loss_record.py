"""Losses are judged at once where that waits for nothing, and with the logged ones elsewhere."""

import pytest
import torch

from modkit.engines import LocalEngine
from modkit.training.loss_record import LossRecord

GOOD, SINCE = torch.tensor(3.0), "a loss of one has not been finite since the last logged step"


@pytest.fixture
def record():
    """The record of an engine whose world is 2, though this process is alone in it."""
    engine = LocalEngine("cpu")
    engine.world = 2
    return LossRecord(engine)


def test_a_loss_is_judged_at_once_on_the_cpu_of_one_process():
    record = LossRecord(LocalEngine("cpu"), hint=", here")
    record.check("one", {"bad": GOOD}, GOOD)
    with pytest.raises(FloatingPointError, match="^the loss bad of one is nan, here$"):
        record.check("one", {"good": GOOD, "bad": torch.nan * GOOD}, torch.nan * GOOD)


def test_losses_are_read_in_the_dtype_of_each(record):
    record.update({"one/good": 1.0, "one/bad": torch.tensor(2.0, dtype=torch.float64)})
    for _ in range(2):
        record.check("one", {"bad": GOOD}, GOOD)
    assert record.read() == {"one/good": 1.0, "one/bad": 2.0}
    record.clear()
    assert record.read() == {}


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_loss_that_was_not_finite_between_logged_steps_is_found(record, value):
    record.update({"one/bad": GOOD})
    for total in (GOOD, value * GOOD, GOOD):
        record.check("one", {"bad": total}, total)
    with pytest.raises(FloatingPointError, match=SINCE):
        record.read()


def test_a_loss_that_is_not_finite_at_a_logged_step_is_named(record):
    record.check("one", {}, torch.inf * GOOD)
    record.update({"one/good": GOOD, "one/bad": torch.tensor(torch.inf), "other/bad": torch.tensor(torch.inf)})
    with pytest.raises(FloatingPointError, match="^the loss bad of one is inf$"):
        record.read()


def test_a_norm_that_is_not_finite_is_left_out(record):
    record.update({"one/good": GOOD, "gradient_norm/one": torch.tensor(torch.inf), "gradient_norm/two": 2 * GOOD})
    record.check("one", {"good": GOOD}, GOOD)
    assert record.read() == {"one/good": 3.0, "gradient_norm/two": 6.0}
