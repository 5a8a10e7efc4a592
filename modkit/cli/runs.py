"""The commands that deal with runs as they are: `modkit runs`, `modkit runs tag`, `modkit export` and `modkit ema`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from modkit.cli.completion import complete_runs
from modkit.cli.failures import report_failures
from modkit.cli.output import echo, json_option, print_result

if TYPE_CHECKING:
    from modkit.comparison.listing import RunSummary

__all__ = ["RUNS"]


@click.group("runs", invoke_without_command=True)
@click.option(
    "--in", "folder", type=click.Path(), default="runs", show_default=True, help="The directory to look in and below."
)
@click.option(
    "--where",
    multiple=True,
    metavar="K=V",
    help="Only runs with this value in their spec: sampler=ddim, lr=1e-3.",
)
@click.option("--tag", "tags", multiple=True, help="Only runs with this tag.")
@json_option
@click.pass_context
@report_failures
def print_runs(ctx: click.Context, folder: str, where: Sequence[str], tags: Sequence[str], as_json: bool) -> None:
    """List the runs below a directory: parts, steps, state, scores, tags; `runs tag` changes tags."""
    if ctx.invoked_subcommand is not None:
        return
    from modkit.comparison.listing import list_runs

    found = list_runs(folder, where=where, tags=tags)
    print_result([_make_plain(one) for one in found], as_json, found.describe())


@print_runs.command("tag")
@click.argument("run", shell_complete=complete_runs)
@click.argument("tags", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="Remove the tags instead.")
@report_failures
def tag_run(run: str, tags: Sequence[str], remove: bool) -> None:
    """Add TAGS to RUN."""
    from modkit.runs.run import Run
    from modkit.runs.tags import update_tags

    path = Run.open(run).path
    kept = update_tags(path, remove=tags) if remove else update_tags(path, add=tags)
    echo(f"{path}: {', '.join(kept) or 'no tags'}")


@click.command()
@click.argument("run", shell_complete=complete_runs)
@click.argument("out", type=click.Path(), metavar="DIR")
@click.option("--to", "format", metavar="FORMAT", help="A layout that a plug-in provides; modkit's own by default.")
@click.option("--checkpoint", help="Checkpoint of RUN: `best` or a name; the last by default.")
@click.option("--with-parts", is_flag=True, help="Copy the files that register RUN's parts as well; nothing runs them.")
@report_failures
def export(run: str, out: str, format: str | None, checkpoint: str | None, with_parts: bool) -> None:
    """Export RUN's model with a model card to a folder that modkit.load reads on any machine."""
    from modkit.publishing.export import export
    from modkit.runs.run import Run

    echo(f"exported: {export(Run.open(run), out, to=format, checkpoint=checkpoint, parts=with_parts)}")


@click.command("ema")
@click.argument("run", shell_complete=complete_runs)
@click.option("--std", type=float, required=True, help="Width of the average, as a share of the steps: 0.08.")
@click.option("--out", type=click.Path(), metavar="DIR", help="The folder; RUN-std-STD by default.")
@click.option("--step", type=click.IntRange(min=1), help="Step at whose weights it ends; the last kept by default.")
@report_failures
def rebuild_average(run: str, std: float, out: str | None, step: int | None) -> None:
    """Export RUN's model with an average of its weights of any width, made of those kept by train.ema.every."""
    from modkit.publishing.average import rebuild_average

    made = rebuild_average(run, std, out, step=step)
    echo(f"exported: {made.path}, the average of std {std:g} at step {made.step}, its profile to {made.error:.1g}")


RUNS = (print_runs, export, rebuild_average)


def _make_plain(one: RunSummary) -> dict[str, Any]:
    """Makes plain data of a listed run, for JSON."""
    values = {name: value for name, value in vars(one).items() if name != "spec"}
    return {**values, "path": str(one.path), "scores": dict(one.scores), "best": dict(one.best)}
