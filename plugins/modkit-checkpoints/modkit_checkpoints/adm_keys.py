"""Where the keys of CompVis's UNetModel go in `adm-unet`.

Their input blocks are ours down, one for one after the first convolution; an output block of theirs is a unit of ours
and, at the end of a level, what doubles. Queries, keys and values come in one layer, either head by head (their older
order) or one after the other, as ours do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from modkit_checkpoints.conversion import Rule, attention, linear, matrix, pair

__all__ = ["AdmKeys"]


@dataclass(frozen=True)
class AdmKeys:
    """The shape of a UNetModel.

    Args:
        channels: Channels of each level, finest first.
        blocks: Residual blocks a level on the way down.
        attends: Which levels attend.
        heads: Heads of an attention over so many channels.
        by_head: Whether queries, keys and values come head by head.
        transformer: Whether tokens are attended to.
        resampling: What halves and doubles, as `adm-unet` says it.
        classes: Whether classes are embedded.
    """

    channels: Sequence[int]
    blocks: int
    attends: Sequence[bool]
    heads: Callable[[int], int]
    by_head: bool
    transformer: bool
    resampling: Literal["conv", "block", "plain"]
    classes: bool

    def rules(self, theirs: str, ours: str) -> list[Rule]:
        """The rules, given what precedes their keys and ours."""
        names = {
            "time_embed.0": "time.0",
            "time_embed.2": "time.2",
            "input_blocks.0.0": "conv_in",
            "out.0": "norm_out",
            "out.2": "conv_out",
        }
        rules = [rule for name, to in names.items() for rule in pair(theirs + name, ours + to)]
        if self.classes:
            rules.append(
                Rule(rf"{re.escape(theirs)}label_emb\.weight", f"{ours}others.labels.weight", change=_with_none)
            )
        rules += self._unit(f"{theirs}middle_block", f"{ours}middle.0", self.channels[-1], True)
        rules += _block(f"{theirs}middle_block.2", f"{ours}middle.1.block")
        return rules + self._down(theirs, ours) + self._up(theirs, ours)

    def _down(self, theirs: str, ours: str) -> list[Rule]:
        rules: list[Rule] = []
        place = 0
        for level, wide in enumerate(self.channels):
            if level:
                rules += self._resampler(f"{theirs}input_blocks.{place + 1}.0", f"{ours}down.{place}", "op")
                place += 1
            for _ in range(self.blocks):
                rules += self._unit(
                    f"{theirs}input_blocks.{place + 1}", f"{ours}down.{place}", wide, self.attends[level]
                )
                place += 1
        return rules

    def _up(self, theirs: str, ours: str) -> list[Rule]:
        rules: list[Rule] = []
        place = number = 0
        for level in reversed(range(len(self.channels))):
            attends = self.attends[level]
            for _ in range(self.blocks + 1):
                rules += self._unit(
                    f"{theirs}output_blocks.{number}", f"{ours}up.{place}", self.channels[level], attends
                )
                place, number = place + 1, number + 1
            if level:
                rules += self._resampler(
                    f"{theirs}output_blocks.{number - 1}.{1 + attends}", f"{ours}up.{place}", "conv"
                )
                place += 1
        return rules

    def _unit(self, theirs: str, ours: str, channels: int, attends: bool) -> list[Rule]:
        rules = _block(f"{theirs}.0", f"{ours}.block")
        if not attends:
            return rules
        if self.transformer:
            return rules + _transformer(f"{theirs}.1", f"{ours}.attend")
        in_turn = _in_turn(self.heads(channels) if self.by_head else 1)
        return rules + attention(f"{theirs}.1", f"{ours}.attend", in_turn)

    def _resampler(self, theirs: str, ours: str, name: str) -> list[Rule]:
        if self.resampling == "block":
            return _block(theirs, f"{ours}.module")
        return pair(f"{theirs}.{name}", f"{ours}.module.conv") if self.resampling == "conv" else []


def _block(theirs: str, ours: str) -> list[Rule]:
    """A residual block."""
    names = {
        "in_layers.0": "norm_1",
        "in_layers.2": "conv_1",
        "emb_layers.1": "modulation",
        "out_layers.0": "norm_2",
        "out_layers.3": "conv_2",
        "skip_connection": "skip",
    }
    return [rule for name, to in names.items() for rule in pair(f"{theirs}.{name}", f"{ours}.{to}")]


def _transformer(theirs: str, ours: str) -> list[Rule]:
    """A spatial transformer, of any depth."""
    layers, to = rf"{re.escape(theirs)}\.transformer_blocks\.(\d+)", rf"{ours}.layers.\1"
    rules = [
        *pair(f"{theirs}.norm", f"{ours}.norm"),
        *matrix(f"{theirs}.proj_in", f"{ours}.project"),
        *matrix(f"{theirs}.proj_out", f"{ours}.out"),
        Rule(rf"{layers}\.norm([123])\.(weight|bias)", rf"{to}.norm_\2.\3"),
        Rule(rf"{layers}\.ff\.net\.0\.proj\.(weight|bias)", rf"{to}.gated.\2"),
        Rule(rf"{layers}\.ff\.net\.2\.(weight|bias)", rf"{to}.narrow.\2"),
    ]
    for number, name in ((1, "attend"), (2, "cross")):
        for key, layer in (("q", "query"), ("k", "key"), ("v", "value")):
            rules.append(Rule(rf"{layers}\.attn{number}\.to_{key}\.weight", rf"{to}.{name}.{layer}.weight"))
        rules.append(Rule(rf"{layers}\.attn{number}\.to_out\.0\.(weight|bias)", rf"{to}.{name}.out.\2"))
    return rules


def _in_turn(heads: int) -> Callable[[Tensor], Tensor]:
    """Brings rows `(heads, [q, k, v], d)` into the order `([q, k, v], heads, d)`, and makes a matrix of a weight."""

    def change(tensor: Tensor) -> Tensor:
        rows = tensor if tensor.ndim == 1 else linear(tensor)
        if len(rows) % (3 * heads):
            raise ValueError(f"expected 3 x {heads} heads in the first size, got {tuple(tensor.shape)}")
        return rows.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)

    return change


def _with_none(rows: Tensor) -> Tensor:
    """The classes' embeddings with zeros for no class, which the authors do not have."""
    return torch.cat([rows, torch.zeros_like(rows[:1])])
