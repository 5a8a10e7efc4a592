"""The command that shows a latent space: `modkit latent`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modkit.cli.completion import complete_overrides, complete_runs
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
@click.option("--interpolate", "view", flag_value="interpolate", help="Paths between samples: a row each.")
@click.option("--arithmetic", "view", flag_value="arithmetic", help="Means of classes, or a - b + c of --classes.")
@click.option("--project", "view", flag_value="project", help="Test samples beside what comes nearest to them.")
@click.option("--reconstruct", "view", flag_value="reconstruct", help="Test samples beside their reconstructions.")
@click.option(
    "-n",
    "num",
    type=click.IntRange(min=1),
    help="Points of a side, samples or paths, or samples in a mean; all for --encode.",
)
@click.option("--steps", type=click.IntRange(min=2), default=9, show_default=True, help="Samples of a row.")
@click.option(
    "--first", type=click.IntRange(min=0), default=0, show_default=True, help="Index of the first test sample or draw."
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
@click.option("--classes", help="The classes a,b,c of --arithmetic.")
@click.option("--features", help="What --project compares in, and what classifies draws, as in `modkit evaluate`.")
@click.option(
    "--iterations", type=click.IntRange(min=0), default=200, show_default=True, help="The steps of --project."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of latents that are drawn.")
@click.option(
    "--latent", "name", help="A latent or source (z, w, prior.z); the first latent, or else source, by default."
)
@click.option("--checkpoint", help="Checkpoint of RUN: `best` or a name; the last by default.")
@click.option("--out", type=click.Path(), help="FILE.png or FILE.svg; samples/latent-VIEW.png in the run by default.")
@report_failures
def show_latent(run: str, overrides: Sequence[str], view: str | None, **options: Any) -> None:
    """Show the latent space of RUN: one of --manifold, --encode, --traverse, --interpolate, --reconstruct, --arithmetic
    and --project. Latents of a model that does not encode are drawn.
    """
    from modkit.building.migration import load_current_spec
    from modkit.building.session import load_run
    from modkit.latent_space import find_space
    from modkit.runs.display import check_ending
    from modkit.runs.run import Run
    from modkit.specs.overrides import SLOTS, expand

    if view is None:
        raise ValueError(f"latent expects one of {', '.join(f'--{one}' for one in _VIEWS)}")
    opened = Run.open(run)
    path = check_ending(options["out"] or opened.samples / f"latent-{view}.png")
    spec = load_current_spec(opened)
    full = [expand(spec, SLOTS, override) for override in overrides]
    loaded = load_run(opened, full, needs=("data",), checkpoint=options["checkpoint"])
    space = find_space(loaded.model.eval(), options["name"])
    _VIEWS[view](space, loaded.data, path, options)
    echo(f"{view}: {path}")


LATENTS = (show_latent,)

_MOST = 2000  # latents that are encoded or drawn to learn where they lie


def _draw_manifold(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import decode_plane, save_grid

    side, fields = options["num"] or 20, _read_fields(space, data, options["first"], 1)
    save_grid(path, decode_plane(space, side, among=_find_some(space, data), fields=fields), space.x, side)


def _draw_encoded(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import Points, check_plane, draw_points, encode_split, find_classes

    if space.encodes:  # otherwise no number of dimensions would do, as `encode_split` says
        check_plane(space)
    field = find_classes(data, options["field"])
    found = encode_split(space, data, num=options["num"])
    draw_points(path, {"": Points(found.latents.flatten(1), found.fields[field] if field else None)})


def _draw_traversal(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import save_grid, traverse_dimensions

    others = _find_some(space, data)
    around = None if others is None else (others.mean(0), others.std(0))
    steps = options["steps"]
    z, fields = _find_latents(space, data, 1, options)
    x = traverse_dimensions(space, z[0], steps, span=options["span"], around=around, fields=fields)
    save_grid(path, x, space.x, steps)


def _draw_paths(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import decode_between, save_grid

    num, steps = options["num"] or 8, options["steps"]
    z, fields = _find_latents(space, data, 2 * num, options)
    begun = {name: value[::2] for name, value in fields.items()}
    x = decode_between(space, (z[::2], z[1::2]), steps, path=options["path"], fields=begun)
    save_grid(path, x, space.x, steps)


def _draw_pairs(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    from modkit.latent_space import reconstruct_pairs, save_grid

    save_grid(path, reconstruct_pairs(space, _read(data, options["first"], options["num"] or 16)), space.x, 8)


def _draw_arithmetic(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    import torch

    from modkit.latent_space import average_classes, decode_arithmetic, save_grid, select_class

    z, classes, fields = _find_labelled(space, data, options)
    num = options["num"] or (None if space.encodes and not options["classes"] else 3)
    if not options["classes"]:
        means = torch.stack([*average_classes(z, classes, num).values()])
        save_grid(path, space.decode(means, _expand(fields, len(means))), space.x, len(means))
        if left := len(set(classes.tolist())) - len(means):
            echo(f"classes left out: {left}, with fewer than {num} latents among {len(z)}")
        return
    chosen = [word.strip() for word in options["classes"].split(",")]
    if len(chosen) != 3 or not all(word.isdigit() for word in chosen):
        raise ValueError(f"--classes expects three numbers a,b,c, got {options['classes']!r}")
    terms = [select_class(z, classes, int(word), num) for word in chosen]
    x = decode_arithmetic(space, terms, seed=options["seed"], fields=fields)
    save_grid(path, x, space.x, len(terms[0]) + 1)


def _draw_projections(space: Space, data: Data, path: Path, options: dict[str, Any]) -> None:
    import torch

    from modkit.latent_space import measure_in_features, project, save_grid
    from modkit.latent_space.projection import measure_squares

    batch = _read(data, options["first"], options["num"] or 8)
    made = _make_features(data, options["features"]) if options["features"] else None
    found = project(
        space,
        batch.tensor,
        steps=options["iterations"],
        distance=measure_in_features(made) if made else measure_squares,
        fields=batch.fields,
        seed=options["seed"],
    )
    save_grid(path, torch.stack([batch.tensor, found.samples], 1).flatten(0, 1), space.x, 8)
    echo(f"distance: {float(found.distances.mean()):.4g}")


_VIEWS: dict[str, Callable[[Space, Data, Path, dict[str, Any]], None]] = {
    "manifold": _draw_manifold,
    "encode": _draw_encoded,
    "traverse": _draw_traversal,
    "interpolate": _draw_paths,
    "reconstruct": _draw_pairs,
    "arithmetic": _draw_arithmetic,
    "project": _draw_projections,
}


def _find_some(space: Space, data: Data) -> Tensor | None:
    """Encodes or draws up to 2000 latents, where no normal prior says where they lie."""
    from modkit.latent_space import encode_split

    if space.normal:
        return None
    return (
        encode_split(space, data, split="train", num=_count_some(data)).latents if space.encodes else space.draw(_MOST)
    )


def _find_latents(space: Space, data: Data, num: int, options: dict[str, Any]) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Encodes test samples, or draws as many latents; returns them and the fields that they are decoded under."""
    first = options["first"]
    if space.encodes:
        batch = _read(data, first, num)
        return space.encode(batch.tensor, batch.fields), batch.fields
    fields = _read_fields(space, data, first, num)
    return space.draw(num, seed=options["seed"], first=first, fields=fields), fields


def _find_labelled(space: Space, data: Data, options: dict[str, Any]) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
    """Encodes up to 2000 training samples, or classifies as many draws; returns latents, classes and fields of one."""
    from modkit.latent_space import encode_split, find_classes, read_classes

    one = _read_fields(space, data, options["first"], 1)
    if not space.encodes:
        _check_unconditional(space, data, options["field"])
        z = space.draw(_MOST, seed=options["seed"], first=options["first"])
        return z, read_classes(space, z, _make_features(data, options["features"]), _expand(one, len(z))), one
    if (field := find_classes(data, options["field"])) is None:
        raise ValueError("latent --arithmetic expects data with a field of classes, got none")
    found = encode_split(space, data, split="train", num=_count_some(data))
    return found.latents, found.fields[field], one


def _check_unconditional(space: Space, data: Data, field: str | None) -> None:
    """Checks that the class of what a draw is decoded to is not given beside it."""
    from modkit.latent_space import find_classes

    if space.normal and (name := find_classes(data, field)) in space.model.reads:
        instead = "; --latent w names latents that hold it" if "w" in space.model.sources else ""
        raise ValueError(
            "latent --arithmetic expects latents that say which class they are decoded to, got draws of N(0, I) from "
            f"{type(space.model).__name__}, which is given the class as the field {name!r}{instead}"
        )


def _make_features(data: Data, name: str | None) -> Any:
    """Makes the features that are named, or those that suit the data, ready to use."""
    from modkit.evaluation.extractors import choose_features, make_extractor
    from modkit.evaluation.scoring import prepare_extractor

    if (chosen := name or choose_features(data)) is None:
        raise ValueError(f"latent expects --features for {data.x}, which have none of their own, got none")
    classes = data.fields["labels"].classes if "labels" in data.fields else None
    return prepare_extractor(make_extractor(chosen, data.x, classes=classes), data)


def _count_some(data: Data) -> int:
    return min(_MOST, data.splits["train"])


def _expand(fields: Mapping[str, Tensor], num: int) -> dict[str, Tensor]:
    """Repeats the fields of one sample."""
    return {name: value.expand(num, *value.shape[1:]) for name, value in fields.items()}


def _read_fields(space: Space, data: Data, first: int, num: int) -> Mapping[str, Tensor]:
    """Reads the fields of test samples, as far as the space needs any; draws begin again with the first sample.

    Data without test samples have none: what the model can draw itself, it draws.
    """
    if space.encodes:
        return _read(data, first, num).fields
    there = data.splits["test"]
    if not space.model.reads or not there:
        return {}
    return _read_test(data, [index % there for index in range(first, first + num)]).fields


def _read(data: Data, first: int, num: int) -> Batch:
    """Reads test samples from `first` on."""
    if first + num > data.splits["test"]:
        raise ValueError(f"latent expects at most the {data.splits['test']} test samples, got {first + num}")
    return _read_test(data, range(first, first + num))


def _read_test(data: Data, indices: Sequence[int]) -> Batch:
    from modkit.data.splits import read_samples
    from modkit.rng import Rng

    return read_samples(data, "test", indices, Rng(0))
