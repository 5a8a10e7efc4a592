"""The engine `fsdp2` in one process; `test_ddp.py` trains with several."""

import pytest
import torch
from torch import distributed as dist
from torch import nn

from modkit import Batch, Cond, Rng, StepContext, TensorType, use
from modkit.engines import fsdp2
from modkit.engines.fsdp2 import FSDP2Engine
from modkit.models import GAN, Diffusion, Latent
from modkit.optim.shards import gather_whole, is_shard
from modkit.specs.settings import Term
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


def test_a_mean_has_the_layout_of_its_gradient(engine):
    """The fault: Adam reads a contiguous gradient of a channels-last weight in the order of the weight's memory."""
    layers = [nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer in layers:
        layer(torch.arange(2 * 3 * 5 * 5).view(2, 3, 5, 5).sin()).square().sum().backward()
    optimizers = [torch.optim.Adam(layer.parameters(), fused=True) for layer in layers]
    engine.step(optimizers[0])
    optimizers[1].step()
    assert torch.equal(layers[0].weight, layers[1].weight)
    (mean,) = engine.reduce({"w": layers[0].weight}).values()
    assert mean.stride() == layers[0].weight.stride() and torch.equal(mean, layers[0].weight)


@pytest.mark.parametrize(
    ("network", "last"),
    [
        (use("unet", channels=[8], blocks=1), "conv_out.weight"),
        (use("edm2-unet", channels=[8], blocks=1), "conv_out.gain"),
        (use("dit", width=8, depth=2, heads=2), "out.weight"),
        (use("ncsnpp", channels=[8], blocks=1), "head.conv.weight"),
    ],
    ids=["unet", "edm2-unet", "dit", "ncsnpp"],
)
def test_taps_of_a_divided_network_are_those_of_the_whole_one(engine, network, last):
    """The fault: a method beside `forward` finds shards in the place of weights unless the engine knows it."""
    model = Diffusion(TensorType((1, 8, 8), (-1, 1)), network=network)
    x, cond = torch.randn(2, 1, 8, 8), Cond(time=torch.tensor([0.2, 0.7]))
    nn.init.normal_(model.network.get_parameter(last))
    name = list(model.network.taps)[0]
    y, maps = model.network.tap(x, cond, [name], {name: torch.ones(())})
    engine.wrap("denoiser", nn.ModuleDict({"model": model}), [*model.parameters()])
    for _ in range(2):
        made, read = model.network.tap(x, cond, [name], {name: torch.ones(())})
        (made.square().sum() + read[name].square().sum()).backward()
        torch.testing.assert_close(made, y)
        torch.testing.assert_close(read[name], maps[name])
        assert all(is_shard(one) for one in model.network.parameters() if one.ndim)


def test_a_method_s_gradients_are_differentiated_with_whole_weights(engine):
    """The fault: only after `forward` did weights stay whole; the second backward pass read memory that was freed."""
    event, packed = TensorType((1, 8, 8), (-1, 1)), use("packed", discriminator=use("mlp", width=8))
    made = use("stylegan2", channels=4, style=8, mixing=0.0)
    model = GAN(event, generator=made, discriminator=packed, z_dim=4, regularizers={"length": "path-length"})
    model.penalties.length.turns.fill_(1)
    x = torch.randn(4, 1, 8, 8, requires_grad=True)

    def measure_length():
        step = StepContext(Rng(0), terms={"adversarial": Term(start=1)})
        return model.losses("generator", Batch(x, {}), step)["length"]

    def measure_slope():
        feature = model.discriminator.judge(x, Cond()).maps[0].square().sum()
        return torch.autograd.grad(feature, x, create_graph=True)[0].square().sum()

    for player, compute in {"generator": measure_length, "discriminator": measure_slope}.items():
        network = getattr(model, player)
        network.zero_grad()
        compute().backward()
        want = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
        network.zero_grad()
        losses = nn.ModuleDict({"model": model})
        engine.wrap(player, losses, [*network.parameters()])
        penalty = compute()
        assert not any(map(is_shard, network.parameters()))
        penalty.backward()
        engine._divide()
        found = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
        assert any(map(is_shard, found.values())) and found.keys() == want.keys()
        for name, one in found.items():
            torch.testing.assert_close(gather_whole(one), want[name])
        engine.release(player, losses)
    assert "judge" not in vars(model.discriminator)


def test_a_packed_critic_of_logits_alone_is_divided(engine):
    class Logits(nn.Linear):
        def __init__(self, x, cond):
            super().__init__(x.numel, 1)

        def forward(self, x, cond):
            return super().forward(x.flatten(1)).squeeze(1)

    model = GAN(TensorType((2,)), discriminator=use("packed", discriminator=use(Logits)))
    losses = nn.ModuleDict({"model": model})
    engine.wrap("discriminator", losses, [*model.discriminator.parameters()])
    assert model.discriminator(torch.zeros(4, 2), Cond()).shape == (2,) and model.discriminator.judge is None
    engine.release("discriminator", losses)
    held = model.discriminator.judge = lambda x, cond: model.discriminator(x, cond)
    engine.wrap("discriminator", losses, [*model.discriminator.parameters()])
    assert model.discriminator.judge is not held
    engine.release("discriminator", losses)
    assert model.discriminator.judge is held


def test_networks_update_weights_that_are_divided(engine):
    model = Diffusion(TensorType((1, 8, 8), (-1, 1)), network=use("edm2-unet", channels=[8], blocks=1))
    losses, own = nn.ModuleDict({"model": model}), [*model.parameters()]
    for one in own:
        one.data *= 3
    engine.wrap("denoiser", losses, own)
    model.network.update()
    engine.release("denoiser", losses)
    for one in (one for one in model.parameters() if one.ndim):
        torch.testing.assert_close(one.detach().flatten(1).square().mean(1), torch.ones(len(one)))


def test_a_player_that_has_no_turn_yet_is_not_held_to_its_gradients(engine):
    model = make_model()
    losses = nn.ModuleDict({"model": model})
    engine.wrap("prior/network", losses, [*model.prior.network.parameters()])
    optimizer = torch.optim.SGD(model.prior.network.parameters())
    engine.step(optimizer)
    next(model.prior.network.parameters()).sum().to_local().backward()
    with pytest.raises(ValueError, match="the losses of prior/network give no gradient to "):
        engine.step(optimizer)


def test_a_torch_that_cannot_leave_weights_whole_is_refused(engine, monkeypatch):
    monkeypatch.setattr(fsdp2, "fully_shard", lambda module, *, mesh: module)
    check_refusal("FSDP2Engine expects a torch whose fully_shard takes `ignored_params`, got", FSDP2Engine, "cpu")
