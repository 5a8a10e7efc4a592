"""CompVis's `unet_config` as the options of `adm-unet`.

They place attention by the factor by which a level is downsampled, we by its resolution. The channels of a head, if
given, take precedence over the number of heads. A different number on the way up can be given only by a deprecated key,
which is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modkit.types import CondType, TensorType
from modkit_checkpoints.adm_keys import map_adm_unet
from modkit_checkpoints.adm_unet import AdmUNet
from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.compvis_config import read_target
from modkit_checkpoints.conversion import Rule
from modkit_checkpoints.skeleton import build_skeleton

__all__ = ["Network", "read_network"]

_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys("in_channels model_channels out_channels num_res_blocks attention_resolutions".split()),
    **dict.fromkeys(
        "image_size use_checkpoint use_fp16 use_linear_in_transformer num_classes context_dim n_embed".split()
    ),
    **dict.fromkeys("num_heads num_head_channels num_heads_upsample".split(), -1),
    **dict.fromkeys(
        "use_scale_shift_norm resblock_updown use_new_attention_order use_spatial_transformer".split(), False
    ),
    "channel_mult": [1, 2, 4, 8],
    "conv_resample": True,
    "dims": 2,
    "dropout": 0.0,
    "legacy": True,
    "transformer_depth": 1,
}


@dataclass(frozen=True)
class Network:
    """A UNetModel as modkit's `adm-unet`.

    Args:
        options: The options of `adm-unet`.
        by_head: Whether queries, keys and values are ordered by head.
        channels: Channels of the input.
        out: Channels of the output; the further channels of the input are a concatenated map.
        size: Size of the maps.
        context: Width of the tokens that it attends to, or None.
        classes: Number of classes that it embeds, or None.
    """

    options: Mapping[str, Any]
    by_head: bool
    channels: int
    out: int
    size: int
    context: int | None
    classes: int | None

    def build(self) -> AdmUNet:
        """Builds the network."""
        beside = self.channels - self.out
        x = TensorType((self.out, self.size, self.size))
        cond = CondType(
            time=True,
            context=(1, self.context) if self.context else None,
            labels=self.classes,
            concat=TensorType((beside, self.size, self.size)) if beside else None,
        )
        return AdmUNet(x, x, cond, **self.options)

    def rules(self, theirs: str, ours: str) -> list[Rule]:
        """Returns the rules for its keys, given the prefixes of theirs and ours."""
        return map_adm_unet(build_skeleton(self.build), theirs, ours, by_head=self.by_head)


def read_network(node: Any, where: str, *, out: int, size: int) -> Network:
    """Reads a network's configuration.

    Args:
        node: Its `{target, params}`.
        where: The node's path, for error messages.
        out: Channels that it must output.
        size: Size of the maps.

    Raises:
        ValueError: If it uses something for which modkit has no counterpart.
    """
    name, params = read_target(node, where)
    if name != "UNetModel":
        raise ValueError(f"{where}.target is expected to be UNetModel, got {name!r}")
    given = Arguments(f"{where}.params", params, _DEFAULTS)
    given.only("dims", [2])
    given.only("n_embed", [None], why="modkit has no counterpart")
    given.only("out_channels", [out], why="the channels that are denoised")
    multiples = given.integers("channel_mult")
    if multiples[0] != 1:
        raise given.error("channel_mult", "a list that begins with 1")
    channels = [given.integer("model_channels") * multiple for multiple in multiples]
    rates = given.integers("attention_resolutions", empty=True)
    context = _read_context(given)
    options: dict[str, Any] = {
        "channels": channels,
        "blocks": given.integer("num_res_blocks"),
        "attention": [size >> level for level in range(len(channels)) if 1 << level in rates],
        **_read_heads(given),
        **({} if context is None else {"depth": given.integer("transformer_depth")}),
        "film": given.flag("use_scale_shift_norm"),
        "resampling": _read_resampling(given),
        "dropout": given.number("dropout"),
    }
    classes = None if given.values["num_classes"] is None else given.integer("num_classes")
    by_head = not given.flag("use_new_attention_order")
    return Network(options, by_head, given.integer("in_channels"), out, size, context, classes)


def _read_resampling(given: Arguments) -> Literal["conv", "block", "plain"]:
    if given.flag("resblock_updown"):
        return "block"
    return "conv" if given.flag("conv_resample") else "plain"


def _read_heads(given: Arguments) -> dict[str, int]:
    """Reads `heads` or `head_channels`, whichever decides; `legacy` only computes the same in another way."""
    if given.values["num_head_channels"] != -1:
        return {"head_channels": given.integer("num_head_channels")}
    heads = given.integer("num_heads")
    given.only("num_heads_upsample", [-1, heads], why="modkit has as many heads on both ways")
    return {"heads": heads}


def _read_context(given: Arguments) -> int | None:
    """Reads the width of the tokens, or None without any."""
    if given.flag("use_spatial_transformer"):
        return given.integer("context_dim")
    given.only("context_dim", [None], why="use_spatial_transformer is false")
    return None
