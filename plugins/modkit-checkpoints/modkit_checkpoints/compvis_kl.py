r"""Latent diffusion's first stages: AutoencoderKL as `conv` with `gaussian`, VQModel and VQModelInterface with `vq`.

    encoder -> quant_conv -> posterior or nearest code -> post_quant_conv -> decoder

`quant_conv` is the bottleneck's projection, `post_quant_conv` the decoder's. Of a VQModelInterface the latent is
`continuous`, before quantisation, and decoding quantises. Where the authors leave attention out altogether
(`attn_type: none`) ours stands in the middle with an output of zero, which adds nothing. In the quantizer, as they
train it, beta = 1/4 stands on the codes' loss instead of the commitment's.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.1 and appendix G,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.compvis_config import averaged, lightning, model_of, target
from modkit_checkpoints.conversion import Conversion, Rule, aside, matrix, pair, renamed

__all__ = ["FirstStage", "convert", "first_stage"]

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


@dataclass(frozen=True)
class FirstStage:
    """A first stage as modkit has it.

    Args:
        spec: The autoencoder's node.
        rules: Where the keys go.
        weights: What the authors have no key of.
        shape: Shape of a picture.
        latent: Shape of its latent.
    """

    spec: Mapping[str, Any]
    rules: Sequence[Rule]
    weights: Mapping[str, Tensor]
    shape: tuple[int, int, int]
    latent: tuple[int, int, int]


def convert(source: Any, config: Any, raw: bool) -> Conversion:
    """A first stage's checkpoint as an autoencoder.

    Raises:
        ValueError: If the configuration holds what modkit has no counterpart for, or keys do not fit it.
    """
    tensors, others = lightning(source)
    stage = first_stage(model_of(config), "model")
    tensors, averages = averaged(tensors, "", raw)
    weights, left = renamed(tensors, stage.rules)
    spec = {"x": {"shape": list(stage.shape), "range": [-1.0, 1.0]}, "model": stage.spec}
    return Conversion(spec, {**weights, **stage.weights}, (*others, *averages, *left))


def first_stage(node: Any, where: str, *, theirs: str = "", ours: str = "", latent: int | None = None) -> FirstStage:
    """Reads a first stage's configuration.

    Args:
        node: Its `{target, params}`.
        where: The node's path, for errors.
        theirs: What precedes their keys.
        ours: What precedes ours.
        latent: Size of the latent's maps; None: as the configuration's `resolution` gives it.

    Raises:
        ValueError: If it holds what modkit has no counterpart for.
    """
    name, params = target(node, where)
    if name not in _CLASSES:
        raise ValueError(f"{where}.target is expected to be one of {', '.join(_CLASSES)}, got {name!r}")
    given = Arguments(f"{where}.params", params, _CLASSES[name])
    width = given.integer("embed_dim")
    variational = name == "AutoencoderKL"
    bottleneck = {"use": "gaussian", "channels": width} if variational else _quantizer(given, width)
    net = _Net.read(f"{where}.params.ddconfig", given.values["ddconfig"], latent)
    if net.double != variational:
        raise ValueError(f"{where}.params.ddconfig: double_z is expected to be {variational} of {name}")
    rules = [
        *net.rules(theirs, ours),
        *pair(f"{theirs}quant_conv", f"{ours}bottleneck.project"),
        *pair(f"{theirs}post_quant_conv", f"{ours}decoder.project"),
        aside(rf"{re.escape(theirs)}(loss|model_ema)\..*|{re.escape(theirs)}colorize"),
    ]
    weights = net.silent(ours)
    if not variational:
        rules.append(Rule(rf"{re.escape(theirs)}quantize\.embedding\.weight", f"{ours}bottleneck.codebook.codes"))
        weights[f"{ours}bottleneck.codebook.usage"] = torch.ones(given.integer("n_embed"))
    spec = {
        "use": "autoencoder",
        "encoder": {**net.options(net.channels), "blocks": net.blocks, "out_channels": net.emitted},
        "bottleneck": bottleneck,
        "decoder": {**net.options(net.channels[::-1]), "blocks": net.blocks + 1, "in_channels": net.z_channels},
        "likelihood": "l1",
        **({} if variational else {"weights": {"codebook": _BETA}}),
    }
    size = net.size
    return FirstStage(spec, rules, weights, (net.image, size, size), (width, net.coarsest, net.coarsest))


def _quantizer(given: Arguments, width: int) -> dict[str, Any]:
    given.only("remap", [None], why="codes that are numbered anew")
    return {
        "use": "vq",
        "num_codes": given.integer("n_embed"),
        "channels": width,
        "codebook": "gradient",
        "commitment": 1.0,
        "revive": 0.0,
    }


@dataclass(frozen=True)
class _Net:
    """Their encoder and decoder, `ddconfig`.

    Args:
        channels: Channels of each level, finest first.
        blocks: Residual blocks a level of the encoder.
        attends: Which levels attend.
        middle: Whether the middle attends.
        size: Size of a picture.
        image: Channels of a picture.
        z_channels: Channels between the nets and the 1x1 convolutions.
        double: Whether the encoder emits mean and log variance.
        learned: Whether resampling convolves.
        dropout: Share of the values dropped.
    """

    channels: list[int]
    blocks: int
    attends: list[bool]
    middle: bool
    size: int
    image: int
    z_channels: int
    double: bool
    learned: bool
    dropout: float
    sizes: list[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", [self.size >> level for level in range(len(self.channels))])

    @classmethod
    def read(cls, where: str, config: Any, latent: int | None) -> _Net:
        """Reads the mapping."""
        if not isinstance(config, Mapping):
            raise ValueError(f"{where} is expected to be a mapping, got {config!r}")
        given = Arguments(where, config, _NET)
        for name in ("use_linear_attn", "give_pre_end", "tanh_out"):
            given.only(name, [False], why="modkit has no counterpart")
        attends = given.only("attn_type", ["vanilla", "none"], why="modkit has no counterpart") == "vanilla"
        wide, multiples = given.integer("ch"), given.integers("ch_mult")
        resolution, attention = given.integer("resolution"), given.integers("attn_resolutions", empty=True)
        image = given.integer("in_channels")
        given.only("out_ch", [image])
        return cls(
            channels=[wide * multiple for multiple in multiples],
            blocks=given.integer("num_res_blocks"),
            attends=[attends and resolution >> level in attention for level in range(len(multiples))],
            middle=attends,
            size=resolution if latent is None else latent << (len(multiples) - 1),
            image=image,
            z_channels=given.integer("z_channels"),
            double=given.flag("double_z"),
            learned=given.flag("resamp_with_conv"),
            dropout=given.number("dropout"),
        )

    @property
    def coarsest(self) -> int:
        """Size of the latent's maps."""
        return self.sizes[-1]

    @property
    def emitted(self) -> int:
        """Channels that the encoder emits."""
        return self.z_channels * (2 if self.double else 1)

    def options(self, channels: list[int]) -> dict[str, Any]:
        """What encoder and decoder have in common."""
        return {
            "use": "conv",
            "channels": channels,
            "attention": [size for size, attends in zip(self.sizes, self.attends) if attends],
            "dropout": self.dropout,
            "resampling": "conv" if self.learned else "plain",
            "style": "taming",
        }

    def rules(self, theirs: str, ours: str) -> list[Rule]:
        """Where the keys of both go."""
        levels = len(self.channels)
        rules: list[Rule] = []
        for level, attends in enumerate(self.attends):
            down, up = f"{theirs}encoder.down.{level}", f"{theirs}decoder.up.{level}"
            to_down, to_up = f"{ours}encoder.levels.{level}", f"{ours}decoder.levels.{levels - 1 - level}"
            rules += _level(down, to_down, self.blocks, attends)
            rules += _level(up, to_up, self.blocks + 1, attends)
            last = self.blocks * (1 + attends)
            if self.learned and level + 1 < levels:
                rules += pair(f"{down}.downsample.conv", f"{to_down}.{last}.conv")
            if self.learned and level:
                rules += pair(f"{up}.upsample.conv", f"{ours}decoder.doublings.{levels - 1 - level}.conv")
        for side in ("encoder", "decoder"):
            for name in ("conv_in", "norm_out", "conv_out"):
                rules += pair(f"{theirs}{side}.{name}", f"{ours}{side}.{name}")
            rules += _residual(f"{theirs}{side}.mid.block_1", f"{ours}{side}.middle.0")
            rules += _residual(f"{theirs}{side}.mid.block_2", f"{ours}{side}.middle.2")
            if self.middle:
                rules += _attention(f"{theirs}{side}.mid.attn_1", f"{ours}{side}.middle.1")
        return rules

    def silent(self, ours: str) -> dict[str, Tensor]:
        """Attention in the middle that adds nothing, where theirs has none."""
        wide = self.channels[-1]
        shapes = {
            "norm.weight": (wide,),
            "norm.bias": (wide,),
            "query.weight": (wide, wide),
            "query.bias": (wide,),
            "key_value.weight": (2 * wide, wide),
            "key_value.bias": (2 * wide,),
            "out.weight": (wide, wide),
            "out.bias": (wide,),
        }
        sides = () if self.middle else ("encoder", "decoder")
        return {f"{ours}{side}.middle.1.{name}": torch.zeros(shape) for side in sides for name, shape in shapes.items()}


def _level(theirs: str, ours: str, blocks: int, attends: bool) -> list[Rule]:
    rules: list[Rule] = []
    for block in range(blocks):
        place = block * (1 + attends)
        rules += _residual(f"{theirs}.block.{block}", f"{ours}.{place}")
        if attends:
            rules += _attention(f"{theirs}.attn.{block}", f"{ours}.{place + 1}")
    return rules


def _residual(theirs: str, ours: str) -> list[Rule]:
    names = {"norm1": "norm_1", "conv1": "conv_1", "norm2": "norm_2", "conv2": "conv_2", "nin_shortcut": "skip"}
    return [rule for name, to in names.items() for rule in pair(f"{theirs}.{name}", f"{ours}.{to}")]


def _attention(theirs: str, ours: str) -> list[Rule]:
    return [
        *pair(f"{theirs}.norm", f"{ours}.norm"),
        *matrix(f"{theirs}.q", f"{ours}.query"),
        *matrix(f"{theirs}.k", f"{ours}.key_value", part=0),
        *matrix(f"{theirs}.v", f"{ours}.key_value", part=1),
        *matrix(f"{theirs}.proj_out", f"{ours}.out"),
    ]
