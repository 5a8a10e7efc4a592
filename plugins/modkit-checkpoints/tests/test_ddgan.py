import argparse
import json
from types import SimpleNamespace

import pytest
import torch
from modkit_checkpoints.ddgan import convert
from modkit_checkpoints.importing import import_checkpoint
from modkit_checkpoints.placeholder import Placeholder

import modkit
from modkit import Cond, Spec
from modkit.publishing.import_weights import import_weights
from modkit.samplers import posterior

from .drawn import Drawn, build_model, normal, same
from .nvidia_networks import critic, generator

LINE = {"num_channels_dae": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [4], "image_size": 8}
LINE |= {"progressive_input": "none", "num_channels": 2, "nz": 5, "n_mlp": 1, "z_emb_dim": 6, "t_emb_dim": 6, "ngf": 4}
DEFAULTS = {"fir": True, "progressive": "none", "not_use_tanh": False}
LINES = {
    "filter, tanh": {},
    "skips": {"progressive_input": "input_skip", "progressive": "output_skip", "attn_resolutions": []},
    "no filter, wide stem, no tanh": {"ch_mult": [2, 1], "fir": False, "not_use_tanh": True, "n_mlp": 0},
}


TIME = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)


def run_generator(line, prefix="", seed=0):
    net = Drawn(prefix, seed)
    x, z = normal(3, line["num_channels"], 8, 8), normal(3, line["nz"], seed=2)
    return generator(net, x, TIME, z, {**DEFAULTS, **line}), net.tensors


def run_critic(line, side, large=False, prefix=""):
    net, x = Drawn(prefix, 5), normal(3, 2, side, side)
    return critic(net, x, TIME, normal(3, 2, side, side, seed=4), line, large), net.tensors


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", LINES)
def test_the_generator_is_its_equations_over_the_authors_keys(name):
    line = {**LINE, **LINES[name]}
    y, tensors = run_generator(line, "module.")
    model = build_model(convert(tensors, line, False))
    x, z = normal(3, 2, 8, 8), normal(3, 5, seed=2)
    same(model.network(x, Cond(noise=z, time=TIME)), y)
    assert model.event.range == (None if line.get("not_use_tanh") else (-1.0, 1.0))


@pytest.mark.parametrize("large", [False, True])
def test_the_discriminator_is_its_equations_over_the_authors_keys(large):
    line = {**LINE, "dataset": "cifar10"}  # the keys say which it is
    side = 64 if large else 16
    logits, tensors = run_critic(line, side, large, "module.")
    whole = {"netG_dict": run_generator(line)[1], "netD_dict": tensors, "optimizerD": {}, "epoch": 3}
    made = convert(whole, line, False)
    assert made.aside == ("optimizerD", "epoch")
    x, x_t = normal(3, 2, side, side), normal(3, 2, side, side, seed=4)
    same(build_model(made).discriminator(x, Cond(concat=x_t, time=TIME)), logits)


@pytest.mark.wide
def test_averages_come_from_the_optimizer_and_the_command_line_from_the_file():
    _, raw = run_generator(LINE, "module.")
    y, averaged = run_generator(LINE, "module.", seed=7)
    states = {index: {"step": 1, "ema": average} for index, average in enumerate(averaged.values())}
    line = {**LINE, "use_ema": True, "lr_g": 1e-4, "attn_resolutions": (4,)}
    whole = {"netG_dict": raw, "netD_dict": run_critic(LINE, 16)[1], "optimizerG": {"state": states}}
    whole["args"] = Placeholder("argparse.Namespace", True, state=line)
    x, cond = normal(3, 2, 8, 8), Cond(noise=normal(3, 5, seed=2), time=TIME)
    made = convert(whole, None, False)
    same(build_model(made).network(x, cond), y)
    assert "netG_dict" in made.aside and "args" in made.aside
    same(build_model(convert(whole, None, True)).network(x, cond), run_generator(LINE)[0])
    del states[0]["ema"]
    with pytest.raises(ValueError, match="an average of each weight in optimizerG"):
        convert(whole, None, False)


def test_without_a_discriminator_there_is_a_new_one_the_same_each_time():
    _, tensors = run_generator(LINE)
    torch.manual_seed(5)
    one = convert(tensors, LINE, False)
    torch.manual_seed(6)
    two = convert(tensors, {**LINE, "dataset": "celeba_256"}, False)
    assert one.spec["model"]["discriminator"] == {
        "use": "ncsnpp", "channels": [8, 8, 16, 32, 32], "first": False, "embedding": 6,
    }  # fmt: skip
    assert two.spec["model"]["discriminator"]["channels"] == [8, 16, 32, 32, 32, 32, 32]
    assert two.spec["model"]["discriminator"]["first"]
    again = convert(tensors, LINE, False).weights
    assert all(torch.equal(value, again[key]) for key, value in one.weights.items())


@pytest.mark.wide(1)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_process_is_the_papers(steps):
    """Betas of T even steps from t = .001 to 1, alphas_cumprod 1 at the start."""
    made = convert(run_generator(LINE)[1], {**LINE, "num_timesteps": steps, "beta_max": 15.0}, False)
    model = build_model(made)
    u = torch.linspace(1e-3, 1, steps + 1, dtype=torch.float64)
    alpha_bar = torch.exp(-(u**2) * (15.0 - 0.1) / 2 - u * 0.1)
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    product, before = (1 - betas).cumprod(0), torch.cat([torch.ones(1).double(), (1 - betas).cumprod(0)[:-1]])
    x_0, x_t, k = normal(steps, 2, 8, 8), normal(steps, 2, 8, 8, seed=2), torch.arange(1, steps + 1).double()
    got = posterior(x_t, x_0, model.schedule.scales(k / steps), model.schedule.scales((k - 1) / steps))
    first = betas * before.sqrt() / (1 - product)
    second = (1 - before) * (1 - betas).sqrt() / (1 - product)
    mean = first[:, None, None, None] * x_0 + second[:, None, None, None] * x_t
    torch.testing.assert_close(got.mean, mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.as_tensor(got.small), betas * (1 - before) / (1 - product), rtol=1e-10, atol=1e-12)
    assert len(model.sampler.times()) == steps + 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ch_mult": None}, "ch_mult is expected to be a list of whole numbers"),
        ({"chmult": [1]}, "DDGAN has no argument 'chmult'; did you mean 'ch_mult'"),
        ({"use_geometric": True}, r"use_geometric is expected to be False \(another schedule\), got True"),
        ({"resblock_type": "ddpm"}, "resblock_type is expected to be 'biggan'"),
        ({"resblock_type": "biggan_oneadagn"}, "resblock_type is expected to be 'biggan'"),
        ({"embedding_type": "fourier"}, "embedding_type is expected to be 'positional'"),
        ({"skip_rescale": False}, "skip_rescale is expected to be True"),
        ({"conditional": False}, "conditional is expected to be True"),
        ({"centered": False}, "centered is expected to be True"),
        ({"fir_kernel": [1, 2, 1]}, r"fir_kernel is expected to be \[1, 3, 3, 1\]"),
        (
            {"progressive_input": "input_skip", "progressive_combine": "cat"},
            r"progressive_combine is expected to be 'sum' \(the resampled input as further channels\), got 'cat'",
        ),
        ({"progressive": "residual", "ch_mult": [1], "attn_resolutions": []}, "progressive is expected to be none"),
        ({"image_size": 9}, "image_size is expected to be a multiple of 2"),
        ({"t_emb_dim": 7}, "t_emb_dim is expected to be even"),
        ({"attn_resolutions": "16"}, "attn_resolutions is expected to be a list"),
        ({"num_res_blocks": 2}, "missing keys|unknown keys"),
        ({"num_res_blocks": 10**9}, "expected at most 20000 modules and parameters in one part, got more"),
    ],
    ids=str,
)
def test_command_lines_that_are_not_understood_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build_model(convert(run_generator(LINE)[1], {**LINE, **change}, False))


def test_other_sources_and_keys_are_refused():
    _, tensors = run_generator(LINE)
    with pytest.raises(ValueError, match="unknown keys: extra.weight"):
        convert({**tensors, "extra.weight": torch.ones(1)}, LINE, False)
    with pytest.raises(ValueError, match="expected a configuration: a JSON of the command line"):
        convert(tensors, None, False)
    with pytest.raises(ValueError, match="expected a state dict or a content.pth of DDGAN's, got SimpleNamespace"):
        convert(SimpleNamespace(), LINE, False)
    with pytest.raises(ValueError, match="hold tensors by name"):
        convert({"a": 1}, LINE, False)


@pytest.mark.wide
def test_a_run_loads_and_samples_as_the_authors_loop_does(tmp_path):
    made = convert(run_generator(LINE)[1], LINE, False)
    import_weights(Spec(**made.spec), made.weights, tmp_path / "run")
    model = modkit.load(tmp_path / "run")
    samples = model.sample(3, seed=0)
    assert samples.shape == (3, 2, 8, 8) and samples.abs().max() <= 1 and samples.std() > 1e-2
    assert json.loads(json.dumps(made.spec)) == made.spec


@pytest.mark.wide
def test_a_content_pth_with_its_namespace_becomes_a_run(tmp_path):
    y, tensors = run_generator(LINE, "module.")
    whole = {"netG_dict": tensors, "netD_dict": run_critic(LINE, 16)[1], "args": argparse.Namespace(**LINE), "epoch": 7}
    torch.save(whole, tmp_path / "content.pth")
    made = import_checkpoint(tmp_path / "content.pth", tmp_path / "run", format="ddgan")
    assert made.aside == ("args", "epoch")
    model = modkit.load(tmp_path / "run")
    x, z = normal(3, 2, 8, 8).float(), normal(3, 5, seed=2).float()
    torch.testing.assert_close(model.network(x, Cond(noise=z, time=TIME)).double(), y, rtol=1e-4, atol=1e-5)
    torch.save(tensors, tmp_path / "netG_5.pth")
    (tmp_path / "line.json").write_text(json.dumps(LINE))
    import_checkpoint(tmp_path / "netG_5.pth", tmp_path / "alone", format="ddgan", config=tmp_path / "line.json")
    torch.testing.assert_close(modkit.load(tmp_path / "alone").sample(2, seed=0), model.sample(2, seed=0))
