from dataclasses import replace

import pytest
import torch
from modkit_checkpoints.adm_blocks import AdmBlock, embed_time
from modkit_checkpoints.adm_unet import AdmUNet
from modkit_checkpoints.dhariwal_unet import DhariwalUNet
from modkit_checkpoints.edm_embedding import Fourier, Mapping
from modkit_checkpoints.song_unet import SongUNet
from safetensors.torch import load, save
from torch.nn import functional as F

import modkit
from modkit import Cond, CondType, Spec, TensorType

from .drawn import normal

X = TensorType((2, 7, 6))
OUT = TensorType((3, 7, 6))
COND = CondType(vector=3, noise=5, labels=4, concat=TensorType((1, 4, 3)), time=True)
SMALL = {"channels": [8, 12], "blocks": 1, "attention": [4]}
WIDE = {"channels": [64, 64]}
PARTS = [
    (SongUNet, {}),
    (SongUNet, {"frequencies": "fourier", "fir": True, "encoder": "skip", "decoder": "skip", "stem": 6, "augment": 2}),
    (SongUNet, {"encoder": "residual", "embedding": 10, "features": 4}),
    (DhariwalUNet, {}),
    (DhariwalUNet, {"head_channels": 4, "augment": 2, "embedding": 10, "features": 4}),
    (AdmUNet, WIDE),
    (AdmUNet, {**WIDE, "resampling": "block", "film": True, "depth": 2}),
    (AdmUNet, {**WIDE, "resampling": "plain", "heads": 16}),
]


def make(part, options):
    return part(X, OUT, replace(COND, context=(6, 7) if part is AdmUNet else None), **{**SMALL, **options})


def values(num, part=SongUNet):
    return Cond(
        vector=normal(num, 3, seed=1),
        noise=normal(num, 5, seed=2),
        labels=torch.arange(num) % 5,
        context=normal(num, 6, 7, seed=5) if part is AdmUNet else None,
        concat=normal(num, 1, 4, 3, seed=3),
        time=torch.arange(num, dtype=torch.float64) / 2 - 1,
    )


def randomize(module):
    rng = torch.Generator().manual_seed(9)
    for parameter in module.double().parameters():
        parameter.data.normal_(std=0.3, generator=rng)
    return module


@pytest.mark.wide(2)
@pytest.mark.parametrize("part, options", PARTS)
def test_every_condition_and_parameter_matters_and_no_sample_another(part, options):
    net = randomize(make(part, options))
    x, cond = normal(3, *X.shape), values(3, part)
    augment = [normal(3, 2, seed=4)] if "augment" in options else []
    y = net(x, cond, *augment)
    assert y.shape == (3, *OUT.shape)
    for name, value in cond.list_entries().items():
        other = (value + 1) % 5 if name == "labels" else value + 0.5 * normal(*value.shape, seed=8)
        assert (net(x, Cond(**{**vars(cond), name: other}), *augment) - y).abs().max() > 1e-6, name
    if augment:
        assert (net(x, cond) - y).abs().max() > 1e-6
        torch.testing.assert_close(net(x, cond), net(x, cond, torch.zeros(3, 2)), rtol=0, atol=0)
    alone = cond.map(lambda value: value[1:2])
    second = net(x[1:2], alone, *(one[1:2] for one in augment))
    torch.testing.assert_close(second, y[1:2], rtol=1e-9, atol=1e-9)
    y.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("part, options", [PARTS[1], PARTS[4], *PARTS[5:]])
@pytest.mark.parametrize("shape", [(2, 9), (1, 3, 4, 5)], ids=str)
def test_signals_and_volumes_without_conditions(part, options, shape):
    x = TensorType(shape)
    options = {key: value for key, value in options.items() if key != "augment"}
    net = randomize(part(x, x, CondType(), **{"channels": [8, 8], "blocks": 1, **options}))
    assert net(normal(2, *shape), Cond()).shape == (2, *shape)


@pytest.mark.wide(3)
@pytest.mark.parametrize("part, options", PARTS)
def test_of_two_times_the_first_is_that_of_one_and_both_matter(part, options):
    one, two = (randomize(part(X, OUT, CondType(vector=3, time=num), **{**SMALL, **options})) for num in (1, 2))
    x, cond = normal(3, *X.shape), Cond(vector=normal(3, 3, seed=1), time=normal(3, 2, seed=2))
    for column in torch.eye(2, dtype=torch.float64):
        assert not torch.allclose(two(x, cond), two(x, cond.at(cond.time + column)))
    with pytest.raises(ValueError, match=r"expects 2 times of each sample, `b 2`, got the shape \(3,\)"):
        two(x, cond.at(cond.time[:, 0]))
    state = one.state_dict()
    for name, value in two.state_dict().items():
        blank = torch.zeros_like(value)
        blank[tuple(map(slice, state[name].shape))] = state[name]
        state[name] = blank
    two.load_state_dict(state)
    torch.testing.assert_close(two(x, cond), one(x, cond.at(cond.time[:, 0])))


@pytest.mark.wide(2)
@pytest.mark.parametrize("part, options", PARTS)
def test_dtypes_and_the_state_survive_a_file(part, options):
    one, two = (make(part, options) for _ in range(2))
    two.load_state_dict(load(save(one.state_dict())))
    x, cond = normal(2, *X.shape).float(), values(2, part)
    torch.testing.assert_close(two(x, cond), one(x, cond), rtol=0, atol=0)
    assert one.bfloat16()(x.bfloat16(), cond).dtype == torch.bfloat16


def test_time_is_embedded_by_cosines_then_sines_from_1_to_1e_4():
    e = embed_time(torch.tensor([0.0, 2.0], dtype=torch.float64), 8)
    frequencies = torch.tensor([1, 1e-1, 1e-2, 1e-3], dtype=torch.float64)
    assert torch.equal(e[0], torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(e[1], torch.cat([(2 * frequencies).cos(), (2 * frequencies).sin()]))
    assert embed_time(torch.tensor([999], dtype=torch.bfloat16), 4).dtype == torch.float32


@pytest.mark.parametrize("film", [False, True])
@pytest.mark.parametrize("resampling", [None, "down", "up"])
def test_a_block_is_its_equation(film, resampling):
    block = randomize(AdmBlock(2, 64, 32, width=5, film=film, resampling=resampling))
    x, e = normal(2, 64, 4, 6), normal(2, 5, seed=1)
    p = dict(block.named_parameters())
    size = (7, 12) if resampling == "up" else ()

    def resample(x):
        if resampling == "down":
            return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :7] if resampling == "up" else x

    def norm(x, name):
        groups = x.unflatten(1, (32, -1))
        mean, var = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), correction=0, keepdim=True)
        y = ((groups - mean) / (var + 1e-5).sqrt()).flatten(1, 2)
        return y * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]

    h = F.conv2d(resample(F.silu(norm(x, "norm_1"))), p["conv_1.weight"], p["conv_1.bias"], padding=1)
    m = (F.silu(e) @ p["modulation.weight"].T + p["modulation.bias"])[..., None, None]
    h = norm(h, "norm_2") * (1 + m[:, :32]) + m[:, 32:] if film else norm(h + m, "norm_2")
    h = F.conv2d(F.silu(h), p["conv_2.weight"], p["conv_2.bias"], padding=1)
    skip = F.conv2d(resample(x), p["skip.weight"], p["skip.bias"])
    torch.testing.assert_close(block(x, e, size), skip + h)


def test_heads_are_given_or_follow_from_their_channels_and_a_new_network_outputs_zeros():
    by_number, by_width = (
        AdmUNet(X, X, CondType(time=True), **WIDE, **{key: 16}) for key in ("heads", "head_channels")
    )
    assert by_number.middle[0].attend.heads == 16 and by_width.middle[0].attend.heads == 4
    assert not by_width(torch.randn(2, *X.shape), Cond(time=torch.zeros(2))).any()


def test_fourier_features_are_drawn_once_and_kept():
    torch.manual_seed(0)
    waves = Fourier(4000)
    assert 2 * torch.pi * 16 * 0.95 < waves.frequencies.std() < 2 * torch.pi * 16 * 1.05
    time = torch.tensor([0.3, -1.0], dtype=torch.float64)
    angles = time[:, None] * waves.frequencies.double()
    torch.testing.assert_close(waves(time), torch.cat([angles.sin(), angles.cos()], 1))
    assert list(waves.state_dict()) == ["frequencies"] and not list(waves.parameters())


EDM = {"schedule": "edm", "times": "log-normal", "parametrization": "edm", "sampler": {"use": "heun", "steps": 2}}
LDM = {
    "schedule": {"use": "checkpoints/scaled-linear", "num": 20, "beta_end": 0.9},
    "sampler": {"use": "checkpoints/ldm-ddim", "steps": 4},
}


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    "part, wide, more",
    [
        ("song-unet", 8, {**EDM, "conditioner": "label"}),
        ("dhariwal-unet", 8, {**EDM, "conditioner": "label"}),
        ("adm-unet", 64, {**LDM, "conditioner": {"use": "checkpoints/class-token", "width": 8}}),
    ],
)
def test_it_trains_in_a_diffusion_and_the_run_loads(part, wide, more, tmp_path):
    network = {"use": f"checkpoints/{part}", "channels": [wide, wide], "blocks": 1}
    model = {"use": "diffusion", "network": network, **more}
    data = {"use": "digits", "size": 8}
    spec = Spec(model=model, data=data, train={"steps": 3, "batch_size": 8, "seed": 1})
    run = modkit.train(spec, tmp_path / "run")
    model = modkit.load(run.path)
    assert torch.equal(model.sample(2, seed=0, labels=3), modkit.load(run.path).sample(2, seed=0, labels=3))
    before, after = modkit.build(spec).state_dict(), model.state_dict()
    assert not [name for name, one in before.items() if name[:7] == "network" and torch.equal(one, after[name])]


@pytest.mark.parametrize(
    "part, types, options, message",
    [
        (SongUNet, {"out": TensorType((3, 4, 6))}, {}, r"SongUNet expects out of x's size \(7, 6\), got \(4, 6\)"),
        (SongUNet, {"cond": CondType(context=(2, 3))}, {}, "SongUNet expects cond without context"),
        (SongUNet, {"x": TensorType((4,))}, {}, "SongUNet expects continuous maps"),
        (SongUNet, {}, {"attention": [5]}, r"SongUNet expects attention at resolutions among \[7, 4\], got \[5\]"),
        (SongUNet, {}, {"encoder": "wide"}, "expects encoder to be 'standard', 'skip' or 'residual', got 'wide'"),
        (SongUNet, {}, {"decoder": "residual"}, "SongUNet expects decoder to be 'standard' or 'skip', got 'residual'"),
        (SongUNet, {}, {"features": 7}, "Mapping expects an even number of features"),
        (DhariwalUNet, {"out": TensorType((3, 4, 6))}, {}, r"DhariwalUNet expects out of x's size \(7, 6\)"),
        (DhariwalUNet, {"cond": CondType(context=(2, 3))}, {}, "DhariwalUNet expects cond without context"),
        (DhariwalUNet, {}, {"channels": []}, "DhariwalUNet expects channels of one level or more, got none"),
        (DhariwalUNet, {}, {"augment": -1}, "expects augment to be at least 0, got -1"),
        (AdmUNet, {"out": TensorType((3, 4, 6))}, {}, r"AdmUNet expects out of x's size \(7, 6\), got \(4, 6\)"),
        (AdmUNet, {"x": TensorType((4,))}, {}, "AdmUNet expects continuous maps"),
        (AdmUNet, {}, {"channels": [32, 48]}, r"AdmUNet expects channels in multiples of 32, got \[32, 48\]"),
        (AdmUNet, {}, {"channels": []}, "AdmUNet expects channels of one level or more, got none"),
        (AdmUNet, {}, {"resampling": "fir"}, "AdmUNet expects resampling to be 'conv', 'block' or 'plain', got 'fir'"),
        (AdmUNet, {}, {"heads": 5}, "heads that divide the 128 channels of a level that attends, got heads 5"),
        (AdmUNet, {}, {"head_channels": 48}, "got head_channels 48"),
        (AdmUNet, {}, {"heads": 0}, "AdmUNet expects heads to be at least 1, got 0"),
        (AdmUNet, {}, {"depth": 0}, "AdmUNet expects depth to be at least 1, got 0"),
        (AdmUNet, {}, {"attention": [3]}, "AdmUNet expects attention at resolutions among"),
    ],
)
def test_what_does_not_fit_is_refused(part, types, options, message):
    with pytest.raises(ValueError, match=message):
        part(**{"x": X, "out": OUT, "cond": CondType(time=True), **types}, **options)


def test_missing_conditions_and_labels_of_no_augmentation_are_named():
    net = AdmUNet(X, X, CondType(time=True, context=(2, 3)))
    with pytest.raises(ValueError, match="the network expects a Cond with `time`"):
        net(torch.zeros(1, *X.shape), Cond(context=torch.zeros(1, 2, 3)))
    with pytest.raises(ValueError, match="AdmUNet expects a Cond with `context`"):
        net(torch.zeros(1, *X.shape), Cond(time=torch.zeros(1)))
    mapping = Mapping(CondType(time=True), 8, 8, waves=Fourier(8), late=True)
    with pytest.raises(ValueError, match="the network expects a Cond with `time`"):
        mapping(Cond(), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="no augmentation labels"):
        mapping(Cond(time=torch.zeros(2)), torch.zeros(2, 1), torch.zeros(2, 2))
