import functools
import math
from dataclasses import MISSING, fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from modkit import SpecError, TensorType, build, kinds, use
from modkit.building.members import check_members, describe_lack
from modkit.kinds import KINDS
from modkit.types import Modes
from tests.play import spec
from tests.refusals import refusals


def make(base=object, **members):
    """A part whose instances have members as attributes."""
    part = type("Part", (base,), {})()
    for name, value in members.items():
        setattr(part, name, value)
    return part


def make_module(**members):
    return make(nn.Module, **members)


class Pair(nn.Module):
    def forward(self, z, cond): ...


test_what_cannot_be_the_member_of_its_name_is_refused = refusals(
    (
        "network",
        make_module(units=16),
        r"`units` is .* of the kind network, expected Sequence\[nn.Module\], got 16: give it this type, or rename it",
    ),
    ("encoder", make_module(units=[16, 32]), r"`units` is .* kind encoder, .* got \[16, 32\]: give it"),
    ("network", make_module(units=nn.Linear(1, 1)), r"got Linear\(in_features=1.*: give it"),
    ("network", make_module(units=nn.ModuleDict({"a": nn.ReLU()})), r"Sequence\[nn.Module\], got ModuleDict"),
    ("network", make_module(update=nn.Linear(1, 1)), r"expected Callable\[\[\], None\] \| None, got Linear"),
    ("augmentation", make_module(update=nn.Linear(1, 1)), r"expected Callable\[\[Step\], None\] \| None, got Linear"),
    ("bottleneck", make_module(expand=nn.Conv2d(1, 1, 1)), "`expand` .* got Conv2d"),
    ("network", make_module(last_layer=nn.Linear(1, 1)), r"`last_layer` .* expected str \| None, got Linear"),
    ("network", make_module(taps=["mid"]), r"`taps` .* expected Mapping\[str, TensorType\], got \['mid'\]"),
    ("generator", make_module(w=nn.Parameter(torch.ones(2))), r"expected TensorType \| None, got Parameter"),
    ("generator", make(draws=3), "`draws` is an optional member of the kind generator, expected bool, got 3"),
    ("sampler", make(deterministic=lambda: True), "`deterministic` .* expected bool, got <function"),
    (
        "sampler",
        make(bounds="data"),
        r"`bounds` .* expected tuple\[float, float\] \| Literal\['range'\] \| None, got 'da",
    ),
    ("conditioner", make_module(drop=nn.Dropout()), r"`drop` .* expected float \| None, got Dropout"),
    ("conditioner", make(together=("a", "b")), "`together` "),
    ("schedule", make(learn=True), "`learn` .* got True"),
    ("data", make(features=2), r"`features` is .* kind data, expected str \| None, got 2: give it"),
    ("data", make(conditions="labels"), r"expected tuple\[str, \.\.\.\], got 'labels'"),
    ("data", make(plain=True), r"expected Data \| None, got True"),
    ("data", make(truth=torch.ones(2)), r"expected Modes \| None, got tensor"),
    ("features", make(heads=8), r"expected tuple\[Tensor, \.\.\.\], got 8"),
    ("logger", make(run_started=False), "`run_started` "),
    ("metric", make(batch_independent="yes"), "`batch_independent` "),
    of=check_members,
)


class Lazy(nn.Module):
    """Reads none of its members before they are asked for, and cannot say so by its class."""

    units = functools.cached_property(lambda self: 1 / 0)

    @property
    def last_layer(self):
        raise RuntimeError("not yet")

    def update(self): ...

    def __getattr__(self, name):
        return 16 if name == "taps" else super().__getattr__(name)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("network", Lazy()),
        ("network", make_module(units=None, last_layer=None, update=None, taps=None)),
        ("network", make_module(units=nn.ModuleList([nn.ReLU()]), taps={"mid": TensorType((1,))}, last_layer="out")),
        ("network", make_module(units=(one for one in [nn.ReLU()]), self_attention=nn.Sequential(nn.ReLU()))),
        ("generator", make_module(styles=Pair(), synthesis=nn.Linear(1, 1), w=TensorType((1,)), draws=1)),
        ("discriminator", make_module(judge=Pair(), bounded=torch.tensor(True), units=[])),
        ("features", make_module(heads=nn.ParameterList([torch.ones(2)]))),
        ("sampler", make(bounds=[-1, 1], deterministic=True)),
        ("metric", make(most=math.inf, seed=3)),
        ("data", make(truth=Modes(torch.ones(2, 2), 0.1), factors=["a"], plain=make(), features="pixels")),
        ("data", make(truth=SimpleNamespace(centers=torch.ones(2, 2), std=0.1), units=16)),
        ("likelihood", make_module(constant=torch.tensor(0.5), levels=256)),
        ("likelihood", make_module(constant=torch.tensor(0.5, device="meta"))),
        ("likelihood", make(constant=np.array(0.5), levels=np.int64(256))),
        ("discriminator", make(bounded=np.bool_(True))),
        ("sampler", make(bounds=torch.tensor([-1.0, 1.0]))),
        ("bottleneck", make_module(moments={"z": (0.0, 1.0)}, prepare=lambda features, rng: None)),
        ("optimizer", torch.optim.SGD([nn.Parameter(torch.ones(1))])),
        ("weight", 3.0),
    ],
)  # fmt: skip
def test_what_works_is_not_refused(kind, part):
    check_members(kind, part)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_checked_by_its_record(kind):
    record = getattr(kinds, f"{KINDS[kind].protocol}Extras", None)
    defaults = {one.name: one.default for one in fields(record)} if record else {}
    check_members(kind, make(**{name: value for name, value in defaults.items() if value is not MISSING}))


def test_every_record_of_optional_members_is_that_of_a_kind():
    records = {name.removesuffix("Extras") for name in vars(kinds) if name.endswith("Extras")}
    shared = {"Batch", "Implied", "Game", "Promise", "Pretrained"}
    assert records - shared == records & {kind.protocol for kind in KINDS.values()}


class Gated(nn.Module):
    """A network with an update gate."""

    def __init__(self, x: TensorType, out: TensorType, cond):
        super().__init__()
        self.update = nn.Linear(x.numel, out.numel)


@pytest.mark.wide
def test_a_part_is_checked_as_it_is_built():
    message = (
        "model.network: the network Gated cannot be built from .*`update` is an optional member of the kind network"
    )
    with pytest.raises(SpecError, match=message):
        build(spec(use("diffusion", network=use(Gated))))


class Whole:
    """A part whose members are of every sort: one is annotated, one computed, one an attribute."""

    causal: bool
    fields = functools.cached_property(lambda self: 1 / 0)

    def __init__(self):
        self.key = "key"

    def __call__(self, x, rng): ...


@pytest.mark.parametrize(
    ("kind", "part", "lack"),
    [
        ("corruption", Whole(), None),
        ("decoding", Whole(), "expected a decoding with `causal`, got a Whole without it"),
        ("corruption", nn.Identity(), "expected a corruption with `fields`, `key`, got an Identity without them"),
        ("adversarial", 3.0, "expected an adversarial with `generator`, `discriminator`, got a float without them"),
        ("alignment", make_module(tap=nn.Linear(1, 1)), None),
        (
            "bijection",
            SimpleNamespace(inverse=abs),
            "expected a bijection with `__call__`, got a SimpleNamespace without it",
        ),
        ("model", nn.Identity(), "expected a Model, got an Identity"),
        ("optimizer", torch.optim.SGD([nn.Parameter(torch.ones(1))]), None),
        ("logger", object(), None),
    ],
)
def test_what_a_part_lacks_of_its_kind_is_named(kind, part, lack):
    assert describe_lack(kind, part) == lack
