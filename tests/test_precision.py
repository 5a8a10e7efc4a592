import pytest
import torch
from torch import nn

from modkit import Batch, Rng, TensorType, build, use
from modkit.bottlenecks.codebook import kmeans
from modkit.decodings import MaskGIT, Raster
from modkit.models import Diffusion
from modkit.models.paths import walk
from modkit.precision import check_precision, use_precision, use_tf32, widen
from tests.float64 import Narrow
from tests.play import shake, spec
from tests.refusals import check_refusal


def test_widens_to_float32_and_leaves_float64():
    want = {torch.bfloat16: torch.float32, torch.float16: torch.float32}
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        value = torch.tensor([0.5, 3.0], dtype=dtype)
        assert widen(value).dtype == want.get(dtype, dtype)
        assert widen(value).tolist() == [0.5, 3.0]


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def read_switches():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("before", [("highest", True), ("medium", False)])
def test_tf32_is_limited_to_its_context(before):
    try:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
        with pytest.raises(KeyError), use_tf32(CUDA, True):
            assert read_switches() == ("high", True)
            with use_tf32(CUDA, False):
                assert read_switches() == ("highest", False)
            with use_tf32(CPU, False):
                assert read_switches() == ("high", True)
            raise KeyError
        assert read_switches() == before
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True


def test_the_last_of_several_threads_restores_the_switches_of_tf32():
    before, first, second = read_switches(), use_tf32(CUDA, False), use_tf32(CUDA, False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert read_switches() == ("highest", False)
    second.__exit__(None, None, None)
    assert read_switches() == before == ("highest", True)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has no `fp32_precision`")
def test_switches_of_newer_torch_are_restored():
    """Read in the older way, such settings are an error."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    try:
        with use_tf32(CUDA, True):
            assert read_switches() == ("high", True)
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.backends.cudnn.rnn.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True


def test_precisions_compute_in_their_types():
    x = torch.ones(2, 2)
    for precision, dtype in {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        with torch.autocast("cpu", torch.bfloat16), use_precision(CPU, precision):
            assert (x @ x).dtype == dtype


def test_refuses_what_cannot_work():
    single, double = nn.Linear(1, 1), nn.Linear(1, 1).double()
    for precision in ("float32", "bf16", "fp16"):
        check_precision(precision, CPU, single)
    check_precision("float32", CPU, double)
    check_refusal("one of float32, tf32, bf16, fp16, got 'half'", check_precision, "half", CPU, single)
    check_refusal("tf32 expects an NVIDIA GPU.*got cpu: choose float32", check_precision, "tf32", CPU, single)
    check_refusal("fp16 expects weights of float32, got float64", check_precision, "fp16", CPU, double)
    check_refusal(
        "bf16 expects a device with autocast, got meta", check_precision, "bf16", torch.device("meta"), single
    )


MODELS = {
    "gan": use("gan", generator=use("dcgan", channels=4), discriminator=use("dcgan", channels=4), z_dim=4),
    "diffusion": use("diffusion", network=use("unet", channels=[8], blocks=1), sampler=use("ddim", steps=3)),
    "autoencoder": use("autoencoder", encoder=use("conv", channels=[4]), decoder=use("conv", channels=[4])),
}


@pytest.mark.parametrize("name", MODELS)
def test_samples_in_narrow_precision_are_close_to_those_in_float32_and_of_its_type(name):
    model = shake(build(spec(MODELS[name])), 0.05)
    full = model.sample(4, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.sample(4, seed=0), full)  # whatever surrounds it
    for precision, share in (("bf16", 0.05), ("fp16", 0.01)):
        x = model.sample(4, seed=0, precision=precision)
        assert x.dtype == torch.float32
        assert 0 < (x - full).norm() < share * full.norm()  # 8 and 11 bits, of several layers and steps
    assert torch.equal(model.sample(4, seed=0), full)


def test_a_model_in_float64_is_not_sampled_in_narrow_precision():
    model = build(spec(MODELS["gan"])).double()
    check_refusal("bf16 expects weights of float32, got float64", model.sample, 1, precision="bf16")


CODES = TensorType((2, 2), classes=3)
POINTS = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))


def predict(like, codes, i, known=None):
    """Logits of the next code, or of all, that depend on the codes before."""
    logits = (codes.float().sum(1, keepdim=True) + torch.arange(3)).sin()
    return (logits if i is not None else logits[:, None].expand(-1, 4, -1)).as_subclass(type(like))


@pytest.mark.parametrize(
    "compute",
    [
        lambda model, x: kmeans(x, torch.zeros(3, 2), Rng(0)),
        lambda model, x: Raster(CODES)(lambda *given: predict(x, *given), 2, Rng(0)),
        lambda model, x: MaskGIT(CODES)(lambda *given: predict(x, *given), 2, Rng(0)),
        lambda model, x: model.bound(Batch(x, {}), 2, Rng(0)),
        lambda model, x: model.log_prob(Batch(x, {}), 1, Rng(0), steps=2),
        lambda model, x: walk(x[:2], x[2:4], torch.tensor([0.3], dtype=torch.float64), path="spherical"),
    ],
    ids=["k-means", "raster", "maskgit", "bound", "log_prob", "path"],
)
def test_devices_without_float64_compute_the_same_in_float32(compute, monkeypatch):
    model = shake(Diffusion(TensorType((2,)), network="mlp"), 0.1)
    want = compute(model, POINTS)
    with pytest.raises(TypeError, match="returns float64"):
        compute(model, POINTS.as_subclass(Narrow))
    monkeypatch.setattr("modkit.precision._WITHOUT_FLOAT64", {"cpu"})
    got = compute(model, POINTS.as_subclass(Narrow))
    assert got.dtype in (torch.float32, torch.int64)
    torch.testing.assert_close(got.as_subclass(torch.Tensor).to(want), want, rtol=1e-4, atol=1e-4)
