r"""Where the weights of EDM's U-Nets go: the keys of theirs walked beside the modules of ours.

Theirs are named by resolution (`enc.16x16_block0.conv0.weight`), ours by place. A block's queries, keys and values are
one convolution whose channels take turns, `(head, channel, q|k|v)`; the filters of their resampling are buffers that
hold what ours has by construction. Labels are an embedding here: with the one-hot label as a row, row k of it is what
the authors' matrix makes of label k, and the last row what it makes of zeros.

Shape letters: o outputs, k classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from modkit.nn.ncsnpp_blocks import DownsampleBlock, Head, Output, Unit
from modkit_checkpoints.conversion import Rule, attention, linear, pair
from modkit_checkpoints.dhariwal_unet import DhariwalUNet
from modkit_checkpoints.song_unet import SongUNet

__all__ = ["dhariwal_rules", "labelled", "song_rules", "without_filters"]


def song_rules(net: SongUNet, resolution: int) -> list[Rule]:
    """Rules for a SongUNet's keys.

    Args:
        net: Ours, of the same configuration; on the meta device will do.
        resolution: Side of the finest maps.
    """
    rules = [*_embedding_rules("embedding.layers.0", "embedding.layers.2")]
    rules.append(Rule(r"map_noise\.freqs", "embedding.waves.frequencies", change=lambda freqs: 2 * torch.pi * freqs))
    rules += pair(f"enc.{resolution}x{resolution}_conv", "conv_in")
    side, block = resolution, 0
    for place, module in enumerate(net.down):
        if isinstance(module, DownsampleBlock):
            side, block = side // 2, 0
            rules += _block(f"enc.{side}x{side}_down", f"down.{place}.block", "embed")
            if module.path == "skip":
                rules += pair(f"enc.{side}x{side}_aux_skip", f"down.{place}.join")
            elif module.path == "residual":
                inner = "0" if isinstance(module.halve, nn.Sequential) else "conv"
                rules += pair(f"enc.{side}x{side}_aux_residual", f"down.{place}.halve.{inner}")
        else:
            rules += _unit(f"enc.{side}x{side}_block{block}", f"down.{place}", "embed")
            block += 1
    for place in range(2):
        rules += _unit(f"dec.{side}x{side}_in{place}", f"middle.{place}", "embed")
    block = 0
    for place, module in enumerate(net.up):
        if isinstance(module, Unit):
            rules += _unit(f"dec.{side}x{side}_block{block}", f"up.{place}", "embed")
            block += 1
        elif isinstance(module, Output):
            rules += _head(f"dec.{side}x{side}_aux", f"up.{place}.head")
        else:
            side, block = 2 * side, 0
            rules += _block(f"dec.{side}x{side}_up", f"up.{place}", "embed")
    if isinstance(net.head, Head):
        rules += _head(f"dec.{side}x{side}_aux", "head")
    return rules


def dhariwal_rules(net: DhariwalUNet, resolution: int) -> list[Rule]:
    """Rules for a DhariwalUNet's keys.

    Args:
        net: Ours, of the same configuration; on the meta device will do.
        resolution: Side of the finest maps.
    """
    rules = [*_embedding_rules("embedding.layers.0", "embedding.layers.2")]
    rules += pair(f"enc.{resolution}x{resolution}_conv", "conv_in")
    side, block = resolution, 0
    for place, resamples in enumerate(net.downsamples):
        if resamples:
            side, block = side // 2, 0
            rules += _block(f"enc.{side}x{side}_down", f"down.{place}.block", "film", resamples=True)
        else:
            rules += _unit(f"enc.{side}x{side}_block{block}", f"down.{place}", "film")
            block += 1
    for place in range(2):
        rules += _unit(f"dec.{side}x{side}_in{place}", f"middle.{place}", "film")
    block = 0
    for place, resamples in enumerate(net.upsamples):
        if resamples:
            side, block = 2 * side, 0
            rules += _block(f"dec.{side}x{side}_up", f"up.{place}.block", "film", resamples=True)
        else:
            rules += _unit(f"dec.{side}x{side}_block{block}", f"up.{place}", "film")
            block += 1
    return [*rules, *pair("out_norm", "norm_out"), *pair("out_conv", "conv_out")]


def labelled(tensors: Mapping[str, Tensor], *, scale: float) -> dict[str, Tensor]:
    """The tensors, the matrix of labels `o k` (and its bias) replaced by the table of an embedding, `(k + 1) o`.

    Args:
        tensors: A U-Net's, by the authors' keys.
        scale: What the authors multiply the one-hot label by.

    Raises:
        ValueError: If the matrix is missing.
    """
    rest = dict(tensors)
    weight, bias = rest.pop("map_label.weight", None), rest.pop("map_label.bias", None)
    if weight is None or weight.ndim != 2:
        got = "none" if weight is None else tuple(weight.shape)
        raise ValueError(f"the key 'map_label.weight' is expected to be a matrix, got {got}")
    table = torch.cat([scale * weight.T, weight.new_zeros(1, len(weight))])
    return {**rest, "map_label.table": table if bias is None else table + bias}


def without_filters(tensors: Mapping[str, Tensor], taps: list[float]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors without the filters of resampling, and these filters' keys.

    Raises:
        ValueError: If a filter is not the outer product of the taps, of sum 1.
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


def _embedding_rules(first: str, second: str) -> Iterator[Rule]:
    yield from pair("map_layer0", first)
    yield from pair("map_layer1", second)
    yield Rule(r"map_label\.table", "embedding.rest.labels.weight")
    yield Rule(r"map_augment\.weight", "embedding.augment.weight")


def _unit(theirs: str, ours: str, embed: str) -> list[Rule]:
    return [
        *_block(theirs, f"{ours}.block", embed),
        *attention(theirs, f"{ours}.attend", _in_turn, norm="norm2", out="proj"),
    ]


def _block(theirs: str, ours: str, embed: str, *, resamples: bool = False) -> list[Rule]:
    numbered = embed == "film"
    names = ("norm_1", "conv_1", "norm_2", "conv_2") if numbered else ("norm_0.norm", "conv_0", "norm_1.norm", "conv_1")
    first = f"{names[1]}.1" if resamples else names[1]
    pairs = {"norm0": names[0], "conv0": first, "norm1": names[2], "conv1": names[3], "affine": embed, "skip": "skip"}
    return [rule for their, our in pairs.items() for rule in pair(f"{theirs}.{their}", f"{ours}.{our}")]


def _in_turn(weight: Tensor) -> Tensor:
    """Queries, keys and values one after the other, from channels that take turns."""
    if len(weight) % 3:
        raise ValueError(f"expected queries, keys and values, got {tuple(weight.shape)}")
    ordered = torch.cat([weight[first::3] for first in range(3)])
    return linear(ordered) if ordered.ndim > 1 else ordered


def _head(theirs: str, ours: str) -> list[Rule]:
    return [*pair(f"{theirs}_norm", f"{ours}.norm.norm"), *pair(f"{theirs}_conv", f"{ours}.conv")]
