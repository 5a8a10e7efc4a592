import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from modkit.nn.narrowed_weights import narrow_weights


class Count(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts casts."""

    casts = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.casts += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


def make():
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ConvTranspose2d(4, 2, 3, bias=False), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(2 * 64, 3)).requires_grad_(False)


X = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_the_same_and_casts_no_weight(dtype):
    net = make()
    with torch.autocast("cpu", dtype), Count() as before:
        expected = net(X)
    full = net(X)
    with narrow_weights([*net.modules(), *net.modules()], dtype):  # an extractor that two losses share
        with torch.autocast("cpu", dtype), Count() as after:
            assert torch.equal(net(X), expected)
        with torch.autocast("cpu", dtype), torch.autocast("cpu", enabled=False):
            assert torch.equal(net(X), full)  # as a penalty is computed
        other = torch.float16 if dtype == torch.bfloat16 else torch.bfloat16
        with torch.autocast("cpu", other):
            assert net(X).dtype == other
        assert {one.dtype for one in (*net.state_dict().values(), *net.parameters())} == {torch.float32}
        with narrow_weights(net.modules(), dtype):  # a picture of a model whose frozen part is narrowed already
            pass
        assert net[0].weight.dtype == torch.float32 and "narrowed" in vars(net[0])
    assert before.casts - after.casts == 5  # two weights and biases, and a weight
    assert torch.equal(net(X), full) and type(net[0]) is nn.Conv2d and not hasattr(net[0], "narrowed")


@pytest.mark.wide
def test_a_compiled_network_computes_the_same():
    net = make()
    with torch.autocast("cpu", torch.bfloat16):
        expected = net(X)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    with narrow_weights(net.modules(), torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(X), expected)
    torch.testing.assert_close(compiled(X), net(X))


def test_layers_whose_weights_are_computed_stay_as_they_are():
    layer = parametrizations.spectral_norm(nn.Linear(2, 2))
    old = nn.Linear(2, 2)
    old.register_parameter("weight", None)
    double = nn.Linear(1, 1).double()
    with narrow_weights([layer, old, double], torch.bfloat16):
        assert not any(hasattr(one, "narrowed") for one in (layer, old, double))
    with narrow_weights([plain := nn.Linear(2, 2)], None):
        assert type(plain) is nn.Linear


def test_a_weight_that_is_moved_is_used_as_it_is_until_the_copies_are_made_again():
    net, other = make(), make()
    with narrow_weights(net.modules(), torch.bfloat16) as renew, torch.no_grad():
        for move in (
            lambda one: one.mul_(2),
            lambda one: setattr(one, "data", one.data + 1),
            lambda one: torch._foreach_mul_([one], 0.5),
        ):
            for one in (*net.parameters(), *other.parameters()):
                move(one)
            with torch.autocast("cpu", torch.bfloat16), Count() as count:
                assert torch.equal(net(X), other(X))
            before = count.casts
            renew()
            with torch.autocast("cpu", torch.bfloat16), Count() as count:
                assert torch.equal(net(X), other(X))
            assert before - count.casts == 5
        net[4].bias.data.add_(1), other[4].bias.data.add_(1)  # of which torch knows nothing
        renew()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(net(X), other(X))


@pytest.mark.wide
def test_compiled_code_uses_the_copies_that_were_made_again():
    net = make()
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    with narrow_weights(net.modules(), torch.bfloat16) as renew:
        with torch.autocast("cpu", torch.bfloat16):
            before = compiled(X)
        net[4].bias.data.add_(1)
        renew()
        with torch.autocast("cpu", torch.bfloat16), torch.compiler.set_stance("fail_on_recompile"):
            assert torch.equal(compiled(X), net(X)) and not torch.equal(compiled(X), before)


def test_weights_that_another_call_is_given_are_used():
    net = make()
    given = {name: value + 1 for name, value in net.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        expected = torch.func.functional_call(net, given, X)
        with narrow_weights(net.modules(), torch.bfloat16):
            assert torch.equal(torch.func.functional_call(net, given, X), expected)


def test_weights_of_inference_mode_are_narrowed():
    with torch.inference_mode():
        net = make()
        with torch.autocast("cpu", torch.bfloat16):
            expected = net(X)
            with narrow_weights(net.modules(), torch.bfloat16):
                assert torch.equal(net(X), expected)
