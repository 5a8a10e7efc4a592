r"""Maps the keys of the denoising diffusion GAN to those of `ncsnpp`, walking the modules of both in parallel.

The generator's layers are numbered in the order in which they run (`all_modules.7.Conv_0.weight`), ours are named by
place. Its attention uses matrices `i o` (`NIN_0.W`), ours linear layers.

Shape letters: i inputs, o outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

from torch import Tensor, nn

from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_blocks import Block, DownsampleBlock, Head, Output, Unit
from modkit_checkpoints.conversion import Rule, pairs

__all__ = ["map_discriminator", "map_generator"]

_BLOCK = {
    "GroupNorm_0.style": "norm_0.style",
    "GroupNorm_1.style": "norm_1.style",
    "Conv_0": "conv_0",
    "Conv_1": "conv_1",
    "Dense_0": "embed",
    "Conv_2": "skip",
}
_CRITIC = {"t_embed.main.0": "time.layers.0", "t_embed.main.2": "time.layers.2", "start_conv": "conv_in"}
_CRITIC |= {"final_conv": "conv_out", "end_linear": "out"}
_CRITIC_BLOCK = {"conv1.0": "conv_0", "conv2.0": "conv_1", "dense_t1": "embed"}


def map_generator(net: NCSNpp, depth: int) -> list[Rule]:
    """Returns the rules for the generator's keys.

    Args:
        net: The network of the same configuration; it may be on the meta device.
        depth: Number of hidden layers of the noise's mapping.
    """
    layers = (f"all_modules.{place}" for place in count())
    names = ["embedding.time.0", "embedding.time.2"] if net.embedding.embeds else []
    rules = pairs("", "", {next(layers): name for name in (*names, "conv_in")})
    for way, modules in (("down", net.down), ("middle", net.middle), ("up", net.up)):
        for place, module in enumerate(modules):
            rules += _map(module, layers, f"{way}.{place}.")
    if net.head is not None:
        rules += _map_head(layers, "head.")
    # theirs begin with the division by the root mean square
    return rules + pairs("z_transform.", "mapping.layers.", {str(i + 1): str(i) for i in range(0, 2 * depth + 1, 2)})


def map_discriminator(blocks: int) -> list[Rule]:
    """Returns the rules for the keys of a discriminator with that many blocks."""
    rules = pairs("", "", _CRITIC)
    for index in range(blocks):
        rules += pairs(f"conv{index + 1}.", f"blocks.{index}.", _CRITIC_BLOCK)
        rules.append(Rule(rf"conv{index + 1}\.skip\.0\.weight", f"blocks.{index}.skip.weight"))
    return rules


def _map(module: nn.Module, layers: Iterator[str], ours: str) -> list[Rule]:
    """Maps the layers that correspond to one of our modules."""
    if isinstance(module, Output):
        if isinstance(module.head, Head):
            return _map_head(layers, f"{ours}head.")
        return _map_resampling(next(layers), f"{ours}upsample.conv")
    rules = pairs(f"{next(layers)}.", ours if isinstance(module, Block) else f"{ours}block.", _BLOCK)
    if isinstance(module, Unit) and module.attend is not None:
        rules += _map_attention(next(layers), f"{ours}attend.")
    if isinstance(module, DownsampleBlock) and module.path == "skip":
        rules += pairs(f"{next(layers)}.", ours, {"Conv_0": "join"})
    elif isinstance(module, DownsampleBlock) and module.path == "residual":
        rules += _map_resampling(next(layers), f"{ours}halve.conv")
    return rules


def _map_attention(theirs: str, ours: str) -> list[Rule]:
    rules = pairs(f"{theirs}.", ours, {"GroupNorm_0": "norm"})
    for index, (name, part) in enumerate((("query", None), ("key_value", 0), ("key_value", 1), ("out", None))):
        layer = rf"{re.escape(theirs)}\.NIN_{index}\."
        rules.append(Rule(f"{layer}W", f"{ours}{name}.weight", part=part, change=_transpose))
        rules.append(Rule(f"{layer}b", f"{ours}{name}.bias", part=part))
    return rules


def _map_head(layers: Iterator[str], ours: str) -> list[Rule]:
    return pairs("", ours, {next(layers): "norm.norm", next(layers): "conv"})


def _map_resampling(theirs: str, ours: str) -> list[Rule]:
    """Maps a resampling convolution, by either of the names that it has in their code."""
    return pairs(f"{theirs}.", ours, {"Conv2d_0": "", "Conv_0": ""})


def _transpose(weight: Tensor) -> Tensor:
    return weight.T.contiguous()
