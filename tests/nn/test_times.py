"""Networks that are given several times: flow maps have two, between which they go."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from modkit.nn import DiT, EDM2UNet, MLPNetwork, NCSNpp, NCSNppDiscriminator, Transformer, UNet
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions, draw

X, CODES = TensorType((2, 8, 8)), TensorType((6,), classes=5)
ONE = CondType(vector=3, time=True)
TWO = replace(ONE, time=2)
NETWORKS = {
    "mlp": partial(MLPNetwork, X, X, width=9, depth=2),
    "unet": partial(UNet, X, X, channels=[8, 12], blocks=1, attention=[4]),
    "dit": partial(DiT, X, X, patch=4, width=16, depth=1),
    "edm2-unet": partial(EDM2UNet, X, X, channels=[8, 16], blocks=1, attention=[4]),
    "ncsnpp": partial(NCSNpp, X, X, channels=[7, 8], blocks=1),
    "ncsnpp discriminator": partial(NCSNppDiscriminator, X, channels=[8, 8]),
    "transformer": partial(Transformer, CODES, causal=False, width=16, depth=1),
}


def give(name):
    """The two networks, in float64 and drawn, and inputs of the second."""
    one, two = (draw(NETWORKS[name](cond=cond), scale=0.4).eval() for cond in (ONE, TWO))
    x = torch.arange(24).view(4, 6) % 5 if name == "transformer" else torch.sin(torch.arange(512.0)).view(4, 2, 8, 8)
    return one, two, x if name == "transformer" else x.double(), conditions(TWO, 4)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_weights_for_the_second_time_a_network_is_that_of_the_first(name):
    one, two, x, cond = give(name)
    state, wider = one.state_dict(), []
    for key, value in two.state_dict().items():
        if value.shape != state[key].shape:
            wider.append(key)
            state[key] = torch.cat([state[key], torch.zeros_like(state[key])], dim=1)
    assert len(wider) == 1 and "time" in wider[0]
    two.load_state_dict(state)
    torch.testing.assert_close(two(x, cond), one(x, cond.at(cond.time[:, 0])), atol=1e-12, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, by its jvp
@pytest.mark.parametrize("name", NETWORKS)
def test_both_times_matter_and_are_differentiated_forward(name):
    _, two, x, cond = give(name)
    for column in torch.eye(2, dtype=torch.float64):
        found = torch.func.jvp(lambda t: two(x, cond.at(t)), (cond.time,), (column.expand(4, 2),))[1]
        ahead, behind = (two(x, cond.at(cond.time + step * column)) for step in (1e-4, -1e-4))
        largest = found.abs().max().item()
        torch.testing.assert_close(found, (ahead - behind) / 2e-4, atol=1e-6 * largest, rtol=0)  # the difference errs
        assert found.reshape(4, -1).abs().amax(1).min() > 1e-2
    assert not torch.allclose(two(x, cond), two(x, cond.at(cond.time.flip(1))))


@pytest.mark.parametrize("name", NETWORKS)
def test_another_number_of_times_is_refused(name):
    one, two, x, cond = give(name)
    with pytest.raises(ValueError, match=r"the network expects one time of each sample, `b`, got the shape \(4, 2\)"):
        one(x, cond)
    with pytest.raises(ValueError, match=r"expects 2 times of each sample, `b 2`, got the shape \(4,\)"):
        two(x, cond.at(cond.time[:, 0]))
    with pytest.raises(ValueError, match="the network expects a Cond with `time`"):
        two(x, Cond(vector=cond.vector))
