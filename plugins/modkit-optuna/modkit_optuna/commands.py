"""The command `modkit search`; what imports torch or optuna is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from modkit.blocks import Block
from modkit.cli.completion import complete_axes, complete_specs
from modkit.cli.failures import report_failures
from modkit.cli.output import print_result
from modkit.cli.scores import report_sweep, split_names

__all__ = ["search_spec"]

_COUNT = click.IntRange(min=1)


@click.command("search")
@click.argument("spec", shell_complete=complete_specs)
@click.argument("axes", nargs=-1, required=True, metavar="K=RANGE...", shell_complete=complete_axes)
@click.option("--objectives", required=True, help="Scores of the evaluations, separated by commas: fd,seconds.")
@click.option("--trials", type=_COUNT, default=50, show_default=True, help="Number of trials, earlier ones included.")
@click.option(
    "--algorithm", type=click.Choice(["tpe", "nsga2", "random"]), default="tpe", show_default=True, help="Names trials."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the search.")
@click.option("--prune", is_flag=True, help="End trainings that are worse than the median by evaluate.watch's scores.")
@click.option("--out", type=click.Path(), help="The search's directory; searches/NAME by default.")
@click.option("-n", "num", type=click.IntRange(min=2), help="Number of samples on each side of an evaluation.")
@click.option("--features", help="Features of the evaluations.")
@click.option("--metrics", help="Metrics of the evaluations, separated by commas.")
@click.option("--steps", type=click.IntRange(min=0), help="Cap every stage of training at this many steps.")
@click.option(
    "--jobs", type=_COUNT, default=1, show_default=True, help="Parallel processes; 1 if speed is an objective."
)
@report_failures
def search_spec(
    spec: str, axes: Sequence[str], objectives: str, metrics: str | None, out: str | None, **options: Any
) -> None:
    """Search SPEC for the best objectives, such as sampler=ddim,heun 'train.optimizer.lr=log(1e-4,1e-2)'.

    A range is a,b,c or log(low,high), int(low,high), uniform(low,high); a path without a range has the one that its
    parameter declares. A search that was interrupted continues.
    """
    from modkit.cli.console import choose_display, open_terminal
    from modkit.progress import show_progress
    from modkit_optuna.search import search

    names = split_names(objectives) or []
    with choose_display(open_terminal()) as display, show_progress(display) as shown:
        found = search(spec, axes, out, objectives=names, metrics=split_names(metrics), progress=shown, **options)
    rows = [[label, *(f"{value.value:.4g}" for value in found.scores[label].values())] for label in found.front]
    blocks: list[Block] = [(("on the front", *names), rows)] if rows else []
    print_result(None, False, [*blocks, f"{len(found.scores)} of {len(found.sweep.trials)} trials are complete"])
    report_sweep(found.sweep)
