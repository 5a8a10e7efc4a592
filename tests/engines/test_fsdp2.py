"""The engine `fsdp2` in one process; `test_ddp.py` trains with several."""

import pytest
import torch
from torch import distributed as dist
from torch import nn

from modkit import TensorType, use
from modkit.engines import fsdp2
from modkit.engines.fsdp2 import FSDP2Engine
from modkit.models import Latent
from modkit.optim.shards import is_shard
from tests.refusals import check_refusal


@pytest.fixture
def engine(tmp_path):
    """An engine of a group of one process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}.items():
            patch.setenv(name, value)
        dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
        yield FSDP2Engine("cpu")
        dist.destroy_process_group()


def make_model():
    coder = use("autoencoder", likelihood=use("gaussian", variance="shared"))
    network = use("unet", channels=[8], blocks=1)
    return Latent(TensorType((1, 8, 8), (-1, 1)), autoencoder=coder, prior=use("diffusion", network=network))


def describe(model):
    """What a division may change and must restore."""
    modules = {name: type(one) for name, one in model.named_modules()}
    hooks = {
        name: [key for key, value in vars(one).items() if "hooks" in key and value]
        for name, one in model.named_modules()
    }
    names = {name: vars(one).keys() - {"_is_full_backward_hook"} for name, one in model.named_modules()}
    return modules, hooks, names, list(model.state_dict())


def test_networks_are_divided_and_made_whole_again(engine):
    model = make_model()
    before, weights = describe(model), {name: one.clone() for name, one in model.state_dict().items()}
    own = [*model.autoencoder.parameters()]
    for _ in range(2):
        losses = nn.ModuleDict({"model": model})
        assert engine.wrap("autoencoder", losses, own) is losses
        whole = [name for name, one in model.named_parameters() if not is_shard(one)]
        kept = {"autoencoder.decoder.conv_out.weight", "autoencoder.likelihood.logvar"}
        assert {name for name in whole if not name.startswith(("prior.", "autoencoder.bottleneck."))} == kept
        assert list(model.state_dict()) == list(weights)
        model.autoencoder.reconstruct(torch.zeros(2, 1, 8, 8))
        assert [name for name, one in model.named_parameters() if not is_shard(one)] == whole
        with engine.join_weights():
            model.autoencoder.reconstruct(torch.zeros(2, 1, 8, 8))
            assert not any(map(is_shard, model.parameters()))
        assert [name for name, one in model.named_parameters() if not is_shard(one)] == whole
        engine.release("autoencoder", losses)
        assert describe(model) == before
        for name, one in model.named_parameters():
            assert torch.equal(one, weights[name])
        own = [*model.autoencoder.parameters()]


def test_a_player_that_has_no_turn_yet_is_not_held_to_its_gradients(engine):
    model = make_model()
    losses = nn.ModuleDict({"model": model})
    engine.wrap("prior/network", losses, [*model.prior.network.parameters()])
    optimizer = torch.optim.SGD(model.prior.network.parameters())
    engine.step(optimizer, None)
    next(model.prior.network.parameters()).sum().to_local().backward()
    with pytest.raises(ValueError, match="the losses of prior/network give no gradient to "):
        engine.step(optimizer, None)


def test_a_torch_that_cannot_leave_weights_whole_is_refused(engine, monkeypatch):
    monkeypatch.setattr(fsdp2, "fully_shard", lambda module, *, mesh: module)
    check_refusal("FSDP2Engine expects a torch whose fully_shard takes `ignored_params`, got", FSDP2Engine, "cpu")
