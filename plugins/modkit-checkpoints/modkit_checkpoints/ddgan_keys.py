r"""Where the weights of the denoising diffusion GAN go: its module lists walked beside the modules of ours.

The generator's layers are numbered in the order in which they run (`all_modules.7.Conv_0.weight`), ours stand by place.
Attention there is of matrices `i o` (`NIN_0.W`), here of linear layers.

Shape letters: i inputs, o outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

from torch import Tensor, nn

from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_blocks import Block, DownsampleBlock, Head, Output, Unit
from modkit_checkpoints.conversion import Rule, pair

__all__ = ["discriminator_rules", "generator_rules"]


def generator_rules(net: NCSNpp, depth: int) -> list[Rule]:
    """Rules for the generator's keys.

    Args:
        net: Ours, of the same configuration; on the meta device will do.
        depth: Number of hidden layers of the noise's mapping.
    """
    place = count()
    rules: list[Rule] = []
    if net.embedding.embeds:
        rules += [*pair(_next(place), "embedding.time.0"), *pair(_next(place), "embedding.time.2")]
    rules += pair(_next(place), "conv_in")
    for index, module in enumerate(net.down):
        ours = f"down.{index}"
        if isinstance(module, DownsampleBlock):
            rules += _block(_next(place), f"{ours}.block")
            if module.path == "skip":
                rules += pair(f"{_next(place)}.Conv_0", f"{ours}.join")
            elif module.path == "residual":
                rules += _resampling(_next(place), f"{ours}.halve.conv")
        else:
            rules += _unit(place, module, ours)
    for index, module in enumerate(net.middle):
        rules += _unit(place, module, f"middle.{index}")
    for index, module in enumerate(net.up):
        ours = f"up.{index}"
        if isinstance(module, Unit):
            rules += _unit(place, module, ours)
        elif isinstance(module, Output) and isinstance(module.head, Head):
            rules += _head(place, f"{ours}.head")
        elif isinstance(module, Output):
            rules += _resampling(_next(place), f"{ours}.upsample.conv")
        elif isinstance(module, Block):
            rules += _block(_next(place), ours)
    if net.head is not None:
        rules += _head(place, "head")
    for index in range(0, 2 * depth + 1, 2):  # theirs begin with what divides by the root mean square
        rules += pair(f"z_transform.{index + 1}", f"mapping.layers.{index}")
    return rules


def discriminator_rules(blocks: int) -> list[Rule]:
    """Rules for the keys of a discriminator of that many blocks."""
    rules = [
        *pair("t_embed.main.0", "time.layers.0"),
        *pair("t_embed.main.2", "time.layers.2"),
        *pair("start_conv", "conv_in"),
    ]
    for index in range(blocks):
        theirs, ours = f"conv{index + 1}", f"blocks.{index}"
        rules += [
            *pair(f"{theirs}.conv1.0", f"{ours}.conv_0"),
            *pair(f"{theirs}.conv2.0", f"{ours}.conv_1"),
            *pair(f"{theirs}.dense_t1", f"{ours}.embed"),
            Rule(rf"{theirs}\.skip\.0\.weight", f"{ours}.skip.weight"),
        ]
    return [*rules, *pair("final_conv", "conv_out"), *pair("end_linear", "out")]


def _unit(place: Iterator[int], unit: nn.Module, ours: str) -> list[Rule]:
    rules = _block(_next(place), f"{ours}.block")
    return rules if unit.attend is None else [*rules, *_attention(_next(place), f"{ours}.attend")]


def _block(theirs: str, ours: str) -> list[Rule]:
    return [
        *pair(f"{theirs}.GroupNorm_0.style", f"{ours}.norm_0.style"),
        *pair(f"{theirs}.GroupNorm_1.style", f"{ours}.norm_1.style"),
        *pair(f"{theirs}.Conv_0", f"{ours}.conv_0"),
        *pair(f"{theirs}.Conv_1", f"{ours}.conv_1"),
        *pair(f"{theirs}.Dense_0", f"{ours}.embed"),
        *pair(f"{theirs}.Conv_2", f"{ours}.skip"),
    ]


def _attention(theirs: str, ours: str) -> list[Rule]:
    rules, layer = pair(f"{theirs}.GroupNorm_0", f"{ours}.norm"), re.escape(theirs)
    for index, (name, part) in enumerate((("query", None), ("key_value", 0), ("key_value", 1), ("out", None))):
        rules.append(Rule(rf"{layer}\.NIN_{index}\.W", f"{ours}.{name}.weight", part=part, change=_transposed))
        rules.append(Rule(rf"{layer}\.NIN_{index}\.b", f"{ours}.{name}.bias", part=part))
    return rules


def _head(place: Iterator[int], ours: str) -> list[Rule]:
    return [*pair(_next(place), f"{ours}.norm.norm"), *pair(_next(place), f"{ours}.conv")]


def _resampling(theirs: str, ours: str) -> list[Rule]:
    """A convolution that resamples, by either name that it has in their code."""
    return [*pair(f"{theirs}.Conv2d_0", ours), *pair(f"{theirs}.Conv_0", ours)]


def _next(place: Iterator[int]) -> str:
    return f"all_modules.{next(place)}"


def _transposed(weight: Tensor) -> Tensor:
    return weight.T.contiguous()
