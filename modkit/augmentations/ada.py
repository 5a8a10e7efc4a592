r"""ADA: augmentation as strong as the critic overfits.

    r = E sign(D(real)),   p <- p + sign(r - target) n / images,   n real samples since the last move, every four steps

Each change below is made with probability p, of real and generated images alike. Of a critic that overfits, all logits
of training images are positive; then p rises, from 0 to 1 in as many `images`. While p is below about .8, what is
generated need not look augmented. With `held`, p follows no critic: it is a number, or a schedule's.

    blit      mirrored (half of the time); turned by a multiple of 90°; moved by whole pixels, up to 1/8 of the size
    geometry  scaled by s in both directions; turned by U(-pi, pi); by s and 1/s; turned again; moved by N(0, 1/8^2)
              log2 s ~ N(0, .2^2); turned with probability 1 - sqrt(1 - p) before and after
    color     x + N(0, .2^2); times 2^N(0, .5^2); luma inverted (half of the time); hue turned; saturation 2^N(0, 1)

Luma is along (1, ..., 1); hue is turned of three channels. Where the paper filters images before and after they are
warped, values are interpolated linearly here.

Shape letters: b batch, c channels, h w spatial.

References:
    Training Generative Adversarial Networks with Limited Data (Karras et al., 2020), section 3 and appendix B,
    https://arxiv.org/abs/2006.06676
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Literal, cast

import torch
from einops import einsum
from torch import Tensor, nn

from modkit.augmentations.affine import make_matrix, make_shift, make_turn
from modkit.augmentations.warp import warp
from modkit.kinds import Slot, Step, Unless, Weight
from modkit.precision import disable_autocast, widen
from modkit.rng import Rng
from modkit.types import Range, TensorType, checked

__all__ = ["ADA"]

_TURNS = 4  # between two moves of p: appendix D of the paper
_GROUPS = ("blit", "geometry", "color")


@checked
class ADA(nn.Module):
    """Augments images with a probability that follows the game; it is state, and saved.

    Args:
        x: Type of the images, `(c, h, w)`, continuous. Without a range, half a range is 1.
        groups: Changes that are made; the paper's "bgc" are all.
        target: The mean sign of real logits that p steers to, in (-1, 1).
        images: Number of real images in which p moves from 0 to 1.
        p: Probability at the start, in [0, 1].
        held: p itself, whatever the critic's logits are: a number in [0, 1], or a weight that depends on the step only
            (`{use: warmup, value: 0.3, steps: 10_000}`), whose values are clamped. Any losses of the game will do.

    Raises:
        ValueError: If x is not an image, `groups` has an unknown entry, a number is out of its range, or `held` is a
            weight that needs losses.

    Examples:
        >>> augment = ADA(TensorType((3, 16, 16), range=(-1.0, 1.0)), p=0.5)
        >>> augment(torch.zeros(2, 3, 16, 16), Rng(0)).shape
        torch.Size([2, 3, 16, 16])
        >>> ADA(TensorType((3, 16, 16)), held=0.3).p
        tensor(0.3000)
    """

    p: Tensor
    turn: Tensor
    seen: Tensor

    def __init__(
        self,
        x: TensorType,
        *,
        groups: list[Literal["blit", "geometry", "color"]] = ["blit", "geometry", "color"],  # noqa: B006
        target: Annotated[float, Unless("held"), Range(above=-1, below=1)] = 0.6,
        images: Annotated[int, Unless("held"), Range(1)] = 500_000,
        p: Annotated[float, Unless("held"), Range(0, 1)] = 0.0,
        held: Slot[Weight] | float | None = None,
    ) -> None:
        super().__init__()
        if len(x.shape) != 3 or x.classes is not None:
            raise ValueError(f"ADA expects continuous images (c, h, w), got {x}")
        if unknown := [name for name in groups if name not in _GROUPS]:
            raise ValueError(f"ADA expects groups of {list(_GROUPS)}, got {unknown}")
        low, high = x.range or (-1.0, 1.0)
        self.middle, self.unit = (high + low) / 2, (high - low) / 2
        self.groups, self.target, self.images = list(groups), target, images
        self._follows = held is None
        self._rule: Weight | None = None
        if isinstance(held, int | float):
            if not 0 <= held <= 1:
                raise ValueError(f"ADA expects held in [0, 1], got {held}")
            p = held
        elif held is not None:
            self._rule = held(term="p")
            p = self._read_rule(0)
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("turn", torch.zeros(2), persistent=False)  # this turn's: sum of signs, samples
        self.register_buffer("seen", torch.zeros(3))  # since the last move: sum of signs, samples, turns

    def forward(self, x: Tensor, rng: Rng) -> Tensor:
        """Augments images, `b c h w`."""
        with disable_autocast(x.device):  # products of maps, of pixels by the hundred
            return self._change(x, rng)

    def _change(self, x: Tensor, rng: Rng) -> Tensor:
        wide = widen(x)
        matrix = torch.eye(3, dtype=wide.dtype, device=x.device).expand(len(x), 3, 3)
        if "blit" in self.groups:
            matrix = matrix @ self._draw_blit(wide, rng.at("blit"))
        if "geometry" in self.groups:
            matrix = matrix @ self._draw_geometry(wide, rng.at("geometry"))
        x = warp(x, matrix) if self.groups != ["color"] else x
        return self._change_color(x, rng.at("color")) if "color" in self.groups else x

    @property
    def observe(self) -> Callable[[Tensor], None] | None:
        """Adds the signs of real logits to those of the turn; None if p is held."""
        return self._observe if self._follows else None

    @torch.no_grad()
    def _observe(self, real_logits: Tensor) -> None:
        """Adds the signs, averaged over patches."""
        signs = widen(real_logits).sign().flatten(1).mean(1) if real_logits.ndim > 1 else real_logits.sign()
        self.turn += torch.stack([signs.sum(), signs.new_tensor(len(signs))]).to(self.turn)

    @torch.no_grad()
    def update(self, step: Step) -> None:
        """Moves p every four turns, by the signs in all processes, or to a schedule's value at the next step."""
        if self._rule:
            self.p.fill_(self._read_rule(step.index + 1))
        if not self._follows:
            return
        self.seen += torch.cat([step.total(self.turn), self.turn.new_ones(1)])
        self.turn.zero_()
        signs, count, turns = self.seen
        moved = self.p + (signs - self.target * count).sign() * count / self.images
        due = turns >= _TURNS
        self.p.copy_(torch.where(due, moved.clamp(0, 1), self.p))
        self.seen.mul_(~due)

    def _read_rule(self, index: int) -> float:
        """Reads p of a step off a schedule, which is given the step's index and no losses."""
        assert self._rule is not None
        return min(max(float(self._rule(cast(Step, SimpleNamespace(index=index)), {}, None)), 0.0), 1.0)

    def _draw_blit(self, x: Tensor, rng: Rng) -> Tensor:
        """Draws maps of the result's pixels to the image's."""
        h, w = x.shape[2:]
        mirrored = self._draw_choice("flip", x, rng, 2)
        turns = self._draw_choice("turns", x, rng, 4)
        moves = torch.stack([(2 * _uniform(name, x, rng) - 1) / 8 for name in ("right", "down")])
        right, down = self._gate("move", moves, 0.0, rng)
        flip = make_matrix([[1 - 2 * mirrored, 0, 0], [0, 1, 0], [0, 0, 1]], x)
        cos, sin = (turns == 0).to(x) - (turns == 2).to(x), (turns == 1).to(x) - (turns == 3).to(x)
        return flip @ make_turn(cos, sin, x) @ make_shift((right * w).round(), (down * h).round(), x)

    def _draw_geometry(self, x: Tensor, rng: Rng) -> Tensor:
        """Draws maps of the result's pixels to the image's."""
        h, w = x.shape[2:]
        scale = self._gate("scale", torch.exp2(0.2 * _normal("scale", x, rng)), 1.0, rng)
        stretch = self._gate("stretch", torch.exp2(0.2 * _normal("stretch", x, rng)), 1.0, rng)
        moves = torch.stack([_normal(name, x, rng) / 8 for name in ("right", "down")])
        right, down = self._gate("move", moves, 0.0, rng)
        scaled = make_matrix([[1 / scale, 0, 0], [0, 1 / scale, 0], [0, 0, 1]], x)
        stretched = make_matrix([[1 / stretch, 0, 0], [0, stretch, 0], [0, 0, 1]], x)
        before, after = (self._draw_turn(name, x, rng) for name in ("before", "after"))
        return scaled @ before @ stretched @ after @ make_shift(right * w, down * h, x)

    def _draw_turn(self, name: str, x: Tensor, rng: Rng) -> Tensor:
        angle = math.pi * (2 * _uniform(name, x, rng) - 1)
        angle = self._gate(name, angle, 0.0, rng, 1 - (1 - self.p).sqrt())  # so that one of the two is made with p
        return make_turn(angle.cos(), angle.sin(), x)

    def _change_color(self, x: Tensor, rng: Rng) -> Tensor:
        wide = (widen(x) - self.middle) / self.unit
        num = x.shape[1]
        brightness = self._gate("brightness", 0.2 * _normal("brightness", wide, rng), 0.0, rng)
        contrast = self._gate("contrast", torch.exp2(0.5 * _normal("contrast", wide, rng)), 1.0, rng)
        inverted = self._draw_choice("luma", wide, rng, 2)
        saturation = self._gate("saturation", torch.exp2(_normal("saturation", wide, rng)), 1.0, rng)
        angle = self._gate("hue", math.pi * (2 * _uniform("hue", wide, rng) - 1), 0.0, rng)
        luma = wide.new_full((num, num), 1 / num)
        rest = torch.eye(num, dtype=wide.dtype, device=x.device) - luma
        around = wide.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3) if num == 3 else 0 * luma
        turned = angle.cos()[:, None, None] * rest + angle.sin()[:, None, None] * around if num == 3 else rest
        matrix = (1 - 2 * inverted)[:, None, None] * luma + saturation[:, None, None] * turned
        shift = (contrast * brightness * (1 - 2 * inverted))[:, None, None, None]
        changed = contrast[:, None, None, None] * einsum(matrix, wide, "b d c, b c h w -> b d h w") + shift
        idle = (brightness == 0) & (contrast == 1) & (inverted == 0) & (saturation == 1) & (angle == 0)
        return torch.where(idle[:, None, None, None], x, (changed * self.unit + self.middle).to(x.dtype))

    def _gate(self, name: str, value: Tensor, idle: float, rng: Rng, p: Tensor | None = None) -> Tensor:
        """Returns `value`, `... b`, with probability p, and otherwise `idle`, for each image."""
        made = rng.at(name).uniform("gate", value.new_empty(value.shape[-1])) < (self.p if p is None else p)
        return torch.where(made, value, torch.full_like(value, idle))

    def _draw_choice(self, name: str, x: Tensor, rng: Rng, num: int) -> Tensor:
        """Draws one of `num` numbers with probability p, and otherwise 0, for each image."""
        drawn = rng.integers(name, x.new_empty(len(x)), 0, num).to(x.dtype)
        return self._gate(name, drawn, 0.0, rng)


def _uniform(name: str, x: Tensor, rng: Rng) -> Tensor:
    return rng.uniform(name, x.new_empty(len(x)))


def _normal(name: str, x: Tensor, rng: Rng) -> Tensor:
    return rng.normal(name, x.new_empty(len(x)))
