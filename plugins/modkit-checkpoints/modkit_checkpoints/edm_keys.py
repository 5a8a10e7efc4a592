r"""Maps the keys of EDM's U-Nets to those of `song-unet` and `dhariwal-unet`, walking the modules of the latter.

Theirs are named by resolution (`enc.16x16_block0.conv0.weight`), ours by place. A block's queries, keys and values are
one convolution whose channels alternate, `(head, channel, q|k|v)`; the resampling filters are buffers that hold what
ours has by construction. Labels are an embedding here: its row k is the authors' matrix applied to the one-hot label k,
and its last row the matrix applied to zeros.

Shape letters: o outputs, k classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modkit.nn.ncsnpp_blocks import Block, DownsampleBlock, Head, Output
from modkit_checkpoints.conversion import Rule, attention, linear, pairs
from modkit_checkpoints.dhariwal_unet import DhariwalUNet
from modkit_checkpoints.song_unet import SongUNet

__all__ = ["drop_filters", "embed_labels", "map_edm_unet"]

_SONG = {"norm0": "norm_0.norm", "conv0": "conv_0", "norm1": "norm_1.norm", "conv1": "conv_1", "affine": "embed"}
_DHARIWAL = {"norm0": "norm_1", "conv0": "conv_1", "norm1": "norm_2", "conv1": "conv_2", "affine": "film"}
_SKIP = {"skip": "skip"}


def map_edm_unet(net: SongUNet | DhariwalUNet, resolution: int) -> list[Rule]:
    """Returns the rules for a U-Net's keys.

    Args:
        net: The network of the same configuration; it may be on the meta device.
        resolution: Side of the finest maps.
    """
    block = (_SONG if isinstance(net, SongUNet) else _DHARIWAL) | _SKIP
    rules = [
        *pairs("map_layer", "embedding.layers.", {"0": "0", "1": "2"}),
        Rule(r"map_label\.table", "embedding.rest.labels.weight"),
        Rule(r"map_augment\.weight", "embedding.augment.weight"),
        Rule(r"map_noise\.freqs", "embedding.waves.frequencies", change=lambda freqs: 2 * torch.pi * freqs),
        *pairs(
            "", "", {f"enc.{resolution}x{resolution}_conv": "conv_in", "out_norm": "norm_out", "out_conv": "conv_out"}
        ),
    ]
    side, number = resolution, 0
    for way, modules in (("down", net.down), ("up", net.up)):
        name = "enc" if way == "down" else "dec"
        for place, module in enumerate(modules):
            ours = f"{way}.{place}."
            if isinstance(module, Output):
                rules += _map_head(side, f"{ours}head.")
            elif _resamples(module):
                side, number = (side // 2 if way == "down" else 2 * side), 0
                inner = ours if isinstance(module, Block) else f"{ours}block."
                first = {"conv0": "conv_1.1"} if isinstance(net, DhariwalUNet) else {}
                rules += pairs(f"{name}.{side}x{side}_{way}.", inner, block | first)
                rules += _map_path(module, f"enc.{side}x{side}_aux_", ours)
            else:
                rules += _map_unit(f"{name}.{side}x{side}_block{number}.", ours, block)
                number += 1
        if way == "down":
            number = 0
            for place in range(2):
                rules += _map_unit(f"dec.{side}x{side}_in{place}.", f"middle.{place}.", block)
    return [*rules, *_map_head(side, "head.")] if isinstance(getattr(net, "head", None), Head) else rules


def embed_labels(tensors: Mapping[str, Tensor], classes: int, *, scaled: bool) -> dict[str, Tensor]:
    """Replaces the matrix of labels `o k` (and its bias) by the table of an embedding, `(k + 1) o`.

    Args:
        tensors: A U-Net's, by the authors' keys.
        classes: Number k of labels.
        scaled: Whether the authors multiply the one-hot label by sqrt(k).

    Raises:
        ValueError: If the matrix is missing or of another number of labels.
    """
    rest = dict(tensors)
    weight, bias = rest.pop("map_label.weight", None), rest.pop("map_label.bias", None)
    if weight is None or weight.ndim != 2 or weight.shape[1] != classes:
        got = "none" if weight is None else tuple(weight.shape)
        raise ValueError(f"the key 'map_label.weight' is expected to be a matrix of {classes} columns, got {got}")
    scale = math.sqrt(classes) if scaled else 1.0
    table = torch.cat([scale * weight.T, weight.new_zeros(1, len(weight))])
    return {**rest, "map_label.table": table if bias is None else table + bias}


def drop_filters(tensors: Mapping[str, Tensor], taps: list[float]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the tensors without the resampling filters, and the keys of these.

    Raises:
        ValueError: If a filter is not the outer product of the taps, normalised to sum 1.
    """
    line = torch.tensor(taps) / sum(taps)
    rest, found = {}, []
    for key, tensor in tensors.items():
        if not key.endswith("resample_filter"):
            rest[key] = tensor
        elif tensor.shape[-2:] != (len(taps),) * 2 or not torch.allclose(tensor.float(), torch.outer(line, line)):
            raise ValueError(f"the key {key!r} is expected to hold the filter {taps}, got {tensor.tolist()}")
        else:
            found.append(key)
    return rest, tuple(found)


def _resamples(module: nn.Module) -> bool:
    if isinstance(module, Block | DownsampleBlock):
        return True
    return isinstance(getattr(module.block, "conv_1", None), nn.Sequential)  # DhariwalUNet resamples first


def _map_path(module: nn.Module, theirs: str, ours: str) -> list[Rule]:
    """Maps the layer by which a downsampling block joins a parallel path."""
    if not isinstance(module, DownsampleBlock) or module.path == "none":
        return []
    if module.path == "skip":
        return pairs(theirs, ours, {"skip": "join"})
    return pairs(theirs, ours, {"residual": "halve.0" if isinstance(module.halve, nn.Sequential) else "halve.conv"})


def _map_unit(theirs: str, ours: str, block: Mapping[str, str]) -> list[Rule]:
    attends = attention(theirs, f"{ours}attend.", _reorder, norm="norm2", out="proj")
    return [*pairs(theirs, f"{ours}block.", block), *attends]


def _map_head(side: int, ours: str) -> list[Rule]:
    return pairs(f"dec.{side}x{side}_aux_", ours, {"norm": "norm.norm", "conv": "conv"})


def _reorder(weight: Tensor) -> Tensor:
    """Puts alternating channels in the order queries, keys, values."""
    if len(weight) % 3:
        raise ValueError(f"expected queries, keys and values, got {tuple(weight.shape)}")
    ordered = torch.cat([weight[first::3] for first in range(3)])
    return linear(ordered) if ordered.ndim > 1 else ordered
