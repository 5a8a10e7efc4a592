"""Diffusion whose predictions of x_0 are judged: critics, perceptual distances, judges of a third party."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import modkit
from modkit import SpecError, build, use
from modkit.diffusion.gaussian import add_noise
from modkit.kinds import Round
from modkit.training.ownership import collect_modules, collect_trained
from modkit.types import Cond
from tests.play import digits, shake, spec, state, trainer, turn

F64 = torch.float64
MLP = use("mlp", width=8, depth=1)
CRITIC = use("critic", network=MLP, adversarial="non-saturating")


def diffusion(judges=None, **slots):
    return use("diffusion", **{"network": MLP, "sampler": use("ddim", steps=3), "judges": judges, **slots})


def make(judges=None, **slots):
    return shake(build(spec(diffusion(judges, **slots))), 0.1).double()


def predict(model, batch, step):
    """The prediction of x_0 in a turn, by the equation of v: x_0 = alpha_t x_t - sigma_t v."""
    t = model.times(len(batch.tensor), step.rng.at("times"))
    scales = alpha_t, sigma_t = model.schedule.scales(t)
    x_t = add_noise(batch.tensor, step.rng.normal("eps", batch.tensor), scales)
    x_in, time = model.parametrization.inputs(x_t, model.parametrization.coefficients(t, scales))
    v = model.network(x_in, model.conditioner(batch.fields, step.rng.at("conditioner")).at(time))
    return alpha_t.view(-1, 1, 1, 1) * x_t - sigma_t.view(-1, 1, 1, 1) * v


def test_a_critic_judges_predictions_of_x_0():
    model, batch = make({"critic": CRITIC}), digits(5, F64)
    critic = model.judges.parts["critic"].network
    own = model.losses("denoiser", batch, turn("a"))
    wanted = F.softplus(-critic(predict(model, batch, turn("a")), Cond())).mean()
    assert list(own) == ["denoising", "critic"]
    torch.testing.assert_close(own["critic"], wanted)
    fake = predict(model, batch, turn("b")).detach()
    wanted = F.softplus(-critic(batch.tensor, Cond())).mean() + F.softplus(critic(fake, Cond())).mean()
    torch.testing.assert_close(model.losses("critic", batch, turn("b"))["adversarial"], wanted)


def test_each_side_trains_by_its_own_losses():
    model, batch = make({"critic": CRITIC}, conditioner="label"), digits(5, F64)
    denoiser, critic = model.players()
    assert (denoiser.name, denoiser.against, critic.name) == ("denoiser", ("critic",), "critic")
    trained = {one.name: set(map(id, collect_trained(collect_modules(model, one)))) for one in (denoiser, critic)}
    assert not trained["denoiser"] & trained["critic"]
    assert id(model.judges.conditioners["critic"].embedding.weight) in trained["critic"]
    model.losses("critic", batch, turn())["adversarial"].backward()
    reached = {id(one) for one in model.parameters() if one.grad is not None and one.grad.any()}
    assert reached and reached <= trained["critic"]
    model.zero_grad()
    loss = model.losses("denoiser", batch, turn())["critic"]
    names = [name for name, one in model.named_parameters() if name.startswith("network.")]
    assert any(one.any() for one in torch.autograd.grad(loss, [model.get_parameter(name) for name in names]))


@pytest.mark.parametrize("more", [{}, {"parametrization": "eps-learned", "schedule": use("linear", num=20)}], ids=str)
def test_all_other_losses_and_the_samples_are_those_without(more):
    bare, model = (build(spec(diffusion(judges, conditioner="label", **more))) for judges in (None, {"c": CRITIC}))
    model.load_state_dict({**model.state_dict(), **bare.state_dict()})
    without, losses = (one.losses("denoiser", digits(4), turn()) for one in (bare, model))
    assert losses.keys() - without.keys() == {"c"} and "c" not in without
    assert all(torch.equal(losses[name], value) for name, value in without.items())
    assert torch.equal(bare.sample(2, seed=0), model.sample(2, seed=0))


def test_features_are_matched_to_the_data_s():
    """Salimans et al. (2016), section 3.1: the squared distance of the means of the critic's features."""
    matched = use("critic", **CRITIC.params, regularizers={"match": "feature-matching"})
    model, batch = make({"critic": matched}), digits(5, F64)
    judge = model.judges.parts["critic"].network.judge
    means = [judge(one, Cond()).maps[-1].mean(0) for one in (predict(model, batch, turn()), batch.tensor)]
    losses = model.losses("denoiser", batch, turn())
    assert list(losses) == ["denoising", "critic", "match"]
    torch.testing.assert_close(losses["match"], (means[0] - means[1]).square().sum())


def test_a_perceptual_distance_judges_predictions():
    model, batch = make({"near": use("perceptual", features="random-conv")}), digits(4, F64)
    fake = predict(model, batch, turn())
    judge = model.judges.parts["near"]
    assert [one.name for one in model.players()] == ["denoiser"]
    torch.testing.assert_close(model.losses("denoiser", batch, turn())["near"], judge(fake, batch.tensor).mean())


def test_a_judge_of_a_third_party():
    class Brightness(nn.Module):
        """Compares means, with a bias that is trained with the denoiser."""

        def __init__(self, name):
            super().__init__()
            self.name, self.bias = name, nn.Parameter(torch.ones(()))

        def losses(self, round: Round, step):
            return {self.name: (round.fake.mean() - round.real.mean() - self.bias).square()}

    model = modkit.models.Diffusion(
        modkit.TensorType((1, 8, 8), (-1, 1)), network=modkit.nn.MLPNetwork, judges={"bright": Brightness}
    ).double()
    (denoiser,) = model.players()
    assert "judges.bright" in denoiser.modules
    batch = digits(4, F64)
    want = (predict(model, batch, turn()).mean() - batch.tensor.mean() - 1).square()
    torch.testing.assert_close(model.losses("denoiser", batch, turn())["bright"], want)


@pytest.mark.wide
def test_several_critics_train_and_reload(tmp_path):
    """Adversarial Diffusion Distillation with the data as the teacher: two critics, one of which starts later."""
    judges = {
        "first": use("critic", network=MLP, regularizers={"r1": "r1"}, augment="diffaugment"),
        "late": use("critic", network=MLP, start=1),
    }
    weighed = diffusion(judges, conditioner="label", weights={"first": 0.5, "denoising": 0.1})
    game = trainer(spec(weighed, steps=2), tmp_path / "run")
    before = state(game.model)
    game.fit()
    first, last = [row["losses"] for row in game.run.read_metrics()]
    assert {"denoiser/first", "first/adversarial"} <= first.keys() and "late/adversarial" not in first
    assert {"denoiser/late", "late/adversarial"} <= last.keys()
    moved = {name.split(".")[1] for name, one in game.model.state_dict().items() if not torch.equal(one, before[name])}
    assert {"first", "late"} <= moved
    run = modkit.train(spec(weighed, steps=2), tmp_path / "again")
    loaded = modkit.load(tmp_path / "again")
    assert all(torch.equal(one, run.load_weights()[name]) for name, one in loaded.state_dict().items())
    assert loaded.sample(2, seed=0).shape == (2, 1, 8, 8)


@pytest.mark.wide(1)
@pytest.mark.parametrize("host", ["latent", "decoded", "autoregressive"])
def test_a_critic_plays_inside_of_another_model(host, tmp_path):
    judged, coder = diffusion({"critic": CRITIC}, conditioner="label"), use("mlp", width=8, depth=1)
    path, model = {
        "latent": ("prior", use("latent", autoencoder=use("autoencoder", encoder=coder, decoder=coder), prior=judged)),
        "decoded": ("decoder", use("decoded", encoder=coder, decoder=judged)),
        "autoregressive": ("head", use("autoregressive", head=diffusion({"critic": CRITIC}))),
    }[host]
    run = modkit.train(spec(model, steps=3), tmp_path / "run")
    last = [row["losses"] for row in run.read_metrics()][-1]
    assert {f"{path}/denoiser/critic", f"{path}/critic/adversarial"} <= last.keys()
    weights = run.load_weights()
    assert any(name.startswith(f"{path}.judges.critic.network.") for name in weights)
    assert all(torch.equal(value, weights[name]) for name, value in modkit.load(tmp_path / "run").state_dict().items())


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        ({"judges": {"mmd": "mmd"}}, "model.judges.mmd: MMD needs `z` of a round: expected a Model with latents"),
        ({"judges": {"c": use("critic", network=MLP, game="vae-gan")}}, "CriticJudge needs `decoder` of a round"),
        ({"judges": {"c": CRITIC}, "schedule": "learned"}, "expected a schedule that does not learn"),
    ],
    ids=["latents", "decoder", "schedule"],
)
def test_what_cannot_judge_is_refused(slots, said):
    with pytest.raises(SpecError, match=said):
        build(spec(diffusion(**slots)))


def test_joint_training_refuses_judges():
    with pytest.raises(ValueError, match="Diffusion expects no judges in joint training, got critic"):
        make({"critic": CRITIC}).cross_entropy(digits(2, F64), turn())
