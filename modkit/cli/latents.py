"""The command that shows a latent space: `modkit latent`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modkit.cli.completion import SLOTS, complete_overrides, complete_runs
from modkit.cli.failures import report_failures
from modkit.cli.output import echo

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.kinds import Data
    from modkit.latent_space import Space
    from modkit.types import Batch

__all__ = ["LATENTS"]


@click.command("latent")
@click.argument("run", shell_complete=complete_runs)
@click.argument("overrides", nargs=-1, shell_complete=complete_overrides)
@click.option("--manifold", "view", flag_value="manifold", help="The decoded plane of a latent of two dimensions.")
@click.option("--encode", "view", flag_value="encode", help="The test set in a latent of two dimensions, by class.")
@click.option("--traverse", "view", flag_value="traverse", help="A sample with each dimension changed: a row each.")
@click.option("--interpolate", "view", flag_value="interpolate", help="Paths between test samples: a row each.")
@click.option("--reconstruct", "view", flag_value="reconstruct", help="Test samples beside their reconstructions.")
@click.option("-n", "num", type=click.IntRange(min=1), help="Points of a side, samples or paths; all for --encode.")
@click.option("--steps", type=click.IntRange(min=2), default=9, show_default=True, help="Samples of a row.")
@click.option(
    "--first", type=click.IntRange(min=0), default=0, show_default=True, help="The first test sample's index."
)
@click.option("--span", type=float, default=3.0, show_default=True, help="How far --traverse goes, in deviations.")
@click.option(
    "--path",
    type=click.Choice(["linear", "spherical"]),
    default="linear",
    show_default=True,
    help="The paths of --interpolate.",
)
@click.option("--field", help="The data's field that colours --encode; labels, or the first field of classes.")
@click.option("--latent", "name", help="The name of the latent; the first that is continuous by default.")
@click.option("--checkpoint", help="Checkpoint of RUN: `best` or a name; the last by default.")
@click.option("--out", help="FILE.png or FILE.svg; samples/latent-VIEW.png in the run by default.")
@report_failures
def show_latent(run: str, overrides: Sequence[str], view: str | None, **options: Any) -> None:
    """Show the latent space of RUN: one of --manifold, --encode, --traverse, --interpolate and --reconstruct."""
    from modkit.building.migration import load_current_spec
    from modkit.building.session import load_run, open_data
    from modkit.latent_space import find_space
    from modkit.latent_space.drawing import check_ending
    from modkit.runs.run import Run
    from modkit.specs.overrides import expand

    if view is None:
        raise ValueError("latent expects one of --manifold, --encode, --traverse, --interpolate and --reconstruct")
    opened = Run.open(run)
    path = check_ending(options["out"] or opened.samples / f"latent-{view}.png")
    spec = load_current_spec(opened)
    full = [expand(spec, SLOTS, override) for override in overrides]
    loaded = load_run(opened, full, checkpoint=options["checkpoint"])
    space = find_space(loaded.model.eval(), options["name"])
    _VIEWS[view](space, open_data(opened, loaded.site).data, path, options)
    echo(f"{view}: {path}")


LATENTS = (show_latent,)


def _draw_manifold(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import decode_plane, save_grid

    side, fields = options["num"] or 20, _read(data, options["first"], 1).fields
    save_grid(path, decode_plane(space, side, among=_encode_some(space, data), fields=fields), space.x, side)


def _draw_encoded(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import Points, check_plane, draw_points, encode_split, find_classes

    check_plane(space)
    field = find_classes(data, options["field"])
    found = encode_split(space, data, num=options["num"])
    draw_points(path, {"": Points(found.latents.flatten(1), found.fields[field] if field else None)})


def _draw_traversal(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import save_grid, traverse_dimensions

    others = _encode_some(space, data)
    around = None if others is None else (others.mean(0), others.std(0))
    batch, steps = _read(data, options["first"], 1), options["steps"]
    z = space.encode(batch.tensor, batch.fields)[0]
    x = traverse_dimensions(space, z, steps, span=options["span"], around=around, fields=batch.fields)
    save_grid(path, x, space.x, steps)


def _draw_paths(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import decode_path, save_grid

    batch, steps = _read(data, options["first"], 2 * (options["num"] or 8)), options["steps"]
    ends = batch.rows(slice(0, None, 2)), batch.rows(slice(1, None, 2))
    save_grid(path, decode_path(space, ends, steps, path=options["path"]), space.x, steps)


def _draw_pairs(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import reconstruct_pairs, save_grid

    save_grid(path, reconstruct_pairs(space, _read(data, options["first"], options["num"] or 16)), space.x, 8)


_VIEWS: dict[str, Callable[[Space, Data, Path, dict[str, Any]], None]] = {
    "manifold": _draw_manifold,
    "encode": _draw_encoded,
    "traverse": _draw_traversal,
    "interpolate": _draw_paths,
    "reconstruct": _draw_pairs,
}


def _encode_some(space: Space, data: Data) -> Tensor | None:
    """Encodes up to 2000 training samples, where no normal prior says where latents lie."""
    from modkit.latent_space import encode_split

    num = min(2000, data.splits["train"])
    return None if space.normal else encode_split(space, data, split="train", num=num).latents


def _read(data: Data, first: int, num: int) -> Batch:
    """Reads test samples from `first` on."""
    from modkit.data.splits import read_samples
    from modkit.rng import Rng

    if first + num > data.splits["test"]:
        raise ValueError(f"latent expects at most the {data.splits['test']} test samples, got {first + num}")
    return read_samples(data, "test", range(first, first + num), Rng(0))
