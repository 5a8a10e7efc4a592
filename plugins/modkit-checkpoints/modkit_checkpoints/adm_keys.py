"""Maps the keys of CompVis's UNetModel to those of `adm-unet`, walking the modules of the latter.

After the first convolution, their input blocks correspond one to one to `down`. Each of their output blocks is a unit
of `up` and, at the end of a level, the upsampling after it. Queries, keys and values come from one layer, ordered
either by head (their older order) or as here, one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from modkit.nn.blocks import Downsample
from modkit_checkpoints.adm_blocks import AdmBlock
from modkit_checkpoints.adm_unet import AdmUNet, Resampler, Unit
from modkit_checkpoints.conversion import Rule, attention, linear, matrices, pairs
from modkit_checkpoints.spatial_transformer import SpatialTransformer

__all__ = ["map_adm_unet"]

_ENDS = {
    "time_embed.0": "time.0",
    "time_embed.2": "time.2",
    "input_blocks.0.0": "conv_in",
    "out.0": "norm_out",
    "out.2": "conv_out",
}
_BLOCK = {
    "in_layers.0": "norm_1",
    "in_layers.2": "conv_1",
    "emb_layers.1": "modulation",
    "out_layers.0": "norm_2",
    "out_layers.3": "conv_2",
    "skip_connection": "skip",
}
_LAYER = {  # of a transformer; (weight|bias) follows
    r"norm(\d)": r"norm_\2.\3",
    r"ff\.net\.0\.proj()": r"gated.\3",
    r"ff\.net\.2()": r"narrow.\3",
    **{
        rf"attn{number}\.{key}()": rf"{name}.{layer}.\3"
        for number, name in ((1, "attend"), (2, "cross"))
        for key, layer in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), (r"to_out\.0", "out"))
    },
}


def map_adm_unet(net: AdmUNet, theirs: str, ours: str, *, by_head: bool) -> list[Rule]:
    """Returns the rules for a UNetModel's keys.

    Args:
        net: The network of the same configuration; it may be on the meta device.
        theirs: Prefix of their keys.
        ours: Prefix of ours.
        by_head: Whether queries, keys and values are ordered by head.
    """
    label = Rule(rf"{re.escape(theirs)}label_emb\.weight", f"{ours}others.labels.weight", change=_append_none)
    rules = [*pairs(theirs, ours, _ENDS), label]
    for place, module in enumerate(net.down):
        rules += _map(module, f"{theirs}input_blocks.{place + 1}.", 0, f"{ours}down.{place}.", by_head)
    first, second = net.middle
    rules += _map(first, f"{theirs}middle_block.", 0, f"{ours}middle.0.", by_head)
    rules += _map(second, f"{theirs}middle_block.", 2, f"{ours}middle.1.", by_head)
    number, layers = -1, 0
    for place, module in enumerate(net.up):
        if isinstance(module, Unit):
            number, layers = number + 1, 0
        rules += _map(module, f"{theirs}output_blocks.{number}.", layers, f"{ours}up.{place}.", by_head)
        layers = len(list(module.children()))
    return rules


def _map(module: nn.Module, theirs: str, first: int, ours: str, by_head: bool) -> list[Rule]:
    """Maps a unit or a resampler, given the number of its first layer in their block."""
    if isinstance(module, Unit):
        rules = pairs(f"{theirs}{first}.", f"{ours}block.", _BLOCK)
        theirs, ours = f"{theirs}{first + 1}.", f"{ours}attend."
        if isinstance(module.attend, SpatialTransformer):
            return rules + _map_transformer(theirs, ours)
        if module.attend is not None:
            rules += attention(theirs, ours, _by_head(module.attend.heads if by_head else 1))
        return rules
    assert isinstance(module, Resampler)
    if isinstance(module.module, AdmBlock):
        return pairs(f"{theirs}{first}.", f"{ours}module.", _BLOCK)
    name = "op" if isinstance(module.module, Downsample) else "conv"
    return pairs(f"{theirs}{first}.", f"{ours}module.", {name: "conv"} if list(module.parameters()) else {})


def _map_transformer(theirs: str, ours: str) -> list[Rule]:
    """Maps a spatial transformer of any depth."""
    layers = rf"{re.escape(theirs)}transformer_blocks\.(\d+)\."
    return [
        *pairs(theirs, ours, {"norm": "norm"}),
        *matrices(theirs, ours, {"proj_in": "project", "proj_out": "out"}),
        *(Rule(rf"{layers}{name}\.(weight|bias)", rf"{ours}layers.\1.{to}") for name, to in _LAYER.items()),
    ]


def _by_head(heads: int) -> Callable[[Tensor], Tensor]:
    """Reorders rows `(heads, [q, k, v], d)` as `([q, k, v], heads, d)`; a weight becomes a matrix."""

    def reorder(tensor: Tensor) -> Tensor:
        rows = tensor if tensor.ndim == 1 else linear(tensor)
        if len(rows) % (3 * heads):
            raise ValueError(f"expected 3 x {heads} heads in the first size, got {tuple(tensor.shape)}")
        return rows.reshape(heads, 3, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)

    return reorder


def _append_none(rows: Tensor) -> Tensor:
    """Appends zeros as the embedding of no class, which the authors do not have."""
    return torch.cat([rows, torch.zeros_like(rows[:1])])
