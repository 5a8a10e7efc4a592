from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modkit import build, use
from modkit.diffusion.schedules import VP
from modkit.kinds import Fact, Round
from modkit.losses import R1
from modkit.models.denoising_gan import DenoisingGAN
from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_discriminator import NCSNppDiscriminator
from modkit.rng import Rng
from modkit.samplers import posterior
from modkit.types import Batch, Cond, CondType, TensorType
from tests.float64 import NoFloat64
from tests.models.test_gan import Twice
from tests.play import digits, spec, trainer, turn
from tests.refusals import check_refusal, list_problems, refusals

F64 = torch.float64
MLPS = {"network": use("mlp", width=16, depth=1), "discriminator": use("mlp", width=16, depth=1)}
CONVS = {
    "network": use(NCSNpp, channels=[4, 8], blocks=1, style=8),
    "discriminator": use(NCSNppDiscriminator, channels=[4, 4, 8], embedding=8),
}
LABEL = {"conditioner": use("label", width=5)}


class Recorder(nn.Module):
    """A network that answers a multiple of x and the noise, and keeps what it is given."""

    def __init__(self, x, out, cond):
        super().__init__()
        self.type, self.seen, self.scale = cond, [], nn.Parameter(torch.tensor(0.5, dtype=F64))

    def forward(self, x, cond):
        self.seen.append((x, cond))
        return self.scale * x + 0.1 * cond.noise.sum()


class Judge(nn.Module):
    """A discriminator that keeps what it is given."""

    def __init__(self, x, cond):
        super().__init__()
        self.type, self.seen, self.scale = cond, [], nn.Parameter(torch.tensor(0.3, dtype=F64))

    def forward(self, x, cond):
        self.seen.append((x, cond))
        return self.scale * (x * cond.concat).flatten(1).sum(1) + cond.time


class Halved:
    """An augmentation of known effect and constant strength."""

    def __call__(self, x, rng):
        return x / 2


RECORDED = {"network": use(Recorder), "discriminator": use(Judge)}


def game(**slots):
    return use(DenoisingGAN, **{"schedule": use(VP), "z_dim": 6, **MLPS, **slots})


def made(**slots):
    return build(spec(game(**slots))).double()


def chain(steps):
    """Betas of the paper's chain, and alphas_cumprod with its 1 at t = 0."""
    t = torch.arange(steps + 1, dtype=F64) / steps * (1 - 1e-3) + 1e-3
    ac = torch.exp(-0.5 * t**2 * (20 - 0.1) - 0.1 * t)
    betas = 1 - ac[1:] / ac[:-1]
    return betas, torch.cat([torch.ones(1, dtype=F64), torch.cumprod(1 - betas, 0)])


def test_four_steps_are_those_of_the_paper():
    model = made(steps=4)
    t = torch.arange(5, dtype=F64) / 4
    alpha, sigma = model.schedule.scales(t)
    zero, one = torch.zeros(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64)
    rows = []
    for k in range(1, 5):
        pair = (float(alpha[k]), float(sigma[k])), (float(alpha[k - 1]), float(sigma[k - 1]))
        of_x_0, of_x_t = posterior(zero, one, *pair), posterior(one, zero, *pair)
        rows.append((of_x_0.large, of_x_0.small, float(of_x_0.mean), float(of_x_t.mean)))
    large, small, c_0, c_t = zip(*rows)
    assert large == pytest.approx([0.478255303, 0.849206004, 0.956417709, 0.987403901], abs=1e-8)
    assert small == pytest.approx([0, 0.440819148, 0.884202444, 0.984060715], abs=1e-8)
    assert c_0 == pytest.approx([1, 0.665778365, 0.269190889, 0.057821542], abs=1e-8)
    assert c_t == pytest.approx([0, 0.201576277, 0.193000809, 0.111852343], abs=1e-8)
    assert model.sampler.times().tolist() == [1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_both_sides_see_neighbours_of_the_forward_process_and_of_the_posterior(steps):
    model = made(steps=steps, **RECORDED)
    betas, ac = chain(steps)
    x_0 = digits(64, F64).tensor
    rng = turn("a").rng
    losses = model.losses("discriminator", Batch(x_0, {}), turn("a"))
    ((x_t, given),), ((real, beside), (fake, again)) = model.network.seen, model.discriminator.seen

    index = beside.time.round().long()
    assert set(index.tolist()) == set(range(steps))  # k - 1 for the pair (x_{k-1}, x_k)
    torch.testing.assert_close(beside.time, index.to(beside.time.dtype), rtol=0, atol=1e-6)
    assert torch.equal(given.time, beside.time) and torch.equal(again.time, beside.time)
    assert torch.equal(beside.concat, x_t) and torch.equal(again.concat, x_t)
    beta, before, after = (v.view(-1, 1, 1, 1) for v in (betas[index], ac[index], ac[index + 1]))
    eps_s, eps_t, noise = (rng.normal(name, x_0) for name in ("eps_s", "eps_t", "posterior"))
    torch.testing.assert_close(real, before.sqrt() * x_0 + (1 - before).sqrt() * eps_s, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(x_t, (1 - beta).sqrt() * real + beta.sqrt() * eps_t, rtol=1e-6, atol=1e-8)

    predicted = model.network(x_t, given)
    c_0 = beta * before.sqrt() / (1 - after)
    c_t = (1 - before) * (1 - beta).sqrt() / (1 - after)
    tilde = beta * (1 - before) / (1 - after)
    want = c_0 * predicted + c_t * x_t + tilde.sqrt() * noise
    torch.testing.assert_close(fake, want, rtol=1e-6, atol=1e-8)
    assert torch.equal(fake[index == 0], predicted[index == 0])  # no noise at the last step

    real_logits, fake_logits = model.discriminator(real, beside), model.discriminator(fake, again)
    want = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    torch.testing.assert_close(losses["adversarial"], want)
    assert list(losses) == ["adversarial"] and not fake.requires_grad


def test_pairs_are_augmented_for_both_sides_and_penalties():
    model, plain = (made(**RECORDED, augment=one, regularizers={"r1": use(R1)}) for one in (use(Twice), None))
    for player in ("discriminator", "generator"):
        found = [one.losses(player, digits(6, F64), turn("a", player)) for one in (model, plain)]
        assert [list(one) for one in found] == [["adversarial", *(["r1"] if player == "discriminator" else [])]] * 2
        for (x, cond), (same, beside) in zip(model.discriminator.seen, plain.discriminator.seen, strict=True):
            assert torch.equal(x, 2 * same) and torch.equal(cond.concat, 2 * beside.concat)
        model.update(player, turn("a"))
    (logits,) = model.augment.seen
    real, beside = plain.discriminator.seen[0]
    assert torch.equal(logits, model.discriminator(2 * real, replace(beside, concat=2 * beside.concat)))
    assert model.augment.updates == 1 and made(augment="ada").players()[0].modules == ("discriminator", "augment")


def test_consistency_is_that_of_pairs_changed_alike():
    part = use("consistency", augment=use(Halved), fake=0.0)
    model = made(**RECORDED, regularizers={"bcr": part})
    model.losses("discriminator", digits(6, F64), turn("a"))
    (real, beside), _, (same, again), (changed, moved) = model.discriminator.seen
    assert torch.equal(same, real) and torch.equal(again.concat, beside.concat)
    assert torch.equal(changed, real / 2) and torch.equal(moved.concat, beside.concat / 2)


def test_the_generator_learns_through_the_posterior():
    model = made(**RECORDED)
    losses = model.losses("generator", digits(16, F64), turn("a"))
    ((fake, beside),) = model.discriminator.seen
    torch.testing.assert_close(losses["adversarial"], F.softplus(-model.discriminator(fake, beside)).mean())
    losses["adversarial"].backward()
    assert model.network.scale.grad.abs() > 1e-6
    assert not beside.concat.requires_grad
    assert model.losses("generator", digits(16, F64), turn("a", waiting=("discriminator",))) == {}


def test_the_generator_trains_the_conditioner_through_its_own_input_and_not_through_its_judge_s():
    model = made(**RECORDED, **LABEL)
    model.losses("generator", digits(6, F64), turn("a"))
    ((_, own),), ((fake, judged),) = model.network.seen, model.discriminator.seen
    assert torch.equal(own.vector, judged.vector) and fake.requires_grad
    assert own.vector.requires_grad and not judged.vector.requires_grad


def test_r1_is_taken_at_the_real_x_s_alone():
    model = made(**CONVS, regularizers={"r1": use("r1", gamma=3.0)})
    seen = []
    model.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args))
    losses = model.losses("discriminator", digits(6, F64), turn("a"))
    real, beside = seen[0]
    torch.testing.assert_close(
        losses["r1"], R1(gamma=3.0)(Round(real, beside, Rng(0), critic=model.discriminator.forward))
    )
    x, x_t = real.clone().requires_grad_(), beside.concat.clone().requires_grad_()
    logits = model.discriminator(x, Cond(concat=x_t, time=beside.time)).sum()
    at_x, at_x_t = torch.autograd.grad(logits, (x, x_t))
    torch.testing.assert_close(losses["r1"], 1.5 * at_x.square().sum() / 6, rtol=1e-9, atol=0)
    assert at_x_t.abs().max() > 0


@pytest.mark.parametrize("steps", [1, 4])
def test_a_sample_is_the_chain_of_posteriors_under_fresh_noise(steps):
    model = made(steps=steps, **RECORDED)
    got = model.sample(3, seed=5)
    seen, model.network.seen = model.network.seen, []
    betas, ac = chain(steps)
    rng = Rng("sample", 5)
    x = (1 - ac[-1]).sqrt() * rng.normal("start", torch.empty(3, 1, 8, 8, dtype=F64))
    for call, k in enumerate(range(steps, 0, -1)):
        beta, before, after = betas[k - 1], ac[k - 1], ac[k]
        z = rng.at("z", call).normal("z", torch.empty(3, 6, dtype=F64))
        torch.testing.assert_close(seen[call][0], x, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(seen[call][1].noise, z)
        assert seen[call][1].time.tolist() == [k - 1] * 3
        x_0 = model.network(x, Cond(noise=z, time=None)).clamp(-1, 1)
        mean = beta * before.sqrt() / (1 - after) * x_0 + (1 - before) * (1 - beta).sqrt() / (1 - after) * x
        x = mean
        if k > 1:
            noise = rng.at("sampler", call).normal("eps", x)
            x = mean + (beta * (1 - before) / (1 - after)).sqrt() * noise
    torch.testing.assert_close(got, x, rtol=1e-6, atol=1e-8)
    assert len(seen) == steps


def test_conditions_reach_both_sides_by_conditioners_of_their_own():
    model = made(**CONVS, **LABEL)
    assert [(one.name, one.modules, one.against) for one in model.players()] == [
        ("discriminator", ("discriminator", "critic_conditioner"), ()),
        ("generator", ("network", "conditioner"), ("discriminator",)),
    ]
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    batch = digits(8, F64)
    other = Batch(batch.tensor, {"labels": (batch.fields["labels"] + 1) % 10})
    for player in ("discriminator", "generator"):
        one, two = (model.losses(player, b, turn("a"))["adversarial"] for b in (batch, other))
        assert not torch.allclose(one, two, rtol=1e-9)
    assert not torch.equal(model.sample(3, seed=0, labels=3), model.sample(3, seed=0, labels=4))


@pytest.mark.wide
def test_it_learns_a_ring(tmp_path):
    nets = {"network": use("mlp", width=64, depth=2), "discriminator": use("mlp", width=64, depth=2)}
    ring = use("ring", modes=8)
    settings = {"optimizer": use("adam", lr=5e-3, betas=[0.5, 0.9]), "batch_size": 256, "log": {"every": 50}}
    one = trainer(spec(game(**nets, z_dim=2), ring, steps=200, **settings), tmp_path / "run")
    one.fit()
    assert all(abs(loss) < 20 for row in one.run.read_metrics() for loss in row["losses"].values())
    data = one.data.read("train", range(500), Rng(0)).tensor
    samples = one.model.sample(500, seed=0)
    radius, want = samples.norm(dim=1), data.norm(dim=1).mean()
    assert 0.7 * want < radius.mean() < 1.3 * want
    assert radius.std() < 0.4 * want
    eighths = (torch.atan2(samples[:, 1], samples[:, 0]) * 4 / torch.pi).round().long() % 8
    assert eighths.bincount(minlength=8).min() >= 10


test_what_does_not_fit_is_refused = refusals(
    ({"steps": 0}, "DenoisingGAN expects steps to be at least 1, got 0"),
    ({"sampler": use("ancestral", steps=5)}, r"expects steps in \[1, 4\] on a table of 4, got 5"),
    of=lambda slots: made(**slots),
)


def test_conditions_with_a_map_are_refused_where_they_come_from():
    """The fault: the message named the model, and not why there is one map only."""
    problems = list_problems(build, spec(game(conditioner="map"), use("corrupted", data=use("digits", size=8))))
    reason = "without a map, since the discriminator is given x_t as its map, got"
    found = f"model.conditioner: expected one {reason} Map, which gives concat 2×8×8 unbounded"
    assert problems == [f"{found} (what fits there: label, none, several, vector)"]
    check_refusal(
        f"DenoisingGAN expects conditions from an enclosing Model {reason} concat 1×8×8 unbounded",
        lambda: DenoisingGAN(TensorType((1, 8, 8)), CondType(concat=TensorType((1, 8, 8))), **MLPS),
    )


def test_it_accepts_one_continuous_tensor():
    codes = TensorType((4, 4), classes=8)
    assert DenoisingGAN.accepts(codes) == "DenoisingGAN expects a continuous type, got 4×4 codes of 8 classes"
    assert "hierarchy of 2 levels" in DenoisingGAN.accepts((TensorType((2,)), TensorType((3,))))
    assert DenoisingGAN.accepts(TensorType((2,))) is None


def test_no_float64_reaches_the_device():
    model = build(spec(game(steps=2))).to("meta")
    batch = Batch(torch.empty(2, 1, 8, 8, device="meta"), {})
    with NoFloat64() as mode:
        for player in ("discriminator", "generator"):
            sum(model.losses(player, batch, turn(player)).values()).backward()
        assert model.draw(2, {}, Cond(), Rng(0)).dtype == torch.float32
    assert mode.elsewhere > 100


def test_a_bfloat16_model_keeps_its_chain_in_float32():
    wide = build(spec(game(network=use(Recorder), schedule=use(VP)))).float()
    narrow = build(spec(game(network=use(Recorder), schedule=use(VP)))).bfloat16()
    got = narrow.sample(64, seed=0)
    assert got.dtype == torch.bfloat16 and {x.dtype for x, _ in narrow.network.seen} == {torch.bfloat16}
    assert (got.float() - wide.sample(64, seed=0)).square().mean().sqrt() < 0.02  # the network's rounding


@pytest.mark.parametrize("term", [None, "path-length", "r1", "r2"])
def test_a_discriminator_without_a_penalty_on_its_slope_is_noted(term):
    """DDGAN's objective has R1; this is a fact and no warning, since other parts bound a discriminator as well."""
    model = build(spec(use("denoising-gan", regularizers={term: term} if term else None, **MLPS)))
    notes = [note for note in model.review() if isinstance(note, Fact) and note.path == "discriminator"]
    setting = (
        "the paper's objective has R1: regularizers={r1: {use: r1, gamma: 0.05}} and train.terms={r1: {every: 15}}"
    )
    assert [setting in note.text for note in notes] == ([] if term in ("r1", "r2") else [True])
