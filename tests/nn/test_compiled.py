import copy
import logging
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from modkit import Cond
from modkit.nn import compiled
from modkit.nn.compiled import compile_modules, restore_module, run_uncompiled
from modkit.specs.settings import Compilation

GRAPHS: Counter[str] = Counter()


@torch._dynamo.register_backend(name="counting")
def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
    GRAPHS["made"] += 1
    return graph


COUNTING = Compilation(backend="counting")


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    GRAPHS.clear()


class Scaled(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        return self.layer(x) * x.shape[0] * cond.vector


def evaluate(module: nn.Module, num: int, width: int = 2) -> Tensor:
    rows = torch.linspace(-1, 1, num * width).view(num, width)
    return module(rows, Cond(vector=rows + 1))


@pytest.mark.wide
def test_modules_built_alike_share_their_variants_and_a_batch_makes_none():
    torch.manual_seed(0)
    modules = [Scaled(2), Scaled(2), Scaled(3)]
    expected = [evaluate(one, num, len(one.layer.bias)) for one in modules for num in (5, 7, 64)]
    compile_modules(modules, "a network", COUNTING)
    found = [evaluate(one, num, len(one.layer.bias)) for one in modules for num in (5, 7, 64)]
    torch.testing.assert_close(found, expected)
    assert GRAPHS["made"] == 2
    evaluate(modules[0], 1)
    assert GRAPHS["made"] == 3
    with torch.no_grad():
        evaluate(modules[1], 2)
    assert GRAPHS["made"] == 4


@pytest.mark.wide(1)
@pytest.mark.parametrize(("dynamic", "expected"), [(None, 3), (False, 4), (True, 1)])
def test_which_sizes_may_change(dynamic, expected):
    module = nn.ReLU()
    compile_modules([module], "relu", Compilation(backend="counting", dynamic=dynamic))
    for shape in ((2, 4), (3, 4), (3, 5), (3, 6)):
        module(torch.ones(shape))
    assert GRAPHS["made"] == expected


def test_a_module_of_torch_alone_is_compiled():
    """The fault: torch skips the code of its own modules, so that `nn.Sequential.compile` compiles nothing."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    compile_modules([module], "layers", COUNTING)
    assert module(torch.ones(3, 2)).shape == (3, 1)
    assert GRAPHS["made"] == 1


def test_a_module_with_more_variants_than_the_limit_runs_uncompiled_and_is_named(monkeypatch, caplog):
    monkeypatch.setattr(compiled, "VARIANTS", 2)
    module = nn.ReLU()
    with torch._dynamo.config.patch(recompile_limit=1):
        compile_modules([module], "prior.network", Compilation(backend="counting", dynamic=False))
        with caplog.at_level(logging.WARNING, compiled.__name__):
            outputs = [module(torch.ones(num)) for num in (2, 3)]
            assert not [one for one in caplog.records if one.name == compiled.__name__]
            outputs += [module(torch.ones(num)) for num in (4, 5)]
    (record,) = [one for one in caplog.records if one.name == compiled.__name__]
    assert "prior.network runs uncompiled, at least at times: torch's compiler has made 2 variants" in record.message
    assert [len(one) for one in outputs] == [2, 3, 4, 5]


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, by its jvp
def test_what_is_differentiated_forward_runs_uncompiled_and_says_so(caplog):
    """The fault: the warning spoke of too many variants, and calls without a tangent ran uncompiled from then on."""
    module = Scaled(2)
    compile_modules([module], "a network", COUNTING)
    x, cond = torch.ones(3, 2), Cond(vector=torch.ones(3, 2))
    want = Scaled.forward(module, 2 * x, cond) - Scaled.forward(module, x, cond)
    for _ in range(2):
        _, slope = torch.func.jvp(lambda x: module(x, cond), (x,), (x,))
        torch.testing.assert_close(slope, want)
    (record,) = [one for one in caplog.records if one.name == compiled.__name__]
    assert "a network runs uncompiled where it is differentiated forward (torch.func.jvp)" in record.message
    assert not GRAPHS
    evaluate(module, 3)
    assert GRAPHS["made"] == 1


def test_uncompiled_for_a_while(caplog):
    module = Scaled(2)
    compile_modules([module], "a network", COUNTING)
    with run_uncompiled(), run_uncompiled():
        evaluate(module, 3)
    assert not GRAPHS and not caplog.records
    evaluate(module, 3)
    assert GRAPHS["made"] == 1


def test_a_copy_computes_with_its_own_weights():
    module = Scaled(2)
    compile_modules([module], "a network", COUNTING)
    other = copy.deepcopy(module)
    nn.init.zeros_(other.layer.weight)
    nn.init.zeros_(other.layer.bias)
    assert not evaluate(other, 3).any() and evaluate(module, 3).any()


def test_restored():
    module = Scaled(2)
    keys, own = list(module.state_dict()), set(vars(module))
    compile_modules([module], "a network", COUNTING)
    assert list(module.state_dict()) == keys
    restore_module(module)
    assert set(vars(module)) == own
    restore_module(module)
    evaluate(module, 3)
    assert not GRAPHS


def test_refuses_an_unknown_backend():
    with pytest.raises(ValueError, match=r"compile expects one of torch's backends \(.*inductor.*\), got 'inducer'"):
        compile_modules([], "a network", Compilation(backend="inducer"))
