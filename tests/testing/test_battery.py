"""The conformance battery over modkit's own parts."""

import pytest

from modkit import use
from modkit.testing import parametrize_parts
from tests.files import write_archive, write_arrays, write_fashion_mnist, write_pictures
from tests.swap.hosts import PIECES, SMALL

WEIGHTS = "its weights are a file of the user's, which no test has"
ACROSS = "its last layer sees the standard deviation across the batch, as in StyleGAN2"
TIMES = "it measures time"
LAUNCHED = "a launcher starts its processes: `tests/engines/test_ddp.py`"
BORROWED = "its autoencoder is another's, by `ref`, and takes no gradients here"
FRESH = "it freezes a part that a run is to provide, and training refuses initial weights there: `tests/swap` has runs"
FAILURES = {
    **{f"features {name}: builds": WEIGHTS for name in ("clip", "dinov2", "inception", "lpips", "timm", "torchvision")},
    **{f"discriminator {name}: independence": ACROSS for name in ("ncsnpp", "stylegan2")},
    "metric cost: deterministic": TIMES,
    "engine ddp: builds": LAUNCHED,
    "engine fsdp2: builds": LAUNCHED,
    "conditioner encoded: gradients": BORROWED,
    "conditioner encoded: plays": FRESH,
    "guidance autoguidance: plays": FRESH,
}
PARAMS = {f"{kind} {name}": params for (kind, name), params in SMALL.items() if "/" not in name}
PARAMS["features stacked-classifier"] = {"depth": 1, "classes": 10}  # of one channel, as the host's data
PARAMS["coupling pairs"] = {}  # the cases' data bring noise
PARAMS["alignment field"] = {"width": 8}  # and features
PARAMS["conditioner encoded"] = {"autoencoder": PIECES["coder"].model, "beside": ["mask"]}
PARAMS["guidance autoguidance"] = {"guide": use("diffusion", network=use("mlp", width=8, depth=1))}
PARAMS["metric disentanglement"] = {"trees": 2, "votes": 300, "draws": 8}


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory):
    """Where the data sets of files find theirs."""
    folder = tmp_path_factory.mktemp("data")
    write_fashion_mnist(folder / "fashion-mnist")
    write_fashion_mnist(folder / "torchvision" / "MNIST" / "raw")
    write_pictures(folder / "image-folder")
    write_archive(folder / "archive.zip")
    write_arrays(folder / "array")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        yield


@parametrize_parts("modkit", params=PARAMS, expected_failures=FAILURES)
def test_part(check):
    check()
