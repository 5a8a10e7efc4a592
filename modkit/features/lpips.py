r"""LPIPS: the maps of VGG-16 or AlexNet, and how much each channel of them counts, as people judged it.

    y_l = relu maps of net((x mapped to [-1, 1], grey repeated) - shift) / scale),   l = 1..5
    |x, y|_LPIPS = sum_l mean_hw sum_c w_lc (u_lc(x) - u_lc(y))^2         u: unit norm over channels
    vector = concat_l mean_hw sqrt(w_l) u_l

The perceptual loss over this extractor is LPIPS; the squared distance of two vectors is a lower bound of it, the
difference's mean in the place of its mean square. Nothing is downloaded, and the package's code is not run.

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
from modkit.features.images import check_image_type, check_images, resized, spread, with_channels
from modkit.features.weight_file import load_exactly, read_weights, tensors_key
from modkit.losses.perceptual import normalize
from modkit.types import Features, TensorType

__all__ = ["LPIPS"]

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation in [-1, 1]


class _Net(NamedTuple):
    """A network: (channels, kernel, stride, padding) of its convolutions, each with a ReLU, and its poolings.

    Its maps are the outputs of the layers `maps`, of `channels`; on images below `smallest` a map would be empty.
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


class LPIPS(Frozen):
    """The maps that LPIPS compares, with its weights of their channels as `heads`.

    Args:
        x: Type of the data: grey or RGB images with a range.
        weights: File of the network's weights as torchvision publishes them (`vgg16-397923af.pth`,
            `alexnet-owt-7be5be79.pth`) or its `features.*` alone, safetensors or torch's.
        net: `vgg`, VGG-16, the usual one for losses, or `alex`, AlexNet, the usual one for scores.
        heads: File of the weights of channels, safetensors or torch's; None: version 0.1 of the installed package
            `lpips`.
        size: Height and width that images are resized to (bilinear, antialiased); None: images stay as they are, of 16
            pixels a side at least for `vgg` and 31 for `alex`.
        sha256: SHA-256 of `weights`, compared before it is opened; None: not compared.

    Raises:
        ValueError: If `x` is no image with a range or too small, `net` is unknown, a file cannot be read or is not the
            network's, or there are no heads.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        x: TensorType,
        *,
        weights: str,
        net: Literal["vgg", "alex"] = "vgg",
        heads: str | None = None,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        self._range, self.channels, self.size = check_image_type("LPIPS", x), x.shape[0], size
        if net not in _NETS:
            raise ValueError(f"LPIPS expects net 'vgg' or 'alex', got {net!r}")
        form = _NETS[net]
        if min(x.shape[1:] if size is None else (size,)) < form.smallest:
            got = f"{x}; `size` resizes them" if size is None else f"size {size}"
            raise ValueError(f"LPIPS with {net} expects images of at least {form.smallest}×{form.smallest}, got {got}")
        tensors = read_weights("LPIPS", Path(weights).expanduser(), sha256=sha256)
        tensors = {name: value.float() for name, value in tensors.items() if not name.startswith("classifier.")}
        self.features, self._maps = _loaded(form, tensors, weights), form.maps
        path = Path(heads).expanduser() if heads is not None else _installed(net)
        for level, head in enumerate(_read_heads(path, form.channels)):
            self.register_buffer(f"head_{level}", head.to(torch.empty(0).device))
            tensors[f"head_{level}"] = head
        self._key = tensors_key(tensors, "lpips", 1, net, size)
        self.label = f"lpips:{net}@{self._key[:6]}"
        self.register_buffer("shift", _column(_SHIFT), persistent=False)
        self.register_buffer("scale", _column(_SCALE), persistent=False)
        self.freeze()

    @property
    def heads(self) -> tuple[Tensor, ...]:
        """The weight of each channel of each map, `c`."""
        return tuple(getattr(self, f"head_{level}") for level in range(len(self._maps)))

    def forward(self, x: Tensor) -> Features:
        """Features of `x`, `b c h w`: vector `b d`, the five maps as the network gives them, no logits.

        Raises:
            ValueError: If `x` has another rank or number of channels.
        """
        check_images("LPIPS", x, self.channels)
        y = with_channels(spread(x.to(self.scale.dtype), self._range, (-1.0, 1.0)), 3)
        y = (y if self.size is None else resized(y, self.size)) - self.shift
        y = y / self.scale
        maps = []
        for index, layer in enumerate(self.features):
            y = layer(y)
            if index in self._maps:
                maps.append(y)
        parts = [normalize(y).mean((2, 3)) * head.sqrt() for y, head in zip(maps, self.heads)]
        return Features(torch.cat(parts, dim=1), tuple(maps))

    def key(self) -> str:
        """Hash of the weights, the heads, the network and the size."""
        return self._key


def _built(form: _Net) -> nn.Sequential:
    """The `features` of torchvision's network up to the last map, without values."""
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


def _loaded(form: _Net, tensors: Mapping[str, Tensor], source: str) -> nn.Sequential:
    """The network with its weights, on the device that parts are being built on."""
    net = _built(form)
    whole = nn.ModuleDict({"features": net})
    load_exactly("LPIPS", whole, tensors, source)
    device = torch.empty(0).device
    if device.type != "meta":
        whole.load_state_dict(tensors, assign=True)
    return net.to(device)


def _installed(net: str) -> Path:
    """The heads that come with the package, which is found and not imported."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("LPIPS expects `heads`, or the package lpips, which brings them: pip install lpips")
    return Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / f"{net}.pth"


def _read_heads(path: Path, channels: tuple[int, ...]) -> list[Tensor]:
    """A weight for each channel of each map."""
    wanted = {f"lin{level}.model.1.weight": (1, wide, 1, 1) for level, wide in enumerate(channels)}
    tensors = read_weights("LPIPS", path)
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    if given != wanted:
        raise ValueError(f"LPIPS expects heads {wanted} in {path}, got {given}")
    heads = [tensors[name].float().flatten() for name in wanted]
    if any(bool((head < 0).any()) for head in heads):
        raise ValueError(f"LPIPS expects heads of at least 0 in {path}, got negative ones")
    return heads


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
