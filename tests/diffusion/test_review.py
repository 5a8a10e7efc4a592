import math
import re
from dataclasses import replace
from functools import partial

import pytest
import torch

from modkit import CondType, Spec, TensorType, check, use
from modkit.diffusion import parametrizations as targets
from modkit.diffusion import schedules
from modkit.diffusion.guidance import ClassifierFree, NoGuidance
from modkit.diffusion.log_snr import Learned as LearnedSchedule
from modkit.diffusion.review import (
    draw_times,
    find_drift,
    find_growth,
    find_rarest,
    review_cross_entropy,
    review_drift,
    review_growth,
    review_levels,
    review_scale,
)
from modkit.diffusion.sampler_review import review_distilled, review_ends, review_guidance, review_variance
from modkit.diffusion.time_sampling import LogNormal, Uniform
from modkit.diffusion.variational import variational_bound
from modkit.grids import Even, Karras, Leading, Trailing
from modkit.kinds import Fact, Finding
from modkit.models import DenoisingGAN, Diffusion
from modkit.rng import Rng
from modkit.samplers import DDIM, Consistency, Heun, Restart
from modkit.samplers.ddim import ddim_step

LATENT = TensorType((4, 8, 8), std=1.0)
PICTURE = TensorType((3, 8, 8), (-1, 1), std=0.5)
EDM, LATENT_EDM = schedules.EDM(PICTURE), schedules.EDM(LATENT)
TABLES = {"linear": schedules.Linear(), "cosine": schedules.Cosine(), "vp": schedules.VP()}


def find(notes):
    return [note for note in notes if isinstance(note, Finding)]


def say(notes):
    return " ".join(note.text for note in notes if isinstance(note, Fact))


@pytest.mark.parametrize("name", ["Eps", "X0", "V", "Flow", "EDM"])
@pytest.mark.parametrize("schedule", [*TABLES.values(), EDM, schedules.Flow()], ids=lambda one: type(one).__name__)
def test_growth_is_that_of_a_step_in_float64(name, schedule):
    """Steps with an output that is wrong by 1 differ as the formula says, on x = 0."""
    part, times = getattr(targets, name)(schedule), DDIM(schedule, LATENT, steps=8).times()
    growths, x_t = [], torch.zeros(1, 1, dtype=torch.float64)
    for t, s in zip(times[:-1], times[1:]):
        scales_t, scales_s = schedule.scales(t[None]), schedule.scales(s[None])
        coefficients = part.coefficients(t[None], scales_t)
        ends = [part.denoised(torch.full_like(x_t, out), x_t, coefficients).x_0 for out in (0.0, 1.0)]
        right, wrong = (ddim_step(x_t, x_0, scales_t, scales_s) for x_0 in ends)
        growths.append(float((wrong - right).abs() / torch.hypot(*scales_s)))
    growth = find_growth(schedule, part, times)
    assert growth.factor == pytest.approx(max(growths), rel=1e-9)
    index = times.tolist().index(growth.t)  # that of one of them, where several are alike
    assert growth.s == float(times[index + 1]) and growths[index] == pytest.approx(max(growths), rel=1e-9)


def test_the_growth_of_eps_is_what_the_table_leaves_of_the_signal():
    """(alpha_s sigma_t / alpha_t - sigma_s) / sqrt(alpha_s^2 + sigma_s^2), 631 in the first of 50 steps on `cosine`."""
    schedule = schedules.Cosine()
    (alpha_t, alpha_s), (sigma_t, sigma_s) = schedule.scales(torch.tensor([1.0, 0.98], dtype=torch.float64))
    expected = (alpha_s * sigma_t / alpha_t - sigma_s) / torch.hypot(alpha_s, sigma_s)
    growth = find_growth(schedule, targets.Eps(schedule), DDIM(schedule, LATENT, steps=50).times())
    assert growth == pytest.approx((float(expected), 1.0, 0.98)) and round(growth.factor) == 631


@pytest.mark.parametrize("steps", [1, 2, 8, 50])
def test_v_never_grows_an_error(steps):
    for schedule in (*TABLES.values(), EDM, schedules.Flow()):
        times = DDIM(schedule, LATENT, steps=steps).times()
        assert find_growth(schedule, targets.V(schedule), times).factor <= 1 + 1e-12


@pytest.mark.parametrize(
    ("x", "schedule", "options", "refused"),
    [
        (LATENT, "cosine", {"steps": 50}, True),
        (LATENT, "cosine", {"steps": 1000}, True),
        (LATENT, "linear", {"steps": 50}, False),
        (LATENT, "linear", {"steps": 2}, True),
        (LATENT, "cosine", {"clip": [-3.0, 3.0]}, False),
        (PICTURE, "cosine", {}, False),
        (PICTURE, "cosine", {"clip": False}, True),
    ],
)
def test_eps_is_refused_where_it_grows_more_than_tenfold_unclipped(x, schedule, options, refused):
    part = TABLES[schedule]
    found = find(review_growth(x, part, targets.Eps(part), DDIM(part, x, **options)))
    assert [finding.refused for finding in found] == [True] * refused
    if refused:
        assert found[0].path == "parametrization" and found[0].overrides == ("parametrization=v", "sampler.clip=true")


@pytest.mark.parametrize("name", ["Eps", "X0", "V", "Flow", "EDM"])
@pytest.mark.parametrize("schedule", [*TABLES.values(), EDM, schedules.Flow()], ids=lambda one: type(one).__name__)
def test_drift_is_the_sum_of_steps_in_float64(name, schedule):
    """Steps with an output that is wrong by 1 differ as the formula says, on x = 0, in units of x_t / alpha_t."""
    part, times = getattr(targets, name)(schedule), DDIM(schedule, LATENT, steps=8).times()[1:]
    alphas, sigmas = schedule.scales(times)
    most, drift, x_t = float((sigmas / alphas)[3]), 0.0, torch.zeros(1, 1, dtype=torch.float64)
    for t, s in zip(times[:3], times[1:4]):
        scales_t, scales_s = schedule.scales(t[None]), schedule.scales(s[None])
        coefficients = part.coefficients(t[None], scales_t)
        ends = [part.denoised(torch.full_like(x_t, out), x_t, coefficients).x_0 for out in (0.0, 1.0)]
        right, wrong = (ddim_step(x_t, x_0, scales_t, scales_s) for x_0 in ends)
        drift += float((wrong - right).abs() / scales_s[0])
    assert find_drift(schedule, part, times, most, 0.5) == pytest.approx(drift / math.hypot(0.5, most), rel=1e-9)
    assert find_drift(schedule, part, times, math.inf) == 0


LOG_NORMAL = LogNormal(LATENT_EDM, LATENT)


@pytest.mark.parametrize(
    ("part", "schedule", "times", "sampler", "refused"),
    [
        (targets.Eps, LATENT_EDM, LOG_NORMAL, Heun(LATENT_EDM, LATENT, steps=18), True),
        (
            targets.Eps,
            LATENT_EDM,
            LogNormal(LATENT_EDM, LATENT),
            Heun(LATENT_EDM, LATENT, steps=18, grid=partial(Karras, sigma_max=20.0)),
            False,
        ),
        (
            targets.Eps,
            LATENT_EDM,
            LogNormal(LATENT_EDM, LATENT),
            Heun(LATENT_EDM, LATENT, steps=18, clip=[-3.0, 3.0]),
            False,
        ),
        (targets.V, LATENT_EDM, LOG_NORMAL, Heun(LATENT_EDM, LATENT, steps=18), False),
        (targets.EDM, LATENT_EDM, LOG_NORMAL, Heun(LATENT_EDM, LATENT, steps=18), False),
        (targets.Eps, TABLES["linear"], Uniform(TABLES["linear"]), DDIM(TABLES["linear"], LATENT, steps=50), False),
    ],
)
def test_eps_is_refused_where_it_drifts_at_levels_that_training_seldom_visits(part, schedule, times, sampler, refused):
    found = find(review_drift(LATENT, schedule, part(schedule), draw_times(times), sampler))
    assert [(one.path, one.refused) for one in found] == [("parametrization", True)] * refused


class Silent:
    """A plug-in's sampler that does not say what it clips to: the Protocol has it clip to the range of x."""

    def times(self):
        return torch.tensor([1.0, 0.98, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(("x", "refused"), [(LATENT, True), (PICTURE, False)])
def test_a_sampler_that_states_no_bounds_clips_to_the_range(x, refused):
    part = TABLES["cosine"]
    assert bool(find(review_growth(x, part, targets.Eps(part), Silent()))) is refused


@pytest.mark.parametrize(
    ("schedule", "grid", "steps", "last"),
    [
        (LATENT_EDM, Even, 8, 20),
        (LATENT_EDM, Even, 7, None),
        (LATENT_EDM, Even, 80, None),
        (LATENT_EDM, Karras, 8, None),
        (schedules.Flow(), partial(Even, shift=12.0), 8, None),
        (schedules.Flow(), partial(Even, shift=30.0), 8, 4.29),
    ],
)
def test_the_last_of_many_steps_begins_where_there_are_data(schedule, grid, steps, last):
    """The level is what the grid says: 160 / 8 deviations, and s t / (1 - t) at t = 1 / 8 under a shift s."""
    found = find(review_ends(LATENT, schedule, DDIM(schedule, LATENT, steps=steps, grid=grid)))
    assert [note.refused for note in found] == ([] if last is None else [True])
    assert all(f"the last of {steps} steps begins at {last} deviations" in note.message for note in found)


@pytest.mark.parametrize(
    ("schedule", "grid", "steps", "first"),
    [
        (schedules.Linear(num=50, beta_start=1e-4, beta_end=0.02), Trailing, 50, 0.811),
        (TABLES["cosine"], Leading, 500, None),  # t = .999
        (TABLES["cosine"], Leading, 501, 1.02),
        (LATENT_EDM, partial(Karras, sigma_max=2.9), 18, 2.9),
        (LATENT_EDM, partial(Karras, sigma_max=8.1), 18, None),
    ],
)
def test_samples_start_where_no_signal_is_left(schedule, grid, steps, first):
    """The level is sigma_t / alpha_t at the grid's first time, for 50 betas (1 / prod(1 - beta) - 1)^1/2."""
    found = find(review_ends(LATENT, schedule, DDIM(schedule, LATENT, steps=steps, grid=grid)))
    assert [note.refused for note in found] == ([] if first is None else [True])
    assert all(f"expects noise of {first} deviations" in note.message for note in found)
    between = DDIM(LATENT_EDM, LATENT, steps=18, grid=partial(Karras, sigma_max=3.1))
    assert [note.refused for note in find(review_ends(LATENT, LATENT_EDM, between))] == [False]


def test_samplers_of_distilled_networks_are_not_for_denoisers():
    """A wrapper passes on what its sampler is for."""
    inner = Consistency(EDM, PICTURE, steps=18)
    for sampler in (inner, Restart(EDM, PICTURE, sampler=partial(Consistency, steps=18))):
        (found,) = find(review_distilled(sampler))
        assert (found.path, found.refused) == ("sampler", True)
    assert not find(review_distilled(Heun(EDM, PICTURE)))


class Ranged(DDIM):
    """A sampler whose steps need a learned variance."""

    learned_variance = True


@pytest.mark.parametrize("sampler", [Ranged, partial(Restart, sampler=Ranged)])
def test_a_learned_variance_is_asked_for_where_there_is_one(sampler):
    parts = {"network": "mlp", "schedule": "linear", "sampler": sampler}
    models = [Diffusion(PICTURE, parametrization=name, **parts) for name in ("eps-learned", "v")]
    models.append(DenoisingGAN(PICTURE, network="mlp", discriminator="mlp", steps=2, sampler=partial(Ranged, steps=2)))
    lacking = [[note for note in find(model.review()) if "variance" in note.message] for model in models]
    assert lacking[0] == []
    for (found,), got in zip(lacking[1:], ("V", "DenoisingGAN")):
        assert (found.path, found.refused) == ("sampler", True) and f"got {got}, which predicts none" in found.message
    assert lacking[1][0].overrides[0] == "parametrization=eps-learned"
    assert not find(review_variance(DDIM(EDM, PICTURE), models[1].parametrization, learned=False))


@pytest.mark.parametrize("std", [1.0, 0.01])
@pytest.mark.parametrize(("part", "refused"), [(targets.X0, True), (targets.V, False)])
def test_the_likelihood_of_a_network_that_predicts_x_0_is_refused(part, refused, std):
    """Between levels a and b it weighs x_0 by 1/2 SNR times 2 ln(b/a), on average (a^-2 - b^-2) / 2."""
    schedule = partial(LearnedSchedule, sigma_min=0.01 * std, sigma_max=100.0 * std)
    model = Diffusion(replace(LATENT, std=std), network="mlp", schedule=schedule, parametrization=part)
    found = [note for note in find(model.review()) if "predicts nothing" in note.message]
    assert [(note.path, note.refused) for note in found] == [("parametrization", True)] * refused
    assert all("a loss of 5,0" in note.message for note in found)


@pytest.mark.parametrize("make", [partial(schedules.EDM, sigma_min=0.01), schedules.Linear])
@pytest.mark.parametrize("part", [targets.X0, targets.V, targets.Eps, targets.EDM])
def test_the_cross_entropy_of_a_network_that_predicts_x_0_is_refused(part, make):
    """In sum, its steps weigh an error of x_0 by half of the highest SNR among them, which is 1e4 in both."""
    schedule = make()
    found = [*review_cross_entropy(LATENT, schedule, part(schedule))]
    refused = [note for note in found if note.refused]
    assert [note.path for note in refused] == ["parametrization"] * (part is targets.X0)
    assert all("a cross entropy of 5,0" in note.message for note in refused)


def zero_network_entropy(schedule, parametrization, std):
    """The bound of a network of zeros, in nats a value, by brute force over data of a deviation."""
    x_0 = std * Rng(0).normal("x", torch.empty(4000, 4, dtype=torch.float64))

    def denoise(x_t, t):
        coefficients = parametrization.coefficients(t, schedule.scales(t))
        return parametrization.denoised(torch.zeros_like(x_t), x_t, coefficients)

    return -float(variational_bound(schedule, denoise, x_0, 8, Rng(1)).mean()) / 4


@pytest.mark.parametrize(
    ("schedule", "part", "nats"),
    [("flow", "Flow", 5.64), ("flow", "V", None), ("flow", "EDM", None), ("flow", "Eps", 5.80), ("edm", "Flow", 4.96),
     ("edm", "EDM", None), ("vp", "Flow", 5.64)],
)  # fmt: skip
def test_a_prior_far_from_normal_is_noted_in_joint_training(schedule, part, nats):
    """Against the bound by brute force, which also has the first step, of up to half a nat."""
    latent = TensorType((4,), std=1.0)
    schedule = {"flow": schedules.Flow(), "edm": schedules.EDM(latent), "vp": schedules.VP()}[schedule]
    part = targets.EDM(schedule, latent) if part == "EDM" else getattr(targets, part)(schedule)
    found = [*review_cross_entropy(latent, schedule, part)]
    measured = zero_network_entropy(schedule, part, 1.0)
    assert measured == pytest.approx(1.419 if nats is None else nats, rel=0.03 if nats is None else 0.1)
    if nats is None:
        assert not found
        return
    (note,) = found
    assert (note.path, note.refused) == ("parametrization", False)
    assert note.overrides == ("parametrization=v", "parametrization=edm")
    assert f"a cross entropy of {nats:.3g} nats a value, and a standard normal prior one of 1.42;" in note.message


def test_the_cross_entropy_of_a_schedule_that_is_learned_is_reviewed_as_far_as_it_has_values():
    class Unknown(LearnedSchedule):
        def scales(self, t):
            return super().scales(t.to("meta"))

    found = [
        [*review_cross_entropy(LATENT, schedule, targets.X0(schedule))]
        for schedule in (LearnedSchedule().to("meta"), Unknown().to("meta"))
    ]
    assert [len(notes) for notes in found] == [1, 0]


def test_a_loss_weight_that_is_learned_is_reviewed_once_it_has_values():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(1, 1)
            torch.nn.init.zeros_(self.net.weight)
            torch.nn.init.constant_(self.net.bias, 10.0)

        def forward(self, snr, error_scale):
            return error_scale * self.net(snr.log()[:, None].float())[:, 0].exp()

    network = use("mlp", width=4, depth=1)
    spec = Spec(data=use("digits", size=8), model=use("diffusion", network=network, loss_weight=use(Net)))
    assert not [note for note in check(spec).findings if "predicts nothing" in note.message]
    model = Diffusion(LATENT, network=network, parametrization="x0", loss_weight=Net)
    assert [note.path for note in find(model.review()) if "predicts nothing" in note.message] == ["parametrization"]


def test_coverage_is_the_share_of_draws_within_a_factor():
    """Of log-normal levels, the difference of two normal distribution functions."""
    drawn = torch.exp(-0.5 + 1.2 * torch.special.ndtri((torch.arange(10**5, dtype=torch.float64) + 0.5) / 10**5))
    asked = torch.tensor([0.01, 0.3, 1.0, 9.0, 80.0], dtype=torch.float64)
    share = [
        sum(
            sign * 0.5 * math.erfc(-(math.log(level) + side + 0.5) / 1.2 / 2**0.5)
            for sign, side in ((1, 0.25), (-1, -0.25))
        )
        for level in asked.tolist()
    ]
    assert find_rarest(drawn, asked) == pytest.approx((9.0, share[3]), abs=2e-5)
    assert find_rarest(drawn, asked[[0, -1]]) is None  # what lies outside .25 to 10 does not count


PUBLISHED = {
    "DDPM": (PICTURE, schedules.Linear(), Uniform, DDIM),
    "DDPM, cosine": (PICTURE, schedules.Cosine(), Uniform, DDIM),
    "Score SDE": (PICTURE, schedules.VP(), Uniform, DDIM),
    "EDM": (PICTURE, EDM, LogNormal, Heun),
    "EDM2": (PICTURE, EDM, lambda schedule: LogNormal(schedule, mean=-0.4, std=1.0), Heun),
    "EDM on a latent": (LATENT, LATENT_EDM, lambda schedule: LogNormal(schedule, mean=-0.5), Heun),
    "rectified flow": (LATENT, schedules.Flow(), Uniform, DDIM),
    "SD3": (LATENT, schedules.Flow(), lambda schedule: LogNormal(schedule, mean=0.0, std=1.0), DDIM),
    "the most one-sided of SD3's": (
        LATENT,
        schedules.Flow(),
        lambda schedule: LogNormal(schedule, mean=1.0, std=0.6),
        DDIM,
    ),
    "EDM's sampler on DDPM": (PICTURE, schedules.Linear(), Uniform, Heun),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_pairings_have_nothing_to_object_to(name):
    x, schedule, times, sampler = PUBLISHED[name]
    notes = list(review_levels(x, schedule, draw_times(times(schedule)), sampler(schedule, x), "times", ()))
    assert not find(notes) and "noise levels in deviations of the data" in say(notes)


@pytest.mark.parametrize(
    ("x", "schedule", "times", "message"),
    [
        (
            LATENT,
            LATENT_EDM,
            Uniform(LATENT_EDM),
            r"0\.\d% of training's noise levels and .* are below the deviation of the data",
        ),
        (PICTURE, EDM, Uniform(EDM), r"0\.\d% of training's noise levels and .* are below"),
        (LATENT, LATENT_EDM, LogNormal(LATENT_EDM, mean=3.0), r"0\.\d% of training's noise levels and .* are below"),
        (LATENT, LATENT_EDM, LogNormal(LATENT_EDM, mean=-4.0), r"0\.\d% of training's noise levels and .* are above"),
        (LATENT, LATENT_EDM, LogNormal(LATENT_EDM, std=0.0), "0.0% of training's noise levels and .* are above"),
        (
            LATENT,
            LATENT_EDM,
            LogNormal(LATENT_EDM, mean=0.0, std=0.1),
            r"the noise level .* got 0\.00% of its draws",
        ),
        (LATENT, schedules.Linear(), LogNormal(schedules.Linear(), mean=-5.0), "are above"),
    ],
)
@pytest.mark.parametrize("steps", [4, 18, 20])
def test_levels_that_training_does_not_visit_are_refused(x, schedule, times, message, steps):
    sampler = Heun(schedule, x, steps=steps)
    (found,) = find(review_levels(x, schedule, draw_times(times), sampler, "times", ("times=uniform",)))
    assert (found.path, found.overrides, found.refused) == ("times", ("times=uniform",), True)
    assert re.search(message, found.message)


def test_a_few_steps_are_trained_at_their_own_levels_alone():
    chain = schedules.Even(schedules.VP(), 4)
    own, between, drawn = DDIM(chain, PICTURE, steps=4), Heun(chain, PICTURE), draw_times(Uniform(chain))
    assert not find(review_levels(PICTURE, chain, drawn, own, "sampler", ()))
    assert find(review_levels(PICTURE, chain, drawn, between, "sampler", ()))[0].refused


def test_the_deviation_of_the_networks_input_is_that_of_its_scaling():
    sampler = Heun(EDM, LATENT)
    right = list(review_scale(LATENT, EDM, targets.EDM(EDM, sigma_data=1.0), sampler))
    assert say(right) == "the network's input has a deviation of 1 to 1" and not find(right)
    wrong = list(review_scale(LATENT, EDM, targets.EDM(EDM, sigma_data=0.02), sampler))
    lowest = float(EDM.scales(sampler.times()[-3])[1])  # of at most 16 levels, every second of 18
    assert say(wrong).endswith(f"1 to {math.sqrt((1 + lowest**2) / (0.02**2 + lowest**2)):.2g}")
    assert [(found.path, found.refused) for found in find(wrong)] == [("parametrization", False)]


class Conditions:
    """A plug-in's conditioner: it states what it does with its conditions in training."""

    def __init__(self, drop, type):
        self.drop, self.type = drop, type


class Late:
    """A plug-in's guidance, without the other prediction above t = .5."""

    def __call__(self, sides):
        return lambda x_t, t: sides(x_t, t, "cond" if t > 0.5 else "null")[0]


@pytest.mark.parametrize(
    ("guidance", "drop", "type", "overrides"),
    [
        (ClassifierFree(), 0.0, CondType(vector=4), ("conditioner.drop=0.1", "guidance=none")),
        (ClassifierFree(), 0.0, CondType(concat=LATENT), ("guidance=none",)),
        (ClassifierFree(), 0.0, CondType(), ("guidance=none",)),
        (Late(), 0.0, CondType(labels=3), ("conditioner.drop=0.1", "guidance=none")),
        (ClassifierFree(), 0.1, CondType(vector=4), None),
        (ClassifierFree(), None, CondType(vector=4), None),  # not stated
        (ClassifierFree(scale=1.0), 0.0, CondType(vector=4), None),
        (NoGuidance(), 0.0, CondType(), None),
    ],
)
def test_guidance_without_a_null_is_refused(guidance, drop, type, overrides):
    found = list(review_guidance(guidance, Conditions(drop, type), LATENT, (1.0, 0.6, 0.2)))
    assert [finding.overrides for finding in found] == ([] if overrides is None else [overrides])
    assert all(finding.refused for finding in found)


class Learned(torch.nn.Module):
    """A plug-in's parametrization with a scale that is learned, and so unknown on the meta device."""

    def __init__(self, scale):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def coefficients(self, t, scales):
        return {"one": torch.ones_like(t)}

    def error_scale(self, coefficients):
        return self.scale**2 * coefficients["one"].to(self.scale.device)


def test_a_plugins_parametrization_is_judged_by_its_own_scale():
    schedule = TABLES["cosine"]
    sampler = DDIM(schedule, LATENT)
    assert not find(review_growth(LATENT, schedule, Learned(5.0), sampler))
    assert find(review_growth(LATENT, schedule, Learned(500.0), sampler))[0].refused
    assert not list(review_growth(LATENT, schedule, Learned(500.0).to("meta"), sampler))
