r"""The perceptual distance of images: how far apart a network's maps of them are.

    d(a, b) = sum_l mean_hw sum_c w_lc (u_lc(a) - u_lc(b))^2,    u = y / (|y| + tiny),   |y|^2 = sum_c y_c^2

y_l are the maps of any feature extractor, each position divided by its norm over channels. The weights w are one, or
the `heads` that the extractor carries (LPIPS': w is the square of the paper's). They are never trained here.

Shape letters: b batch, c channels, h w spatial, l maps.

References:
    The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018), eq. 1,
    https://arxiv.org/abs/1801.03924
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modkit.kinds import FeatureExtractor
from modkit.precision import widen
from modkit.types import Batch

__all__ = ["Perceptual", "unit"]

_TINY = 1e-10


class Perceptual(nn.Module):
    """The distance in the maps of one extractor.

    The extractor is a measuring instrument: it moves with this module from device to device, and is none of its
    modules, so its weights are in no player's hands, in no average and in no count of parameters. They are saved where
    its `prepare` makes them (it has no key before), and only there: others come from its seed, package or file.

    Args:
        features: The extractor; its gradients are turned off, and eval mode on.
    """

    def __init__(self, features: FeatureExtractor) -> None:
        super().__init__()
        if isinstance(features, nn.Module):
            features.requires_grad_(False).eval()
        self._held = (features,)
        self._learns = _has_no_key(features)

    @property
    def features(self) -> FeatureExtractor:
        """The extractor."""
        return self._held[0]

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """The distance of each pair, `b`; gradients reach `fake` alone. Both are `b c h w` of the extractor's type.

        Raises:
            ValueError: If the extractor gives no maps, or another number of them than of heads.
        """
        with torch.no_grad():
            wanted = self.features(real).maps
        given = self.features(fake).maps
        if not given:
            raise ValueError(f"Perceptual expects features with maps, got {self.features.label}, which gives none")
        heads: tuple[Tensor, ...] = getattr(self.features, "heads", ()) or tuple(y.new_ones(()) for y in given)
        if len(heads) != len(given):
            raise ValueError(f"Perceptual expects a head for each of {len(given)} maps, got {len(heads)} heads")
        return torch.stack([_distance(*pair) for pair in zip(given, wanted, heads)]).sum(0)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Lets the extractor train or calibrate, once."""
        self.features.prepare(batches)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Perceptual:
        """Takes the extractor along to another device or precision."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self.features, nn.Module):
            self.features._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination.update({prefix + name: value for name, value in self._state().items()})

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: object,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        wanted = self._state()
        missing_keys += [prefix + name for name in wanted if name not in own]
        unexpected_keys += [prefix + name for name in own if name not in wanted]
        if own.keys() == wanted.keys() and own:
            try:
                self.features.load_state_dict(own)  # type: ignore[attr-defined]
            except RuntimeError as error:  # other shapes
                error_msgs.append(str(error))

    def _state(self) -> Mapping[str, Tensor]:
        """The extractor's weights, where they are worth keeping."""
        return self.features.state_dict() if self._learns and isinstance(self.features, nn.Module) else {}


def unit(y: Tensor) -> Tensor:
    """Maps `b c ...` with each position divided by its norm over channels; where that is zero they stay zero."""
    y = widen(y)
    norm: Tensor = torch.linalg.vector_norm(y, dim=1, keepdim=True)
    return y / (norm + _TINY)


def _distance(fake: Tensor, real: Tensor, head: Tensor) -> Tensor:
    """One map's share, `b`; the head is `c` or a scalar."""
    squares = (unit(fake) - unit(real)).square().flatten(2).mean(2)
    return (squares * head).sum(1)


def _has_no_key(features: FeatureExtractor) -> bool:
    """Whether its weights are yet to be made."""
    try:
        features.key()
    except ValueError:
        return True
    return False
