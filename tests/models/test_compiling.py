import pytest
import torch
from torch import Tensor, nn

from modkit import TensorType, use
from modkit.models import Autoencoder, Latent
from modkit.models.compiling import compile_networks, restore_networks
from modkit.nn import compiled
from modkit.specs.settings import Compilation

X = TensorType((1, 8, 8), range=(-1.0, 1.0))
CONV = use("conv", channels=[4, 4])
CODER = use(
    "autoencoder",
    encoder=CONV,
    bottleneck=use("vq", num_codes=8, channels=2),
    decoder=CONV,
    judges={
        "critic": use("critic", network=use("patch", channels=4, layers=1)),
        "perceptual": use("perceptual", features=use("random-conv", dim=8)),
    },
    weights={"critic": use("adaptive")},
)
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
EAGER = Compilation(backend="eager")


@pytest.fixture
def vqgan() -> Latent:
    network = use("transformer", width=8, depth=2, heads=2)
    return Latent(X, autoencoder=CODER, prior=use("autoregressive", network=network))


def list_compiled(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


def test_networks_by_units_and_perceptual_distances_are_compiled_but_no_last_layer(vqgan):
    keys = list(vqgan.state_dict())
    compile_networks(vqgan, EAGER)
    assert list_compiled(vqgan) == [
        "autoencoder.encoder.levels.0.0",
        "autoencoder.encoder.levels.0.1",
        "autoencoder.encoder.levels.1.0",
        "autoencoder.encoder.middle",
        "autoencoder.decoder.middle",
        "autoencoder.decoder.levels.0.0",
        "autoencoder.decoder.levels.1.0",
        "autoencoder.judges.critic.network",
        "autoencoder.judges.perceptual",
        "prior.network.blocks.0",
        "prior.network.blocks.1",
    ]
    assert list(vqgan.state_dict()) == keys
    restore_networks(vqgan)
    assert not list_compiled(vqgan)


class Stacked(nn.Module):
    """A decoder whose last layer is inside a list."""

    last_layer = "layers.1.1.weight"

    def __init__(self, z: TensorType, x: TensorType) -> None:
        super().__init__()
        self.x = x
        out = nn.Sequential(nn.SiLU(), nn.Linear(4, x.numel))
        self.layers = nn.ModuleList([nn.Linear(z.numel, 4), out])

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.layers:
            z = layer(z)
        return z.tanh().view(-1, *self.x.shape)


@pytest.mark.parametrize(
    ("decoder", "expected"), [("mlp", ["embedding", "hidden"]), (Stacked, ["layers.0", "layers.1.0"])]
)
def test_a_decoder_without_units_is_compiled_beside_its_last_layer(decoder, expected):
    model = Autoencoder(X, encoder="mlp", decoder=decoder)
    compile_networks(model, EAGER)
    assert list_compiled(model.decoder) == expected


@pytest.mark.parametrize("weights", [{}, {"critic": use("adaptive")}])
def test_buffers_are_kept_where_a_weight_may_differentiate(weights):
    judges = {"critic": use("critic", network="mlp")}
    model = Autoencoder(X, encoder="mlp", decoder="mlp", judges=judges, weights=weights)
    with torch._functorch.config.patch(donated_buffer=True):
        compile_networks(model, EAGER)
        assert torch._functorch.config.donated_buffer is not bool(weights)


@pytest.mark.wide
def test_a_transformer_is_compiled_but_for_its_steps(vqgan, caplog):
    vqgan.eval()
    codes = torch.arange(32).view(2, 4, 4) % 8
    expected = [vqgan.sample(2, seed=0), vqgan.prior.network(codes, vqgan.prior.conditioner({}, None))]
    torch.compiler.reset()
    compile_networks(vqgan.prior, EAGER)
    torch._dynamo.utils.counters.clear()
    found = [vqgan.sample(2, seed=0)]
    assert not torch._dynamo.utils.counters["stats"]
    found += [vqgan.prior.network(codes, vqgan.prior.conditioner({}, None))]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(found, expected)
    assert not [one for one in caplog.records if one.name == compiled.__name__]
