"""The judges of a Model: their names, their draws, and what a critic among them trains."""

import pytest
import torch

from modkit import SpecError, build, use
from modkit.training.ownership import collect_modules, collect_trained
from tests.play import MLP, digits, spec, turn


def make(judges, **slots):
    return build(spec(use("autoencoder", **MLP, judges=judges, **{"bottleneck": "gaussian", **slots})))


def test_each_judge_draws_by_itself():
    judges = {"first": "mmd", "second": "mmd", "critic": use("latent-critic", network=use("mlp", width=8, depth=1))}
    both, alone = make(judges), make({"second": "mmd"})
    alone.load_state_dict({key: both.state_dict()[key] for key in alone.state_dict()})
    found, expected = (one.losses("autoencoder", digits(5), turn("a")) for one in (both, alone))
    assert torch.equal(found["second"], expected["second"]) and found["first"] != found["second"]


def test_a_critic_trains_a_conditioner_of_its_own():
    model = make({"critic": use("critic", network=use("mlp", width=8, depth=1))}, conditioner="label")
    maker, critic = model.players()
    trained = {one.name: set(map(id, collect_trained(collect_modules(model, one)))) for one in (maker, critic)}
    own, shared = model.judges.conditioners["critic"].embedding.weight, model.conditioner.embedding.weight
    assert id(own) in trained["critic"] - trained["autoencoder"]
    assert id(shared) in trained["autoencoder"] - trained["critic"]
    for parameter in (own, shared):
        parameter.data += 1
    lost = {key: value for key, value in model.state_dict().items() if "judges.conditioners" not in key}
    model.load_state_dict(lost)
    assert torch.equal(own, shared)


@pytest.mark.parametrize("name", ["a.b", "parts", "players"])
def test_a_name_that_cannot_be_one_is_refused(name):
    with pytest.raises(SpecError, match=rf"model\.judges\.{name}: expected a name without a dot"):
        make({name: "mmd"})
