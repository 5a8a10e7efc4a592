r"""The perceptual distance of two images: the distance between a network's feature maps of them.

    d(a, b) = sum_l mean_hw sum_c w_lc (u_lc(a) - u_lc(b))^2,    u = y / (|y| + tiny),   |y|^2 = sum_c y_c^2

y_l are the maps of any feature extractor, normalized over channels at each position. The weights w are 1, or the
extractor's own `heads` (those of LPIPS are the squares of the paper's). They are not trained.

Shape letters: b batch, c channels, h w spatial, l maps.

References:
    The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018), eq. 1,
    https://arxiv.org/abs/1801.03924
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modkit.kinds import FeatureExtractor, FeatureExtractorExtras, read_extras
from modkit.nn.unregistered import Unregistered
from modkit.precision import widen
from modkit.types import Batch

__all__ = ["Perceptual", "normalize"]

_TINY = 1e-10


class Perceptual(nn.Module):
    """The distance between the maps of one feature extractor.

    The extractor is frozen and no submodule, see `Unregistered`. Its weights are saved only if its `prepare` makes them
    (until then it has no key); all others can be restored from its seed, package or file.

    Args:
        features: The extractor; its gradients are turned off, and it is put in eval mode.

    Examples:
        >>> from modkit.features.random_conv import RandomConv
        >>> from modkit.types import TensorType
        >>> distance = Perceptual(RandomConv(TensorType((1, 16, 16), range=(-1, 1))))
        >>> x = torch.zeros(2, 1, 16, 16)
        >>> distance(x, x)
        tensor([0., 0.])
    """

    def __init__(self, features: FeatureExtractor) -> None:
        super().__init__()
        self._extractor = Unregistered(features)
        self._learns = _has_no_key(features)
        self._weighs = bool(read_extras(features, FeatureExtractorExtras).heads)

    @property
    def features(self) -> FeatureExtractor:
        """The extractor."""
        return self._extractor.held

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """The distance of each pair, `b`; gradients reach only `fake`. Both are `b c h w` of the extractor's type.

        Raises:
            ValueError: If the extractor has no maps, or a different number of maps and heads.
        """
        with torch.no_grad():
            wanted = self.features(real).maps
        given = self.features(fake).maps
        if not given:
            raise ValueError(f"Perceptual expects features with maps, got {self.features.label}, which gives none")
        features: Any = self.features
        heads = features.heads if self._weighs else tuple(y.new_ones(()) for y in given)
        if len(heads) != len(given):
            raise ValueError(f"Perceptual expects a head for each of {len(given)} maps, got {len(heads)} heads")
        return torch.stack([_measure_distance(*pair) for pair in zip(given, wanted, heads)]).sum(0)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Lets the extractor train or calibrate itself, once."""
        self.features.prepare(batches)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination.update({prefix + name: value for name, value in self._make_state().items()})

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        missing_keys, unexpected_keys, error_msgs = rest[2:]
        own = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        wanted = self._make_state()
        missing_keys += [prefix + name for name in wanted if name not in own]
        unexpected_keys += [prefix + name for name in own if name not in wanted]
        if own.keys() == wanted.keys() and own:
            try:
                self.features.load_state_dict(own)  # type: ignore[attr-defined]
            except RuntimeError as error:  # other shapes
                error_msgs.append(str(error))

    def _make_state(self) -> Mapping[str, Tensor]:
        """The extractor's weights if they have to be saved, otherwise nothing."""
        return self.features.state_dict() if self._learns and isinstance(self.features, nn.Module) else {}


def normalize(y: Tensor) -> Tensor:
    """Divides maps `b c ...` by their norm over channels at each position; where the norm is 0 they stay 0.

    Examples:
        >>> normalize(torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """
    y = widen(y)
    norm: Tensor = torch.linalg.vector_norm(y, dim=1, keepdim=True)
    return y / (norm + _TINY)


def _measure_distance(fake: Tensor, real: Tensor, head: Tensor) -> Tensor:
    """The contribution of one map, `b`; the head is `c` or a scalar."""
    squares = (normalize(fake) - normalize(real)).square().flatten(2).mean(2)
    return (squares * head).sum(1)


def _has_no_key(features: FeatureExtractor) -> bool:
    """Whether the extractor's weights have yet to be made by `prepare`."""
    try:
        features.key()
    except ValueError:
        return True
    return False
