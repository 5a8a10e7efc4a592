"""A package's own conditions: entries of `Cond.own` go where the others do."""

import pytest
import torch
from torch import nn

import modkit
from modkit import Batch, Cond, CondType, Rng, StepContext, TensorType, use
from modkit.cases.probe import Probe
from modkit.diffusion.guidance import ConditionSides, extrapolate, make_conditions
from modkit.models import GAN, Diffusion, Flow
from modkit.types import Denoised

X, GRAPH = TensorType((4,)), TensorType((4, 4))
TYPE = CondType(vector=3, own={"graph": GRAPH})


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_types_are_listed_merged_and_written_with_those_of_a_package():
    other = CondType(vector=2, time=True, own={"second": X})
    assert TYPE.merge(other) == CondType(vector=5, time=True, own={"graph": GRAPH, "second": X})
    assert [*TYPE.merge(other).list_types().items()] == [
        ("vector", TensorType((5,))),
        ("time", TensorType((), range=(0.1, 0.9))),
        ("graph", GRAPH),
        ("second", X),
    ]
    assert str(TYPE) == "vector 3, graph 4×4 unbounded" and bool(CondType(own={"graph": GRAPH})) and not CondType()
    assert hash(TYPE) == hash(CondType(vector=3)) and TYPE != CondType(vector=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CondType(own={"time": X}), "CondType expects names of its own in `own`, got time"),
        (lambda: CondType(own={"own": X}), "CondType expects names of its own in `own`, got own"),
        (lambda: TYPE.merge(CondType(own={"graph": X})), "conditions expect `graph` from one side only, got vector 3"),
    ],
)
def test_a_name_that_is_taken_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_entries_are_merged_mapped_and_joined():
    graph, vector, second = draw(2, 4, 4), draw(2, 3), draw(2, 4)
    merged = Cond(vector=vector, own={"graph": graph}).merge(Cond(vector=vector, own={"second": second}))
    assert [*merged.list_entries()] == ["vector", "graph", "second"]
    assert torch.equal(merged.vector, torch.cat([vector, vector], 1)) and merged.own["graph"] is graph
    half = merged.map(torch.Tensor.half).list_entries()
    assert {name: one.dtype for name, one in half.items()} == dict.fromkeys(merged.list_entries(), torch.half)
    joined = Cond.join([merged, merged.map(torch.neg)])
    for name, value in merged.list_entries().items():
        assert torch.equal(joined.list_entries()[name], torch.cat([value, -value]))
    assert Cond.join([merged, Cond(vector=merged.vector)]) is None
    assert Cond.join([merged, merged.map(lambda one: one[..., :1])]) is None
    moved = Batch(second, {}, merged).map(torch.neg).cond
    assert torch.equal(moved.own["graph"], -graph) and torch.equal(merged.at(second[:, 0]).own["graph"], graph)
    assert {name: one.shape[1:] for name, one in Probe(2).draw_cond(TYPE).list_entries().items()} == {
        "vector": (3,),
        "graph": (4, 4),
    }


class Edges(nn.Module):
    """The fields `graph` and `place`: an own condition, which has no null, and a vector, which has zeros."""

    reads, drop, type = ("graph", "place"), 0.1, TYPE

    def __init__(self, fields):
        super().__init__()

    def forward(self, fields, rng):
        return Cond(vector=fields["place"], own={"graph": fields["graph"]})

    def null(self, num):
        return Cond(vector=torch.zeros(num, 3))

    def draw(self, num, rng):
        return {"graph": rng.normal("graph", torch.empty(num, 4, 4)), "place": torch.zeros(num, 3)}

    def prepare(self, batches):
        pass


class Moved(nn.Module):
    """W x_t along the edges of a graph, and a shift by the vector."""

    own_conditions = ("graph",)

    def __init__(self, x, out, cond):
        super().__init__()
        self.type = cond
        self.weight, self.shift = nn.Linear(4, 4, bias=False), nn.Linear(cond.vector, 4, bias=False)

    def forward(self, x, cond):
        return torch.einsum("b i j, b j -> b i", cond.own["graph"], self.weight(x)) + self.shift(cond.vector)


class Deaf(Moved):
    own_conditions = ()


class Waves(nn.Module):
    own_conditions = ("graph",)

    def __init__(self, z, x, cond):
        super().__init__()

    def forward(self, z, cond):
        return z[:, :4].sin()


FIELDS = {"graph": GRAPH, "place": TensorType((3,))}


def test_guidance_s_halves_have_them_and_are_evaluated_as_one_batch():
    fields = {"graph": draw(5, 4, 4), "place": draw(5, 3)}
    network, x_t, calls = Moved(X, X, TYPE).double(), draw(5, 4), []

    def denoise(x_t, t, cond):
        calls.append(len(x_t))
        return Denoised(network(x_t, cond))

    enclosing = Cond(own={"second": draw(5, 4)})
    conds = make_conditions(Edges(FIELDS), fields, 5, enclosing)
    assert conds["null"].own.keys() == {"graph", "second"} and not conds["null"].vector.any()
    conds["null"] = conds["null"].map(torch.Tensor.double)
    guided = extrapolate(ConditionSides(denoise, conds), "null", 3.0)(x_t, torch.tensor(0.5)).x_0
    along = torch.stack([a @ network.weight(x) for a, x in zip(fields["graph"], x_t)])
    torch.testing.assert_close(guided, along + 3 * network.shift(fields["place"]), rtol=1e-12, atol=1e-12)
    assert calls == [10]
    edges = Edges(FIELDS)
    edges.null = lambda num: Cond(vector=torch.zeros(num, 3), own={"graph": torch.zeros(num, 4, 4)})
    assert not make_conditions(edges, fields, 5, Cond())["null"].own["graph"].any()  # a null of its own


def test_a_model_trains_and_samples_with_them_and_its_parts_are_tried():
    with modkit.seeded(0):
        steps = {"sampler": use("ddim", steps=2), "guidance": use("cfg", scale=2.0)}
        model = Diffusion(X, fields=FIELDS, network=Moved, conditioner=Edges, **steps)
    assert str(model.network.type) == "vector 3, time, graph 4×4 unbounded"
    fields = {"graph": draw(5, 4, 4).float(), "place": draw(5, 3).float()}
    (loss,) = model.losses("denoiser", Batch(draw(5, 4).float(), fields), StepContext(Rng(0), training=True)).values()
    loss.backward()
    assert model.network.weight.weight.grad.abs().sum() > 0
    samples = [model.sample(5, **{**fields, "graph": sign * fields["graph"]}, seed=0) for sign in (1, 1, -1)]
    assert torch.equal(samples[0], samples[1]) and not torch.allclose(samples[0], samples[2])


def test_a_bijection_that_does_not_read_one_is_refused():
    with pytest.raises(modkit.SpecError, match="Autoregressive expects no conditions of a package.s own, got graph"):
        Flow(X, CondType(own={"graph": GRAPH}), bijection="autoregressive")
    with pytest.raises(modkit.SpecError, match="expected a network with graph in `own_conditions`, got mlp"):
        Flow(X, CondType(own={"graph": GRAPH}), bijection="coupling")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Diffusion(X, fields=FIELDS, network="mlp", conditioner=Edges),
            "model.network: expected a network with graph in `own_conditions`, got mlp",
        ),
        (
            lambda: Diffusion(X, fields=FIELDS, network=Deaf, conditioner=Edges),
            "model.network: expected a network with graph in `own_conditions`, got Deaf",
        ),
        (
            lambda: GAN(X, CondType(own={"graph": GRAPH}), generator=Waves, discriminator=use("packed", num=2)),
            r"discriminator: expected a discriminator with graph in `own_conditions`, got packed",
        ),
    ],
)
def test_a_network_that_does_not_read_one_is_refused(make, message):
    with pytest.raises(modkit.SpecError, match=message):
        make()
