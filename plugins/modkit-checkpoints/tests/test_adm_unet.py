import math
import re

import pytest
import torch
from modkit_checkpoints.adm_blocks import AdmBlock, embed_time
from modkit_checkpoints.adm_unet import AdmUNet
from safetensors.torch import load_model, save_model
from torch.nn import functional as F

import modkit
from modkit import Cond, CondType, Spec, TensorType, use


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def randomized(module):
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, dtype=p.dtype) / math.sqrt(max(p[0].numel(), 16)))
    return module


def everything(size, num=3, dtype=torch.float64):
    """Every condition, with its type."""
    type_ = CondType(vector=3, noise=4, labels=5, context=(6, 7), concat=TensorType((2, *size)), time=True)
    return type_, Cond(
        vector=torch.randn(num, 3, dtype=dtype),
        noise=torch.randn(num, 4, dtype=dtype),
        labels=torch.randint(0, 6, (num,)),
        context=torch.randn(num, 6, 7, dtype=dtype),
        concat=torch.randn(num, 2, *size, dtype=dtype),
        time=1000 * torch.rand(num, dtype=torch.float64),
    )


def raises(message):
    return pytest.raises(ValueError, match=re.escape(f"AdmUNet {message}"))


def network(size=(8, 8), cond=None, out=1, **options):
    options = {"channels": [64, 64], **options}
    net = AdmUNet(TensorType((1, *size)), TensorType((out, *size)), cond or everything(size)[0], **options)
    return randomized(net.double())


def test_time_is_embedded_by_cosines_then_sines_from_1_to_1e_4():
    e = embed_time(torch.tensor([0.0, 2.0], dtype=torch.float64), 8)
    frequencies = torch.tensor([1, 1e-1, 1e-2, 1e-3], dtype=torch.float64)
    assert torch.equal(e[0], torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(e[1], torch.cat([(2 * frequencies).cos(), (2 * frequencies).sin()]))
    assert embed_time(torch.tensor([999], dtype=torch.bfloat16), 4).dtype == torch.float32


@pytest.mark.parametrize("film", [False, True])
@pytest.mark.parametrize("resampling", [None, "down", "up"])
def test_a_block_is_its_equation(film, resampling):
    block = randomized(AdmBlock(2, 64, 32, width=5, film=film, resampling=resampling).double())
    x, e = torch.randn(2, 64, 4, 6, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    p = dict(block.named_parameters())
    size = (7, 12) if resampling == "up" else ()

    def resampled(x):
        if resampling == "down":
            return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :7] if resampling == "up" else x

    def norm(x, name):
        groups = x.unflatten(1, (32, -1))
        mean, var = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), correction=0, keepdim=True)
        y = ((groups - mean) / (var + 1e-5).sqrt()).flatten(1, 2)
        return y * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]

    h = F.conv2d(resampled(F.silu(norm(x, "norm_1"))), p["conv_1.weight"], p["conv_1.bias"], padding=1)
    m = (F.silu(e) @ p["modulation.weight"].T + p["modulation.bias"])[..., None, None]
    h = norm(h, "norm_2") * (1 + m[:, :32]) + m[:, 32:] if film else norm(h + m, "norm_2")
    h = F.conv2d(F.silu(h), p["conv_2.weight"], p["conv_2.bias"], padding=1)
    skip = F.conv2d(resampled(x), p["skip.weight"], p["skip.bias"])
    torch.testing.assert_close(block(x, e, size), skip + h)


@pytest.mark.parametrize("size", [(7,), (5, 8), (3, 4, 5)])
@pytest.mark.parametrize("resampling", ["conv", "block", "plain"])
def test_gradients_reach_every_parameter_at_any_size_and_rank(size, resampling):
    type_, cond = everything(size)
    net = network(size, type_, out=3, attention=[max(size)], resampling=resampling)
    x = torch.randn(3, 1, *size, dtype=torch.float64)
    y = net(x, cond)
    assert y.shape == (3, 3, *size)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    flat = [name for name, p in net.named_parameters() if not p.grad.abs().max() > 1e-12]
    assert flat == []


def test_every_condition_and_the_time_change_the_output():
    type_, cond = everything((8, 8))
    net = network((8, 8), type_)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    y = net(x, cond)
    for name in ("vector", "noise", "context", "concat", "time"):
        other = Cond(**{**cond.__dict__, name: getattr(cond, name) + 1})
        assert (net(x, other) - y).norm() > 1e-3 * y.norm(), name
    assert (net(x, Cond(**{**cond.__dict__, "labels": (cond.labels + 1) % 6})) - y).norm() > 1e-3 * y.norm()


def test_heads_are_told_or_follow_from_their_channels():
    by_number, by_width = (network(cond=CondType(time=True), **{key: 16}) for key in ("heads", "head_channels"))
    assert by_number.middle[0].attend.heads == 16 and by_width.middle[0].attend.heads == 4


def test_a_new_network_emits_zeros():
    net = AdmUNet(TensorType((1, 8, 8)), TensorType((1, 8, 8)), CondType(time=True))
    assert not net(torch.randn(2, 1, 8, 8), Cond(time=torch.zeros(2))).any()


def test_weights_come_back_from_safetensors(tmp_path):
    size = (8, 8)
    type_, cond = everything(size, dtype=torch.float32)
    net, other = network(size, type_).float(), network(size, type_).float()
    save_model(net, tmp_path / "net.safetensors")
    load_model(other, tmp_path / "net.safetensors")
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(net(x, cond), other(x, cond))
    assert net.bfloat16()(x.bfloat16(), cond).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [32, 48]}, r"expects channels in multiples of 32, got \[32, 48\]"),
        ({"channels": []}, "expects channels and blocks of at least 1"),
        ({"resampling": "fir"}, "expects resampling 'conv', 'block' or 'plain', got 'fir'"),
        ({"heads": 5}, "expects heads that divide the 128 channels of a level that attends, got heads 5"),
        ({"head_channels": 48}, "got head_channels 48"),
        ({"heads": 0}, "expects heads, head_channels and depth of at least 1, got 0, 32 and 1"),
        ({"depth": 0}, "expects heads, head_channels and depth of at least 1, got None, 32 and 0"),
        ({"attention": [3]}, "expects attention at resolutions among"),
    ],
)
def test_what_it_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=f"AdmUNet {message}" if message.startswith("exp") else message):
        AdmUNet(TensorType((1, 8, 8)), TensorType((1, 8, 8)), CondType(time=True), **options)


def test_missing_conditions_and_other_types_are_refused():
    x = TensorType((1, 8, 8))
    net, values = AdmUNet(x, x, CondType(time=True, context=(2, 3))), torch.zeros(1, 1, 8, 8)
    with raises("expects out of x's size (8, 8), got (4, 4)"):
        AdmUNet(x, TensorType((1, 4, 4)), CondType(time=True))
    with raises("expects continuous maps"):
        AdmUNet(TensorType((8,)), x, CondType(time=True))
    with raises("expects a Cond with `time`"):
        net(values, Cond(context=torch.zeros(1, 2, 3)))
    with raises("expects a Cond with `context`"):
        net(values, Cond(time=torch.zeros(1)))


def test_it_trains_and_samples_with_the_other_parts(tmp_path):
    spec = Spec(
        name="adm",
        data=use("digits", size=8),
        model=use(
            "diffusion",
            network=use("checkpoints/adm-unet", channels=[64], attention=[8]),
            conditioner=use("checkpoints/class-token", width=8),
            schedule=use("checkpoints/scaled-linear", num=20),
            sampler=use("checkpoints/ldm-ddim", steps=4),
        ),
        train={"batch_size": 8, "steps": 3, "samples": {"num": 2}},
    )
    run = modkit.train(spec, out=tmp_path / "run")
    before, after = modkit.build(spec).state_dict(), modkit.load(run.path).state_dict()
    still = [name for name, value in before.items() if name.startswith("network") and torch.equal(value, after[name])]
    assert still == []
    assert torch.equal(*(modkit.load(run.path).sample(2, seed=0, labels=3) for _ in range(2)))
