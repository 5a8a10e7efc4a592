"""Every example composed from Python objects is the model that its spec builds: weights, samples and spec."""

from functools import partial
from pathlib import Path

import pytest
import torch

import modkit
from modkit import Rng, Spec
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.kinds import Default
from modkit.models.model import evaluate_mode, reconstruct_batch
from modkit.parts.signature import read_parameters

EXAMPLES = Path(__file__).parents[2] / "examples"
SPECS = sorted(EXAMPLES.glob("*.yaml"))


def make_object(kind, node, default=None):
    """The partial of a registered class that says what a node says; a `ref` stays as it is."""
    if isinstance(node, int | float) or getattr(node, "ref", None):
        return node
    node = {"use": node} if isinstance(node, str) else node
    name = node.get("use", default)
    if name == "run":
        pytest.skip("a piece of another run has no class: `modkit.load` gives it built")
    part = modkit.find(kind, name)
    declared = read_parameters(part)
    rest = {key: fill(value, declared[key]) for key, value in node.items() if key != "use"}
    return partial(part.load(), **rest)


def fill(value, parameter):
    """What stands in a parameter: plain data, or the objects of its slot."""
    slot, default = parameter.slot, parameter.default
    if slot is None or value is None:
        return value
    name = default.name if isinstance(default, Default) else None
    if slot.container == "list":
        return [make_object(slot.kind, item, name) for item in value]
    if slot.container == "dict":
        return {key: make_object(slot.kind, item, name) for key, item in value.items()}
    return make_object(slot.kind, value, name)


def differing(a, b):
    """The keys of two state dicts whose values are not the same to the bit."""
    state, other = a.state_dict(), b.state_dict()
    assert state.keys() == other.keys()
    return [key for key, value in state.items() if not torch.equal(value.nan_to_num(), other[key].nan_to_num())]


def prepare(model, batch):
    """Everything that a model measures before its first turn, from one batch."""
    for stage in range(len(model.stages())):
        for player in modkit.players(model, stage):
            player.prepare([batch])


@pytest.mark.wide(1)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.usefixtures("clothes")
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_objects_of_an_example_are_its_spec(path):
    spec = modkit.load_spec(path)
    planned = plan(spec)
    seed, data = planned.seed, Site(planned, meta=False).data
    built = modkit.build(spec)
    compose = make_object("model", spec.model)
    with modkit.seeded(seed):
        model = compose(data.x, fields=data.fields)
    assert differing(model, built) == []
    assert plan(Spec.from_yaml(str(modkit.spec_of(model)))).resolved.model == planned.resolved.model

    batch = data.read("train", range(min(64, data.splits["train"])), Rng(0))
    for each in (model, built):
        prepare(each, batch)
    assert differing(model, built) == []
    with evaluate_mode(model), evaluate_mode(built):
        assert torch.equal(look(model, batch), look(built, batch))


def look(model, batch):
    """Samples or, of a model without a prior, reconstructions."""
    try:
        return model.sample(2, seed=0)
    except ValueError as refusal:
        assert "no prior" in str(refusal)
        return reconstruct_batch(model, batch)


@pytest.mark.wide
def test_an_autoencoder_that_is_composed_first_is_shared():
    """In place of the `ref`: the same object in both slots. Its weights are those of a model of its own."""
    spec = modkit.load_spec(EXAMPLES / "inpainting.yaml")
    data = Site(plan(spec), meta=False).data
    with modkit.seeded(0):
        coder = make_object("model", spec.model["autoencoder"], "autoencoder")(data.x, fields=data.fields)
        prior = make_object("model", spec.model["prior"])
        conditioner = partial(prior.keywords["conditioner"], autoencoder=coder)
        prior = partial(prior, conditioner=conditioner)
        model = modkit.models.Latent(data.x, fields=data.fields, autoencoder=coder, prior=prior)
    assert model.prior.conditioner.autoencoder is model.autoencoder is coder
    changed = differing(model, modkit.build(spec))
    assert changed and all(".autoencoder." in f".{key}" for key in changed)
    assert plan(Spec.from_yaml(str(modkit.spec_of(model)))).resolved.model == plan(spec).resolved.model
