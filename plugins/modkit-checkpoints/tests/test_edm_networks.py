import pytest
import torch
from modkit_checkpoints.dhariwal_unet import DhariwalUNet
from modkit_checkpoints.edm_embedding import Fourier, Mapping
from modkit_checkpoints.song_unet import SongUNet
from safetensors.torch import load, save

import modkit
from modkit import Cond, CondType, Spec, TensorType

X = TensorType((2, 7, 6))
OUT = TensorType((3, 7, 6))
COND = CondType(vector=3, noise=5, labels=4, concat=TensorType((1, 4, 3)), time=True)
SMALL = {"channels": [8, 12], "blocks": 1, "attention": [4]}
PARTS = [
    (SongUNet, {}),
    (SongUNet, {"frequencies": "fourier", "fir": True, "encoder": "skip", "decoder": "skip", "stem": 6, "augment": 2}),
    (SongUNet, {"encoder": "residual", "embedding": 10, "features": 4}),
    (DhariwalUNet, {}),
    (DhariwalUNet, {"head_channels": 4, "augment": 2, "embedding": 10, "features": 4}),
]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(num):
    return Cond(
        vector=normal(num, 3, seed=1),
        noise=normal(num, 5, seed=2),
        labels=torch.arange(num) % 5,
        concat=normal(num, 1, 4, 3, seed=3),
        time=torch.arange(num, dtype=torch.float64) / 2 - 1,
    )


def drawn(module):
    rng = torch.Generator().manual_seed(9)
    for parameter in module.double().parameters():
        parameter.data.normal_(std=0.3, generator=rng)
    return module


@pytest.mark.parametrize("part, options", PARTS)
def test_every_condition_and_parameter_matters_and_no_sample_another(part, options):
    net = drawn(part(X, OUT, COND, **SMALL, **options))
    x, cond = normal(3, *X.shape), values(3)
    augment = normal(3, 2, seed=4) if "augment" in options else None
    y = net(x, cond, augment)
    assert y.shape == (3, *OUT.shape)
    for name in ("vector", "noise", "labels", "concat", "time"):
        value = getattr(cond, name)
        other = (value + 1) % 5 if name == "labels" else value + 0.5 * normal(*value.shape, seed=8)
        assert (net(x, Cond(**{**vars(cond), name: other}), augment) - y).abs().max() > 1e-6, name
    if augment is not None:
        assert (net(x, cond) - y).abs().max() > 1e-6
        torch.testing.assert_close(net(x, cond), net(x, cond, torch.zeros(3, 2)), rtol=0, atol=0)
    alone = Cond(**{name: value[1:2] for name, value in vars(cond).items() if value is not None})
    second = net(x[1:2], alone, None if augment is None else augment[1:2])
    torch.testing.assert_close(second, y[1:2], rtol=1e-9, atol=1e-9)
    y.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("part, options", PARTS[1::3])
@pytest.mark.parametrize("shape", [(2, 9), (1, 3, 4, 5)], ids=str)
def test_signals_and_volumes_without_conditions(part, options, shape):
    x = TensorType(shape)
    options = {key: value for key, value in options.items() if key != "augment"}
    net = drawn(part(x, x, CondType(), channels=[8, 8], blocks=1, **options))
    assert net(normal(2, *shape), Cond()).shape == (2, *shape)


@pytest.mark.parametrize("part, options", PARTS)
def test_dtypes_and_the_state_survive_a_file(part, options):
    one, two = (part(X, OUT, COND, **SMALL, **options) for _ in range(2))
    two.load_state_dict(load(save(one.state_dict())))
    x, cond = normal(2, *X.shape).float(), values(2)
    torch.testing.assert_close(two(x, cond), one(x, cond), rtol=0, atol=0)
    assert one.bfloat16()(x.bfloat16(), cond).dtype == torch.bfloat16


def test_fourier_features_are_drawn_once_and_kept():
    torch.manual_seed(0)
    waves = Fourier(4000)
    assert 2 * torch.pi * 16 * 0.95 < waves.frequencies.std() < 2 * torch.pi * 16 * 1.05
    time = torch.tensor([0.3, -1.0], dtype=torch.float64)
    angles = time[:, None] * waves.frequencies.double()
    torch.testing.assert_close(waves(time), torch.cat([angles.sin(), angles.cos()], 1))
    assert list(waves.state_dict()) == ["frequencies"] and not list(waves.parameters())


@pytest.mark.parametrize("part", ["song-unet", "dhariwal-unet"])
def test_it_trains_in_a_diffusion_and_the_run_loads(part, tmp_path):
    network = {"use": f"checkpoints/{part}", "channels": [8, 8], "blocks": 1}
    model = {"use": "diffusion", "network": network, "schedule": "edm", "times": "log-normal"}
    model |= {"parametrization": "edm", "sampler": {"use": "heun", "steps": 2}, "conditioner": "label"}
    data = {"use": "digits", "size": 8}
    spec = Spec(model=model, data=data, train={"steps": 3, "batch_size": 8, "seed": 1})
    run = modkit.train(spec, tmp_path / "run")
    model = modkit.load(run.path)
    assert model.sample(2, seed=0).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    "part, types, options, message",
    [
        (SongUNet, {"out": TensorType((3, 4, 6))}, {}, r"SongUNet expects out of x's size \(7, 6\), got \(4, 6\)"),
        (SongUNet, {"cond": CondType(context=(2, 3))}, {}, "SongUNet expects cond without context"),
        (SongUNet, {"x": TensorType((4,))}, {}, "SongUNet expects continuous maps"),
        (SongUNet, {}, {"attention": [5]}, r"SongUNet expects attention at resolutions among \[7, 4\], got \[5\]"),
        (SongUNet, {}, {"encoder": "wide"}, "SongUNet expects encoder to be one of standard, .*, got 'wide'"),
        (SongUNet, {}, {"decoder": "residual"}, "SongUNet expects decoder to be one of standard, skip"),
        (SongUNet, {}, {"features": 7}, "Mapping expects an even number of features"),
        (DhariwalUNet, {"out": TensorType((3, 4, 6))}, {}, r"DhariwalUNet expects out of x's size \(7, 6\)"),
        (DhariwalUNet, {"cond": CondType(context=(2, 3))}, {}, "DhariwalUNet expects cond without context"),
        (DhariwalUNet, {}, {"channels": []}, "DhariwalUNet expects channels and blocks of at least 1"),
        (DhariwalUNet, {}, {"augment": -1}, "Mapping expects .* augment >= 0, got 64, 256 and -1"),
    ],
)
def test_what_does_not_fit_is_refused(part, types, options, message):
    with pytest.raises(ValueError, match=message):
        part(**{"x": X, "out": OUT, "cond": CondType(time=True), **types}, **options)


def test_a_missing_time_and_labels_of_no_augmentation_are_named():
    mapping = Mapping(CondType(time=True), 8, 8, waves=Fourier(8), late=True)
    with pytest.raises(ValueError, match="Mapping expects a Cond with `time`"):
        mapping(Cond(), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="no augmentation labels"):
        mapping(Cond(time=torch.zeros(2)), torch.zeros(2, 1), torch.zeros(2, 2))
