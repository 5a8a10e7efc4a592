import shutil
import subprocess
import sys

import pytest
import torch
import vector_quantize_pytorch as peer
from modkit_quantizers.fsq import FiniteScalarQuantizer, ResidualFiniteScalarQuantizer
from modkit_quantizers.lfq import LookupFreeQuantizer
from modkit_quantizers.residual_vq import GroupedResidualQuantizer, ResidualQuantizer
from modkit_quantizers.sim_vq import SimQuantizer
from modkit_quantizers.vq import VectorQuantizer

import modkit
from modkit import Rng, Spec, StepContext, TensorType, use
from modkit.bottlenecks.codebook import sample_vectors

NUM = {"num_codes": 8, "channels": 4}
BARE = {"dim": 4, "codebook_size": 8}
STILL = {"rotation_trick": False}
GRADIENT = {"learnable_codebook": True, "ema_update": False}
VQ = {
    "vq": (VectorQuantizer, {}, peer.VectorQuantize, BARE),
    "straight-through": (
        VectorQuantizer, {"gradient": "straight-through", "commitment": 0.25, "diversity": 0.1},
        peer.VectorQuantize, {**BARE, **STILL, "commitment_weight": 0.25, "codebook_diversity_loss_weight": 0.1},
    ),
    "cosine": (
        VectorQuantizer, {"distance": "cosine", "decay": 0.9},
        peer.VectorQuantize, {**BARE, "use_cosine_sim": True, "decay": 0.9},
    ),
    "heads": (
        VectorQuantizer, {"heads": 2, "expire": 2}, peer.VectorQuantize,
        {**BARE, "heads": 2, "codebook_dim": 2, "separate_codebook_per_head": True, "threshold_ema_dead_code": 2},
    ),
    "residual": (
        ResidualQuantizer, {"depth": 3, "expire": 1},
        peer.ResidualVQ, {**BARE, "num_quantizers": 3, "threshold_ema_dead_code": 1},
    ),
    "grouped": (
        GroupedResidualQuantizer, {"groups": 2, "depth": 2},
        peer.GroupedResidualVQ, {**BARE, "groups": 2, "num_quantizers": 2},
    ),
}  # fmt: skip
OTHERS = {
    "gradient": (VectorQuantizer, {"codebook": "gradient"}, peer.VectorQuantize, {**BARE, **GRADIENT}),
    "residual gradient": (
        ResidualQuantizer, {"depth": 2, "codebook": "gradient", "gradient": "straight-through"},
        peer.ResidualVQ, {**BARE, **STILL, **GRADIENT, "num_quantizers": 2},
    ),
    "sim": (SimQuantizer, {"pull": 0.5}, peer.SimVQ, {**BARE, "input_to_quantize_commit_loss_weight": 0.5}),
    "fsq": (FiniteScalarQuantizer, {"levels": [8, 5, 5, 4]}, peer.FSQ, {"levels": [8, 5, 5, 4]}),
    "fsq symmetric": (
        FiniteScalarQuantizer, {"levels": [2, 3, 4, 2], "symmetric": True},
        peer.FSQ, {"levels": [2, 3, 4, 2], "preserve_symmetry": True},
    ),
    "residual fsq": (
        ResidualFiniteScalarQuantizer, {"levels": [5, 5, 3, 3], "depth": 3},
        peer.ResidualFSQ, {"levels": [5, 5, 3, 3], "num_quantizers": 3},
    ),
    "lfq": (
        LookupFreeQuantizer, {"bits": 4, "diversity": 0.5, "commitment": 0.5},
        peer.LFQ, {"dim": 4, "codebook_size": 16, "diversity_gamma": 0.5, "commitment_loss_weight": 0.5},
    ),
    "lfq spherical": (
        LookupFreeQuantizer, {"bits": 4, "spherical": True, "commitment": 0.0, "temperature": 0.5},
        peer.LFQ, {"dim": 4, "codebook_size": 16, "spherical": True},
    ),
}  # fmt: skip
EVERY = VQ | OTHERS


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(name, shape):
    part, options, *_ = EVERY[name]
    return part(TensorType(shape), **(NUM if "levels" not in options and "bits" not in options else {}), **options)


def make_both(name, shape=(4, 3, 5)):
    """A part whose projection is the identity, and the bare class with its weights."""
    part, bare = make(name, shape), EVERY[name][2](**EVERY[name][3])
    torch.nn.init.zeros_(part.project.bias)
    torch.nn.init.dirac_(part.project.weight)
    bare.load_state_dict(part.quantizer.state_dict())
    return part, bare


def rows(h):
    return h.flatten(2).mT


def call(name, bare, h):
    """What the bare class gives: z_q `b n c`, codes `b q n` (or `b n`), the sum of its losses."""
    keywords = {"inv_temperature": 2.0} if name == "lfq spherical" else {}
    if name == "straight-through":  # else the codebook has moved under the diversity before its gradient is taken
        keywords = {"freeze_codebook": True}
    z_q, codes, *losses = bare(rows(h), **keywords)
    if name == "grouped":
        codes = torch.cat(tuple(codes), -1)
    return z_q, codes.mT if codes.ndim == 3 else codes, losses[0].sum() if losses else torch.zeros(())


@pytest.mark.parametrize("name", EVERY)
def test_values_and_gradients_are_the_bare_class_s(name):
    part, bare = make_both(name)
    weight = torch.randn(2, 4, 3, 5)
    h = torch.randn(2, 4, 3, 5, requires_grad=True)
    values, kl, losses = part.train()(h, None)
    total = sum(losses.values(), torch.zeros(()))
    ((values["quantized"] * weight).sum() + total).backward()
    other = h.detach().clone().requires_grad_()
    z_q, codes, loss = call(name, bare.train(), other)
    ((z_q * rows(weight)).sum() + loss).backward()
    assert kl is None
    assert torch.equal(rows(values["quantized"]), z_q)
    assert torch.equal(values["codes"].flatten(2 if codes.ndim == 3 else 1), codes.long())
    torch.testing.assert_close(total, loss)
    torch.testing.assert_close(h.grad, other.grad)
    for mine, theirs in zip(part.quantizer.parameters(), bare.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert other.grad.any()


@pytest.mark.parametrize("shape", [(4,), (4, 2, 3)])
@pytest.mark.parametrize("name", EVERY)
def test_codes_stand_at_their_places_and_decode_to_what_was_quantised(name, shape):
    part = make(name, shape)
    h = torch.randn(2, *shape)
    values = part.eval()(h, None).values
    depth = {"heads": [2], "residual": [3], "grouped": [4], "residual gradient": [2], "residual fsq": [3]}.get(name, [])
    assert values["codes"].shape == (2, *depth, *(shape[1:] or (8,)))
    assert values["continuous"].shape == values["quantized"].shape == (2, *((4, *shape[1:]) if shape[1:] else (32,)))
    for latent, value in values.items():  # SimVQ's rotation rounds
        torch.testing.assert_close(part.to_z(latent, value), values["quantized"])
    for axis in range(2, h.ndim):  # the last axes are those of the features, in their order
        for latent, value in part(h.flip(axis), None).values.items():
            torch.testing.assert_close(value.flip(axis - h.ndim), values[latent])


@pytest.mark.parametrize("name", VQ)
def test_averages_move_once_a_step_as_by_one_call_of_the_bare_class(name):
    part, bare = make_both(name)
    step = StepContext(Rng(0, "step"), training=True)
    h = torch.randn(4, 4, 3, 5)
    before = {key: value.clone() for key, value in part.quantizer.state_dict().items()}
    for micro in h.split(2):
        part.train()(micro, step)
    assert all(torch.equal(value, before[key]) for key, value in part.quantizer.state_dict().items())
    part.update(step)
    with Rng(0, "step").seed_torch():
        bare.train()(rows(h))
    moved = part.quantizer.state_dict()
    for key, value in bare.state_dict().items():
        torch.testing.assert_close(moved[key], value)
    assert all(not torch.equal(moved[key], before[key]) for key in moved if "initted" not in key)
    again = {key: value.clone() for key, value in moved.items()}
    part.update(step)
    assert all(torch.equal(value, again[key]) for key, value in part.quantizer.state_dict().items())


class Second:
    """The second of two processes: `whole` has the vectors of both."""

    rank, world = 1, 2

    def __init__(self, whole):
        self.whole = whole

    def gather(self, value):
        assert torch.equal(value, self.whole.chunk(2)[1])
        return self.whole


@pytest.mark.parametrize("name", VQ)
def test_averages_are_those_of_the_rows_of_all_processes(name):
    """The fault: each process moved its own codebook, by its own rows."""
    part, bare = make_both(name)
    h = torch.randn(4, 4, 3, 5)
    step = StepContext(Rng(0, "step"), training=True, exchange=Second(rows(h)))
    for micro in h.chunk(2)[1].split(1):
        part.train()(micro, step)
    part.update(step)
    with Rng(0, "step").seed_torch():
        bare.train()(rows(h))
    for key, value in bare.state_dict().items():
        torch.testing.assert_close(part.quantizer.state_dict()[key], value)


def test_the_library_does_not_add_up_over_processes_what_it_is_given_of_all(monkeypatch):
    monkeypatch.setattr("vector_quantize_pytorch.vector_quantize_pytorch.is_distributed", lambda: True)
    for name in VQ:
        assert not any(getattr(module, "use_ddp", False) for module in make(name, (4, 3, 5)).modules())


@pytest.mark.parametrize("name", VQ)
def test_a_step_that_is_skipped_moves_no_averages(name):
    """The fault: the vectors of a step that was skipped were counted at the next one."""
    part, bare = make_both(name)
    h = torch.randn(2, 4, 3, 5)
    for index, factor in ((3, 9.0), (4, 1.0)):
        step = StepContext(Rng(0, "step"), index=index, training=True)
        part.train()(factor * h, step)
    part.update(step)
    with Rng(0, "step").seed_torch():
        bare.train()(rows(h))
    for key, value in bare.state_dict().items():
        torch.testing.assert_close(part.quantizer.state_dict()[key], value)


@pytest.mark.parametrize("name", VQ)
def test_nothing_moves_outside_the_owner_s_turn(name):
    part, _ = make_both(name)
    before = {key: value.clone() for key, value in part.state_dict().items()}
    h = torch.randn(2, 4, 3, 5)
    outside = StepContext(Rng(0))
    for train, step in ((True, None), (True, outside), (False, StepContext(Rng(0), training=True))):
        state = torch.get_rng_state()
        part.train(train)(h, step)
        part.update(step or outside)
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in part.state_dict().items())


@pytest.mark.parametrize("name", VQ)
def test_prepare_is_the_bare_class_s_k_means_of_a_fair_sample(name):
    part, bare = make_both(name)
    passes = [torch.randn(3, 4, 3, 5) for _ in range(2)]
    part.eval().prepare(passes, Rng(1))
    sample = sample_vectors((rows(h) for h in passes), 2**16, Rng(1))
    assert len(sample) == 90
    for module in bare.modules():
        if hasattr(module, "initted"):
            module.initted.fill_(False)
    with Rng(1).seed_torch():
        bare.eval()(sample[None])
    for key, value in bare.state_dict().items():
        torch.testing.assert_close(part.quantizer.state_dict()[key], value)
        assert not key.endswith("initted") or value


def test_prepare_refuses_no_features_and_does_nothing_without_k_means():
    part, _ = make_both("vq")
    with pytest.raises(ValueError, match="VectorQuantizer expects features to initialise its codes from, got none"):
        part.prepare([], Rng(0))
    VectorQuantizer(TensorType((4,)), kmeans=False).prepare([], Rng(0))


H = TensorType((4, 3, 5))
WRONG = {
    "heads that divide channels, got 3 of 4": lambda: VectorQuantizer(H, heads=3),
    "codebook to be 'ema' or 'gradient', got 'sgd'": lambda: VectorQuantizer(H, codebook="sgd"),
    "distance 'euclidean' and expire 0 with codebook 'gradient', got distance 'cosine'": lambda: VectorQuantizer(
        H, codebook="gradient", distance="cosine"
    ),
    r"decay to be in \[0, 1\), got 1": lambda: ResidualQuantizer(H, decay=1),
    "depth to be at least 1, got 0": lambda: ResidualQuantizer(H, depth=0),
    "groups that divide channels, got 3 of 4": lambda: GroupedResidualQuantizer(H, groups=3),
    r"levels of at least 3, at most 1048576 codes, got \[2, 4\]": lambda: FiniteScalarQuantizer(H, levels=[2, 4]),
    "at most 1048576 codes": lambda: ResidualFiniteScalarQuantizer(H, levels=[16] * 6),
    r"bits to be in \[1, 18\], got 30": lambda: LookupFreeQuantizer(H, bits=30),
    "temperature to be above 0, got 0": lambda: LookupFreeQuantizer(H, temperature=0),
    "gradient to be 'straight-through' or 'rotation', got 'none'": lambda: SimQuantizer(H, gradient="none"),
    "continuous features": lambda: SimQuantizer(TensorType((3, 5), classes=4)),
}


@pytest.mark.parametrize("message", WRONG)
def test_mistakes_are_refused(message):
    with pytest.raises(ValueError, match=f"Quantizer expects .*{message}"):
        WRONG[message]()


CONV = {"encoder": use("conv", channels=[4, 4]), "decoder": use("conv", channels=[4, 4])}
SMALL = {"width": 8, "depth": 1}
TRANSFORMER = use("transformer", **SMALL, heads=2)
DENOISER = use("diffusion", network=use("mlp", **SMALL), sampler=use("ddim", steps=2))


def quantizer(name, **options):
    return use(f"quantizers/{name}", **options)


HOSTS = {
    "autoregressive": (quantizer("vq", num_codes=8, expire=1.0), use("autoregressive", network=TRANSFORMER), None),
    "masked": (
        quantizer("residual-vq", num_codes=8, depth=2),
        use("masked", network=TRANSFORMER, sampler=use("maskgit", steps=2)),
        None,
    ),
    "diffusion": (quantizer("sim-vq", num_codes=8), DENOISER, "continuous"),
    "top-down": (use("top-down", level=quantizer("vq", num_codes=8)), use("cascade", level=DENOISER), "continuous"),
}


@pytest.mark.wide(1)
@pytest.mark.parametrize("host", HOSTS)
def test_it_trains_in_a_latent_and_samples_the_same_once_loaded(host, tmp_path):
    bottleneck, prior, at = HOSTS[host]
    parts = {**CONV, "bottleneck": bottleneck}
    if host == "top-down":
        parts["encoder"] = use("conv", channels=[4, 4], levels=[8, 4])
    model = use("latent", autoencoder=use("autoencoder", **parts), prior=prior, at=at)
    train = {"device": "cpu", "batch_size": 16, "steps": 2, "samples": {"num": 2}, "accumulate": 2}
    spec = Spec(name="host", data=use("digits", size=8), model=model, train=train)
    run = modkit.train(spec, out=str(tmp_path / "run"))
    one, other = (modkit.load(str(run.path)) for _ in range(2))
    assert torch.equal(one.sample(2, seed=0), other.sample(2, seed=0))
    moved = {key: value for key, value in one.state_dict().items() if key.endswith("cluster_size")}
    assert all(not torch.equal(value, torch.ones_like(value)) for value in moved.values())
    assert bool(moved) == ("sim" not in str(bottleneck))


@pytest.mark.wide
def test_a_run_that_is_resumed_ends_with_the_bits_of_one_never_stopped(tmp_path):
    ends = {"encoder": use("mlp", **SMALL), "decoder": use("mlp", **SMALL)}
    model = use("autoencoder", **ends, bottleneck=quantizer("residual-vq", num_codes=8, expire=2.0))
    train = {"device": "cpu", "batch_size": 16, "steps": 2, "samples": {"num": 2}, "checkpoints": {"every": 1}}
    spec = Spec(name="resumed", data=use("digits", size=8), model=model, train=train)
    path = tmp_path / "run"
    whole = modkit.load(str(modkit.train(spec, out=str(path)).path)).state_dict()
    shutil.rmtree(path / "checkpoints" / "step-00000002")
    resumed = modkit.load(str(modkit.train(spec, out=str(path), resume=True).path)).state_dict()
    assert (path / "checkpoints" / "step-00000002").exists()
    assert all(torch.equal(value, whole[key]) for key, value in resumed.items())


def test_declaring_imports_neither_torch_nor_the_library():
    program = "import sys, modkit_quantizers; print({'torch', 'vector_quantize_pytorch'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
    assert modkit.find("bottleneck", "quantizers/vq").load() is VectorQuantizer
