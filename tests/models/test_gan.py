import os
import signal

import pytest
import torch
import torch.nn.functional as F

from modkit import SpecError, build, players, use
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.losses import KL, ReverseKL
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.specs.node import Node
from modkit.specs.settings import Term
from modkit.training.interruption import Stopped
from modkit.training.players import make_participants
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
    data, settings = site.data, site.settings
    model = site.build_model(data.x, data.fields)
    stages, engine = schedule_stages(model, settings), settings.engine(device="cpu")
    return model.train(), make_participants(model, settings, stages, 0, engine)


@pytest.mark.parametrize("slots, normed", [(SLOTS, False), (DCGAN, True)], ids=["mlp", "dcgan"])
def test_in_a_turn_only_its_player_learns_and_only_its_statistics_move(slots, normed):
    model, (discriminator, generator) = table(**slots, **LABEL)
    owns = {"discriminator": {"discriminator", "critic_conditioners"}, "generator": {"generator", "conditioner"}}
    for one in (discriminator, generator):
        name, before = one.player.name, state(model)
        with one.hold_others():
            losses = one.losses(digits(8), turn(name))
            sum(losses.values()).backward()
        learned = {n.partition(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        moved = {n.partition(".")[0] for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
        assert learned == owns[name]
        assert moved == ({name} if normed else set())
        model.zero_grad()


def test_each_side_trains_a_conditioner_of_its_own():
    assert [(one.name, one.modules, one.against) for one in made(**LABEL).players()] == [
        ("discriminator", ("discriminator", "critic_conditioners.discriminator"), ()),
        ("generator", ("generator", "conditioner"), ("discriminator",)),
    ]
    assert made().players()[1].modules == ("generator",)
    several = made(discriminators={"one": "mlp", "other": "mlp"}, **LABEL)
    assert [one.modules[1:] for one in several.players()] == [
        ("critic_conditioners.one",),
        ("critic_conditioners.other",),
        ("conditioner",),
    ]


def test_the_generator_trains_the_conditioner_through_its_own_input_and_not_through_its_judge_s():
    model, batch = made(**LABEL), digits(5)
    model.generator.register_forward_pre_hook(lambda _, args: (args[0].double(), args[1]))
    embedding, other = model.conditioner.embedding, model.critic_conditioners["discriminator"].embedding
    assert torch.equal(embedding.weight, other.weight)
    other.weight.data.mul_(3)
    given = embedding(batch.fields["labels"])
    logits = model.discriminator(model.generator(noise(5, "a"), Cond(vector=given)), Cond(vector=3 * given.detach()))
    (want,) = torch.autograd.grad(F.softplus(-logits).mean(), embedding.weight)
    model.losses("generator", batch, turn("a"))["adversarial"].backward()
    assert want.any()
    torch.testing.assert_close(embedding.weight.grad, want, rtol=1e-12, atol=0)
    assert other.weight.grad is None


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


@pytest.mark.parametrize(
    "model",
    [
        use("gan", generator="mlp", discriminator="mlp", regularizers={"fm": use("feature-matching")}),
        use("denoising-gan", network="mlp", discriminator="mlp", regularizers={"fm": use("feature-matching")}),
        use(  # with a loss above 0, unlike the log ratio
            "bidirectional",
            generator="mlp",
            encoder="mlp",
            discriminator="mlp",
            game="veegan",
            adversarial="non-saturating",
        ),
    ],
)
def test_the_weight_of_the_game_is_the_generator_s(model):
    """With 0, feature matching is all that the generator minimises, and the discriminator still learns."""
    turns = {}
    for weight in (1.0, 0.0):
        for player in players(build(spec(Node({**model, "weights": {"adversarial": weight}})))):
            with player.begin_turn(0) as step:
                turns[player.name, weight] = float(player.compute_loss(digits(6), step).detach())
    assert turns["discriminator", 0.0] == turns["discriminator", 1.0] > 0
    assert 0 < turns["generator", 0.0] < turns["generator", 1.0]


@pytest.mark.parametrize("names", [{"discriminators": {"generator": "mlp"}}, {"adversarials": {"nobody": "hinge"}}])
def test_losses_belong_to_discriminators_that_there_are(names):
    with pytest.raises(SpecError, match="GAN expects losses by the discriminators' names"):
        build(spec(use("gan", **names)))


def test_a_discriminator_that_tells_classes_plays_ac_gan():
    """Both sides minimise the cross-entropy of its heads; it is not given the class."""
    critics = {name: use("mlp", width=16, depth=1) for name in ("one", "other")}
    model = made(**LABEL, classify="labels", discriminators=critics)
    model.generator.register_forward_pre_hook(lambda _, args: (args[0].double(), args[1]))
    batch = digits(6)
    batch, labels = type(batch)(batch.tensor.double(), batch.fields), batch.fields["labels"]
    cond = Cond(vector=model.conditioner.embedding(labels))
    fake = model.generator(noise(6, "a"), cond)

    def compare(critic, x):
        logits = critic.judge(x, Cond()).heads["labels"]
        return -logits.log_softmax(1)[range(6), labels].mean()

    for name, critic in model.critics.items():
        assert not list(critic.projection.parameters())
        losses = model.losses(name, batch, turn("a"))
        assert list(losses) == ["adversarial", "class"]
        torch.testing.assert_close(losses["class"], compare(critic, batch.tensor) + compare(critic, fake))
    losses = model.losses("generator", batch, turn("a"))
    assert list(losses) == ["adversarial/one", "class/one", "adversarial/other", "class/other"]
    torch.testing.assert_close(losses["class/other"], compare(model.critics["other"], fake))
    torch.testing.assert_close(losses["adversarial/one"], F.softplus(-model.critics["one"](fake, Cond())).mean())
    lazy = turn("a", terms={"adversarial/*": Term(every=2), "class/other": Term(every=2)}, index=1)
    torch.testing.assert_close(model.losses("generator", batch, lazy), {"class/one": losses["class/one"]})
    waiting = model.losses("generator", batch, turn("a", waiting=("other",)))
    assert list(waiting) == ["adversarial/one", "class/one"]  # a head that nothing has trained teaches no classes
    losses["class/one"].backward()
    assert model.conditioner.embedding.weight.grad.any()


@pytest.mark.parametrize("slots", [{"classify": "shape", **LABEL}, {"classify": "labels"}])
def test_classes_are_those_of_a_field_that_the_generator_is_given(slots):
    with pytest.raises(SpecError, match="GAN expects to classify a field of classes that its conditioner reads, got"):
        build(spec(use("gan", **SLOTS, **slots)))


class Twice:
    """An augmentation of known effect, which keeps what it is told."""

    def __init__(self) -> None:
        self.seen, self.updates, self.keys = [], 0, []

    def __call__(self, x, rng):
        self.keys.append(repr(rng))
        return 2 * x

    def observe(self, real_logits):
        self.seen.append(real_logits.detach())

    def update(self, step):
        self.updates += 1


def test_every_judge_is_shown_augmented_samples():
    """In both turns and in penalties, by draws of each call's own; the logits of reals are observed in training."""
    regularizers = {"r1": "r1", "features": "feature-matching"}
    slots, batch = {**SLOTS, **LABEL, "regularizers": regularizers}, digits(5)
    model, plain = build(spec(use("gan", **slots, augment=use(Twice)))), build(spec(use("gan", **slots)))
    shown = model.augment
    cond = Cond(vector=model.conditioner.embedding(batch.fields["labels"]))
    fake = model.generator(noise(5, "a").float(), cond)
    real_logits, fake_logits = model.discriminator(2 * batch.tensor, cond), model.discriminator(2 * fake, cond)

    context = StepContext(Rng("turn", "a"), training=True)
    losses = model.losses("discriminator", batch, context)
    want = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    torch.testing.assert_close(losses["adversarial"], want)
    x = batch.tensor.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.discriminator(2 * x, cond).sum(), x)
    torch.testing.assert_close(losses["r1"], slope.square().flatten(1).sum(1).mean() / 2)
    assert len(shown.seen) == 1 and torch.equal(shown.seen[0], real_logits) and len(set(shown.keys)) == 3
    model.losses("discriminator", batch, StepContext(Rng("turn", "b")))
    model.update("discriminator", context)
    model.update("generator", context)
    assert len(shown.seen) == 1 and shown.updates == 1

    losses = model.losses("generator", batch, turn("a"))
    torch.testing.assert_close(losses["adversarial"], F.softplus(-fake_logits).mean())
    maps = [model.discriminator.judge(2 * x, cond).maps[-1].mean(0) for x in (fake, batch.tensor)]
    torch.testing.assert_close(losses["features"], (maps[0] - maps[1]).square().sum())
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.wide
def test_an_augmentation_s_state_belongs_to_the_first_discriminator_and_is_resumed(tmp_path):
    """A run that is stopped between two moves of p, and resumed, is one that was not."""
    slots = {"generator": use("dcgan", channels=2), "discriminator": use("dcgan", channels=2, norm="none"), "z_dim": 2}
    game = use("gan", **slots, augment=use("ada", images=400, p=0.5))

    class Impatient:
        def step_done(self, run, stage, step, losses):
            if step == 6:
                os.kill(os.getpid(), signal.SIGINT)

    def fit(name, *loggers):
        one = trainer(spec(game, steps=9), tmp_path / name, loggers)
        with one.run:
            one.fit()
        return one.model

    with pytest.raises(Stopped):
        fit("stopped", Impatient())
    resumed, whole = fit("stopped"), fit("whole")
    assert [player.modules for player in whole.players()] == [("discriminator", "augment"), ("generator",)]
    assert 0 < whole.augment.p != 0.5 and whole.augment.p < 1 and whole.augment.seen[2] == 1
    assert all(torch.equal(v, whole.state_dict()[name]) for name, v in resumed.state_dict().items())
