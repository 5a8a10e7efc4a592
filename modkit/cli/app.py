"""The command line: `modkit list`, `show`, `train`, `sample`, `doctor`; others are in `cli_*`.

Exit status: 0 done, 1 the run failed, 2 the input was wrong, and nothing was written. What imports torch is imported by
the commands that need it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modkit.cli.completion import SLOTS, kinds, overridden, parts, runs, specs
from modkit.cli.failures import end, reported
from modkit.cli.plugins import PLUGINS
from modkit.cli.runs import RUNS
from modkit.cli.scores import SCORES, print_scores
from modkit.cli.specs import SPECS
from modkit.parts.registry import get_registry
from modkit.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.types import TensorType

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line."""
    try:
        known = get_registry()
    except ValueError as error:  # MODKIT_STRICT=1, and a plug-in fails
        end(1, str(error))
    known.call("modkit_commands", app=app)
    app()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="modkit")
def app() -> None:
    """Plug-in parts for deep generative models: declare how they compose, then train, sample and swap."""


for _command in (*SPECS, *RUNS, *SCORES, *PLUGINS):
    app.add_command(_command)


@app.command("list")
@click.argument("kind", required=False, shell_complete=kinds)
@click.option("--search", help="Only parts with these words in name, distribution or summary.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reported
def list_parts(kind: str | None, search: str | None, as_json: bool) -> None:
    """Every part, or those of one KIND: name, distribution, summary."""
    from modkit.cli.describe import listing

    rows = listing(kind, search or "")
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from modkit.cli.console import table, terminal

    columns = ("kind", "name", "distribution", "summary")
    terminal().print(table(columns, [[row[column] for column in columns] for row in rows]))


@app.command()
@click.argument("kind", shell_complete=kinds)
@click.argument("name", shell_complete=parts)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reported
def show(kind: str, name: str, as_json: bool) -> None:
    """One part: its parameters with types, defaults and help, its source and paper."""
    from modkit.cli.describe import description

    try:
        part = description(kind, name)
    except ImportError as error:
        end(1, f"the {kind} {name} cannot be imported: {error}")
    if as_json:
        click.echo(json.dumps(part, indent=1))
        return
    from modkit.cli.console import table, terminal

    console = terminal()
    console.print(f"{part['kind']} {part['name']}: {part['summary']}")
    console.print(f"from {part['distribution']} {part['version']}, {part['source']}")
    if part["paper"]:
        console.print(part["paper"])
    rows = [
        [row["name"], row["type"], "required" if row["required"] else json.dumps(row["default"]), row["help"]]
        for row in part["parameters"]
    ]
    console.print(table(("parameter", "type", "default", "help"), rows))


@app.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reported
def doctor(as_json: bool) -> None:
    """What is installed: versions, and each plug-in with its state."""
    from modkit.cli.describe import diagnosis

    found = diagnosis()
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    from modkit.cli.console import table, terminal

    console = terminal()
    console.print(f"modkit {found['modkit']}, python {found['python']}, torch {found['torch']}")
    columns = ("plugin", "distribution", "version", "status", "parts", "reason")
    console.print(table(columns, [[str(row[column] or "") for column in columns] for row in found["plugins"]]))
    console.print(f"{found['counts']['parts']} parts, {found['counts']['plugins']} plug-ins")


@app.command()
@click.argument("spec", shell_complete=specs)
@click.argument("overrides", nargs=-1, shell_complete=overridden)
@click.option("--out", help="The run's directory; runs/NAME where not given.")
@click.option("--steps", type=click.IntRange(min=0), help="Cap every stage at so many steps.")
@click.option("--resume", is_flag=True, help="Go on from the run's last good checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is there.")
@click.option("--locked", is_flag=True, help="With --resume: refuse parts that are not those of the run's lock.")
@click.option("--evaluate/--no-evaluate", default=True, help="Measure the model at the end, where SPEC says how.")
@reported
def train(
    spec: str,
    overrides: Sequence[str],
    out: str | None,
    steps: int | None,
    resume: bool,
    overwrite: bool,
    locked: bool,
    evaluate: bool,
) -> None:
    """Train SPEC into a run; k=v overrides."""
    from modkit.cli.console import progress, terminal
    from modkit.evaluation.report import saved_reports
    from modkit.specs.load import load_spec
    from modkit.training.interruption import Stopped
    from modkit.training.train import train
    from modkit.training.trainer import TrainingError

    if resume and overwrite:
        raise ValueError("expected --resume or --overwrite, got both")
    if locked and not resume:
        raise ValueError("expected --locked with --resume: a new run has no lock yet")
    loaded = load_spec(spec, overrides)
    options = [*(["--out", out] if out else []), *(["--steps", str(steps)] if steps is not None else [])]
    command = shlex.join(["modkit", "train", spec, *overrides, *options])
    try:
        with progress(terminal()) as shown:
            run = train(
                loaded,
                out,
                steps=steps,
                resume=resume,
                overwrite=overwrite,
                evaluate=evaluate,
                progress=shown,
                locked=locked,
            )
    except Stopped as stopped:
        end(1, f"{stopped}; go on with: {command} --resume")
    except TrainingError as error:
        end(1, str(error))
    else:
        for report in saved_reports(run.path)[:1]:
            print_scores(report)
        pictures = sorted(run.samples.glob("*.png"))
        click.echo(f"run: {run.path}" + (f", pictures: {pictures[-1]}" if pictures else ""))


@app.command()
@click.argument("run", shell_complete=runs)
@click.argument("overrides", nargs=-1, shell_complete=overridden)
@click.option("-n", "num", type=click.IntRange(min=1), default=64, show_default=True, help="Number of samples.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise.")
@click.option("--label", type=int, help="Class of every sample.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples made at a time.")
@click.option("--out", help="FILE.png, .npy or .safetensors; the run's samples/seed-SEED.png where not given.")
@click.option("--locked", is_flag=True, help="Refuse parts and a torch that are not those of the run's lock.")
@reported
def sample(
    run: str,
    overrides: Sequence[str],
    num: int,
    seed: int,
    label: int | None,
    batch_size: int | None,
    out: str | None,
    locked: bool,
) -> None:
    """Sample from RUN; overrides such as sampler=dpm-solver++ sampler.steps=20 guidance.scale=3."""
    from modkit.building.migration import load_current_spec
    from modkit.building.session import load
    from modkit.runs.run import Run
    from modkit.specs.overrides import expand

    path = Path(out) if out else Path(run) / "samples" / f"seed-{seed}.png"
    if path.suffix not in (".png", ".npy", ".safetensors"):
        raise ValueError(f"--out expects a file ending in .png, .npy or .safetensors, got {path}")
    spec = load_current_spec(Run.open(run))
    model = load(run, [expand(spec, SLOTS, override) for override in overrides], locked=locked)
    fields: dict[str, Any] = {} if label is None else {"labels": label}
    _write(model.sample(num, seed=seed, batch_size=batch_size, **fields), model.single, path)
    click.echo(f"{num} samples: {path}")


def _write(x: Any, type: TensorType, path: Path) -> None:
    """Writes samples as a picture, or as they are."""
    import numpy as np
    from safetensors.torch import save_file

    from modkit.runs.files import replace_file
    from modkit.runs.pictures import picture, png

    samples: Tensor = x.float().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, samples.numpy(), allow_pickle=False)
    elif path.suffix == ".safetensors":
        save_file({"samples": samples}, path)
    else:
        replace_file(path, png(picture(samples, type)))
