"""CompVis's `unet_config` as the options of `adm-unet`.

Attention is named there by how far a level is halved, here by its resolution. Where a head's channels are given they
decide; else the number of heads does, which going up may be another one only in a deprecated key that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modkit_checkpoints.adm_keys import AdmKeys
from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.compvis_config import target

__all__ = ["Network", "network"]

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
    """A UNetModel as modkit has it.

    Args:
        node: The node of `adm-unet`.
        keys: Where its keys go.
        channels: Channels that it takes.
        context: Width of the tokens that it attends to, or None.
        classes: Number of classes that it embeds, or None.
    """

    node: Mapping[str, Any]
    keys: AdmKeys
    channels: int
    context: int | None
    classes: int | None


def network(node: Any, where: str, *, out: int, size: int) -> Network:
    """Reads a network's configuration.

    Args:
        node: Its `{target, params}`.
        where: The node's path, for errors.
        out: Channels that it must emit.
        size: Size of the maps.

    Raises:
        ValueError: If it holds what modkit has no counterpart for.
    """
    name, params = target(node, where)
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
    rates, blocks = given.integers("attention_resolutions", empty=True), given.integer("num_res_blocks")
    attends = [1 << level in rates for level in range(len(channels))]
    resampling = _resampling(given)
    heads = _heads(given)
    context = _context(given)
    options: dict[str, Any] = {
        "use": "checkpoints/adm-unet",
        "channels": channels,
        "blocks": blocks,
        "attention": [size >> level for level, one in enumerate(attends) if one],
        **heads,
        **({} if context is None else {"depth": given.integer("transformer_depth")}),
        "film": given.flag("use_scale_shift_norm"),
        "resampling": resampling,
        "dropout": given.number("dropout"),
    }
    classes = None if given.values["num_classes"] is None else given.integer("num_classes")
    keys = AdmKeys(
        channels=channels,
        blocks=blocks,
        attends=attends,
        heads=lambda wide: heads["heads"] if "heads" in heads else wide // heads["head_channels"],
        by_head=not given.flag("use_new_attention_order"),
        transformer=context is not None,
        resampling=resampling,
        classes=classes is not None,
    )
    return Network(options, keys, given.integer("in_channels"), context, classes)


def _resampling(given: Arguments) -> Literal["conv", "block", "plain"]:
    if given.flag("resblock_updown"):
        return "block"
    return "conv" if given.flag("conv_resample") else "plain"


def _heads(given: Arguments) -> dict[str, int]:
    """`heads` or `head_channels`, whichever decides; `legacy` is another way to the same."""
    if given.values["num_head_channels"] != -1:
        return {"head_channels": given.integer("num_head_channels")}
    heads = given.integer("num_heads")
    given.only("num_heads_upsample", [-1, heads], why="modkit has as many heads on both ways")
    return {"heads": heads}


def _context(given: Arguments) -> int | None:
    """Width of the tokens, or None where there are none; their projections may be matrices or convolutions one wide."""
    if given.flag("use_spatial_transformer"):
        return given.integer("context_dim")
    given.only("context_dim", [None], why="use_spatial_transformer is false")
    return None
