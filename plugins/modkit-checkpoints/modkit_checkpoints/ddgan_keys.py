r"""Where the weights of the denoising diffusion GAN go: its module lists walked beside the modules of ours.

The generator's layers are numbered in the order in which they run (`all_modules.7.Conv_0.weight`), ours stand by place.
Attention there is of matrices `i o` (`NIN_0.W`), here of linear layers.

Shape letters: i inputs, o outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from torch import Tensor, nn

from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_blocks import Block, DownsampleBlock, Head, Output, Unit
from modkit_checkpoints.conversion import Rule

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
        rules += [*_pair(_next(place), "embedding.time.0"), *_pair(_next(place), "embedding.time.2")]
    rules += _pair(_next(place), "conv_in")
    for index, module in enumerate(net.down):
        ours = f"down.{index}"
        if isinstance(module, DownsampleBlock):
            rules += _block(_next(place), f"{ours}.block")
            if module.path == "skip":
                rules += _pair(rf"{_next(place)}\.Conv_0", f"{ours}.join")
            elif module.path == "residual":
                rules += _pair(rf"{_next(place)}\.Conv(?:2d)?_0", f"{ours}.halve.conv")
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
            rules += _pair(rf"{_next(place)}\.Conv(?:2d)?_0", f"{ours}.upsample.conv")
        elif isinstance(module, Block):
            rules += _block(_next(place), ours)
    if net.head is not None:
        rules += _head(place, "head")
    for index in range(0, 2 * depth + 1, 2):  # theirs begin with what divides by the root mean square
        rules += _pair(rf"z_transform\.{index + 1}", f"mapping.layers.{index}")
    return rules


def discriminator_rules(blocks: int) -> list[Rule]:
    """Rules for the keys of a discriminator of that many blocks."""
    rules = [
        *_pair(r"t_embed\.main\.0", "time.layers.0"),
        *_pair(r"t_embed\.main\.2", "time.layers.2"),
        *_pair("start_conv", "conv_in"),
    ]
    for index in range(blocks):
        theirs, ours = f"conv{index + 1}", f"blocks.{index}"
        rules += [
            *_pair(rf"{theirs}\.conv1\.0", f"{ours}.conv_0"),
            *_pair(rf"{theirs}\.conv2\.0", f"{ours}.conv_1"),
            *_pair(rf"{theirs}\.dense_t1", f"{ours}.embed"),
            Rule(rf"{theirs}\.skip\.0\.weight", f"{ours}.skip.weight"),
        ]
    return [*rules, *_pair("final_conv", "conv_out"), *_pair("end_linear", "out")]


def _unit(place: Iterator[int], unit: nn.Module, ours: str) -> list[Rule]:
    rules = _block(_next(place), f"{ours}.block")
    return rules if unit.attend is None else [*rules, *_attention(_next(place), f"{ours}.attend")]


def _block(theirs: str, ours: str) -> list[Rule]:
    return [
        *_pair(rf"{theirs}\.GroupNorm_([01])\.style", rf"{ours}.norm_\1.style", group=2),
        *_pair(rf"{theirs}\.Conv_([01])", rf"{ours}.conv_\1", group=2),
        *_pair(rf"{theirs}\.Dense_0", f"{ours}.embed"),
        *_pair(rf"{theirs}\.Conv_2", f"{ours}.skip"),
    ]


def _attention(theirs: str, ours: str) -> list[Rule]:
    rules = _pair(rf"{theirs}\.GroupNorm_0", f"{ours}.norm")
    for index, (name, part) in enumerate((("query", None), ("key_value", 0), ("key_value", 1), ("out", None))):
        rules.append(Rule(rf"{theirs}\.NIN_{index}\.W", f"{ours}.{name}.weight", part=part, change=_transposed))
        rules.append(Rule(rf"{theirs}\.NIN_{index}\.b", f"{ours}.{name}.bias", part=part))
    return rules


def _head(place: Iterator[int], ours: str) -> list[Rule]:
    return [*_pair(_next(place), f"{ours}.norm.norm"), *_pair(_next(place), f"{ours}.conv")]


def _pair(theirs: str, ours: str, group: int = 1) -> list[Rule]:
    return [Rule(rf"{theirs}\.(weight|bias)", rf"{ours}.\{group}")]


def _next(place: Iterator[int]) -> str:
    return rf"all_modules\.{next(place)}"


def _transposed(weight: Tensor) -> Tensor:
    return weight.T.contiguous()
