"""The commands that measure: `modkit evaluate`, `compare`, `sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modkit.cli.completion import SLOTS
from modkit.cli.failures import reported

if TYPE_CHECKING:
    from modkit.evaluation.report import Report

__all__ = ["SCORES", "print_scores"]


@click.command()
@click.argument("arguments", nargs=-1, metavar="[RUN [K=V]...]")
@click.option("--real", type=click.Path(), help="Data: a folder of images, a .npy, or a .npz of mu and sigma.")
@click.option("--fake", type=click.Path(), help="Samples: the same.")
@click.option("--train", type=click.Path(), help="Training data, for copying.")
@click.option("-n", "num", type=click.IntRange(min=2), help="Samples on each side; all there are where not given.")
@click.option("--features", help="Features: see `modkit list features`.")
@click.option("--metrics", help="Metrics, with commas between: see `modkit list metric`.")
@click.option("-k", type=click.IntRange(min=1), help="Which neighbour, of the metrics of neighbours.")
@click.option("--size", type=click.IntRange(min=1), help="Side that the images of folders are resized to.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise and of subsets.")
@click.option("--raw", is_flag=True, help="Leave values as they are instead of rounding images to 8 bits.")
@click.option("--per-class", is_flag=True, help="Score each class of a run's data as well, and their mean.")
@click.option("--checkpoint", help="Which checkpoint of RUN: `best` or a name; the last where not given.")
@click.option("--locked", is_flag=True, help="Refuse parts and a torch that are not those of RUN's lock.")
@click.option("--save-statistics", type=click.Path(), metavar="FILE.npz", help="Write mu and sigma of --real.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reported
def evaluate(
    arguments: Sequence[str],
    real: str | None,
    fake: str | None,
    train: str | None,
    num: int | None,
    features: str | None,
    metrics: str | None,
    k: int | None,
    size: int | None,
    seed: int,
    raw: bool,
    per_class: bool,
    checkpoint: str | None,
    locked: bool,
    save_statistics: str | None,
    as_json: bool,
) -> None:
    """Measure RUN, with overrides such as sampler=ddim, or the samples --fake against the data --real."""
    from modkit.building.migration import load_current_spec
    from modkit.evaluation.evaluate import evaluate, statistics
    from modkit.evaluation.evaluate_run import evaluate_run
    from modkit.evaluation.sources import save_statistics as save
    from modkit.features.inception import find_inception
    from modkit.runs.run import Run
    from modkit.specs.overrides import expand

    names = metrics.split(",") if metrics else None
    if arguments:
        if real or fake or train or size or save_statistics:
            raise ValueError("evaluate expects a RUN, or --real and --fake, got both")
        run = Run.open(arguments[0])
        spec = load_current_spec(run)
        overrides = [expand(spec, SLOTS, override) for override in arguments[1:]]
        report = evaluate_run(
            run,
            overrides=overrides,
            features=features,
            metrics=names,
            num=num,
            k=k,
            seed=seed,
            raw=raw,
            per_class=per_class,
            checkpoint=checkpoint,
            locked=locked,
        )
        report.save(run.path)
    elif real is None or (fake is None) == (save_statistics is None):
        raise ValueError("evaluate expects a RUN, or --real with --fake or --save-statistics")
    elif per_class or checkpoint or locked:
        raise ValueError("evaluate expects --per-class, --checkpoint and --locked of a RUN, got folders or files")
    else:
        if features is None and find_inception() is None:
            choices = "pixels, random-conv, classifier:FILE, …"
            raise ValueError(f"--features expects a name where Inception's weights are not found: {choices}")
        chosen = features or "inception"
        if save_statistics is not None:
            found = statistics(real, features=chosen, num=num, size=size, raw=raw)
            save(Path(save_statistics), found)
            click.echo(f"mean and covariance of {found.count} samples: {save_statistics}")
            return
        if fake is None:
            raise ValueError("evaluate expects --fake beside --real")
        report = evaluate(
            real=real,
            fake=fake,
            train=train,
            features=chosen,
            metrics=names,
            num=num,
            size=size,
            k=k,
            seed=seed,
            raw=raw,
        )
    if as_json:
        click.echo(report.to_json())
    else:
        print_scores(report)


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", default="comparison.html", show_default=True, help="The page; its JSON is written beside it.")
@reported
def compare(runs: Sequence[str], out: str) -> None:
    """Compare RUNs that have been evaluated, on one page that needs no network."""
    from modkit.comparison import compare

    written = compare(runs, out)
    for finding in written.findings:
        click.echo(finding)
    click.echo(f"page: {written.page}, its data: {written.data}")


@click.command()
@click.argument("spec")
@click.argument("axes", nargs=-1, required=True, metavar="K=A,B...")
@click.option("--out", help="The sweep's directory; sweeps/NAME where not given.")
@click.option("-n", "num", type=click.IntRange(min=2), help="Samples of an evaluation on each side.")
@click.option("--features", help="Features of an evaluation.")
@click.option("--metrics", help="Metrics of an evaluation, with commas between.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of an evaluation's noise.")
@click.option("--steps", type=click.IntRange(min=0), help="Cap every stage of training at so many steps.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes at a time.")
@reported
def sweep(
    spec: str,
    axes: Sequence[str],
    out: str | None,
    num: int | None,
    features: str | None,
    metrics: str | None,
    seed: int,
    steps: int | None,
    jobs: int,
) -> None:
    """Train and measure SPEC over every combination of values, such as sampler=ddim,heun seed=0,1,2; or go on."""
    from modkit.cli.console import progress, terminal
    from modkit.sweeps.sweep import sweep

    with progress(terminal()) as shown:
        done = sweep(
            spec,
            axes,
            out,
            num=num,
            features=features,
            metrics=metrics.split(",") if metrics else None,
            seed=seed,
            steps=steps,
            jobs=jobs,
            progress=shown,
        )
    for failure in done.failures:
        last = (failure.stderr.strip().splitlines() or ["it said nothing"])[-1]
        click.echo(f"failed: {failure.command}: status {failure.status}: {last}", err=True)
    click.echo(f"sweep: {done.path}" + (f", page: {done.page}" if done.page else ""))
    if done.failures:
        raise SystemExit(1)


SCORES = (evaluate, compare, sweep)


def print_scores(report: Report) -> None:
    """A table of a report, with its floor and what it was measured on."""
    from modkit.cli.console import table, terminal

    console = terminal()
    floor = {name: f"{score.value:.4g}" for name, score in report.floor.items()}
    columns = ["score", "value", *(["held-out images"] if floor else []), "± standard error", "better"]
    rows = [
        [
            name,
            f"{score.value:.4g}",
            *([floor.get(name, "")] if floor else []),
            "" if score.error is None else f"{score.error:.2g}",
            score.better or "",
        ]
        for name, score in report.scores.items()
    ]
    console.print(table(columns, rows))
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    console.print(f"{counts}; seed {report.seed}")
    for note in report.notes:
        console.print(f"note: {note}")
