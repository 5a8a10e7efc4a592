from torch import nn

from modkit import build
from modkit.training.ownership import collect_modules, collect_trained, find_frozen
from tests.play import GAN, spec


def test_what_shares_a_trained_weight_is_not_frozen():
    model = build(spec(GAN))
    (player,) = [one for one in model.players() if one.name == "generator"]
    layer = next(module for module in model.generator.modules() if isinstance(module, nn.Linear))
    model.tied, model.apart = nn.Linear(1, 1), nn.Linear(1, 1)
    model.tied.weight = layer.weight
    frozen = find_frozen(model, collect_trained(collect_modules(model, player)))
    assert model.apart in frozen and all(module in frozen for module in model.discriminator.modules())
    assert model.tied not in frozen and layer not in frozen
