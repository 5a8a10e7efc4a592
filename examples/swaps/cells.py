r"""The cells of the swap matrix: what is swapped in each of five bases, and what is trained for it.

A cell is a base with one part swapped (alone), with a schedule, a parametrization and a sampler (product), or with two
parts (pair). What only sampling uses (samplers, guidance, decodings) is swapped in a trained run, so that cells which
differ in it share a training.

A minute of one core is short. So a part whose defaults would take several times the base's time for a step is swapped
in with the parameters of `_SIZES`, and samplers take as many evaluations as the base's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import modkit
from modkit import Spec
from modkit.building.plan import plan
from modkit.parts.registry import find_kind, get_registry
from modkit.parts.signature import read_parameters

__all__ = ["BASES", "EXAMPLES", "Cell", "Swap", "draw_pairs", "list_product", "list_single", "make_base"]

EXAMPLES = Path(__file__).parents[1]
"""The folder of the examples."""

BASES = {"ldm": "ldm", "ddpm": "ddpm", "vqvae": "vqvae", "dcgan": "dcgan", "ddgan": "latent-ddgan"}
"""The example of each base."""

_CHANGES = {
    "ldm": (
        "model.autoencoder.encoder.channels=[16, 32]",
        "model.autoencoder.decoder.channels=[32, 16]",
        "model.prior.schedule=edm",
        "train.optimizer.lr=1e-3",
        "train.stages[0].steps=300",
        "train.stages[1].steps=5000",
    )
}
"""What makes an example the base that it was when the study began."""

_TRAINING = {"optimizer": "train.optimizer", "lr-schedule": "train.lr_schedule"}

_LEFT_OUT = {"data", "features", "logger", "engine", "metric", "corruption", "weight"}

_EVALUATIONS = {"heun": 2}
"""Evaluations a step; those of other samplers are 1."""


_UNET, _DIFFUSERS = "channels: [16, 32]", "block_out_channels: [16, 32], layers_per_block: 1"
_MLP = "{use: mlp, width: 256, depth: 3}"
_DENSE = "channels: 16, blocks: 1, expansion: 1, groups: 1"

_SIZES = {
    ("network", "unet"): _UNET,
    ("network", "ncsnpp"): _UNET,
    ("network", "dit"): "width: 64, depth: 4",
    ("network", "edm2-unet"): _UNET,
    ("network", "checkpoints/adm-unet"): "channels: [64, 64]",
    ("network", "checkpoints/dhariwal-unet"): _UNET,
    ("network", "checkpoints/song-unet"): _UNET,
    ("network", "diffusers/unet-2d"): _DIFFUSERS,
    ("network", "diffusers/unet-2d-condition"): _DIFFUSERS,
    ("discriminator", "ncsnpp"): _UNET,
    **{(kind, "r3gan"): _DENSE for kind in ("generator", "discriminator")},
    **{(kind, name): "channels: 16" for kind in ("generator", "discriminator") for name in ("resnet", "stylegan2")},
    ("bottleneck", "residual-vq"): "depth: 2",  # a prior of codes takes as many times the steps
    ("bottleneck", "quantizers/residual-vq"): "depth: 2",
    ("bottleneck", "quantizers/grouped-residual-vq"): "depth: 1",
    ("encoder", "conv"): "channels: {levels}",
    **{
        (kind, f"diffusers/{name}"): "block_out_channels: {levels}"
        for kind in ("encoder", "decoder", "model")
        for name in ("autoencoder-kl", "vq-model")
    },
    ("model", "denoising-gan"): f"network: {_MLP}, discriminator: {_MLP}",
    ("model", "diffusion"): f"network: {{use: unet, {_UNET}}}",
    ("model", "latent"): f"prior: {{use: diffusion, network: {{use: unet, {_UNET}}}}}",
}
"""Parameters of parts of a kind that would be slow by default."""

_LEVELS = {"ldm": "[16, 16]", "vqvae": "[8, 16, 16]", "ddgan": "[8, 16, 16]"}
"""Channels by level, as many levels as the base's latent needs."""


@dataclass(frozen=True)
class Swap:
    """A part in a slot, as an override.

    Args:
        path: Path of the slot.
        kind: Kind of the slot.
        part: Name of the part.
        params: Its parameters, as they stand behind the name in YAML.
    """

    path: str
    kind: str
    part: str
    params: str = ""

    @property
    def override(self) -> str:
        """The override that swaps it in."""
        return f"{self.path}={{use: {self.part}, {self.params}}}" if self.params else f"{self.path}={self.part}"

    @property
    def trained(self) -> bool:
        """Whether training depends on it."""
        return find_kind(self.kind).phase != "sampling"


@dataclass(frozen=True)
class Cell:
    """A base with some parts swapped; without any, it is the base itself.

    Args:
        base: Name of the base.
        swaps: The swaps.
        group: The table that the cell belongs to: `alone`, `product` or `pair`.
    """

    base: str
    swaps: tuple[Swap, ...] = ()
    group: str = "alone"

    @property
    def name(self) -> str:
        """A name that can be a file's."""
        return "+".join([self.base, *(f"{swap.path}={swap.part}" for swap in self.swaps)]).replace("/", "~")

    @property
    def training(self) -> Cell:
        """The cell whose training this one uses."""
        return Cell(self.base, tuple(swap for swap in self.swaps if swap.trained))

    @property
    def sampling(self) -> list[str]:
        """The overrides of the trained run."""
        return [swap.override for swap in self.swaps if not swap.trained]

    @property
    def spec(self) -> Spec:
        """The spec that is trained.

        Raises:
            modkit.errors.SpecError: If an override does not fit.
        """
        return make_base(self.base, [swap.override for swap in self.training.swaps])


def make_base(name: str, overrides: Sequence[str] = ()) -> Spec:
    """Loads the spec of a base."""
    return modkit.load_spec(EXAMPLES / f"{BASES[name]}.yaml", [*_CHANGES.get(name, ()), *overrides])


def list_single(base: str) -> Iterator[Cell]:
    """Yields the base, and each registered part alone in each slot that it uses, samplers with its evaluations."""
    yield Cell(base)
    report = modkit.check(make_base(base))
    parts = report.plan.parts
    slots = {port.path: (port.kind, port.name) for port in report.ports if port.path != "model"}
    slots |= {path: (kind, parts[path].name if path in parts else "") for kind, path in _TRAINING.items()}
    evaluations = _count_evaluations(base)
    for path, (kind, present) in slots.items():
        if kind not in _LEFT_OUT:
            for entry in get_registry().list_parts(kind):
                if entry.part.name != present:
                    params = _SIZES.get((kind, entry.part.name), "").replace("{levels}", _LEVELS.get(base, "[16, 32]"))
                    if kind == "sampler" and evaluations and "steps" in read_parameters(entry.part):
                        params = f"steps: {-(-evaluations // _EVALUATIONS.get(entry.part.name, 1))}"
                    yield Cell(base, (Swap(path, kind, entry.part.name, params),))


def list_product(base: str) -> Iterator[Cell]:
    """Yields modkit's schedules with its parametrizations and samplers in the base's first slots of these kinds."""
    single = [cell.swaps[0] for cell in list_single(base) if cell.swaps and "/" not in cell.swaps[0].part]
    parts = plan(make_base(base)).parts
    kinds = ("schedule", "parametrization", "sampler")
    paths = [next(path for path, part in parts.items() if part.kind == kind) for kind in kinds]
    choices = [[None, *(swap for swap in single if swap.path == path)] for path in paths]
    for schedule in choices[0]:
        for parametrization in choices[1]:
            for sampler in choices[2]:
                yield Cell(base, tuple(swap for swap in (schedule, parametrization, sampler) if swap), "product")


def draw_pairs(cells: Sequence[Cell], num: int, seed: int) -> list[Cell]:
    """Draws `num` pairs of swaps from cells of one base each, of which neither slot holds the other."""
    source = random.Random(seed)
    found: dict[Cell, None] = {}
    single = [cell for cell in cells if len(cell.swaps) == 1]
    while len(found) < num:
        a, b = source.sample(single, 2)
        one, other = a.swaps[0], b.swaps[0]
        inside = any(x.path == y.path or x.path.startswith(f"{y.path}.") for x, y in permutations((one, other)))
        if a.base == b.base and not inside:
            found[Cell(a.base, (one, other), "pair")] = None
    return list(found)


def _count_evaluations(base: str) -> int | None:
    """Counts the evaluations of the base's sampler, from its steps or those of its Model."""
    planned = plan(make_base(base))
    for path, part in planned.parts.items():
        if part.kind == "sampler":
            own, outer = (planned.get_arguments(one) for one in (path, path.rpartition(".")[0]))
            steps = own.get("steps") or outer.get("steps")
            return steps * _EVALUATIONS.get(part.name, 1) if isinstance(steps, int) else None
    return None
