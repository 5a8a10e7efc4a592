"""Implied defaults, for specs and objects alike: what is left out, what wins, and which mistakes are named where."""

import re
from functools import partial

import pytest
import torch

import modkit
from modkit import Spec, TensorType, spec_of, use
from modkit.building.plan import plan
from modkit.diffusion.schedules import EDM, VP
from modkit.diffusion.time_sampling import Uniform
from modkit.kinds import Conditioner, Network, Parametrization, Sampler, Schedule, Slot, Times, default
from modkit.models import Diffusion, Latent
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.specs.overrides import apply, locate
from tests.plugin_factory import make_plugin
from tests.refusals import list_problems

X = TensorType((2,))
SLOTS = ("times", "parametrization", "sampler")


def resolve(**slots):
    """The model of the resolved spec of a diffusion, and the names of what fills the slots."""
    model = plan(Spec(model=use("diffusion", network="mlp", **slots), x={"shape": [2]})).resolved.model
    return model, tuple(model[slot].use for slot in SLOTS)


def draw_levels(schedule, times):
    """Noise levels at which a denoiser is trained."""
    alpha, sigma = schedule.scales(times(20_000, Rng(0)))
    return sigma / alpha


def test_edm_alone_is_trained_where_its_samples_are_decided():
    """The fault: times stayed uniform, so that 1.1 % of the levels were below 1, and their median was 41."""
    model = modkit.build(Spec(model=use("diffusion", network="mlp", schedule="edm"), x={"shape": [2]}))
    uniform, levels = (draw_levels(model.schedule, times) for times in (Uniform(model.schedule), model.times))
    assert (uniform < 1).double().mean() < 0.02 and uniform.median() > 35
    # ln sigma ~ N(-1.2, 1.2): P(sigma < 1) = Phi(1) = .841, the median is e^-1.2 = .301; 20,000 draws
    assert (levels < 1).double().mean().item() == pytest.approx(0.841, abs=0.01)
    assert levels.median().item() == pytest.approx(0.301, abs=0.01)


@pytest.mark.parametrize(
    ("schedule", "names"),
    [
        ("edm", ("log-normal", "edm", "heun")),
        ("flow", ("log-normal", "flow", "dpm-solver++")),
        ("cosine", ("uniform", "v", "ddim")),
        ("linear", ("uniform", "v", "ddim")),
        ("vp", ("uniform", "v", "ddim")),
    ],
)
def test_what_each_schedule_implies_is_written_out(schedule, names):
    model, found = resolve(schedule=schedule)
    assert found == names
    assert plan(Spec(model=model, x={"shape": [2]})).resolved.model == model


def test_flow_draws_logit_normal_times_and_steps_evenly():
    model = Diffusion(X, network="mlp", schedule="flow")
    t = model.times(20_000, Rng(0))
    logits = torch.log(t / (1 - t))
    assert logits.mean().abs() < 0.03 and (logits.std() - 1).abs() < 0.03  # 4 standard errors
    torch.testing.assert_close(model.sampler.times(), torch.linspace(1, 0, 21, dtype=torch.float64))


def test_what_is_written_wins_and_a_mapping_without_use_changes_the_implied_part():
    model, found = resolve(schedule="edm", times="uniform", sampler=use("ddim", steps=5))
    assert found == ("uniform", "edm", "ddim") and model["sampler"]["steps"] == 5
    model, _ = resolve(schedule="flow", times={"std": 2.0}, sampler={"steps": 7})
    assert model["times"] == use("log-normal", mean=0.0, std=2.0)
    assert (model["sampler"].use, model["sampler"]["steps"], model["sampler"]["spacing"]) == ("dpm-solver++", 7, "even")
    model, _ = resolve(schedule="flow", times=use("log-normal", std=2.0))
    assert "mean" not in model["times"], "a named part has its own defaults"


@pytest.mark.parametrize("schedule", ["edm", "flow", "cosine"])
def test_a_spec_and_objects_are_filled_the_same(schedule):
    composed = spec_of(Diffusion(X, network="mlp", schedule=schedule)).model
    assert composed == resolve(schedule=schedule)[0]
    if schedule == "edm":
        assert spec_of(Diffusion(X, network="mlp", schedule=EDM)).model == composed
        assert spec_of(Diffusion(X, network="mlp", schedule=partial(EDM))).model == composed
        inner = Latent(
            X,
            autoencoder=use("autoencoder", encoder="mlp", decoder="mlp"),
            prior=partial(Diffusion, network="mlp", schedule=EDM),
        )
        assert type(inner.prior.sampler).__name__ == "Heun"


class Steep(VP):
    """A schedule of one's own."""

    implies = {"times": "log-normal", "sampler": {"use": "euler", "steps": 3}}


@pytest.mark.parametrize(
    "schedule", [Steep, Steep(), partial(Steep, beta_max=10.0)], ids=["class", "object", "partial"]
)
def test_a_schedule_of_ones_own_takes_part_whichever_way_it_is_given(schedule):
    model = Diffusion(X, network="mlp", schedule=schedule)
    assert [type(getattr(model, slot)).__name__ for slot in SLOTS] == ["LogNormal", "V", "Euler"]
    assert len(model.sampler.times()) == 4
    kept = Diffusion(X, network="mlp", schedule=schedule, sampler="heun")
    assert type(kept.sampler).__name__ == "Heun"


def test_a_slot_that_an_assembly_passes_on_implies_inside_it():
    class Outer(Model):
        """A model around another one."""

        def __init__(self, x: TensorType, *, schedule: Slot[Schedule] = default("cosine")) -> None:
            super().__init__()
            self.event = x
            self.inner = Diffusion(x, network="mlp", schedule=schedule)

        def players(self):
            return self.inner.players()

        def losses(self, player, batch, step):
            return self.inner.losses(player, batch, step)

        def draw(self, num, fields, cond, rng):
            return self.inner.draw(num, fields, cond, rng)

    assert type(Outer(X, schedule="edm").inner.sampler).__name__ == "Heun"
    assert type(Outer(X).inner.sampler).__name__ == "DDIM"


def test_an_assembly_may_fix_a_default():
    """A GAN of four steps is not asked 35 times because its schedule is EDM's."""
    spec = Spec(model=use("denoising-gan", schedule="edm"), x={"shape": [1, 8, 8], "range": [-1, 1]})
    assert plan(spec).resolved.model["sampler"].use == "ancestral"


class Assembly(Model):
    """Slots in which parts imply each other's neighbours."""

    def __init__(
        self,
        x: TensorType,
        *,
        network: Slot[Network] = default("unet"),
        schedule: Slot[Schedule] = default("cosine"),
        times: Slot[Times] = default("uniform"),
        parametrization: Slot[Parametrization] = default("v"),
        sampler: Slot[Sampler] = default("ddim"),
        conditioner: Slot[Conditioner] = default("none"),
    ) -> None:
        super().__init__()


def follow(network, **slots):
    """What fills the slots of `Assembly` around a network that implies something."""
    model = use(Assembly, network=use(type("Net", (), network)), **slots)
    resolved = plan(Spec(model=model, x={"shape": [2]})).resolved.model
    return tuple(resolved[slot].use for slot in ("schedule", *SLOTS))


def test_what_is_implied_implies_in_turn_and_the_first_in_the_signature_wins():
    def init(self, x: TensorType) -> None: ...

    network = {"__init__": init, "implies": {"schedule": "edm"}}
    assert follow(network) == ("edm", "log-normal", "edm", "heun")
    assert follow(network, schedule="linear") == ("linear", "uniform", "v", "ddim")
    network["implies"] = {"sampler": "euler", "times": "uniform"}
    assert follow(network, schedule="edm") == ("edm", "uniform", "edm", "euler"), (
        "the network comes before the schedule"
    )
    late = type("Late", (), {"implies": {"sampler": "euler"}, "type": None, "reads": ()})
    assert follow({"__init__": init}, schedule="flow", conditioner=use(late))[3] == "dpm-solver++"
    assert follow({"__init__": init}, conditioner=use(late))[3] == "euler", "a later part implies for an earlier slot"


SOURCE = """
    from modkit.part import Part, hookimpl
    from modkit.diffusion.schedules import EDM

    class Mine(EDM):
        '''A schedule.'''
        implies = IMPLIES

    @hookimpl
    def modkit_parts():
        return [Part("schedule", "mine", __name__ + ":Mine", "A schedule")]
"""


def test_a_plugins_schedule_takes_part(site):
    make_plugin(site, "acme", SOURCE.replace("IMPLIES", '{"sampler": {"use": "euler", "steps": 9}}'))
    model, found = resolve(schedule="acme/mine")
    assert found == ("uniform", "v", "euler") and model["sampler"]["steps"] == 9


@pytest.mark.parametrize(
    ("implies", "message"),
    [
        ("{'time': 'log-normal'}", "implies a part for 'time', expected the name of a slot, such as .*'times'"),
        ("{'times': 'log-nromal'}", "implies a part for 'times' that does not exist: .*did you mean 'log-normal'"),
        ("{'times': {'use': 'log-normal', 'men': 1.0}}", "implies 'times' with an unknown key 'men', expected one of"),
        ("{'times': {'use': 'log-normal', 'std': 'x'}}", "implies 'times' with 'std': expected float, got 'x'"),
        ("{'times': 3}", "implies 3 for 'times', expected a part's name, or a mapping with `use`"),
        ("{'weights': 'balanced'}", "implies a part for 'weights', expected the name of a slot that holds one part"),
        ("['times']", r"implies a list.*, expected a mapping from slots to parts"),
    ],
)
def test_a_mistake_is_one_error_at_the_part_that_implies(site, implies, message):
    make_plugin(site, "acme", SOURCE.replace("IMPLIES", implies))
    (problem,) = list_problems(lambda: resolve(schedule="acme/mine"))
    assert problem.startswith("model.schedule")
    assert re.search("the schedule acme/mine " + message, problem), problem


def test_an_override_of_a_spec_derives_and_of_a_run_never(tmp_path):
    """A run's spec names every part, so there is nothing to imply."""
    spec = Spec(name="toy", data=use("digits", size=8), model=use("diffusion", network=use("mlp", width=8, depth=1)))
    spec = spec.with_value("train", {"steps": 1, "batch_size": 4, "device": "cpu", "samples": {"num": 4}})
    changed, _ = apply(spec, ["model.schedule=edm"])
    assert [plan(changed).resolved.model[slot].use for slot in SLOTS] == ["log-normal", "edm", "heun"]
    run = modkit.train(spec, out=tmp_path / "run")
    loaded = modkit.load(run, ["model.schedule=edm"])
    assert [type(getattr(loaded, slot)).__name__ for slot in ("schedule", *SLOTS)] == ["EDM", "Uniform", "V", "DDIM"]
    resumed = Spec.from_yaml(run.spec_text)
    assert all(resumed.model[slot].use == name for slot, name in zip(SLOTS, ("uniform", "v", "ddim")))


def test_slots_below_an_implied_part_have_their_place():
    spec = Spec(model=use("diffusion", schedule="flow"))
    assert locate(spec, "sampler") == ["model.sampler"]
    changed, notices = apply(spec, ["model.sampler.order=1"])
    assert plan(Spec(model=changed.model, x={"shape": [1, 8, 8]})).resolved.model["sampler"]["order"] == 1
    assert notices == []
