"""The commands that measure: `modkit evaluate`, `compare` and `sweep`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modkit.cli.completion import complete_axes, complete_overrides, complete_runs, complete_specs
from modkit.cli.failures import report_failures
from modkit.cli.output import echo, json_option, print_result
from modkit.cli.shared import PRECISION, SharedCommand
from modkit.runs.ranks import find_rank

if TYPE_CHECKING:
    from modkit.sweeps.sweep import Sweep

__all__ = ["SCORES", "report_sweep", "split_names"]


@click.command(cls=SharedCommand)
@click.argument("run", required=False, metavar="[RUN", shell_complete=complete_runs)
@click.argument("overrides", nargs=-1, metavar="[K=V]...]", shell_complete=complete_overrides)
@click.option(
    "--real", type=click.Path(), help="Data: a folder of images, a .npy file, or a .npz file of mu and sigma."
)
@click.option("--fake", type=click.Path(), help="Samples, in the same formats as --real.")
@click.option("--train", type=click.Path(), help="Training data, for copying.")
@click.option(
    "-n",
    "num",
    type=click.IntRange(min=2),
    help="Number of samples on each side, a fixed random subset of more; as many as both have by default.",
)
@click.option("--features", help="Features; `modkit list features` lists them.")
@click.option("--metrics", help="Metrics, separated by commas; `modkit list metric` lists them.")
@click.option("-k", type=click.IntRange(min=1), help="Which nearest neighbour prdc and similar metrics use.")
@click.option("--size", type=click.IntRange(min=1), help="Side length to which images in folders are resized.")
@click.option("--channels", type=click.IntRange(1, 4), help="Channels of images in folders: 1, 3, or 4 with opacity.")
@click.option("--background", help="Colour that transparency of images in folders is laid on; white by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise and of random subsets.")
@click.option("--raw", is_flag=True, help="Keep values as they are instead of rounding images to 8 bits.")
@click.option("--per-class", is_flag=True, help="Also score each class of a run's data, and their mean.")
@click.option("--precision", type=PRECISION, help="What a model samples in; by default what RUN states, or float32.")
@click.option("--checkpoint", help="Checkpoint of RUN: `best` or a name; the last by default.")
@click.option("--locked", is_flag=True, help="Refuse parts and a torch that differ from RUN's lock.")
@click.option("--compile", is_flag=True, help="Compile RUN's networks, which pays when many samples are drawn.")
@click.option(
    "--save-statistics", type=click.Path(), metavar="FILE.npz", help="Write mu and sigma of --real to a file."
)
@json_option
@report_failures
def evaluate(run: str | None, overrides: Sequence[str], as_json: bool, **options: Any) -> None:
    """Measure RUN, with overrides such as sampler=ddim, or the samples --fake against the data --real."""
    from modkit.building.migration import load_current_spec
    from modkit.evaluation.evaluate import compute_statistics, evaluate
    from modkit.evaluation.evaluate_run import evaluate_run
    from modkit.evaluation.statistics import save_statistics
    from modkit.features.inception import find_inception
    from modkit.runs.run import Run
    from modkit.specs.overrides import SLOTS, expand

    options["metrics"] = split_names(options["metrics"])
    target = options.pop("save_statistics")
    of_run = {name: options.pop(name) for name in ("per_class", "checkpoint", "locked", "compile")}
    of_files = {name: options.pop(name) for name in ("real", "fake", "train", "size", "channels", "background")}
    if run is not None:
        if any(of_files.values()) or target:
            raise ValueError("evaluate expects a RUN, or --real and --fake, got both")
        opened = Run.open(run)
        spec = load_current_spec(opened)
        full = [expand(spec, SLOTS, override) for override in overrides]
        report = evaluate_run(opened, overrides=full, **of_run, **options)
        if find_rank() == 0:
            report.save(opened.path)
    elif of_files["real"] is None or (of_files["fake"] is None) == (target is None):
        raise ValueError("evaluate expects a RUN, or --real with --fake or --save-statistics")
    elif any(of_run.values()):
        raise ValueError(
            "evaluate expects a RUN with --per-class, --checkpoint, --locked or --compile, got folders or files"
        )
    else:
        if target is not None:
            _check_statistics(target, {"train": of_files["train"], **options})
        if options["features"] is None and find_inception() is None:
            choices = "pixels, random-conv, classifier:FILE, …"
            raise ValueError(
                f"Inception's weights were not found; evaluate expects other --features, such as {choices}"
            )
        options["features"] = options["features"] or "inception"
        options["precision"] = options["precision"] or "float32"
        of_files["background"] = of_files["background"] or "white"
        if target is not None:
            of_images = {name: options[name] for name in ("features", "num", "raw")}
            of_images |= {name: of_files[name] for name in ("size", "channels", "background")}
            found = compute_statistics(of_files["real"], **of_images)
            if find_rank() == 0:
                save_statistics(Path(target), found)
                text = f"mean and covariance of {found.count} samples: {target}"
                print_result({"count": found.count, "path": target}, as_json, [text])
            return
        report = evaluate(**of_files, **options)
    if find_rank() == 0:
        print_result(json.loads(report.to_json()), as_json, report.describe())


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUNS... [data.K=V]...", shell_complete=complete_runs)
@click.option(
    "--out",
    type=click.Path(),
    default="comparison.html",
    show_default=True,
    help="The page; its data is written beside it as JSON.",
)
@report_failures
def compare(runs: Sequence[str], out: str) -> None:
    """Compare evaluated RUNS on one HTML page that needs no network; data.root=DIR says where their data are now."""
    from modkit.comparison import compare

    overrides = [word for word in runs if "=" in word and not Path(word).exists()]
    written = compare([word for word in runs if word not in overrides], out, overrides=overrides)
    for finding in written.findings:
        echo(finding)
    echo(f"page: {written.page}, data: {written.data}")


@click.command()
@click.argument("spec", shell_complete=complete_specs)
@click.argument("axes", nargs=-1, required=True, metavar="K=A,B...", shell_complete=complete_axes)
@click.option("--out", type=click.Path(), help="The sweep's directory; sweeps/NAME by default.")
@click.option("-n", "num", type=click.IntRange(min=2), help="Number of samples on each side of an evaluation.")
@click.option("--features", help="Features of the evaluations.")
@click.option("--metrics", help="Metrics of the evaluations, separated by commas.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the evaluations.")
@click.option("--steps", type=click.IntRange(min=0), help="Cap every stage of training at this many steps.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Parallel processes, each on its own GPUs."
)
@report_failures
def sweep(spec: str, axes: Sequence[str], out: str | None, metrics: str | None, **options: Any) -> None:
    """Train and evaluate SPEC for every combination of values, such as sampler=ddim,heun seed=0,1,2.

    A sweep that was interrupted continues.
    """
    from modkit.cli.console import choose_display, open_terminal
    from modkit.progress import show_progress
    from modkit.sweeps.sweep import sweep

    with choose_display(open_terminal()) as display, show_progress(display) as shown:
        done = sweep(spec, axes, out, metrics=split_names(metrics), progress=shown, **options)
    report_sweep(done)


def report_sweep(done: Sweep) -> None:
    """Prints the failures of a sweep and where it is, and ends the process with status 1 if there are any."""
    for failure in done.failures:
        last = (failure.stderr.strip().splitlines() or ["no message"])[-1]
        echo(f"failed: {failure.command}: status {failure.status}: {last}", err=True)
    echo(f"sweep: {done.path}" + (f", page: {done.page}" if done.page else ""))
    if done.failures:
        raise SystemExit(1)


def _check_statistics(target: str, options: Mapping[str, Any]) -> None:
    """Checks the file of --save-statistics, and that no option is given that has no effect on it."""
    if Path(target).suffix != ".npz":
        raise ValueError(f"--save-statistics expects a file ending in .npz, got {target}")
    names = {"train": "--train", "metrics": "--metrics", "k": "-k", "seed": "--seed", "precision": "--precision"}
    if given := [flag for name, flag in names.items() if options[name]]:
        raise ValueError(f"--save-statistics expects none of {', '.join(names.values())}, got {', '.join(given)}")


def split_names(given: str | None) -> list[str] | None:
    """Splits names at commas; None if there are none."""
    return [name.strip() for name in given.split(",")] if given else None


SCORES = (evaluate, compare, sweep)
