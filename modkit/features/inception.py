r"""Inception v3 as used by the Fréchet inception distance: TensorFlow's graph, implemented by torch-fidelity.

    u = round(255 (x - low) / (high - low))        8 bits, grey repeated
    vector = pool(net((resize_TF(u) - 128) / 128)),   logits = W vector, without bias, as in the Inception Score

TensorFlow 1's bilinear resizing ignores pixel centres and does not antialias; any other resizing changes FID by whole
points. The library is optional and imported when the part is built. It never opens a file, because it would unpickle
without restrictions: modkit reads the weights and passes them on in memory.

Shape letters: b batch, c channels, h w spatial, d features, k classes.

References:
    GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500
    On Aliased Resizing and Surprising Subtleties in GAN Evaluation (Parmar et al., 2022),
    https://arxiv.org/abs/2104.11222
"""

from __future__ import annotations

import io
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modkit.features.frozen import Frozen
from modkit.features.images import Images, check_image_type, convert_channels, map_range
from modkit.features.weight_file import hash_tensors, import_optional, read_weights
from modkit.runs.cache import find_cache_folder
from modkit.runs.files import hash_data, replace_file
from modkit.types import Features

__all__ = ["SHA256", "URL", "Inception", "download_inception", "find_inception"]

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
"""Address of the published weights, 91 MiB; pytorch-fid publishes the same file under another name."""
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of that file."""

_NAMES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
_INSTALL = "'torch-fidelity>=0.3'"
_LIMIT = 2**27
_SIZE = 299
# The layers that lead to each of the four maps.
_STAGES = (
    ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)


class Inception(Frozen):
    """The 2048 features of FID, the maps before each reduction, and the logits of the Inception Score.

    Only the published weights give the label `inception`, and scores named FID; the label of other weights includes
    their hash, `inception@1a2b3c`. Gradients pass through the rounding unchanged.

    Args:
        weights: The file of weights, torch's or safetensors; None is the published file in modkit's cache folder or
            torch's.
        sha256: SHA-256 of the file, compared before it is opened; None is that of the published file.
        download: Whether to download the published file to modkit's cache folder if `weights` is None and it is
            missing.

    Raises:
        ValueError: If `x` is not an image type with a range, torch-fidelity is not installed, or the weights are
            missing, have another hash or do not match the network.
    """

    def __init__(
        self, x: Images, *, weights: str | None = None, sha256: str | None = None, download: bool = False
    ) -> None:
        super().__init__()
        self._range = check_image_type("Inception", x)
        self.channels = x.shape[0]
        library = "torch_fidelity.feature_extractor_inceptionv3"
        self._library = import_optional("Inception", library, _INSTALL)
        path = _locate(weights, download)
        tensors = read_weights("Inception", path, sha256=sha256 or SHA256)
        self._key = hash_tensors(tensors, "inception", 1)
        self.label = "inception" if (sha256 or SHA256).lower() == SHA256 else f"inception@{self._key[:6]}"
        self.net: Any = self._build(tensors, path)
        self.freeze()

    def _extract(self, x: Tensor) -> Features:
        """Computes a vector `b 2048`, four maps and logits `b 1008`."""
        y = (self._resize(convert_channels(self._round_to_bytes(x), 3)) - 128) / 128
        maps: list[Tensor] = []
        for stage in _STAGES:
            for name in stage:
                y = getattr(self.net, name)(y)
            maps.append(y)
        vector: Tensor = self.net.AvgPool(y).flatten(1)
        return Features(vector, tuple(maps), vector @ self.net.fc.weight.T)

    def _round_to_bytes(self, x: Tensor) -> Tensor:
        """Rounds to whole numbers in [0, 255], as floats with the gradient of the values before rounding."""
        y = map_range(x.to(self.net.fc.weight.dtype), self._range, (0.0, 255.0)).clamp(0, 255)
        return y.round().detach() + (y - y.detach())

    def _resize(self, x: Tensor) -> Tensor:
        resize = self._library.interpolate_bilinear_2d_like_tensorflow1x
        return resize(x, size=(_SIZE, _SIZE), align_corners=False)

    def _build(self, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
        """Builds the library's network; it unpickles only what modkit has just written to memory."""
        buffer = io.BytesIO()
        torch.save(dict(tensors), buffer)
        buffer.seek(0)
        try:
            with torch.device("cpu"):
                net: nn.Module = self._library.FeatureExtractorInceptionV3(
                    "modkit", ["2048"], feature_extractor_weights_path=buffer
                )
        except RuntimeError as error:
            rows = " ".join(str(error).split())[:300]
            raise ValueError(f"Inception expects the weights of its network in {path}: {rows}") from error
        return net.to(torch.empty(0).device)


def find_inception() -> Path | None:
    """Finds the published weights, by name, in modkit's cache folder or torch's; None if they are in neither."""
    hub = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    for folder in (find_cache_folder() / "weights", Path(hub).expanduser() / "hub" / "checkpoints"):
        for name in _NAMES:
            if (folder / name).is_file():
                return folder / name
    return None


def download_inception() -> Path:
    """Downloads the published weights to modkit's cache folder; a file with another hash is never written.

    Raises:
        ValueError: If the download fails or has another hash.
    """
    path = find_cache_folder() / "weights" / _NAMES[0]
    try:
        with urllib.request.urlopen(URL, timeout=60) as response:
            data = response.read(_LIMIT + 1)
    except OSError as error:
        raise ValueError(f"Inception expects its weights at {URL}, got: {error}") from error
    found = hash_data(data)
    if found != SHA256:
        raise ValueError(f"Inception expects {URL} to have SHA-256 {SHA256}, got {found}")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)
    return path


def _locate(weights: str | None, download: bool) -> Path:
    if weights is not None:
        return Path(weights).expanduser()
    found = find_inception()
    if found is None and download:
        return download_inception()
    if found is None:
        raise ValueError(
            f"Inception expects its weights as `weights`, or as {_NAMES[0]} in {find_cache_folder() / 'weights'}, got "
            f"neither. Download them from {URL}, or set download: true"
        )
    return found
