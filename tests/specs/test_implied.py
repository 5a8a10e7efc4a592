"""Implied defaults, for specs and for objects: what a part states fills the slots that are left out, and no other."""

import math
from functools import partial
from typing import Annotated, Literal

import pytest

import modkit
from modkit import CondType, Rng, SpecError, TensorType, build, find, kinds, spec_of, use
from modkit.building.migration import load_current_spec
from modkit.building.plan import plan
from modkit.building.session import load_run
from modkit.diffusion.parametrizations import V
from modkit.diffusion.schedules import EDM
from modkit.diffusion.time_sampling import Uniform
from modkit.kinds import Implies, Slot, default
from modkit.models import Diffusion
from modkit.models.model import Model
from modkit.nn import MLPNetwork
from modkit.part import Part
from modkit.samplers import Euler
from modkit.specs.node import Node
from modkit.specs.overrides import apply
from tests.play import SMALL, read_model, spec
from tests.refusals import list_problems

X = TensorType((1, 8, 8), (-1.0, 1.0))
NETWORK = use("mlp", **SMALL)
SWAP = ["model.schedule=edm"]
GIVEN = ["class", "partial", "built"]
SLOTS = ("schedule", "times", "parametrization", "sampler")


def resolve(**slots):
    """The parts that a spec resolves to in the slots that a schedule implies something for."""
    return name_parts(plan(spec(use("diffusion", network=NETWORK, **slots))).resolved.model)


def compose(**slots):
    """The same from objects."""
    composed = Diffusion(X, network=partial(MLPNetwork, **SMALL), **slots)
    return name_parts(composed.composition.plan.resolved.model)


def name_parts(model):
    return tuple(model[slot].use for slot in SLOTS)


class Bent(EDM):
    """A schedule of one's own."""

    implies = {"times": {"use": "log-normal", "mean": 0.5}, "sampler": {"use": "ddim", "eta": 0.25}}


class Misled(Model):
    """A model, one of whose rules implies what does not exist."""

    def __init__(
        self,
        x: TensorType,
        *,
        rules: Annotated[Literal["a", "b"], Implies({"b": {"times": "no-such"}})] = "a",
        times: Slot[kinds.Times] = default("uniform"),
    ) -> None:
        super().__init__()


class Early(Uniform):
    """Times of one's own, which imply a parametrization and a sampler."""

    implies = {"parametrization": "x0", "sampler": "euler"}


class Host(Model):
    """A model whose default schedule implies something."""

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        *,
        schedule: Slot[kinds.Schedule] = default("edm"),
        times: Slot[kinds.Times] = default("uniform"),
        parametrization: Slot[kinds.Parametrization] = default("v"),
        sampler: Slot[kinds.Sampler] = default("ddim"),
        network: Slot[kinds.Network] = default("mlp"),
    ) -> None:
        super().__init__()
        self.event = x
        self.schedule = schedule(x=x)
        self.network = network(x=x, out=x, cond=CondType(time=True))

    def players(self):
        return (modkit.Player("denoiser", ("network",)),)

    def losses(self, player, batch, step):
        return {}


def test_edm_alone_trains_on_levels_around_the_data_s_deviation():
    """ln sigma ~ N(ln(2 std) - 1.2, 1.2^2); with uniform times, sigma would be uniform in (0, 160 std)."""
    model = build(spec(use("diffusion", network=NETWORK, schedule="edm")))

    def measure(times):
        alpha, sigma = model.schedule.scales(times(40_000, Rng(0)))
        level = sigma / alpha / model.event.std
        return float((level < 1).double().mean()), float(level.median())

    share = (1 + math.erf((1.2 - math.log(2)) / 1.2 / math.sqrt(2))) / 2
    assert measure(model.times) == (pytest.approx(share, abs=0.008), pytest.approx(2 * math.exp(-1.2), rel=0.03))
    assert share == pytest.approx(0.664, abs=1e-3)
    assert measure(Uniform(model.schedule)) == (pytest.approx(1 / 160, abs=0.002), pytest.approx(80, rel=0.03))


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ({}, ("cosine", "uniform", "v", "ddim")),
        ({"schedule": "edm"}, ("edm", "log-normal", "edm", "heun")),
        ({"schedule": use("edm", sigma_max=50.0)}, ("edm", "log-normal", "edm", "heun")),
        ({"schedule": "flow"}, ("flow", "log-normal", "flow", "dpm-solver++")),
        ({"schedule": "edm", "times": "uniform"}, ("edm", "uniform", "edm", "heun")),
        ({"schedule": "edm", "sampler": "ddim", "parametrization": "v"}, ("edm", "log-normal", "v", "ddim")),
    ],
)
def test_a_spec_and_objects_resolve_to_the_same(slots, expected):
    assert resolve(**slots) == compose(**slots) == expected
    text = plan(spec(use("diffusion", network=NETWORK, **slots))).resolved.model
    assert spec_of(Diffusion(X, network=partial(MLPNetwork, **SMALL), **slots)).model == text
    assert plan(spec(text)).resolved.model == text, "nothing is left to imply"


def test_a_mapping_without_a_part_sets_parameters_of_the_implied_one():
    model = plan(read_model("{use: diffusion, schedule: flow, times: {std: 0.5}, sampler: {steps: 7}}")).resolved.model
    assert model["times"] == use("log-normal", mean=0.0, std=0.5)
    assert (model["sampler"].use, model["sampler"]["steps"]) == ("dpm-solver++", 7)
    assert model["sampler"]["grid"].use == "even"
    problems = list_problems(plan, read_model("{use: diffusion, schedule: edm, sampler: {eta: 0.5}}"))
    assert len(problems) == 1 and "model.sampler.eta: got an unknown key 'eta', expected one of: steps" in problems[0]


def test_what_is_written_as_an_object_stays():
    own = {"times": Uniform, "parametrization": V, "sampler": partial(Euler, steps=4)}
    assert compose(schedule="edm", **own) == ("edm", "uniform", "v", "euler")
    model = Diffusion(X, network=partial(MLPNetwork, **SMALL), schedule=EDM, sampler=partial(Euler, steps=4))
    assert type(model.sampler) is Euler and len(model.sampler.times()) == 5
    assert (model.parametrization.sigma_data, model.times.std) == (0.5, 1.2)


@pytest.mark.parametrize("schedule", [EDM, partial(EDM, sigma_max=50.0), EDM(sigma_max=50.0)], ids=GIVEN)
def test_a_schedule_given_as_an_object_implies_the_same(schedule):
    model = Diffusion(X, network=partial(MLPNetwork, **SMALL), schedule=schedule)
    names = [type(getattr(model, slot)).__name__ for slot in SLOTS]
    assert names == ["EDM", "LogNormal", "EDM", "Heun"]


@pytest.mark.parametrize("schedule", [Bent, partial(Bent, sigma_max=50.0), Bent()], ids=GIVEN)
def test_a_local_schedule_takes_part(schedule):
    model = Diffusion(X, network=partial(MLPNetwork, **SMALL), schedule=schedule)
    assert (model.times.mean, model.sampler.eta, type(model.parametrization)) == (0.5, 0.25, V)


def test_a_local_schedule_in_a_spec_takes_part_and_its_parameters_are_written_out():
    model = plan(spec(use("diffusion", network=NETWORK, schedule=use(Bent)))).resolved.model
    assert model["times"] == use("log-normal", mean=0.5, std=1.2)
    assert (model["sampler"].use, model["sampler"]["eta"], model["parametrization"].use) == ("ddim", 0.25, "v")


def test_of_two_that_imply_different_parts_the_first_of_the_signature_determines():
    for slots in ({"schedule": use("edm"), "times": use(Early)}, {"times": use(Early), "schedule": use("edm")}):
        assert resolve(**slots)[2:] == ("edm", "heun")
    assert resolve(schedule=use(Bent), times=use(Early))[2:] == ("x0", "ddim"), "each slot by itself"


def test_a_part_that_is_named_implies_before_a_default_does():
    def name(**slots):
        return name_parts(plan(spec(use(Host, network=NETWORK, **slots))).resolved.model)

    assert name() == ("edm", "log-normal", "edm", "heun")
    assert name(times=use(Early))[2:] == ("x0", "euler")
    assert name(schedule="cosine") == ("cosine", "uniform", "v", "ddim")


def make_wrong(implies):
    return type("Wrong", (EDM,), {"implies": implies})


@pytest.mark.parametrize(
    ("implies", "message"),
    [
        ({"tmes": "uniform"}, "implies a part for 'tmes', expected the name of a slot, .*did you mean 'times'"),
        ({"weights": "uniform"}, "implies a part for 'weights', expected the name of a slot that holds one part"),
        ({"times": "unifrom"}, "implies a part for 'times' that does not exist: .*did you mean 'uniform'"),
        ({"times": 3}, "implies 3 for 'times', expected a part's name, or a mapping with `use`"),
        ({"times": {"mean": 0.0}}, "implies a mapping for 'times', expected a part's name, or a mapping with `use`"),
        ({"sampler": {"use": "heun", "setps": 3}}, "implies 'sampler' with an unknown key 'setps', expected one of: "),
        ({"sampler": {"use": "heun", "steps": "x"}}, "implies 'sampler' with 'steps': expected int, got 'x'"),
        ("heun", "implies 'heun', expected a mapping from slots to parts"),
    ],
    ids=str,
)
def test_what_cannot_be_implied_is_one_problem_of_the_schedule(implies, message):
    wrong = make_wrong(implies)
    (problem,) = list_problems(plan, spec(use("diffusion", network=NETWORK, schedule=use(wrong))))
    with pytest.raises(SpecError, match=rf"model\.schedule: the schedule .*Wrong {message}") as caught:
        Diffusion(X, schedule=wrong)
    assert "model.schedule: the schedule " in problem and len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("model", "place", "value"),
    [
        (use("bidirectional", encoder="mlp"), "model", {"game": "veegan"}),
        (
            use("autoencoder", encoder="mlp", decoder="mlp", judges={"game": "latent-critic"}),
            "model.judges.game",
            {"against": "shuffled"},
        ),
    ],
)
def test_a_value_implies_a_part_unless_its_slot_is_written(model, place, value):
    def resolve(**slots):
        written = Node({"use": "latent-critic", **slots})
        return plan(spec({**model, **({**slots} if place == "model" else {"judges": {"game": written}})})).resolved

    def name(**slots):
        return resolve(**slots).at(f"{place}.adversarial.use")

    assert (name(), name(**value)) == ("non-saturating", "density-ratio")
    assert name(**value, adversarial="hinge") == "hinge"
    resolved = resolve(**value).model
    assert plan(spec(resolved)).resolved.model == resolved, "nothing is left to imply"


def test_a_value_that_implies_what_cannot_be_is_named_with_its_place():
    (problem,) = list_problems(plan, spec(use(Misled, rules="b")))
    assert "model.rules: the value 'b' implies a part for 'times' that does not exist" in problem


def test_a_slot_that_this_model_lacks_is_passed_over():
    """A denoising GAN has no times, and its sampler is fixed."""
    model = plan(spec(use("denoising-gan", network=NETWORK, discriminator=NETWORK, schedule="edm"))).resolved.model
    assert (model["sampler"].use, "times" in model) == ("ancestral", False)


def test_overrides_of_a_spec_imply_and_reach_into_what_is_implied(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("name: toy\ndata: {use: digits, size: 8}\nmodel: {use: diffusion, network: mlp}\n")
    written = modkit.load_spec(path, ["model.sampler.steps=5", "model.schedule=edm"])
    model = plan(written).resolved.model
    assert name_parts(model) == ("edm", "log-normal", "edm", "heun") and model["sampler"]["steps"] == 5


def test_overrides_of_a_run_imply_nothing(tmp_path):
    """What a branch would train with; a run's own weights take no other schedule."""
    own = spec(use("diffusion", network=NETWORK, sampler=use("ddim", steps=3)), steps=1)
    run = modkit.train(own, tmp_path / "run")
    with pytest.raises(SpecError, match="model.schedule: got edm in a run that has trained with cosine"):
        modkit.load(run, SWAP)
    former = load_run(run).model.composition.plan.resolved.model
    assert name_parts(former) == ("cosine", "uniform", "v", "ddim")
    model = plan(apply(load_current_spec(run), SWAP)[0]).resolved.model
    assert [key for key in model if model[key] != former[key]] == ["schedule"]


def test_a_run_made_without_implied_defaults_keeps_its_parts():
    """A resolved spec of before: every slot is written, and none changes."""
    parts = {"schedule": use("edm"), "times": use("uniform"), "parametrization": use("eps"), "sampler": use("ddim")}
    assert resolve(**parts) == ("edm", "uniform", "eps", "ddim")


def test_the_kinds_of_the_slots_are_those_of_the_implied_parts():
    for implied in (EDM.implies, find("schedule", "flow").load().implies):
        for slot, part in implied.items():
            found = find(slot, part if isinstance(part, str) else part["use"])
            assert isinstance(found, Part) and found.kind == slot


@pytest.mark.parametrize("name", ["eps", "x0", "eps-learned"])
def test_a_target_with_a_skewed_loss_implies_its_weight(name):
    """With equal weights, little noise takes most of the loss of eps, and almost none of that of x_0."""
    for slots, expected in (({}, "min-snr"), ({"loss_weight": "simple"}, "simple")):
        of_spec = plan(spec(use("diffusion", network=NETWORK, parametrization=name, **slots))).resolved.model
        composed = Diffusion(X, network=partial(MLPNetwork, **SMALL), parametrization=name, **slots)
        of_objects = composed.composition.plan.resolved.model
        assert of_spec["loss_weight"].use == of_objects["loss_weight"].use == expected
    assert plan(spec(use("diffusion", network=NETWORK))).resolved.model["loss_weight"].use == "simple"
