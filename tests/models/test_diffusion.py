import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

import modkit
from modkit import build, use
from modkit.diffusion.couplings import Optimal
from modkit.diffusion.guidance import Perturbed, choose_layers
from modkit.nn import DiT
from modkit.nn.attention import attend_to_itself
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType
from tests.float64 import NoFloat64
from tests.play import digits, shake, spec, turn
from tests.refusals import refusals

LABEL = {"conditioner": use("label", width=5, drop=0.5)}


class Affine(nn.Module):
    """out = a x + b time + c vector, cycled over the channels asked for."""

    def __init__(self, x, out, cond):
        super().__init__()
        self.copies = out.shape[0] // x.shape[0]
        self.weight = nn.Parameter(torch.tensor([0.7, 0.1]))

    def forward(self, x, cond):
        shift = self.weight[1] * cond.time
        if cond.vector is not None:
            shift = shift + cond.vector.sum(1)
        return (self.weight[0] * x + shift.view(-1, 1, 1, 1).to(x)).repeat(1, self.copies, 1, 1)


def made(**slots):
    own = {"network": use(Affine), "schedule": use("linear", num=20), "sampler": use("ddim", steps=4)}
    return build(spec(use("diffusion", **{**own, **slots}))).double()


@pytest.mark.parametrize("schedule", [use("linear", num=20), use("edm")], ids=["linear", "edm"])
@pytest.mark.parametrize("name", ["eps", "x0", "v", "edm", "eps-learned"])
def test_denoising_is_the_squared_error_against_the_parametrization_s_target(name, schedule):
    if name == "eps-learned" and schedule.use == "edm":
        with pytest.raises(ValueError, match="expects a schedule with a table"):
            made(parametrization=name, schedule=schedule)
        return
    slots = {"parametrization": name, "schedule": schedule, "loss_weight": "simple"}
    model, batch = made(**slots), digits(6, torch.float64)
    rng, x_0 = turn("a").rng, batch.tensor
    t = model.times(6, rng.at("times"))
    eps = rng.normal("eps", x_0)
    alpha, sigma = (scale.view(-1, 1, 1, 1) for scale in model.schedule.scales(t))
    x_t, level, r = alpha * x_0 + sigma * eps, sigma / alpha, (alpha**2 + sigma**2).sqrt()
    d = model.event.std
    root = (level**2 + d**2).sqrt()
    x_in, time = x_t / r, (20 * t - 1 if schedule.use == "linear" else level.flatten().log() / 4)
    target = {"x0": x_0, "v": (alpha * eps - sigma * x_0) / r}.get(name, eps)
    if name == "edm":
        x_in, time = x_t / alpha / root, level.flatten().log() / 4
        target = (x_0 - (d / root) ** 2 * x_t / alpha) / (d * level / root)
    out = model.network(x_in, Cond(time=time))[:, :1]
    losses = model.losses("denoiser", batch, turn("a"))
    assert list(losses) == ["denoising", *(["bound"] if name == "eps-learned" else [])]
    torch.testing.assert_close(losses["denoising"], (out - target).square().mean(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("given, expected", [({}, 0.02), ({"bound": 3.0}, 3.0), ({"denoising": 2.0}, 0.02)])
def test_the_user_s_weights_come_before_the_parametrization_s_default(given, expected):
    weights = made(parametrization="eps-learned", weights=given).weights("denoiser")
    assert {name: weight(turn(), {}, None) for name, weight in weights.items()} == {"bound": expected} | given
    assert made().weights("denoiser") == {}


@pytest.mark.parametrize("name, shift", [("eps", 0), ("v", 1)])
def test_the_loss_weight_multiplies_each_sample_s_denoising(name, shift):
    model, batch = made(parametrization=name, loss_weight="min-snr"), digits(6, torch.float64)
    rng, x_0 = turn("a").rng, batch.tensor
    t = model.times(6, rng.at("times"))
    eps = rng.normal("eps", x_0)
    alpha, sigma = (scale.view(-1, 1, 1, 1) for scale in model.schedule.scales(t))
    out = model.network(alpha * x_0 + sigma * eps, Cond(time=20 * t - 1))
    target = eps if name == "eps" else alpha * eps - sigma * x_0
    snr = (alpha / sigma).flatten() ** 2
    want = (snr.clamp(max=5) / (snr + shift) * (out - target).square().mean((1, 2, 3))).mean()
    torch.testing.assert_close(model.losses("denoiser", batch, turn("a"))["denoising"], want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("conditions", [{}, LABEL], ids=["none", "label"])
def test_the_noise_is_that_of_the_coupling_within_the_classes_that_the_model_is_conditioned_on(conditions):
    model, batch = made(coupling="optimal", **conditions), digits(12, torch.float64)
    seen = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.losses("denoiser", batch, turn("a"))
    types = {"labels": TensorType((), classes=10)} if conditions else {}
    eps = Optimal(conditions=types)(batch.tensor, batch.fields, turn("a").rng)
    t = model.times(12, turn("a").rng.at("times"))
    alpha, sigma = (scale.view(-1, 1, 1, 1) for scale in model.schedule.scales(t))
    torch.testing.assert_close(seen[0], alpha * batch.tensor + sigma * eps, rtol=1e-12, atol=0)
    assert not torch.equal(eps, turn("a").rng.normal("eps", eps))


def test_times_are_drawn_for_each_sample():
    model, x = made(), digits(1, torch.float64).tensor.repeat(64, 1, 1, 1)
    seen = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[1].time))
    model.losses("denoiser", Batch(x, {}), turn("a"))
    assert set(seen[0].tolist()) <= set(range(20)) and len(seen[0].unique()) > 12


def test_a_dropped_label_is_no_label_and_an_outer_condition_is_joined():
    model, batch = made(**LABEL), digits(64, torch.float64)
    seen = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[1].vector))
    model.losses("denoiser", batch, turn("a"))
    model.losses("denoiser", Batch(batch.x, batch.fields, Cond(vector=torch.ones(64, 2).double())), turn("a"))
    null = (seen[0] == model.conditioner.embedding.weight[10]).all(1)
    labels = model.conditioner.embedding(batch.fields["labels"])
    assert 16 < null.sum() < 48 and torch.equal(seen[0][~null], labels[~null])
    assert torch.equal(seen[1], torch.cat([seen[0], torch.ones(64, 2)], 1))


def test_everything_that_learns_belongs_to_the_denoiser():
    (player,) = made(**LABEL).players()
    assert (player.name, player.modules) == ("denoiser", ("network", "conditioner"))
    assert made().players()[0].modules == ("network",)


@pytest.mark.parametrize(
    "sampler", [use("ancestral", steps=5), use("ddim", steps=5, eta=0.5), use("dpm-solver++", steps=5)]
)
def test_a_draw_is_the_sampler_s_loop_from_noise(sampler):
    model = made(sampler=sampler).float()
    rng = Rng("sample", 3)

    def denoise(x_t, t):
        rows = t.expand(len(x_t))
        coefficients = model.parametrization.coefficients(rows, model.schedule.scales(rows))
        x_in, time = model.parametrization.inputs(x_t, coefficients)
        return model.parametrization.denoised(model.network(x_in, Cond(time=time)), x_t, coefficients)

    times = model.sampler.times()
    x_t, state = model.sampler.start(rng.normal("start", torch.empty(7, 1, 8, 8)), times[0]), None
    for index, (t, s) in enumerate(pairwise(times)):
        x_t, state = model.sampler.step(denoise, x_t, t, s, state, rng.at("sampler", index))
    assert torch.equal(model.sample(7, seed=3), x_t)
    assert times[-1] == 0 and x_t.abs().max() <= 1 and x_t.std() > 0.1


def test_guidance_combines_the_label_s_denoiser_with_that_of_none():
    model = made(**LABEL, guidance=use("cfg", scale=3.0), sampler=use("ddim", steps=1)).float()
    eps = Rng("sample", 0).normal("start", torch.empty(3, 1, 8, 8))
    one = torch.ones(3, dtype=torch.float64)
    coefficients = model.parametrization.coefficients(one, model.schedule.scales(one))
    x_t = model.sampler.start(eps, one[0])
    x_in, time = model.parametrization.inputs(x_t, coefficients)

    def x_0(label):
        vector = model.conditioner.embedding.weight[label].expand(3, -1)
        out = model.network(x_in, Cond(vector=vector, time=time))
        return model.parametrization.denoised(out, x_t, coefficients).x_0

    want = (x_0(10) + 3 * (x_0(2) - x_0(10))).clamp(-1, 1)
    torch.testing.assert_close(model.sample(3, seed=0, labels=2), want.detach())


def test_labels_not_given_are_drawn_from_the_data_s():
    model, batch = made(**LABEL, sampler=use("ddim", steps=3)).float(), digits(64)
    threes = batch.fields["labels"] == 3
    assert not torch.equal(model.sample(4, seed=0), model.sample(4, seed=0, labels=3))
    model.prepare("denoiser", [Batch(batch.tensor[threes], {"labels": batch.fields["labels"][threes]})], Rng(0))
    assert torch.equal(model.sample(4, seed=0), model.sample(4, seed=0, labels=3))


def test_samples_stay_in_the_range_whatever_the_sampler_clips():
    """The fault: samplers that do not clip left it, and `evaluate` refused the samples."""
    model = made(sampler=use("ddim", steps=4, clip=False), parametrization="x0").float()
    x, (low, high) = model.sample(64, seed=0), model.single.range
    assert x.min() == low and x.max() == high  # beyond them without the clamp


@pytest.mark.parametrize("sampler", [use("ddim", steps=4), use("ancestral", steps=4)], ids=["ddim", "ancestral"])
def test_samples_of_a_seed_are_the_same_in_any_batches(sampler):
    model = build(spec(use("diffusion", network=use("mlp", width=16, depth=1), **LABEL, sampler=sampler)))
    nn.init.normal_(model.network.out.weight, generator=torch.Generator().manual_seed(0))  # it starts at zero
    whole = model.sample(9, seed=4)
    assert torch.equal(model.sample(9, seed=4, batch_size=256), whole)
    for size in (1, 2, 5):
        torch.testing.assert_close(model.sample(9, seed=4, batch_size=size), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.sample(3, seed=4), whole[:3], rtol=1e-4, atol=1e-5)
    assert not torch.equal(model.sample(9, seed=5), whole)
    labels = list(range(9))
    want = torch.cat([model.sample(9, seed=4, labels=label)[label : label + 1] for label in labels])
    torch.testing.assert_close(model.sample(9, seed=4, labels=labels, batch_size=4), want, rtol=1e-4, atol=1e-5)


def test_samples_are_made_in_eval_mode_without_gradients_and_modes_are_put_back():
    model = made(**LABEL, sampler=use("ddim", steps=1)).float().train()
    model.conditioner.eval()
    modes = []
    model.network.register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
    assert not model.sample(2, seed=0).requires_grad
    assert modes == [(False, False)]
    assert model.training and model.network.training and not model.conditioner.training


test_what_cannot_be_sampled_is_said = refusals(
    ({"num": 0}, "num >= 1, batch_size >= 1 and first >= 0, got 0, 256 and 0"),
    ({"batch_size": 0}, "num >= 1, batch_size >= 1 and first >= 0, got 2, 0 and 0"),
    ({"seed": 0, "generator": torch.Generator()}, "a seed or a generator, got both"),
    ({"label": 3}, "the field 'label', expected one of: labels"),
    ({"slots": {}, "labels": 3}, "expected one of: none: the model is unconditional"),
    ({"labels": [1, 2, 3]}, "one value of 'labels' for each of 2 samples, got 3"),
    ({"labels": 10}, r"labels in \[0, 10\), got 10..10"),
    of=lambda options: made(**options.pop("slots", LABEL)).float().sample(**{"num": 2, **options}),
)


def test_a_generator_gives_a_seed_and_moves_on():
    model = made(sampler=use("ddim", steps=1)).float()
    generator = torch.Generator().manual_seed(0)
    first, second = model.sample(2, generator=generator), model.sample(2, generator=generator)
    assert torch.equal(first, model.sample(2, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(first, second) and not torch.equal(model.sample(2), model.sample(2))


SCHEDULES = ("linear", "cosine", "edm", "flow", "vp")
PARAMETRIZATIONS = ("eps", "x0", "v", "edm", "flow", "eps-learned")
STEPS = {
    "ddim": use("ddim", steps=2, eta=0.5),
    "ancestral": use("ancestral", steps=2),
    "euler": use("euler", steps=2),
    "heun": use("heun", steps=2, churn=2.0),
    "dpm-solver++": use("dpm-solver++", steps=3),
}


@pytest.mark.wide(1)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_no_float64_reaches_the_device(name, schedule, request):
    if name == "eps-learned" and schedule in ("edm", "flow", "vp"):
        pytest.skip("it needs a table")
    names = ["log-normal" if schedule == "edm" else "uniform", "log-normal"]  # `edm` with uniform times is refused
    every = list(zip(STEPS.values(), names * 3, ["simple", "min-snr"] * 3))
    if not request.config.getoption("--full"):  # each sampler with each parametrization, and with each schedule
        every = [every[(PARAMETRIZATIONS.index(name) + SCHEDULES.index(schedule)) % len(every)]]
    for sampler, times, weight in every:
        own = {"schedule": use(schedule), "parametrization": name, "sampler": sampler}
        times = "log-normal" if schedule == "edm" else times  # with uniform ones it is refused
        model = build(spec(use("diffusion", network=use("mlp", width=8), times=times, loss_weight=weight, **own)))
        model = model.to("meta")
        batch = Batch(torch.empty(2, 1, 8, 8, device="meta"), {})
        with NoFloat64() as mode:
            sum(model.losses("denoiser", batch, turn(0)).values()).backward()
            assert model.draw(2, {}, Cond(), Rng(0)).dtype == torch.float32
        assert mode.elsewhere > 100


@pytest.mark.parametrize("sampler", STEPS.values(), ids=STEPS)
def test_a_bfloat16_model_steps_in_float32_and_its_network_in_bfloat16(sampler):
    seen = []

    class Recording(Affine):
        def forward(self, x, cond):
            seen.append(x.dtype)
            return super().forward(x, cond)

    wide = build(
        spec(use("diffusion", network=use(Recording), schedule="cosine", parametrization="v", sampler=sampler))
    )
    wide.network.weight.data.fill_(0.5)
    narrow = copy.deepcopy(wide).bfloat16()
    seen.clear()
    got = narrow.sample(64, seed=0)
    assert got.dtype == torch.bfloat16 and set(seen) == {torch.bfloat16}
    error = (got.float() - wide.sample(64, seed=0)).square().mean().sqrt()
    assert error < 0.02  # the network's rounding, 2^-9 of values up to 3


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        *((name, use("linear", num=20)) for name in ("eps", "x0", "v", "edm", "flow", "eps-learned")),
        *(("v", schedule) for schedule in ("log-linear", "learned", "flow", "vp")),
    ],
)
def test_its_denoiser_is_the_conditional_prediction_neither_guided_nor_clipped(name, schedule):
    slots = {"parametrization": name, "schedule": schedule, "times": "uniform", "loss_weight": "likelihood"}
    model, batch = made(**slots, guidance=use("cfg", scale=3.0), **LABEL), digits(4, torch.float64)
    x_t = (10 * batch.tensor).requires_grad_()
    t = torch.tensor([0.2, 0.5, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    denoise = model.denoiser(batch.fields)
    coefficients = model.parametrization.coefficients(t, model.schedule.scales(t))
    x_in, time = model.parametrization.inputs(x_t, coefficients)
    cond = Cond(vector=model.conditioner.embedding(batch.fields["labels"]), time=time)
    want = model.parametrization.denoised(model.network(x_in, cond), x_t, coefficients)
    got = denoise(x_t, t)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert (got.x_0.abs() > 1).any()
    for row in range(4):
        one = model.denoiser({"labels": batch.fields["labels"][row : row + 1]})(x_t[row : row + 1], t[row].detach())
        torch.testing.assert_close(one.x_0[0], got.x_0[row], rtol=1e-12, atol=1e-12)
    reached = [x_t, t, model.network.weight, model.conditioner.embedding.weight]
    for value in torch.autograd.grad(got.x_0.sum(), reached):
        assert value.isfinite().all() and value.any()


def test_its_denoiser_is_given_what_an_enclosing_model_gives():
    model, batch = made(**LABEL), digits(2, torch.float64)
    outer, t = Cond(vector=torch.ones(2, 3).double()), torch.tensor(0.5, dtype=torch.float64)
    given = model.conditioner(batch.fields, None).merge(outer)
    told = []
    model.network.forward = lambda x, cond: told.append(cond) or x
    model.denoiser(batch.fields, outer)(batch.tensor, t)
    assert torch.equal(told[0].vector, given.vector)


class Wavy(nn.Module):
    """out = sin((1 + sum of the vector) x + time), whose deviation depends on the conditions."""

    def __init__(self, x, out, cond):
        super().__init__()
        self.copies = out.shape[0] // x.shape[0]
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, cond):
        gain, time = (value.view(-1, 1, 1, 1).to(x) for value in (1 + cond.vector.sum(1), cond.time))
        return torch.sin(self.scale * gain * x + time).repeat(1, self.copies, 1, 1)


@pytest.mark.parametrize("name", ["eps", "x0", "v", "edm", "flow", "eps-learned"])
def test_rescaled_guidance_moves_the_deviation_of_what_the_network_predicts(name):
    scale, phi, labels = 3.0, 0.7, torch.tensor([1, 2, 3])
    guidance = use("cfg", scale=scale, rescale=phi)
    model = made(network=use(Wavy), parametrization=name, guidance=guidance, **LABEL).eval()
    steps, ratios = [], []
    model.sample(3, seed=0, labels=labels, callback=steps.append)
    for step, t in zip(steps, model.sampler.times()):
        coefficients = model.parametrization.coefficients(t.expand(3), model.schedule.scales(t.expand(3)))
        x_in, time = model.parametrization.inputs(step.x_t, coefficients)
        vectors = model.conditioner.embedding(labels), model.conditioner.null(3).vector
        cond, null = (model.network(x_in, Cond(vector=vector, time=time)) for vector in vectors)
        guided = null + scale * (cond - null)
        ratio = cond.std(dim=(1, 2, 3), keepdim=True) / guided.std(dim=(1, 2, 3), keepdim=True)
        out = phi * (ratio * guided) + (1 - phi) * guided
        want = model.parametrization.denoised(out, step.x_t, coefficients).x_0
        torch.testing.assert_close(step.x_0, want, rtol=1e-9, atol=1e-9)
        ratios += ratio.flatten().tolist()
    assert len(steps) == 4 and min(ratios) < 0.9


def test_perturbed_guidance_goes_away_from_the_network_that_attends_to_itself():
    network, labels, steps = use("unet", channels=[8], blocks=1), torch.tensor([1, 2]), []
    model = shake(made(network=network, guidance=use("perturbed", scale=3.0), **LABEL), 0.3)
    model.sample(2, seed=0, labels=labels, callback=steps.append)
    denoise = model.eval().denoiser({"labels": labels})
    for step, t in zip(steps, model.sampler.times()):
        with torch.no_grad(), attend_to_itself([model.network.middle[0].attend]):
            perturbed = denoise(step.x_t, t).x_0
        with torch.no_grad():
            cond = denoise(step.x_t, t).x_0
        torch.testing.assert_close(step.x_0, perturbed + 3 * (cond - perturbed), rtol=1e-9, atol=1e-9)
        assert not torch.allclose(perturbed, cond)


LAYERS = {"all": [0, 1, 2, 3, 4, 5], "middle": [2], "0": [0], "1, 4": [1, 4]}


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", LAYERS)
def test_perturbed_guidance_perturbs_the_layers_that_it_names(name):
    """Of a U-Net with 2 layers on the way down, 1 in the middle and 3 on the way up; the others keep their maps."""
    layers = name if name in ("all", "middle") else [int(one) for one in name.split(",")]
    network = use("unet", channels=[8], blocks=2, attention=[8])
    model = shake(made(network=network, guidance=use("perturbed", layers=layers), **LABEL), 0.3)
    found, seen = model.network.self_attention, set()
    assert found[2] is model.network.middle[0].attend and len(found) == 6
    for index, layer in enumerate(found):
        layer.register_forward_hook(lambda one, *_, index=index: seen.add((index, one.identity)))
    model.sample(1, seed=0, labels=torch.tensor([1]))
    assert seen == {*((i, False) for i in range(6)), *((i, True) for i in LAYERS[name])}
    assert modkit.find("guidance", "perturbed").earlier == {"layers": "all"}  # what it did before it had layers


def test_the_middle_of_a_transformer_is_at_half():
    for depth in (1, 3, 4):
        network = DiT(TensorType((1, 4, 4)), TensorType((1, 4, 4)), CondType(time=True), width=8, depth=depth)
        assert choose_layers(Perturbed(), network) == [network.blocks[depth // 2].attend]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([0, 1], r"guidance: Perturbed expects layers below 1, the number of layers of .* in UNet, got \[0, 1\]"),
        ([], r"Perturbed expects layers of at least one index, or middle, or all, got \[\]"),
        ([-1], r"Perturbed expects layers\[0\] to be at least 0, 'middle' or 'all', got -1"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        made(network=use("unet", channels=[8], blocks=1), guidance=use("perturbed", layers=layers), **LABEL)


def test_denoisers_take_times_as_numbers():
    model, x_t = made(), torch.randn(2, *made().single.shape)
    with torch.no_grad():
        expected = model.denoiser({})(x_t, torch.tensor(0.3, dtype=torch.float64)).x_0
        assert torch.equal(model.denoiser({})(x_t, 0.3).x_0, expected)


def test_perturbed_guidance_is_refused_where_a_network_names_no_self_attention():
    message = r"model offers \(cond, null, zero\), got Perturbed, which needs `perturbed`: only a network that lists"
    with pytest.raises(ValueError, match=message):
        made(guidance="perturbed")
