r"""Checkpoints of the denoising diffusion GAN as runs of modkit's `ncsnpp` generator and discriminator.

    netG_N.pth     the generator, averaged where it was trained with `use_ema`
    content.pth    netG_dict and netD_dict as trained; the averages in the generator's optimizer; the command line

The configuration is the command line as JSON, `{"num_channels_dae": 128, "ch_mult": [1, 2, 2, 2], …}`, with the
defaults of the authors' script. For content.pth it defaults to the command line stored there. Without a discriminator,
the run gets a new one of the authors' kind, which is needed for further training only.

References:
    Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), appendix C,
    https://arxiv.org/abs/2112.07804
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_discriminator import NCSNppDiscriminator
from modkit.types import CondType, TensorType
from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.conversion import Conversion, rename, tensors_of
from modkit_checkpoints.ddgan_keys import map_discriminator, map_generator
from modkit_checkpoints.placeholder import attributes
from modkit_checkpoints.skeleton import build_skeleton

__all__ = ["convert", "read_discriminator", "read_generator"]

_NETWORK = {
    "num_channels_dae": 128,
    "ch_mult": None,
    "num_res_blocks": 2,
    "attn_resolutions": [16],
    "dropout": 0.0,
    "fir": True,
    "fir_kernel": [1, 3, 3, 1],
    "skip_rescale": True,
    "resblock_type": "biggan",
    "progressive": "none",
    "progressive_input": "residual",
    "progressive_combine": "sum",
    "embedding_type": "positional",
    "conditional": True,
    "centered": True,
    "not_use_tanh": False,
    "n_mlp": 3,
    "z_emb_dim": 256,
    "nz": 100,
    "image_size": 32,
    "num_channels": 3,
    "t_emb_dim": 256,
    "ngf": 64,
    "dataset": "cifar10",
    "num_timesteps": 4,
    "use_geometric": False,
    "beta_min": 0.1,
    "beta_max": 20.0,
    "use_ema": False,
    "r1_gamma": 0.05,
}
_UNUSED = (
    "seed", "resume", "resamp_with_conv", "fourier_scale", "exp", "batch_size", "num_epoch", "lr_g", "lr_d", "beta1",
    "beta2", "no_lr_decay", "ema_decay", "lazy_reg", "save_content", "save_content_every", "save_ckpt_every",
    "num_proc_node", "num_process_per_node", "node_rank", "local_rank", "master_address", "world_size", "global_rank",
    "compute_fid", "epoch_id", "real_img_dir",
)  # fmt: skip
"""Arguments of training and evaluation, which change neither the networks nor the process."""

_PATHS = {"none": "none", "input_skip": "skip", "output_skip": "skip", "residual": "residual"}
_SMALL = ("cifar10", "stackmnist")  # the data sets of the small discriminator


def convert(source: Any, config: Any, raw: bool) -> Conversion:
    """Converts a checkpoint of the denoising diffusion GAN.

    Raises:
        ValueError: If the source is not one, uses something for which modkit has no counterpart, or has other keys than
            the configuration says.
    """
    if not isinstance(source, Mapping):
        raise ValueError(f"expected a state dict or a content.pth of DDGAN's, got {type(source).__name__}")
    whole = "netG_dict" in source
    given = attributes(source.get("args")) if config is None and whole else config
    if not isinstance(given, Mapping) or not given:
        raise ValueError("expected a configuration: a JSON of the command line that the checkpoint was trained with")
    arguments = Arguments("DDGAN", given, {**_NETWORK, **dict.fromkeys(_UNUSED)})
    _check(arguments)
    side, channels = arguments.integer("image_size"), arguments.integer("num_channels")
    x = TensorType((channels, side, side), None if arguments.flag("not_use_tanh") else (-1.0, 1.0))
    network, noise = read_generator(arguments), arguments.integer("nz")
    generator, left = _read_weights(source, raw=raw, averaged=whole and arguments.flag("use_ema"))
    skeleton = build_skeleton(lambda: NCSNpp(x, x, CondType(noise=noise, time=True), **network))
    rules = map_generator(skeleton, network["mapping"])
    weights = {f"network.{key}": value for key, value in rename(generator, rules)[0].items()}
    critic = source.get("netD_dict") if whole else None
    tensors = None if critic is None else _unprefix(tensors_of(critic, "netD_dict"))
    discriminator = read_discriminator(arguments, tensors)
    weights |= _convert_discriminator(x, discriminator, tensors)
    model = {
        "use": "denoising-gan",
        "steps": arguments.integer("num_timesteps"),
        "z_dim": noise,
        "network": {"use": "ncsnpp", **network},
        "discriminator": {"use": "ncsnpp", **discriminator},
        "schedule": {"use": "vp", "beta_min": arguments.number("beta_min"), "beta_max": arguments.number("beta_max")},
        "regularizers": {"r1": {"use": "r1", "gamma": arguments.number("r1_gamma")}},
    }
    range_ = {} if x.range is None else {"range": list(x.range)}
    return Conversion({"name": "ddgan", "x": {"shape": list(x.shape), **range_}, "model": model}, weights, left)


def _check(arguments: Arguments) -> None:
    """Refuses what modkit's parts do not support."""
    arguments.only("conditional", [True], why="a generator without the time as input")
    arguments.only("centered", [True], why="its inputs are centred again")
    arguments.only("skip_rescale", [True], why="sums of paths are always divided by sqrt(2)")
    arguments.only("resblock_type", ["biggan"], why="other residual blocks")
    arguments.only("embedding_type", ["positional"], why="the logarithm of the first time, 0")
    arguments.only("use_geometric", [False], why="another schedule")
    if arguments.flag("fir"):
        arguments.only("fir_kernel", [[1, 3, 3, 1]], why="another filter")
    if arguments.only("progressive_input", ["none", "input_skip", "residual"]) == "input_skip":
        arguments.only("progressive_combine", ["sum"], why="the resampled input as further channels")
    levels = len(arguments.integers("ch_mult"))
    if arguments.only("progressive", ["none", "output_skip", "residual"]) == "residual" and levels == 1:
        raise arguments.error("progressive", "none or output_skip on a single level")
    if arguments.integer("image_size") % 2 ** (levels - 1):
        raise arguments.error("image_size", f"a multiple of {2 ** (levels - 1)}, to be halved {levels - 1} times")
    for name in ("num_channels_dae", "t_emb_dim"):
        if arguments.integer(name) % 2:
            raise arguments.error(name, "even, for sines and cosines")


def read_generator(arguments: Arguments) -> dict[str, Any]:
    """Reads the options of the generator."""
    base, multiples = arguments.integer("num_channels_dae"), arguments.integers("ch_mult")
    sides = [arguments.integer("image_size") >> level for level in range(len(multiples))]
    attention = arguments.integers("attn_resolutions", empty=True)
    return {
        "channels": [base * multiple for multiple in multiples],
        "stem": base,
        "blocks": arguments.integer("num_res_blocks"),
        "attention": [side for side in sides if side in attention],
        "fir": arguments.flag("fir"),
        "progressive_input": _PATHS[arguments.values["progressive_input"]],
        "progressive": _PATHS[arguments.values["progressive"]],
        "mapping": arguments.integer("n_mlp", low=0),
        "style": arguments.integer("z_emb_dim"),
        "dropout": arguments.number("dropout"),
    }


def read_discriminator(arguments: Arguments, tensors: Mapping[str, Tensor] | None) -> dict[str, Any]:
    """Reads the options of the discriminator from its keys or, without any, from the data set's name."""
    width = arguments.integer("ngf")
    small = arguments.values["dataset"] in _SMALL
    if tensors is not None:
        small = not any(key.startswith("conv6.") for key in tensors)
    multiples = [2, 2, 4, 8, 8] if small else [2, 4, 8, 8, 8, 8, 8]
    channels = [width * multiple for multiple in multiples]
    return {"channels": channels, "first": not small, "embedding": arguments.integer("t_emb_dim")}


def _read_weights(source: Mapping[str, Any], *, raw: bool, averaged: bool) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the generator's weights, and the source's other keys."""
    if "netG_dict" not in source:
        return _unprefix(tensors_of(source, "the source")), ()
    weights = _unprefix(tensors_of(source["netG_dict"], "netG_dict"))
    left = tuple(key for key in source if key not in ("netG_dict", "netD_dict"))
    if raw or not averaged:
        return weights, left
    states = attributes(attributes(source.get("optimizerG")).get("state"))
    averages = dict(zip(weights, (attributes(states.get(index)).get("ema") for index in range(len(weights)))))
    if len(states) != len(weights) or not all(isinstance(average, Tensor) for average in averages.values()):
        raise ValueError(
            "expected an average of each weight in optimizerG, as use_ema says; --raw takes the weights as trained"
        )
    return tensors_of(averages, "optimizerG"), (*left, "netG_dict")


def _convert_discriminator(
    x: TensorType, options: Mapping[str, Any], tensors: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    if tensors is not None:
        weights, _ = rename(tensors, map_discriminator(len(options["channels"]) - 1))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            weights = NCSNppDiscriminator(x, CondType(concat=x, time=True), **options).state_dict()
    return {f"discriminator.{key}": value for key, value in weights.items()}


def _unprefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes the prefix of torch's data parallelism."""
    every = all(key.startswith("module.") for key in tensors)
    return {key.removeprefix("module.") if every else key: tensor for key, tensor in tensors.items()}
