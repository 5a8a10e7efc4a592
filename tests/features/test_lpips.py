import importlib.util

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from modkit.features.lpips import LPIPS
from modkit.losses.perceptual import Perceptual
from modkit.types import TensorType
from tests.features.checks import check_extractor
from tests.refusals import check_refusal

GREY, COLOUR = TensorType((1, 33, 40), range=(0, 1)), TensorType((3, 33, 40), range=(-1, 1))
SHIFT, SCALE = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
MODELS = {"vgg": "vgg16", "alex": "alexnet"}
SLICES = {"vgg": (4, 9, 16, 23, 30), "alex": (2, 5, 8, 10, 12)}
CHANNELS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}


@pytest.fixture(scope="module")
def networks():
    """Those of torchvision, on random weights, without the classifiers, which are large."""
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    made = {}
    draws = torch.Generator().manual_seed(0)
    for net, name in MODELS.items():
        with torch.device("meta"):
            made[net] = models.get_model(name, weights=None).features
        made[net].to_empty(device="cpu")
        for value in made[net].parameters():
            std = (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
            value.data.normal_(std=std, generator=draws)
    return made


@pytest.fixture(scope="module")
def files(networks, tmp_path_factory):
    """A folder with the weights of both networks, and their heads."""
    folder = tmp_path_factory.mktemp("lpips")
    for net, features in networks.items():
        state = {f"features.{name}": value for name, value in features.state_dict().items()}
        safetensors.torch.save_file(state, folder / f"{net}.safetensors")
        torch.save(heads(net), folder / f"{net}-heads.pth")
    return folder


def heads(net):
    draws = torch.Generator().manual_seed(1)
    return {
        f"lin{level}.model.1.weight": torch.rand((1, wide, 1, 1), generator=draws)
        for level, wide in enumerate(CHANNELS[net])
    }


def made(files, net, x=COLOUR, **options):
    return LPIPS(
        x, weights=str(files / f"{net}.safetensors"), net=net, heads=str(files / f"{net}-heads.pth"), **options
    )


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def torchvisions(net, features, x):
    """LPIPS' maps by torchvision's layers, of images in [-1, 1]."""
    y, maps = (x - SHIFT[:, None, None]) / SCALE[:, None, None], []
    with torch.no_grad():
        for index, layer in enumerate(features[: SLICES[net][-1]], 1):
            y = layer(y).clone()  # its ReLUs work in place
            maps += [y] if index in SLICES[net] else []
    return maps


@pytest.mark.wide(1)
@pytest.mark.parametrize("net", MODELS)
def test_the_maps_are_torchvisions_and_the_perceptual_loss_is_lpips(files, networks, net):
    part = made(files, net)
    x = 2 * images(3, 3, 33, 40) - 1
    features = check_extractor(part, x)
    maps = torchvisions(net, networks[net].eval(), x)
    for ours, theirs in zip(features.maps, maps):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-4)

    distance = torch.zeros(2)
    parts = []
    for y, head in zip(maps, heads(net).values()):
        u = y / y.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
        distance += F.conv2d((u[:2] - u[1:]).square(), head).mean((1, 2, 3))
        parts.append((u * head.sqrt()).mean((2, 3)))
    ours = Perceptual(part)(x[:2], x[1:])
    torch.testing.assert_close(ours, distance, rtol=1e-4, atol=0)
    torch.testing.assert_close(features.vector.detach(), torch.cat(parts, 1), rtol=1e-4, atol=1e-5)
    below = (features.vector[:2] - features.vector[1:]).square().sum(1)
    assert bool((below <= ours).all()) and bool((below > 0).all())


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.filterwarnings("ignore:The parameter 'pretrained':UserWarning", "ignore:Arguments other than:UserWarning")
def test_parity_with_the_package(files, networks, net):
    package = pytest.importorskip("lpips", reason="lpips is not installed")
    theirs = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    for number in range(1, 6):
        for index, layer in getattr(theirs.net, f"slice{number}").named_children():
            layer.load_state_dict(networks[net][int(index)].state_dict())
    ours = Perceptual(LPIPS(COLOUR, weights=str(files / f"{net}.safetensors"), net=net))
    a, b = 2 * images(3, 3, 33, 40) - 1, 2 * images(3, 3, 33, 40, seed=1) - 1
    torch.testing.assert_close(ours(a, b), theirs(a, b).flatten().detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.wide
def test_grey_images_in_another_range_are_mapped_and_resized(files):
    part, x = made(files, "vgg", GREY, size=16), images(3, 1, 33, 40)
    features = check_extractor(part, x)
    y = F.interpolate(2 * x - 1, (16, 16), mode="bilinear", align_corners=False, antialias=True)
    same = made(files, "vgg", TensorType((3, 16, 16), range=(-1, 1)))(y.expand(-1, 3, -1, -1))
    torch.testing.assert_close(features.vector, same.vector)
    assert [tuple(y.shape[2:]) for y in features.maps] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    assert part.label == f"lpips:vgg@{part.key()[:6]}"


@pytest.mark.parametrize(("net", "smallest"), [("vgg", 16), ("alex", 31)])
def test_images_of_the_smallest_size_have_maps_and_smaller_ones_are_refused(files, net, smallest):
    small = TensorType((1, smallest, smallest), range=(0, 1))
    with torch.device("meta"):
        assert min(made(files, net, small)(torch.empty(2, 1, smallest, smallest)).maps[-1].shape) == 1
    with pytest.raises(ValueError, match=f"LPIPS with {net} expects images of at least {smallest}×{smallest}, got 1×"):
        made(files, net, TensorType((1, smallest, smallest - 1), range=(0, 1)))
    with pytest.raises(ValueError, match=f"LPIPS with {net} expects images .*, got size {smallest - 1}"):
        made(files, net, small, size=smallest - 1)


def test_the_key_is_of_weights_heads_and_size(files, tmp_path):
    part = made(files, "alex")
    torch.save({name: value + 0.1 for name, value in heads("alex").items()}, tmp_path / "other.pth")
    weights = str(files / "alex.safetensors")
    other = LPIPS(COLOUR, weights=weights, net="alex", heads=str(tmp_path / "other.pth"))
    keys = {part.key(), other.key(), made(files, "alex", size=64).key()}
    assert len(keys) == 3 and made(files, "alex", GREY).key() == part.key()


def test_building_draws_nothing_and_moves_its_heads(files):
    state = torch.random.get_rng_state()
    part = made(files, "alex")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b.flatten()) for a, b in zip(part.heads, heads("alex").values()))
    assert all(head.dtype == torch.float64 for head in part.double().heads)


def test_torchvisions_whole_file_is_read_without_its_classifier(files, tmp_path):
    state = safetensors.torch.load_file(files / "alex.safetensors")
    torch.save({**state, "classifier.1.weight": torch.zeros(2)}, tmp_path / "alexnet-owt.pth")
    part = LPIPS(COLOUR, weights=str(tmp_path / "alexnet-owt.pth"), net="alex", heads=str(files / "alex-heads.pth"))
    assert part.key() == made(files, "alex").key()


def test_the_package_brings_the_heads_and_is_not_imported(files, tmp_path, monkeypatch):
    folder = tmp_path / "lpips" / "weights" / "v0.1"
    folder.mkdir(parents=True)
    (tmp_path / "lpips" / "__init__.py").write_text("raise AssertionError('imported')")
    torch.save(heads("alex"), folder / "alex.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "lpips", raising=False)
    assert LPIPS(COLOUR, weights=str(files / "alex.safetensors"), net="alex").key() == made(files, "alex").key()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="LPIPS expects `heads`, or the package lpips, .*: pip install lpips"):
        LPIPS(COLOUR, weights=str(files / "alex.safetensors"), net="alex")


def test_what_is_no_network_of_its_own_is_refused(files, tmp_path):
    negative, alex = tmp_path / "negative.pth", files / "alex-heads.pth"
    torch.save({name: value - 0.5 for name, value in heads("alex").items()}, negative)
    for message, options in (
        ("net to be 'vgg' or 'alex', got 'squeeze'", {"net": "squeeze"}),
        ("the weights of its network in .*features.0.weight: expected", {"net": "vgg", "heads": str(alex)}),
        (r"heads .*'lin0.model.1.weight': \(1, 64, 1, 1\).* got", {"heads": str(files / "vgg-heads.pth")}),
        ("images with a range", {"x": TensorType((3, 33, 40)), "heads": str(alex)}),
        (".*alex.safetensors to have SHA-256", {"sha256": "0" * 64, "heads": str(alex)}),
        ("heads of at least 0 in .*, got negative values", {"heads": str(negative)}),
    ):
        options = {"x": COLOUR, "weights": str(files / "alex.safetensors"), "net": "alex", **options}
        check_refusal(f"LPIPS expects {message}", LPIPS, **options)
