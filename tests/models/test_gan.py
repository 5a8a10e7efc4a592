import pytest
import torch
import torch.nn.functional as F

from modkit import SpecError, build, use
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.losses import KL, ReverseKL
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.training.players import make_player_states, take_turn
from modkit.training.schedule import schedule_stages
from modkit.types import Cond
from tests.play import digits, spec, state, trainer, turn

SLOTS = {"generator": use("mlp", width=16, depth=1), "discriminator": use("mlp", width=16, depth=1), "z_dim": 6}
DCGAN = {"generator": use("dcgan", channels=4), "discriminator": use("dcgan", channels=4), "z_dim": 6}
LABEL = {"conditioner": use("label", width=5)}


def made(**slots):
    return build(spec(use("gan", **{**SLOTS, **slots}))).double()


def noise(num, *key):
    return Rng("turn", *key).normal("z", torch.empty(num, 6, dtype=torch.float32)).double()


@pytest.mark.parametrize("adversarial", ["non-saturating", "hinge"])
@pytest.mark.parametrize("label", [{}, LABEL], ids=["", "label"])
def test_losses_are_the_two_sides_of_the_game(adversarial, label):
    model, batch = made(adversarial=adversarial, **label, regularizers={"r1": use("r1", gamma=3.0)}), digits(5)
    batch = type(batch)(batch.tensor.double(), batch.fields)
    model.generator.register_forward_pre_hook(lambda _, args: (args[0].double(), args[1]))  # z is float32
    cond = Cond(vector=model.conditioner.embedding(batch.fields["labels"])) if label else Cond()
    fake = model.generator(noise(5, "a"), cond)
    x = batch.tensor.clone().requires_grad_()
    real_logits, fake_logits = model.discriminator(x, cond), model.discriminator(fake, cond)
    (gradient,) = torch.autograd.grad(real_logits.sum(), x)
    want = {
        "non-saturating": (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean(), F.softplus(-fake_logits)),
        "hinge": (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean(), -fake_logits),
    }[adversarial]

    losses = model.losses("discriminator", batch, turn("a"))
    assert list(losses) == ["adversarial", "r1"]
    torch.testing.assert_close(losses["adversarial"], want[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(losses["r1"], 1.5 * gradient.square().sum() / 5, rtol=1e-12, atol=0)
    losses["adversarial"].backward()
    assert all(p.grad is None for p in model.generator.parameters())
    losses = model.losses("generator", batch, turn("a"))
    assert list(losses) == ["adversarial"]
    torch.testing.assert_close(losses["adversarial"], want[1].mean(), rtol=1e-12, atol=0)
    assert model.losses("generator", batch, turn("a", waiting=("discriminator",))) == {}


def table(**slots):
    """The players' states of a game, with its modules in the stage's modes."""
    site = Site(plan(spec(use("gan", **{**SLOTS, **slots}))), meta=False)
    data, settings = site.make_data(), site.make_settings()
    model = site.build_model(data.x, data.fields)
    (stage,) = schedule_stages(model, settings)
    return model.train(), make_player_states(model, settings, stage, settings.engine(device="cpu"))


@pytest.mark.parametrize("slots, normed", [(SLOTS, False), (DCGAN, True)], ids=["mlp", "dcgan"])
def test_in_a_turn_only_its_player_learns_and_only_its_statistics_move(slots, normed):
    model, (discriminator, generator) = table(**slots, **LABEL)
    owns = {"discriminator": {"discriminator"}, "generator": {"generator", "conditioner"}}
    for one, rival in ((discriminator, generator), (generator, discriminator)):
        name, before = one.player.name, state(model)
        with take_turn(one, [rival]):
            losses = one.losses(digits(8), turn(name))
            sum(losses.values()).backward()
        learned = {n.partition(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        moved = {n.partition(".")[0] for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
        assert learned == owns[name]
        assert moved == ({name} if normed else set())
        model.zero_grad()


def test_the_conditioner_belongs_to_the_generator():
    assert [(one.name, one.modules, one.against) for one in made(**LABEL).players()] == [
        ("discriminator", ("discriminator",), ()),
        ("generator", ("generator", "conditioner"), ("discriminator",)),
    ]
    assert made().players()[1].modules == ("generator",)


def test_the_generator_trains_the_conditioner_through_its_own_input_and_not_through_its_judge_s():
    model, batch = made(**LABEL), digits(5)
    model.generator.register_forward_pre_hook(lambda _, args: (args[0].double(), args[1]))
    embedding = model.conditioner.embedding
    given = embedding(batch.fields["labels"])
    logits = model.discriminator(model.generator(noise(5, "a"), Cond(vector=given)), Cond(vector=given.detach()))
    (want,) = torch.autograd.grad(F.softplus(-logits).mean(), embedding.weight)
    model.losses("generator", batch, turn("a"))["adversarial"].backward()
    assert want.any()
    torch.testing.assert_close(embedding.weight.grad, want, rtol=1e-12, atol=0)


def test_a_lazy_penalty_is_computed_at_its_steps_alone(tmp_path):
    game = spec(use("gan", **SLOTS, regularizers={"r1": "r1"}), steps=7, terms={"r1": {"every": 3, "start": 1}})
    one = trainer(game, tmp_path / "run")
    one.fit()
    rows = one.run.read_metrics()
    assert [row["step"] for row in rows if "discriminator/r1" in row["losses"]] == [2, 5]
    assert all({"discriminator/adversarial", "generator/adversarial"} <= set(row["losses"]) for row in rows)


def test_labels_steer_samples_and_are_drawn_from_the_data_s_frequencies():
    model, batch = made(**LABEL), digits(64)
    model.generator.register_forward_pre_hook(lambda _, args: (args[0].double(), args[1]))
    threes = batch.fields["labels"] == 3
    assert not torch.equal(model.sample(4, seed=0, labels=3), model.sample(4, seed=0, labels=4))
    model.prepare("discriminator", [batch], Rng(0))
    assert model.conditioner.frequencies.unique().numel() == 1
    model.prepare("generator", [type(batch)(batch.tensor[threes], {"labels": batch.fields["labels"][threes]})], Rng(0))
    assert torch.equal(model.sample(4, seed=0), model.sample(4, seed=0, labels=3))
    mixed = model.sample(4, seed=0, labels=[3, 4, 3, 4])
    torch.testing.assert_close(mixed[[0, 2]], model.sample(4, seed=0, labels=3)[[0, 2]])


def test_a_sample_is_the_generator_s_picture_of_noise():
    model = made()
    model.generator.register_forward_pre_hook(lambda _, args: (args[0].double(), args[1]))
    z = Rng("sample", 5).normal("z", torch.empty(3, 6))
    assert torch.equal(model.sample(3, seed=5), model.generator(z.double(), Cond()))


def test_two_discriminators_play_d2gan():
    """Three players; the generator's terms and each discriminator's are those of its own game."""
    game = use(
        "gan",
        generator=use("mlp", width=8, depth=1),
        discriminators={name: use("mlp", width=8, depth=1) for name in ("covers", "resembles")},
        adversarials={"covers": use("kl", alpha=0.5), "resembles": use("reverse-kl", beta=0.25)},
        z_dim=4,
        weights={"adversarial/covers": 2.0},
    )
    model, batch, step = build(spec(game)), digits(6), StepContext(Rng(3))
    assert [player.name for player in model.players()] == ["covers", "resembles", "generator"]
    fake = model.generator(Rng(3).normal("z", torch.empty(6, 4)), Cond())
    logits = {name: (critic(batch.tensor, Cond()), critic(fake, Cond())) for name, critic in model.critics.items()}
    games = {"covers": KL(alpha=0.5), "resembles": ReverseKL(beta=0.25)}
    for name, game in games.items():
        got = model.losses(name, batch, StepContext(Rng(3)))["adversarial"]
        torch.testing.assert_close(got, game.discriminator(*logits[name]))
    got = model.losses("generator", batch, step)
    assert list(got) == ["adversarial/covers", "adversarial/resembles"]
    for name, game in games.items():
        torch.testing.assert_close(got[f"adversarial/{name}"], game.generator(logits[name][1]))
    got["adversarial/covers"].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.generator.parameters())
    assert set(model.state_dict()) >= {"discriminators.covers.out.weight", "discriminators.resembles.out.weight"}


@pytest.mark.parametrize("names", [{"discriminators": {"generator": "mlp"}}, {"adversarials": {"nobody": "hinge"}}])
def test_losses_belong_to_discriminators_that_there_are(names):
    with pytest.raises(SpecError, match="GAN expects losses by the discriminators' names"):
        build(spec(use("gan", **names)))
