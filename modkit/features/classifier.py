r"""A small classifier, trained once on a data set's training split; its last activations are the features.

    vector = f(x) / rms,   rms^2 = mean of f(x)^2 over the training split and the d features
    f: conv 16 -> conv 32 halved -> conv 64 halved -> linear d, SiLU after each;   logits = W f(x) + b

The division gives distances a scale: the mean square norm of a feature vector is d, whatever the training.
The weights for scikit-learn's digits ship with modkit; `python -m modkit.features.digits_classifier` makes them again.

Shape letters: b batch, c channels, h w spatial, d features, k classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.features.frozen import Frozen
from modkit.features.images import check_image_type, check_images, resized, spread, with_channels
from modkit.features.weight_file import load_exactly, read_weights, tensors_key
from modkit.rng import Rng
from modkit.runs.files import replace_file
from modkit.types import Batch, Features, TensorType

__all__ = ["DIGITS", "Classifier"]

DIGITS = Path(__file__).parent / "weights" / "digits.safetensors"
"""The shipped weights."""

_DIGITS_SHA256 = "631aaa8faa46cfc2069cb4a4c9bcc51531c992d780a61ed12a6a10949731b804"
_DIGITS_KEY = "91f447352c3da04bea0895f650e9ab32e326c3fb549d1084a974451545f84d7f"
_DIM = 64
_LIMIT = 20_000
_BATCH = 64
_log = logging.getLogger(__name__)


class Classifier(Frozen):
    """A small convolutional classifier, 90,000 parameters; features of 64 numbers, with maps and logits.

    Images are mapped from their range to [-1, 1], resized to `size` (bilinear, antialiased) and made grey or RGB as
    the network has it. Training runs on the CPU, so on one machine it is a function of the data and the seed, however
    the data come in batches.

    Args:
        x: Type of the data: grey or RGB images with a range.
        weights: `digits`, the shipped weights for scikit-learn's digits at any size; the path of a file that `save`
            wrote; or None, to train in `prepare`.
        name: Names the data in the label, `classifier:NAME@1a2b3c`; only the shipped weights give `classifier:digits`.
        classes: Number of classes.
        size: Height and width that images are resized to.
        epochs: Passes of training.
        seed: What training draws from.

    Raises:
        ValueError: If `x` is no image with a range, a number is out of its range, or the weights cannot be read or
            are not this network's.
    """

    scale: Tensor

    def __init__(
        self,
        x: TensorType,
        *,
        weights: str | None = None,
        name: str = "data",
        classes: int = 10,
        size: int = 16,
        epochs: int = 30,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if classes < 2 or size < 4 or epochs < 1:
            raise ValueError(
                f"Classifier expects classes >= 2, size >= 4, epochs >= 1, got {classes}, {size}, {epochs}"
            )
        self._range = check_image_type("Classifier", x)
        self.channels, self.name, self.size, self.epochs, self.seed = x.shape[0], name, size, epochs, seed
        tensors, source = None, DIGITS if weights == "digits" else Path(weights or "").expanduser()
        if weights is not None:
            tensors = read_weights("Classifier", source, sha256=_DIGITS_SHA256 if source == DIGITS else None)
        self.net = _Net(_channels(tensors, self.channels), classes, size)
        self.register_buffer("scale", torch.tensor(math.nan))
        self.register_load_state_dict_post_hook(_settled)  # type: ignore[no-untyped-call]
        if tensors is not None:
            load_exactly("Classifier", self, tensors, str(source))
        self._settle(tensors)
        self.freeze()

    def forward(self, x: Tensor) -> Features:
        """Features of `x`, `b c h w` of any size: vector `b 64`, three maps, logits `b k`.

        Raises:
            ValueError: If it is not trained yet, or `x` has another rank or number of channels.
        """
        check_images("Classifier", x, self.channels)
        if not self._ready:
            raise ValueError("Classifier expects to be trained: call prepare with the training split, or give weights")
        maps, activations = self.net(self._input(x))
        return Features(activations / self.scale, maps, self.net.head(activations))

    def key(self) -> str:
        """Hash of the weights, the scale and the size.

        Raises:
            ValueError: If it is not trained yet.
        """
        if not self._key:
            raise ValueError("Classifier has no key before it is trained: call prepare with the training split")
        return self._key

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Trains it on images with the field `labels`, once: all, or 20,000 drawn fairly. With weights, nothing to do.

        Raises:
            ValueError: If there are no images, no labels or a label past the classes.
        """
        if self._ready:
            return
        rng = Rng(self.seed, "classifier")
        x, labels = self._collected(batches, rng)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            with rng.at("init").seed_torch():
                net = _Net(self.net.channels, self.net.classes, self.size)
            x, labels = x.clone(), labels.clone()  # an inference tensor cannot be trained on
            _train(net, x, labels, self.epochs, rng)
            scale = _root_mean_square(net, x)
        self.net.load_state_dict(net.state_dict())
        self.scale.fill_(scale)
        self._settle()
        _log.info("trained %s on %d images", self.label, len(x))

    def save(self, path: str) -> None:
        """Writes the weights, for the parameter `weights` elsewhere; the file is whole or absent.

        Raises:
            ValueError: If it is not trained yet.
        """
        self.key()
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        replace_file(Path(path), safetensors.torch.save(tensors))

    def _input(self, x: Tensor) -> Tensor:
        x = spread(x.to(self.scale.dtype), self._range, (-1.0, 1.0))
        return resized(with_channels(x, self.net.channels), self.size)

    @torch.no_grad()
    def _collected(self, batches: Iterable[Batch], rng: Rng) -> tuple[Tensor, Tensor]:
        """Images as the network takes them and their labels: those of the lowest draws, in their order."""
        kept: tuple[Tensor, ...] = ()
        num = 0
        for batch in batches:
            if "labels" not in batch.fields:
                raise ValueError(f"Classifier expects a field `labels` to train on, got fields {sorted(batch.fields)}")
            check_images("Classifier", batch.tensor, self.channels)
            drawn = rng.rows(num).uniform("keep", torch.empty(len(batch)))
            images = self._input(batch.tensor.to(self.scale.device)).cpu()
            rows = (drawn, images, batch.fields["labels"].cpu().long())
            kept = tuple(torch.cat(pair) for pair in zip(kept, rows)) if kept else rows
            if len(kept[0]) > _LIMIT:
                lowest = kept[0].argsort(stable=True)[:_LIMIT].sort().values
                kept = tuple(values[lowest] for values in kept)
            num += len(batch)
        if not num:
            raise ValueError("Classifier expects images to train on, got none")
        _, x, y = kept
        if y.min() < 0 or y.max() >= self.net.classes:
            received = f"{int(y.min())} to {int(y.max())}"
            raise ValueError(f"Classifier expects labels in [0, {self.net.classes}), got {received}")
        return x, y

    def _settle(self, given: dict[str, Tensor] | None = None) -> None:
        """Sees whether it is trained, and names itself; on the meta device it runs, trained or not."""
        meta = self.scale.is_meta
        self._ready = meta or bool(self.scale.isfinite())
        tensors = given if meta else self.state_dict() if self._ready else None
        self._key = tensors_key(tensors, "classifier", 1, self.size) if tensors else ""
        mark = self._key[:6] or "untrained"
        self.label = "classifier:digits" if self._key == _DIGITS_KEY else f"classifier:{self.name}@{mark}"


class _Net(nn.Module):
    """The network; weights start as a function of `rng` when it is trained."""

    def __init__(self, channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        cells = math.ceil(size / 2)
        cells = math.ceil(cells / 2)
        self.levels = nn.ModuleList(
            [
                nn.Conv2d(channels, 16, 3, padding=1),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.Conv2d(32, 64, 3, stride=2, padding=1),
            ]
        )
        self.penultimate = nn.Linear(64 * cells**2, _DIM)
        self.head = nn.Linear(_DIM, classes)

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The three maps, and the last activations, `b d`."""
        maps = []
        for level in self.levels:
            x = F.silu(level(x))
            maps.append(x)
        return tuple(maps), F.silu(self.penultimate(x.flatten(1)))


def _settled(module: Classifier, incompatible: object) -> None:
    module._settle()


def _channels(tensors: dict[str, Tensor] | None, channels: int) -> int:
    """The channels of stored weights, or those of the data."""
    first = (tensors or {}).get("net.levels.0.weight")
    return int(first.shape[1]) if first is not None and first.ndim == 4 and first.shape[1] in (1, 3) else channels


def _train(net: _Net, x: Tensor, labels: Tensor, epochs: int, rng: Rng) -> None:
    """Cross-entropy by AdamW, the learning rate falling to 0 along a cosine."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 0
            parameter.copy_(
                rng.normal(name, parameter) * math.sqrt(2 / fan_in) if fan_in else torch.zeros_like(parameter)
            )
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(len(x) / _BATCH))
    for epoch in range(epochs):
        order = rng.at(epoch).uniform("order", torch.empty(len(x))).argsort()
        for rows in torch.split(order, _BATCH):
            loss = F.cross_entropy(net.head(net(x[rows])[1]), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimizer.step()
            schedule.step()


@torch.no_grad()
def _root_mean_square(net: _Net, x: Tensor) -> float:
    squares = sum(net(part)[1].double().square().sum().item() for part in torch.split(x, _BATCH))
    return math.sqrt(squares / (len(x) * _DIM))
