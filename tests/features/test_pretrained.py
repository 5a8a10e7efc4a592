import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from modkit.features import pretrained
from modkit.features.pretrained import Timm, TorchVision, clip, dinov2
from modkit.types import TensorType
from tests.features.checks import check_extractor
from tests.refusals import check_refusal

GREY, COLOUR = TensorType((1, 8, 6), range=(-1, 1)), TensorType((3, 8, 6), range=(0, 1))
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def saved(net, path):
    safetensors.torch.save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    return str(path)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture
def models():
    return pytest.importorskip("torchvision.models", reason="torchvision is not installed")


@pytest.fixture
def shuffle(models, tmp_path):
    net = seeded(models.shufflenet_v2_x0_5)
    return net, saved(net, tmp_path / "w.safetensors")


def test_torchvisions_penultimate_features_logits_and_maps(shuffle):
    net, weights = shuffle
    part = TorchVision(COLOUR, weights=weights, model="shufflenet_v2_x0_5", size=32, maps=["stage2", "conv5"])
    x = torch.rand(3, 3, 40, 20)
    features = check_extractor(part, x)
    y = (F.interpolate(x, (32, 32), mode="bilinear", align_corners=False, antialias=True) - MEAN) / STD
    with torch.no_grad():
        torch.testing.assert_close(features.logits.detach(), net(y))
        deep = net.stage2(net.maxpool(net.conv1(y)))
        torch.testing.assert_close(features.maps[0].detach(), deep)
        last = net.conv5(net.stage4(net.stage3(deep)))
        torch.testing.assert_close(features.maps[1].detach(), last)
        torch.testing.assert_close(features.vector.detach(), last.mean((2, 3)))
    assert part.label == f"torchvision:shufflenet_v2_x0_5@{part.key()[:6]}"
    assert part.key() != TorchVision(COLOUR, weights=weights, model="shufflenet_v2_x0_5", size=64).key()


def check_refusals(part, settings, *rows):
    for message, options in rows:
        check_refusal(f"{part.__name__} expects {message}", part, **{"x": GREY, **settings, **options})


def test_what_torchvision_cannot_give_is_refused(shuffle, models, tmp_path):
    squeeze = saved(models.squeezenet1_1(), tmp_path / "squeeze.safetensors")
    check_refusals(
        TorchVision,
        {"weights": shuffle[1], "model": "shufflenet_v2_x0_5"},
        ("a model of torchvision.models, .* got 'resnet19'", {"model": "resnet19"}),
        ("the weights of its network .* differ", {"model": "shufflenet_v2_x1_0"}),
        (r"maps to name modules, .* got \['layer9'\]", {"maps": ["layer9"]}),
        (".*w.safetensors to have SHA-256", {"sha256": "0" * 64}),
        ("size to be at least 1, got 0", {"size": 0}),
        ("a model that ends in a linear layer", {"model": "squeezenet1_1", "weights": squeeze}),
    )


@pytest.mark.wide
def test_building_draws_nothing_and_works_on_meta(shuffle):
    state = torch.random.get_rng_state()
    TorchVision(GREY, weights=shuffle[1], model="shufflenet_v2_x0_5")
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.device("meta"):
        part = TorchVision(GREY, weights=shuffle[1], model="shufflenet_v2_x0_5", size=32)
        assert part(torch.empty(2, 1, 8, 6)).logits.shape == (2, 1000)


@pytest.mark.wide(1)
@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
def test_timms_pooled_features_and_maps(timm, tmp_path, model):
    net = seeded(lambda: timm.create_model(model))
    part = Timm(COLOUR, weights=saved(net, tmp_path / "w.safetensors"), model=model, maps=[0, 2])
    settings = timm.data.resolve_model_data_config(net)
    size = settings["input_size"][1]
    x = torch.rand(3, 3, 30, 50)
    features = check_extractor(part, x)
    y = F.interpolate(x, (size, size), mode=settings["interpolation"], align_corners=False, antialias=True)
    y = (y - torch.tensor(settings["mean"]).view(3, 1, 1)) / torch.tensor(settings["std"]).view(3, 1, 1)
    with torch.no_grad():
        want = net.forward_head(net.forward_features(y), pre_logits=True)
        torch.testing.assert_close(features.vector.detach(), want, rtol=1e-4, atol=1e-5)
        maps = net.forward_intermediates(y, indices=[0, 2], intermediates_only=True)
    for ours, theirs in zip(features.maps, maps):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-5)
    assert part.label == f"timm:{model}@{part.key()[:6]}" and features.logits is None


def test_timms_projection_has_unit_norm_and_position_embeddings_fit_the_size(timm, tmp_path):
    net = seeded(lambda: timm.create_model("test_vit"))
    weights = saved(net, tmp_path / "w.safetensors")
    part = Timm(GREY, weights=weights, model="test_vit", size=64, output="projected")
    x = 2 * torch.rand(3, 1, 64, 64) - 1
    vector = check_extractor(part, x).vector
    net.set_input_size(img_size=(64, 64))
    settings = timm.data.resolve_model_data_config(net)
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        want = net((x.expand(-1, 3, -1, -1) / 2 + 0.5 - mean) / std)
    torch.testing.assert_close(vector.detach(), want / want.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)
    others = [Timm(GREY, weights=weights, model="test_vit", **options).key() for options in ({"size": 64}, {})]
    assert len({part.key(), *others}) == 3


def test_only_the_papers_models_are_called_dinov2_and_clip(timm, tmp_path, monkeypatch):
    weights = saved(seeded(lambda: timm.create_model("test_vit")), tmp_path / "w.safetensors")
    assert dinov2(GREY, weights=weights, model="test_vit", size=160).label.startswith("timm:test_vit@")
    assert clip(GREY, weights=weights, model="test_vit").label.startswith("timm:test_vit@")
    assert timm.is_model(pretrained._DINOV2) and timm.is_model(pretrained._CLIP)
    settings = timm.get_pretrained_cfg(pretrained._DINOV2)
    assert (settings.mean, settings.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert settings.interpolation == "bicubic"
    assert timm.get_pretrained_cfg(pretrained._CLIP).input_size == (3, 336, 336)
    monkeypatch.setattr(pretrained, "_DINOV2", "test_vit")
    monkeypatch.setattr(pretrained, "_CLIP", "test_vit")
    assert dinov2(GREY, weights=weights, model="test_vit", size=224).label == "dinov2"
    assert dinov2(GREY, weights=weights, model="test_vit", size=160).label != "dinov2"
    assert clip(GREY, weights=weights, model="test_vit").label == "clip"
    vector = clip(GREY, weights=weights, model="test_vit")(torch.rand(2, 1, 8, 6)).vector
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(2))


def test_what_timm_cannot_give_is_refused(timm, tmp_path):
    headless = saved(timm.create_model("test_vit", num_classes=0), tmp_path / "headless.safetensors")
    check_refusals(
        Timm,
        {"weights": saved(timm.create_model("test_vit"), tmp_path / "w.safetensors"), "model": "test_vit"},
        ("the name of a model in timm, got 'no_such'", {"model": "no_such"}),
        ("output to be 'pooled' or 'projected', got 'raw'", {"output": "raw"}),
        ("a size that is a multiple of test_vit's patches of 16, got 33", {"size": 33}),
        ("the weights of its network .* differ", {"weights": headless}),
        ("images with a range", {"x": TensorType((3, 8, 8))}),
    )


def test_missing_libraries_say_what_installs_them(monkeypatch):
    modules = __import__("sys").modules
    monkeypatch.setitem(modules, "timm", None)
    check_refusal("Timm expects timm: pip install timm", Timm, GREY, weights="w.safetensors", model="test_vit")
    monkeypatch.setitem(modules, "torchvision.models", None)
    check_refusals(TorchVision, {"weights": "w.safetensors"}, ("torchvision: pip install torchvision", {}))
