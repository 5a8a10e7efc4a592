import json

import pytest
import torch

from modkit.optim.optimizers import adam, adamw, rmsprop, sgd
from tests.refusals import check_refusal

GRADIENTS = [[0.5, -2.0, 1e-3], [0.25, 1.0, -4e-3], [-1.0, 3.0, 2e-3]]
START = [1.0, -0.5, 2.0]


def moved(make, dtype=torch.float64, **options):
    parameter = torch.nn.Parameter(torch.tensor(START, dtype=dtype))
    optimizer = make([parameter], **options)
    for gradient in GRADIENTS:
        parameter.grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
    return parameter.detach()


def by_hand(update):
    state, p = {}, torch.tensor(START, dtype=torch.float64)
    for step, gradient in enumerate(GRADIENTS, 1):
        p = update(p, torch.tensor(gradient, dtype=torch.float64), step, state)
    return p


def adam_by_hand(lr, b1, b2, eps, l2=0.0, decay=0.0):
    def update(p, g, step, state):
        g = g + l2 * p
        state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
        state["v"] = b2 * state.get("v", 0) + (1 - b2) * g**2
        m_hat, v_hat = state["m"] / (1 - b1**step), state["v"] / (1 - b2**step)
        return p * (1 - lr * decay) - lr * m_hat / (v_hat.sqrt() + eps)

    return by_hand(update)


ALL = {"lr": 0.1, "betas": [0.5, 0.9], "eps": 1e-3, "weight_decay": 0.2}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (adam, ALL, adam_by_hand(0.1, 0.5, 0.9, 1e-3, l2=0.2)),
        (adam, {}, adam_by_hand(1e-3, 0.9, 0.999, 1e-8)),
        (adamw, ALL, adam_by_hand(0.1, 0.5, 0.9, 1e-3, decay=0.2)),
        (adamw, {}, adam_by_hand(1e-3, 0.9, 0.999, 1e-8, decay=0.01)),
    ],
)
def test_adam_and_adamw(dtype, tolerance, make, options, expected):
    torch.testing.assert_close(moved(make, dtype, **options).double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(nesterov):
    def update(p, g, step, state):
        g = g + 0.2 * p
        state["b"] = 0.9 * state["b"] + g if "b" in state else g
        return p - 0.1 * (g + 0.9 * state["b"] if nesterov else state["b"])

    got = moved(sgd, lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.2)
    torch.testing.assert_close(got, by_hand(update), rtol=1e-14, atol=1e-14)
    plain = by_hand(lambda p, g, *_: p - 1e-2 * g)
    torch.testing.assert_close(moved(sgd, momentum=0.0), plain, rtol=1e-14, atol=1e-14)


def test_rmsprop():
    def update(p, g, step, state):
        g = g + 0.2 * p
        state["v"] = 0.8 * state.get("v", 0) + 0.2 * g**2
        state["b"] = 0.5 * state.get("b", 0) + g / (state["v"].sqrt() + 1e-3)
        return p - 0.1 * state["b"]

    got = moved(rmsprop, lr=0.1, alpha=0.8, eps=1e-3, momentum=0.5, weight_decay=0.2)
    torch.testing.assert_close(got, by_hand(update), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("make", [adam, adamw, sgd, rmsprop])
def test_settings_are_json(make):
    json.dumps(make(iter([torch.nn.Parameter(torch.zeros(1))])).state_dict()["param_groups"])


@pytest.mark.parametrize("make", [adam, adamw])
def test_mistakes_are_named(make):
    parameter = torch.nn.Parameter(torch.zeros(1))
    check_refusal(rf"{make.__name__} expects two betas, got \[0.9\]", make, [parameter], betas=[0.9])
    check_refusal("1.5", make, [parameter], betas=[1.5, 0.9])
    check_refusal("-1", make, [parameter], lr=-1.0)


@pytest.mark.parametrize(
    ("make", "name"), [(sgd, "momentum"), (rmsprop, "alpha"), (rmsprop, "momentum")], ids=lambda one: str(one)[:14]
)
def test_shares_that_would_grow_without_end_are_refused(make, name):
    for share in (-0.1, 1.0, 1.5, float("nan")):
        message = rf"{make.__name__} expects {name} to be (finite and )?in \[0, 1\), got {share}"
        check_refusal(message, make, [torch.nn.Parameter(torch.zeros(1))], **{name: share})


def test_defaults_are_not_shared():
    one, other = (adam([torch.nn.Parameter(torch.zeros(1))]) for _ in range(2))
    one.param_groups[0]["betas"] = (0.0, 0.0)
    assert other.param_groups[0]["betas"] == (0.9, 0.999)
