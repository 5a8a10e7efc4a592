r"""LPIPS: the maps of VGG-16 or AlexNet, and weights of their channels fitted to human judgements.

    y_l = relu maps of net((x mapped to [-1, 1], grey repeated) - shift) / scale),   l = 1..5
    |x, y|_LPIPS = sum_l mean_hw sum_c w_lc (u_lc(x) - u_lc(y))^2         u: unit norm over channels
    vector = concat_l mean_hw sqrt(w_l) u_l

The perceptual loss with this extractor is LPIPS. The squared distance of two vectors is a lower bound of it: the square
of a mean difference instead of the mean square. Nothing is downloaded, and no code of the package `lpips` is run.

Shape letters: b batch, c channels, h w spatial, d features, l maps.

References:
    The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018), eq. 1,
    https://arxiv.org/abs/1801.03924
    Very Deep Convolutional Networks for Large-Scale Image Recognition (Simonyan and Zisserman, 2015), table 1, D,
    https://arxiv.org/abs/1409.1556
    One weird trick for parallelizing convolutional neural networks (Krizhevsky, 2014): torchvision's AlexNet,
    https://arxiv.org/abs/1404.5997
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from modkit.features.frozen import Frozen
from modkit.features.images import Images, check_image_type, convert_channels, make_column, map_range, resize
from modkit.features.weight_file import hash_tensors, load_exactly, read_weights
from modkit.losses.perceptual import normalize
from modkit.types import Features, checked

__all__ = ["LPIPS"]

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation in [-1, 1]


class _Net(NamedTuple):
    """A network: (channels, kernel, stride, padding) of its convolutions, each followed by a ReLU, and its poolings.

    Its maps are the outputs of the layers `maps`, with `channels`; for images smaller than `smallest` a map would be
    empty.
    """

    layers: tuple[tuple[int, int, int, int] | Literal["pool"], ...]
    pool: int
    maps: tuple[int, ...]
    channels: tuple[int, ...]
    smallest: int


_NETS = {
    "vgg": _Net(
        (
            *((64, 3, 1, 1),) * 2, "pool", *((128, 3, 1, 1),) * 2, "pool", *((256, 3, 1, 1),) * 3, "pool",
            *((512, 3, 1, 1),) * 3, "pool", *((512, 3, 1, 1),) * 3,
        ),
        pool=2, maps=(3, 8, 15, 22, 29), channels=(64, 128, 256, 512, 512), smallest=16,
    ),
    "alex": _Net(
        ((64, 11, 4, 2), "pool", (192, 5, 1, 2), "pool", (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)),
        pool=3, maps=(1, 4, 7, 9, 11), channels=(64, 192, 384, 256, 256), smallest=31,
    ),
}  # fmt: skip


@checked
class LPIPS(Frozen):
    """The maps that LPIPS compares, with its channel weights as `heads`.

    Args:
        weights: File of the network's weights as torchvision publishes them (`vgg16-397923af.pth`,
            `alexnet-owt-7be5be79.pth`), or only their `features.*`; safetensors or torch's format.
        net: `vgg` is VGG-16, which is common for losses; `alex` is AlexNet, which is common for scores.
        heads: File of the channel weights, safetensors or torch's; None is version 0.1 in the installed package
            `lpips`.
        size: Height and width that images are resized to (bilinear, antialiased). None leaves images as they are; each
            side must then have at least 16 pixels for `vgg` and 31 for `alex`.
        sha256: SHA-256 of `weights`, compared before the file is opened; None skips the comparison.

    Raises:
        ValueError: If `x` is not an image type with a range or is too small, `net` is unknown, a file cannot be read or
            does not match the network, or there are no heads.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        x: Images,
        *,
        weights: str,
        net: Literal["vgg", "alex"] = "vgg",
        heads: str | None = None,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        self._range, self.channels, self.size = check_image_type("LPIPS", x), x.shape[0], size
        form = _NETS[net]
        if min(x.shape[1:] if size is None else (size,)) < form.smallest:
            got = f"{x}; `size` resizes them" if size is None else f"size {size}"
            raise ValueError(f"LPIPS with {net} expects images of at least {form.smallest}×{form.smallest}, got {got}")
        tensors = read_weights("LPIPS", Path(weights).expanduser(), sha256=sha256)
        tensors = {name: value.float() for name, value in tensors.items() if not name.startswith("classifier.")}
        self.features, self._maps = _load(form, tensors, weights), form.maps
        path = Path(heads).expanduser() if heads is not None else _find_installed(net)
        for level, head in enumerate(_read_heads(path, form.channels)):
            self.register_buffer(f"head_{level}", head.to(torch.empty(0).device))
            tensors[f"head_{level}"] = head
        self._key = hash_tensors(tensors, "lpips", 1, net, size)
        self.label = f"lpips:{net}@{self._key[:6]}"
        self.register_buffer("shift", make_column(_SHIFT), persistent=False)
        self.register_buffer("scale", make_column(_SCALE), persistent=False)
        self.freeze()

    @property
    def heads(self) -> tuple[Tensor, ...]:
        """The weights of the channels of each map, `c`."""
        return tuple(getattr(self, f"head_{level}") for level in range(len(self._maps)))

    def _extract(self, x: Tensor) -> Features:
        """Computes a vector `b d` and the network's five maps, but no logits."""
        y = convert_channels(map_range(x.to(self.scale.dtype), self._range, (-1.0, 1.0)), 3)
        y = (y if self.size is None else resize(y, self.size)) - self.shift
        y = y / self.scale
        maps = []
        for index, layer in enumerate(self.features):
            y = layer(y)
            if index in self._maps:
                maps.append(y)
        parts = [normalize(y).mean((2, 3)) * head.sqrt() for y, head in zip(maps, self.heads)]
        return Features(torch.cat(parts, dim=1), tuple(maps))


def _build(form: _Net) -> nn.Sequential:
    """Builds the `features` of torchvision's network up to the last map, on the meta device."""
    layers: list[nn.Module] = []
    channels = 3
    with torch.device("meta"):
        for layer in form.layers:
            if isinstance(layer, str):
                layers.append(nn.MaxPool2d(form.pool, 2))
                continue
            wide, kernel, stride, padding = layer
            layers += [nn.Conv2d(channels, wide, kernel, stride, padding), nn.ReLU()]
            channels = wide
    return nn.Sequential(*layers)


def _load(form: _Net, tensors: Mapping[str, Tensor], source: str) -> nn.Sequential:
    """Loads the network with its weights, on the device on which parts are built."""
    net = _build(form)
    whole = nn.ModuleDict({"features": net})
    load_exactly("LPIPS", whole, tensors, source)
    device = torch.empty(0).device
    if device.type != "meta":
        whole.load_state_dict(tensors, assign=True)
    return net.to(device)


def _find_installed(net: str) -> Path:
    """Finds the heads in the installed package `lpips`, without importing it."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("LPIPS expects `heads`, or the package lpips, which contains them: pip install lpips")
    return Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / f"{net}.pth"


def _read_heads(path: Path, channels: tuple[int, ...]) -> list[Tensor]:
    """Reads the weights of the channels of each map."""
    wanted = {f"lin{level}.model.1.weight": (1, wide, 1, 1) for level, wide in enumerate(channels)}
    tensors = read_weights("LPIPS", path)
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    if given != wanted:
        raise ValueError(f"LPIPS expects heads {wanted} in {path}, got {given}")
    heads = [tensors[name].float().flatten() for name in wanted]
    if any(bool((head < 0).any()) for head in heads):
        raise ValueError(f"LPIPS expects heads of at least 0 in {path}, got negative values")
    return heads
