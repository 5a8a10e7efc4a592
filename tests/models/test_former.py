"""Former parameters and weights of an autoencoder, read into its judges."""

import torch

from modkit import build, load, train, use
from modkit.building.plan import plan
from modkit.models.former import migrate, move_judges
from modkit.specs.overrides import apply
from tests.play import MLP, spec

NET = use("mlp", width=8, depth=1)
FORMER = {
    "aggregates": {"tc": "total-correlation"},
    "latent_critic": NET,
    "latent_against": "shuffled",
    "features": use("random-conv", dim=8),
    "critic": NET,
    "adversarial": "non-saturating",
    "critic_start": 2,
    "regularizers": {"r1": "r1", "norm": "latent-norm"},
    "weights": {"adversarial": 0.1, "adversarial/latent-critic": 3.0, "kl": 2.0},
}
NOW = {
    "judges": {
        "tc": "total-correlation",
        "latent-critic": use("latent-critic", network=NET, against="shuffled"),
        "perceptual": use("perceptual", features=use("random-conv", dim=8)),
        "critic": use("critic", network=NET, adversarial="non-saturating", start=2, regularizers={"r1": "r1"}),
    },
    "regularizers": {"norm": "latent-norm"},
    "weights": {"critic": 0.1, "latent-critic": 3.0, "kl": 2.0},
}


def test_former_parameters_are_the_judges():
    former, now = (plan(spec(use("autoencoder", **MLP, **one))).resolved.model for one in (FORMER, NOW))
    assert former == now
    assert list(former["judges"]) == list(NOW["judges"])  # terms are computed in this order
    assert move_judges(NOW) is NOW


def test_former_names_in_overrides_reach_into_the_judges():
    changed, _ = apply(
        spec(use("autoencoder", **MLP, **NOW)),
        ["model.critic.width=4", "model.critic_start=5", "model.features=null", "model.aggregates.tc=mmd"],
    )
    judges = plan(changed).resolved.model["judges"]
    assert (judges["critic"]["network"]["width"], judges["critic"]["start"]) == (4, 5)
    assert "perceptual" not in judges and judges["tc"].use == "mmd"


def test_a_run_s_weights_move_with_them(tmp_path):
    run = train(spec(use("autoencoder", **MLP, **NOW), steps=1), tmp_path / "run")
    model, state = load(run), run.load_weights()
    names = {
        "judges.latent-critic.network.": "latent_game.critic.",
        "judges.critic.network.": "critic.",
        "judges.tc.num_samples": "aggregates.num_samples",
    }
    former = {
        next((old + key.removeprefix(new) for new, old in names.items() if key.startswith(new)), key): value
        for key, value in state.items()
    }
    assert former.keys() != state.keys()
    params, moved = migrate(dict(FORMER), former, "0.1.0")
    assert moved.keys() == state.keys() and all(torch.equal(moved[key], value) for key, value in state.items())
    again = build(spec(use("autoencoder", **MLP, **params)))
    again.load_state_dict(moved)
    assert torch.equal(again.sample(2, seed=0), model.sample(2, seed=0))
