"""What the study trains, draws and measures: systems, rows of the table, budget, data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import modkit
from examples.studies.budget import Trial
from modkit import Spec
from modkit.evaluation.extractors import choose_features, make_extractor
from modkit.evaluation.scoring import prepare_extractor
from modkit.kinds import Data, FeatureExtractor

__all__ = ["ROWS", "SYSTEMS", "Plan", "Row", "digits", "fashion_mnist"]

SYSTEMS = ("vae", "gan", "ddpm", "vq-vae", "vqgan", "ldm", "ddgan")
"""In the order of training."""

_QUIET = ("train.samples.every=1000000", "train.log.every=50")
_DEEPER = ("model.autoencoder.encoder.channels=[16, 24, 32]", "model.autoencoder.decoder.channels=[32, 24, 16]")
_LARGER = {  # at 16×16: latents of 4×4 again, and no more parameters
    "vae": ("model.encoder.width=320", "model.decoder.width=320"),
    "gan": ("model.generator.channels=76", "model.discriminator.channels=76"),
    "vq-vae": _DEEPER,
    "vqgan": (*_DEEPER, "model.prior.network.width=72"),
    "ldm": _DEEPER,
}


@dataclass(frozen=True)
class Row:
    """A line of the table: a system as it is sampled.

    Args:
        name: Its name in the figures.
        system: The system's.
        title: What a reader calls it.
        overrides: Of the system's spec.
        num: Samples, where they are fewer than the others'.
        repeats: Timings of its sampling.
    """

    name: str
    system: str
    title: str
    overrides: tuple[str, ...] = ()
    num: int | None = None
    repeats: int = 9


ROWS = (
    Row("vae", "vae", "VAE"),
    Row("gan", "gan", "GAN"),
    Row("ddpm", "ddpm", "DDPM, DDIM at 50 steps", repeats=5),
    Row(
        "ddpm-1000",
        "ddpm",
        "DDPM, all 1000 steps",
        ("model.sampler=ancestral", "model.sampler.steps=1000"),
        num=200,
        repeats=1,
    ),
    Row("vq-vae", "vq-vae", "VQ-VAE, transformer"),
    Row("vqgan", "vqgan", "VQGAN, transformer"),
    Row("ldm", "ldm", "LDM"),
    Row("ddgan", "ddgan", "DDGAN"),
)


@dataclass(frozen=True)
class Plan:
    """A study.

    Args:
        name: The data's name.
        specs: Specs by system, of one data set.
        rows: Lines of the table.
        seeds: Training seeds.
        seconds: CPU time of each training.
        num: Samples of each row.
        trial: How a step's cost is measured.
        cost_batch: Samples in a batch whose drawing is timed.
    """

    name: str
    specs: Mapping[str, Spec]
    rows: tuple[Row, ...] = ROWS
    seeds: tuple[int, ...] = (0, 1, 2)
    seconds: float = 240.0
    num: int = 1000
    trial: Trial = field(default_factory=lambda: Trial(steps=45, seconds=2.0, rounds=5))
    cost_batch: int = 64

    def features(self, data: Data) -> FeatureExtractor:
        """Makes the features that images are compared by: those the data set names, or a classifier trained on it."""
        classes = data.fields["labels"].classes
        extractor = make_extractor(choose_features(data), data.x, name=self.name, classes=classes)
        made = prepare_extractor(extractor, data)
        assert made is not None
        return made

    def settings(self) -> dict[str, object]:
        """What a study cannot change on the way."""
        rows = {row.name: {"overrides": list(row.overrides), "num": row.num or self.num} for row in self.rows}
        return {"data": self.name, "seconds": self.seconds, "rows": rows}


def digits(*, quick: bool = False) -> Plan:
    """Digits at 8×8, their own size: three seeds of 4 minutes; quickly, one of 3."""
    specs = {name: _spec(name) for name in SYSTEMS}
    return Plan("digits", specs, seeds=(0,), seconds=180.0) if quick else Plan("digits", specs)


def fashion_mnist(root: str | None = None, *, quick: bool = False) -> Plan:
    """Fashion-MNIST at 16×16: three seeds of 15 minutes and 5,000 samples; quickly, one of 3 minutes and 1,000.

    Args:
        root: Folder with its IDX files; where Debian's package puts them if not given.
        quick: One short seed.
    """
    given = "" if root is None else f", root: {root}"
    data = f"data={{use: fashion-mnist, size: 16{given}}}"
    specs = {name: _spec(name, data, *_LARGER.get(name, ())) for name in SYSTEMS}
    if quick:
        return Plan("fashion-mnist", specs, seeds=(0,), seconds=180.0)
    return Plan("fashion-mnist", specs, seconds=900.0, num=5000)


def _spec(name: str, *overrides: str) -> Spec:
    return modkit.load_spec(Path(__file__).parent / f"{name}.yaml", [*overrides, *_QUIET])
