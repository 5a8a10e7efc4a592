r"""Latent diffusion's first stages: AutoencoderKL as `conv` with `gaussian`, VQModel and VQModelInterface with `vq`.

    encoder -> quant_conv -> posterior or nearest code -> post_quant_conv -> decoder

`quant_conv` is the bottleneck's projection, `post_quant_conv` the decoder's. The latent of a VQModelInterface is
`continuous`, before quantization, and decoding quantizes. If the authors omit attention altogether (`attn_type: none`),
the attention in our middle gets an output of zero. In their quantizer as trained, beta = 1/4 weights the codes' loss
instead of the commitment's.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.1 and appendix G,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modkit.nn.attention import Attention
from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.compvis_config import find_model, read_lightning, read_target, take_averages
from modkit_checkpoints.conversion import Conversion, Rule, aside, matrices, pairs, rename
from modkit_checkpoints.skeleton import build_skeleton

__all__ = ["FirstStage", "convert", "read_first_stage"]

_BETA = 0.25
_BOTH: dict[str, Any] = dict.fromkeys(
    "embed_dim ddconfig lossconfig ckpt_path ignore_keys image_key colorize_nlabels monitor".split()
)
_QUANTIZED = dict.fromkeys(
    "n_embed batch_resize_range scheduler_config lr_g_factor remap sane_index_shape use_ema".split()
)
_CLASSES = {"AutoencoderKL": _BOTH, "VQModel": _BOTH | _QUANTIZED, "VQModelInterface": _BOTH | _QUANTIZED}
_NET: dict[str, Any] = {
    **dict.fromkeys("ch out_ch num_res_blocks attn_resolutions in_channels resolution z_channels".split()),
    "ch_mult": [1, 2, 4, 8],
    "dropout": 0.0,
    "resamp_with_conv": True,
    "double_z": True,
    "give_pre_end": False,
    "tanh_out": False,
    "use_linear_attn": False,
    "attn_type": "vanilla",
}


_ENDS = {name: name for name in ("conv_in", "norm_out", "conv_out")}
_RESIDUAL = {"norm1": "norm_1", "conv1": "conv_1", "norm2": "norm_2", "conv2": "conv_2", "nin_shortcut": "skip"}


@dataclass(frozen=True)
class FirstStage:
    """A first stage as modkit's `autoencoder`.

    Args:
        spec: The autoencoder's node.
        rules: The rules for its keys.
        weights: Weights without a counterpart in the authors' checkpoint.
        shape: Shape of an image.
        latent: Shape of its latent.
    """

    spec: Mapping[str, Any]
    rules: Sequence[Rule]
    weights: Mapping[str, Tensor]
    shape: tuple[int, int, int]
    latent: tuple[int, int, int]


def convert(source: Any, config: Any, raw: bool) -> Conversion:
    """Converts a first stage's checkpoint to an autoencoder.

    Raises:
        ValueError: If the configuration uses something for which modkit has no counterpart, or keys do not fit it.
    """
    tensors, others = read_lightning(source)
    stage = read_first_stage(find_model(config), "model")
    tensors, averages = take_averages(tensors, "", raw)
    weights, left = rename(tensors, stage.rules)
    spec = {"x": {"shape": list(stage.shape), "range": [-1.0, 1.0]}, "model": stage.spec}
    return Conversion(spec, {**weights, **stage.weights}, (*others, *averages, *left))


def read_first_stage(
    node: Any, where: str, *, theirs: str = "", ours: str = "", latent: int | None = None
) -> FirstStage:
    """Reads a first stage's configuration.

    Args:
        node: Its `{target, params}`.
        where: The node's path, for error messages.
        theirs: Prefix of their keys.
        ours: Prefix of ours.
        latent: Size of the latent's maps; by default it follows from the configuration's `resolution`.

    Raises:
        ValueError: If it uses something for which modkit has no counterpart.
    """
    name, params = read_target(node, where)
    if name not in _CLASSES:
        raise ValueError(f"{where}.target is expected to be one of {', '.join(_CLASSES)}, got {name!r}")
    given = Arguments(f"{where}.params", params, _CLASSES[name])
    width = given.integer("embed_dim")
    variational = name == "AutoencoderKL"
    bottleneck = {"use": "gaussian", "channels": width} if variational else _read_quantizer(given, width)
    net = _Net(f"{where}.params.ddconfig", given.values["ddconfig"], latent)
    if net.double != variational:
        raise ValueError(f"{where}.params.ddconfig: double_z is expected to be {variational} of {name}")
    rules = [
        *net.rules(theirs, ours),
        *pairs(theirs, ours, {"quant_conv": "bottleneck.project", "post_quant_conv": "decoder.project"}),
        aside(rf"{re.escape(theirs)}(loss|model_ema)\..*|{re.escape(theirs)}colorize"),
    ]
    weights = net.silence(ours)
    if not variational:
        rules.append(Rule(rf"{re.escape(theirs)}quantize\.embedding\.weight", f"{ours}bottleneck.codebook.codes"))
        weights[f"{ours}bottleneck.codebook.usage"] = torch.ones(given.integer("n_embed"))
    emitted = net.z_channels * (2 if net.double else 1)
    spec = {
        "use": "autoencoder",
        "encoder": {**net.options(net.channels), "blocks": net.blocks, "out_channels": emitted},
        "bottleneck": bottleneck,
        "decoder": {**net.options(net.channels[::-1]), "blocks": net.blocks + 1, "in_channels": net.z_channels},
        "likelihood": "l1",
        **({} if variational else {"weights": {"codebook": _BETA}}),
    }
    side, coarsest = net.sizes[0], net.sizes[-1]
    return FirstStage(spec, rules, weights, (net.image, side, side), (width, coarsest, coarsest))


def _read_quantizer(given: Arguments, width: int) -> dict[str, Any]:
    given.only("remap", [None], why="codes that are numbered anew")
    codes = {"num_codes": given.integer("n_embed"), "channels": width}
    return {"use": "vq", **codes, "codebook": "gradient", "commitment": 1.0, "revive": 0.0}


class _Net:
    """Their encoder and decoder, `ddconfig`."""

    def __init__(self, where: str, config: Any, latent: int | None) -> None:
        if not isinstance(config, Mapping):
            raise ValueError(f"{where} is expected to be a mapping, got {config!r}")
        given = Arguments(where, config, _NET)
        for name in ("use_linear_attn", "give_pre_end", "tanh_out"):
            given.only(name, [False], why="modkit has no counterpart")
        self.attends = given.only("attn_type", ["vanilla", "none"], why="modkit has no counterpart") == "vanilla"
        wide, multiples = given.integer("ch"), given.integers("ch_mult")
        resolution, attention = given.integer("resolution"), given.integers("attn_resolutions", empty=True)
        levels = range(len(multiples))
        self.image = given.integer("in_channels")
        given.only("out_ch", [self.image])
        self.channels = [wide * multiple for multiple in multiples]  # finest first, as all that follows
        self.levels_attend = [self.attends and resolution >> level in attention for level in levels]
        size = resolution if latent is None else latent << levels[-1]
        self.sizes = [size >> level for level in levels]
        self.blocks = given.integer("num_res_blocks")
        self.z_channels = given.integer("z_channels")  # between the nets and the 1x1 convolutions
        self.double = given.flag("double_z")  # the encoder outputs mean and log variance
        self.learned = given.flag("resamp_with_conv")
        self.dropout = given.number("dropout")

    def options(self, channels: list[int]) -> dict[str, Any]:
        """Returns the options that encoder and decoder share."""
        return {
            "use": "conv",
            "channels": channels,
            "attention": [size for size, attends in zip(self.sizes, self.levels_attend) if attends],
            "dropout": self.dropout,
            "resampling": "conv" if self.learned else "plain",
            "style": "taming",
        }

    def rules(self, theirs: str, ours: str) -> list[Rule]:
        """Returns the rules for the keys of both."""
        last = len(self.channels) - 1
        rules: list[Rule] = []
        for level, attends in enumerate(self.levels_attend):
            down, up = f"{theirs}encoder.down.{level}.", f"{theirs}decoder.up.{level}."
            to_down, to_up = f"{ours}encoder.levels.{level}.", f"{ours}decoder.levels.{last - level}."
            rules += _map_level(down, to_down, self.blocks, attends)
            rules += _map_level(up, to_up, self.blocks + 1, attends)
            if self.learned and level < last:
                rules += pairs(down, to_down, {"downsample.conv": f"{self.blocks * (1 + attends)}.conv"})
            if self.learned and level:
                rules += pairs(up, f"{ours}decoder.doublings.{last - level}.", {"upsample.conv": "conv"})
        for side in ("encoder.", "decoder."):
            rules += pairs(theirs + side, ours + side, _ENDS)
            for name, place in (("block_1", 0), ("block_2", 2)):
                rules += pairs(f"{theirs}{side}mid.{name}.", f"{ours}{side}middle.{place}.", _RESIDUAL)
            if self.attends:
                rules += _map_attention(f"{theirs}{side}mid.attn_1.", f"{ours}{side}middle.1.")
        return rules

    def silence(self, ours: str) -> dict[str, Tensor]:
        """Returns the weights of attention in the middle that adds nothing, if theirs has none."""
        sides = () if self.attends else ("encoder", "decoder")
        state = build_skeleton(lambda: Attention(self.channels[-1])).state_dict()
        return {f"{ours}{side}.middle.1.{key}": torch.zeros(one.shape) for side in sides for key, one in state.items()}


def _map_level(theirs: str, ours: str, blocks: int, attends: bool) -> list[Rule]:
    rules: list[Rule] = []
    for block in range(blocks):
        place = block * (1 + attends)
        rules += pairs(f"{theirs}block.{block}.", f"{ours}{place}.", _RESIDUAL)
        if attends:
            rules += _map_attention(f"{theirs}attn.{block}.", f"{ours}{place + 1}.")
    return rules


def _map_attention(theirs: str, ours: str) -> list[Rule]:
    layers = {"q": "query", "k": "key_value", "v": "key_value", "proj_out": "out"}
    return [*pairs(theirs, ours, {"norm": "norm"}), *matrices(theirs, ours, layers)]
