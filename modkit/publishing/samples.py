"""Samples of a run's model, as pictures or arrays in files, and the noise that each is made of."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor

from modkit.building.addresses import open_run
from modkit.building.migration import load_current_spec
from modkit.building.session import Composed, load_run
from modkit.engines.processes import open_engine
from modkit.engines.shares import share_rows
from modkit.evaluation.class_grid import find_classes, sample_classes
from modkit.models.compiling import compile_networks
from modkit.models.model import Model
from modkit.nn.compiled import run_uncompiled
from modkit.rng import Rng
from modkit.runs.files import make_folders, replace_file
from modkit.runs.pictures import draw_picture, encode_png, round_images
from modkit.runs.run import Run
from modkit.specs.overrides import SLOTS, expand
from modkit.types import Batch, Precision, TensorType, Value

__all__ = ["Samples", "check_out", "sample_run"]


@dataclass(frozen=True)
class Samples:
    """Samples of a model.

    Args:
        x: The samples, `b ...`, float32 on the CPU.
        type: The type of one.
        columns: Number of columns of their picture; None for one that is about square.
        noise: The noise that each is made of, if it was asked for.
    """

    x: Tensor
    type: TensorType
    columns: int | None = None
    noise: Tensor | None = None

    def draw(self) -> Tensor:
        """Draws the samples as one picture, uint8, `c h w`."""
        return draw_picture(self.x, self.type, self.columns)

    def _repr_png_(self) -> bytes:
        """In a notebook: the picture."""
        return encode_png(self.draw())

    def save(self, out: str | PathLike[str]) -> None:
        """Writes FILE.png, .npy or .safetensors, depending on the ending, or a new folder of numbered PNGs.

        A file is complete or as it was.

        Raises:
            ValueError: If it has another ending, or the folder holds something.
        """
        path = check_out(Path(out))
        if not path.suffix:
            images = round_images(self.x, self.type)
            make_folders(path)
            for number, image in enumerate(images):
                replace_file(path / f"{number:05d}.png", encode_png(image))
        elif path.suffix == ".npy":
            _write_array(self.x, path)
        else:
            make_folders(path.parent)
            is_picture = path.suffix == ".png"
            replace_file(path, encode_png(self.draw()) if is_picture else save({"samples": self.x}))

    def save_noise(self, out: str | PathLike[str]) -> None:
        """Writes the noise as an array, FILE.npy.

        Raises:
            ValueError: If it was not asked for.
        """
        if self.noise is None:
            raise ValueError("save_noise expects samples with their noise, got none: sample_run(…, noise=True)")
        _write_array(self.noise, Path(out))


def sample_run(
    run: Run | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    model: Composed | None = None,
    num: int | None = None,
    seed: int = 0,
    label: int | None = None,
    grid: str | None = None,
    noise: bool = False,
    batch_size: int | None = None,
    precision: Precision = "float32",
    checkpoint: str | None = None,
    device: str = "auto",
    locked: bool = False,
    compile: bool = False,
) -> Samples:
    """Samples from the model of a run, in all processes together.

    Args:
        run: The run, its directory, or a directory written by `modkit export`.
        overrides: Overrides of what only sampling reads, such as `sampler=heun` and `guidance.scale=3`.
        model: A model composed like the run's, or a function that composes one, if the run has local parts, which
            cannot be loaded by name.
        num: Number of samples, 64 by default; with `grid`, of each class, 8 by default.
        seed: Seed of the noise.
        label: Class of every sample; of a model that reads several fields of classes, its `labels`.
        grid: `classes`, or the field of the classes where the model reads several: one row a class, each column from
            the same noise.
        noise: Whether to return the noise that each sample is made of.
        batch_size: Samples per batch.
        precision: What the model computes in.
        checkpoint: Name of the checkpoint, or `best`; the last by default.
        device: Where to sample; `auto` is CUDA if available.
        locked: Whether to refuse parts and a torch that differ from those in the run's lock.
        compile: Whether to compile the networks, which pays when many samples are drawn.

    Raises:
        ValueError: If there is no such run or checkpoint; both `label` and `grid` are given; the model has no classes
            where they are asked for; or samples are made of more than the noise that is asked for.
        SpecError: If an override is wrong.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from modkit import Spec, train, use
        >>> spec = Spec(data=use("ring", num=64, num_test=64), model=use("gan", z_dim=2), train={"batch_size": 8})
        >>> with TemporaryDirectory() as folder:
        ...     samples = sample_run(train(spec, f"{folder}/run", steps=1), num=3)
        ...     samples.save(f"{folder}/samples.npy")
        >>> samples.x.shape
        torch.Size([3, 2])
    """
    if grid and label is not None:
        raise ValueError("sample expects a label or a grid of classes, got both")
    if grid and noise:
        raise ValueError("sample expects noise or a grid of classes, got both")
    run = open_run(run)
    spec = load_current_spec(run)
    full = [expand(spec, SLOTS, override) for override in overrides]
    loaded = load_run(run, full, model=model, checkpoint=checkpoint, locked=locked)
    if compile:
        compile_networks(loaded.model)
    columns = (num or 8) if grid else None
    x: Value
    with open_engine(device) as engine:
        made: Model = loaded.model.to(engine.device).eval()
        if columns:
            field = None if grid == "classes" else grid
            given: dict[str, Any] = {"seed": seed, "field": field, "batch_size": batch_size, "precision": precision}
            x = sample_classes(made, loaded.fields, columns, engine, **given)
        else:
            fields: dict[str, Any] = {} if label is None else {_find_label(made, loaded.fields): label}
            if noise:
                _check_source(made, fields)

            def draw(first: int, num: int) -> Value:
                start = _draw_noise(made, first, num, seed) if noise else None
                return made.sample(num, seed=seed, first=first, start_noise=start, precision=precision, **fields)

            x = share_rows(draw, num or 64, engine, batch_size)
    samples = Batch(x, {}).tensor.float().cpu().contiguous()
    start = _draw_noise(made, 0, len(samples), seed).float().cpu() if noise else None
    return Samples(samples, made.single, columns, start)


def check_out(path: Path) -> Path:
    """Checks that samples can be written to a path, by its ending; returns it.

    Raises:
        ValueError: If it has another ending, or the folder holds something.
    """
    if path.suffix not in ("", ".png", ".npy", ".safetensors"):
        raise ValueError(f"out expects a folder or a file ending in .png, .npy or .safetensors, got {path}")
    if not path.suffix and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"out expects an empty or new folder, got {path}, which holds something")
    return path


def _write_array(values: Tensor, path: Path) -> None:
    make_folders(path.parent)
    with io.BytesIO() as file:
        np.save(file, values.numpy(), allow_pickle=False)
        replace_file(path, file.getvalue())


def _find_label(model: Model, fields: Mapping[str, TensorType]) -> str:
    """Finds the field that a label is given by: `labels`, or else the one field of classes that a model reads."""
    return "labels" if "labels" in model.reads else find_classes(model, fields)[0]


def _check_source(model: Model, fields: Mapping[str, Any]) -> None:
    """Refuses samples that depend on more than their start noise and the fields that are given."""
    if not model.sources or model.start_noise is None:
        raise ValueError("noise expects a model whose samples are made of noise alone (sampler=ddim, sampler.eta=0)")
    if drawn := [name for name in model.reads if name not in fields]:
        raise ValueError(f"noise expects all fields that the model reads, got no {', '.join(drawn)}")
    start = _draw_noise(model, 0, 1, 0)
    with run_uncompiled():  # a batch of one would be compiled for itself
        samples = [model.sample(1, seed=seed, start_noise=start, **fields) for seed in (0, 1)]
    one, other = (Batch(x, {}).tensor.float() for x in samples)
    if (one - other).abs().max() > 1e-4 * one.abs().max():  # far above rounding, which a card may do in another order
        raise ValueError(
            "noise expects samples that are made of their noise alone, got others of the same noise under another "
            "seed: a part draws more while it samples, as a generator with noise in its layers does (one trained with "
            "`noise=false` draws none) or the likelihood of a prior"
        )


def _draw_noise(model: Model, first: int, num: int, seed: int) -> Tensor:
    """Rows of the start noise of a seed."""
    assert model.start_noise is not None, "a Model with sources starts from noise"
    return Rng("start noise", seed).rows(first).normal("eps", model.allocate(num, model.start_noise))
