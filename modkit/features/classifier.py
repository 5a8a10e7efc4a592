r"""A small classifier, trained once on the training split of a data set; its last activations are the features.

    vector = f(x) / rms,   rms^2 = mean of f(x)^2 over the training split and the d features
    f: conv 16 -> conv 32 halved -> conv 64 halved -> linear d, SiLU after each;   logits = W f(x) + b

The division sets the scale of distances: the mean squared norm of a feature vector is d, however the classifier was
trained. The weights for scikit-learn's digits ship with modkit; `python -m modkit.features.digits_classifier` trains
them again.

Shape letters: b batch, c channels, h w spatial, d features, k classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.features.frozen import Frozen
from modkit.features.images import Images, check_image_type, check_images, convert_channels, map_range, resize
from modkit.features.random_conv import make_levels, run_levels
from modkit.features.weight_file import hash_tensors, load_exactly, read_weights
from modkit.rng import Rng
from modkit.runs.files import replace_file
from modkit.types import Batch, Features, PositiveInt, Range, checked

__all__ = ["DIGITS", "Classifier"]

DIGITS = Path(__file__).parent / "weights" / "digits.safetensors"
"""The shipped weights."""

_DIGITS_SHA256 = "631aaa8faa46cfc2069cb4a4c9bcc51531c992d780a61ed12a6a10949731b804"
_DIGITS_KEY = "91f447352c3da04bea0895f650e9ab32e326c3fb549d1084a974451545f84d7f"
_DIM = 64
_LIMIT = 20_000
_BATCH = 64
_log = logging.getLogger(__name__)


@checked
class Classifier(Frozen):
    """A small convolutional classifier of 90,000 parameters; gives 64 features, maps and logits.

    Images are mapped from their range to [-1, 1], resized to `size` (bilinear, antialiased) and converted to the
    network's channels, grey or RGB. Training runs on the CPU, so on one machine it is a function of the data and the
    seed, whatever the batches.

    Args:
        weights: `digits`, the shipped weights for scikit-learn's digits at any size; the path of a file that `save`
            wrote; or None, to train in `prepare`.
        name: Name of the data in the label, `classifier:NAME@1a2b3c`; only the shipped weights give
            `classifier:digits`.
        classes: Number of classes.
        size: Height and width that images are resized to.
        epochs: Number of passes over the training data.
        seed: Seed of training.

    Raises:
        ValueError: If `x` is not an image type with a range, a number is out of range, or the weights cannot be read or
            do not match this network.

    Examples:
        >>> from modkit import TensorType
        >>> features = Classifier(TensorType((1, 8, 8), range=(-1, 1)), weights="digits")
        >>> features.label, features(torch.zeros(2, 1, 8, 8)).vector.shape
        ('classifier:digits', torch.Size([2, 64]))
    """

    scale: Tensor

    def __init__(
        self,
        x: Images,
        *,
        weights: str | None = None,
        name: str = "data",
        classes: Annotated[int, Range(2)] = 10,
        size: Annotated[int, Range(4)] = 16,
        epochs: PositiveInt = 30,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._range = check_image_type("Classifier", x)
        self.channels, self.name, self.size, self.epochs, self.seed = x.shape[0], name, size, epochs, seed
        tensors, source = None, DIGITS if weights == "digits" else Path(weights or "").expanduser()
        if weights is not None:
            tensors = read_weights("Classifier", source, sha256=_DIGITS_SHA256 if source == DIGITS else None)
        self.net = _Net(_count_channels(tensors, self.channels), classes, size)
        self.register_buffer("scale", torch.tensor(math.nan))
        self.register_load_state_dict_post_hook(_settle_after_loading)  # type: ignore[no-untyped-call]
        if tensors is not None:
            load_exactly("Classifier", self, tensors, str(source))
        self._settle(tensors)
        self.freeze()

    def _extract(self, x: Tensor) -> Features:
        """Computes a vector `b 64`, three maps and logits `b k`; raises a ValueError if it has not been trained."""
        if not self._ready:
            raise ValueError("Classifier expects to be trained: call prepare with the training split, or give weights")
        maps, activations = self.net(self._prepare_input(x))
        return Features(activations / self.scale, maps, self.net.head(activations))

    def key(self) -> str:
        """Hash of the weights, the scale and the size.

        Raises:
            ValueError: If it has not been trained.
        """
        if not self._key:
            raise ValueError("Classifier has no key before it is trained: call prepare with the training split")
        return self._key

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Trains it, once, on images with the field `labels`, at most 20,000 drawn at random; not if it has weights.

        Raises:
            ValueError: If there are no images or labels, or a label is not below `classes`.
        """
        if self._ready:
            return
        rng = Rng(self.seed, "classifier")
        x, labels = self._collect(batches, rng)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            with rng.at("init").seed_torch():
                net = _Net(self.net.channels, self.net.classes, self.size)
            x, labels = x.clone(), labels.clone()  # inference tensors cannot be trained on
            _train(net, x, labels, self.epochs, rng)
            scale = _compute_root_mean_square(net, x)
        self.net.load_state_dict(net.state_dict())
        self.scale.fill_(scale)
        self._settle()
        _log.info("trained %s on %d images", self.label, len(x))

    def save(self, path: str) -> None:
        """Writes the weights to a file for the parameter `weights`; the file is complete or absent.

        Raises:
            ValueError: If it has not been trained.
        """
        self.key()
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        replace_file(Path(path), safetensors.torch.save(tensors))

    def _prepare_input(self, x: Tensor) -> Tensor:
        x = map_range(x.to(self.scale.dtype), self._range, (-1.0, 1.0))
        return resize(convert_channels(x, self.net.channels), self.size)

    @torch.no_grad()
    def _collect(self, batches: Iterable[Batch], rng: Rng) -> tuple[Tensor, Tensor]:
        """Collects images as the network takes them, and their labels: those with the lowest draws, in order."""
        kept: tuple[Tensor, ...] = ()
        num = 0
        for batch in batches:
            if "labels" not in batch.fields:
                raise ValueError(f"Classifier expects a field `labels` to train on, got fields {sorted(batch.fields)}")
            check_images("Classifier", batch.tensor, self.channels)
            drawn = rng.rows(num).uniform("keep", torch.empty(len(batch)))
            images = self._prepare_input(batch.tensor.to(self.scale.device)).cpu()
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
        """Sets the label and key, and whether it is trained; on the meta device it always counts as trained."""
        meta = self.scale.is_meta
        self._ready = meta or bool(self.scale.isfinite())
        tensors = given if meta else self.state_dict() if self._ready else None
        self._key = hash_tensors(tensors, "classifier", 1, self.size) if tensors else ""
        mark = self._key[:6] or "untrained"
        self.label = "classifier:digits" if self._key == _DIGITS_KEY else f"classifier:{self.name}@{mark}"


class _Net(nn.Module):
    """The network; training initialises its weights."""

    def __init__(self, channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        cells = math.ceil(size / 2)
        cells = math.ceil(cells / 2)
        self.levels = make_levels(channels, 64, bias=True)
        self.penultimate = nn.Linear(64 * cells**2, _DIM)
        self.head = nn.Linear(_DIM, classes)

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Computes the three maps and the last activations, `b d`."""
        maps = run_levels(self.levels, x)
        return maps, F.silu(self.penultimate(maps[-1].flatten(1)))


def _settle_after_loading(module: Classifier, incompatible: object) -> None:
    module._settle()


def _count_channels(tensors: dict[str, Tensor] | None, channels: int) -> int:
    """Returns the number of channels of stored weights, or that of the data."""
    first = (tensors or {}).get("net.levels.0.weight")
    return int(first.shape[1]) if first is not None and first.ndim == 4 and first.shape[1] in (1, 3) else channels


def _train(net: _Net, x: Tensor, labels: Tensor, epochs: int, rng: Rng) -> None:
    """Minimises the cross-entropy by AdamW; the learning rate follows a cosine to 0."""
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
def _compute_root_mean_square(net: _Net, x: Tensor) -> float:
    squares = sum(net(part)[1].double().square().sum().item() for part in torch.split(x, _BATCH))
    return math.sqrt(squares / (len(x) * _DIM))
