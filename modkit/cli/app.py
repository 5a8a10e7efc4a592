"""The command line: `modkit list`, `show`, `train`, `sample` and `doctor`; other modules of `modkit.cli` hold the rest.

Exit status: 0 if all went well, 1 if the run failed, 2 if the input was invalid and nothing was written. Modules that
need torch are imported inside the commands that use them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modkit.blocks import Block
from modkit.cli import completion
from modkit.cli.failures import end, report_failures
from modkit.cli.latents import LATENTS
from modkit.cli.output import echo, json_option, print_result
from modkit.cli.plugins import PLUGINS
from modkit.cli.runs import RUNS
from modkit.cli.scores import SCORES
from modkit.cli.shared import PRECISION, SharedCommand, get_words
from modkit.cli.specs import SPECS
from modkit.escapes import escape_controls
from modkit.parts.registered import add_file
from modkit.parts.registry import get_registry
from modkit.runs.files import expand_home
from modkit.runs.ranks import find_rank
from modkit.version import __version__

if TYPE_CHECKING:
    from modkit.progress import Progress
    from modkit.runs.run import Run

__all__ = ["app", "main"]


_WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "0"}
"""How torch's threads wait for work: soon asleep, since beside other processes those that spin take their time."""


def main() -> None:
    """Runs the command line."""
    plain = warnings.formatwarning
    warnings.formatwarning = lambda *told: escape_controls(plain(*told))
    for name, value in _WAITING.items():  # read as torch is loaded, here and in processes that are started
        os.environ.setdefault(name, value)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to `list --json`
            get_registry().call("modkit_commands", app=app)
    except ValueError as error:  # a plug-in fails under MODKIT_STRICT=1
        end(1, str(error))
    except KeyboardInterrupt as error:
        end(130, str(error) or "interrupted")
    try:
        app(prog_name="modkit")
    finally:  # a plug-in may print when the process ends
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stdout = sys.stderr


def _add_parts(context: click.Context, option: click.Parameter, files: Sequence[str]) -> None:
    """Runs the files of `--parts`; not to complete a word."""
    try:
        for file in () if context.resilient_parsing else files:
            add_file(file)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


class _Commands(click.Group):
    """Commands that no plug-in replaces, each with `--parts`.

    In their words and options `~/` at the start is the home folder, also where no shell has replaced it.
    """

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Adds a command.

        Raises:
            ValueError: If there is another one of its name.
        """
        name = name or cmd.name
        if name and self.commands.get(name, cmd) is not cmd:
            raise ValueError(f"modkit has a command {name} already, expected another name")
        if all(one.name != "parts" for one in cmd.params):  # else it is added again
            cmd.params.append(
                click.Option(
                    ["--parts"],
                    type=click.Path(),
                    multiple=True,
                    expose_value=False,
                    callback=_add_parts,
                    metavar="FILE.py",
                    help="A file that registers parts of your own (`modkit.register`); may be repeated.",
                )
            )
        super().add_command(cmd, name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses words after the home folder is written out in them."""
        return super().parse_args(ctx, [_expand(word) for word in args])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="modkit")
def app() -> None:
    """Plug-in parts for deep generative models: compose, train, sample and swap them."""


for _command in (*SPECS, *RUNS, *SCORES, *LATENTS, *PLUGINS):
    app.add_command(_command)


@app.command("list")
@click.argument("kind", required=False, shell_complete=completion.complete_kinds)
@click.option("--search", help="Only parts with these words in name, distribution or summary.")
@json_option
@report_failures
def print_parts(kind: str | None, search: str | None, as_json: bool) -> None:
    """List all parts, or those of one KIND: name, distribution, summary."""
    from modkit.cli.describe import list_parts

    rows = list_parts(kind, search or "")
    columns = ("kind", "name", "distribution", "summary")
    print_result(rows, as_json, [(columns, [[row[column] for column in columns] for row in rows])])


@app.command()
@click.argument("kind", shell_complete=completion.complete_kinds)
@click.argument("name", shell_complete=completion.complete_parts)
@json_option
@report_failures
def show(kind: str, name: str, as_json: bool) -> None:
    """Show one part: its parameters with types, defaults and help, its source and paper."""
    from modkit.cli.describe import describe_part, format_implied

    part = describe_part(kind, name)
    rows = [
        [row["name"], row["type"], "required" if row["required"] else json.dumps(row["default"]), row["help"]]
        for row in part["parameters"]
    ]
    blocks: list[Block] = [
        f"{part['kind']} {part['name']}: {part['summary']}",
        f"from {part['distribution']} {part['version']}, {part['source']}",
        *([part["paper"]] if part["paper"] else []),
        *([f"implies {format_implied(part['implies'])}"] if part["implies"] else []),
        *(f"{other} implies {format_implied(implied)}" for other, implied in part["implied"].items()),
        (("parameter", "type", "default", "help"), rows),
    ]
    print_result(part, as_json, blocks)


@app.command()
@json_option
@report_failures
def doctor(as_json: bool) -> None:
    """Report what is installed: versions, each op with what it runs here, and each plug-in with its status."""
    from modkit.cli.describe import diagnose

    found = diagnose()
    columns = ("plugin", "distribution", "version", "status", "parts", "kinds", "hooks", "source", "reason")
    blocks: list[Block] = [
        f"modkit {found['modkit']}, python {found['python']}, torch {found['torch']}",
        (("op", "device", "runs", "reason"), [list(row.values()) for row in found["ops"]]),
        (columns, [[_join(row[column]) for column in columns] for row in found["plugins"]]),
        f"{found['counts']['parts']} parts, {found['counts']['plugins']} plug-ins",
    ]
    print_result(found, as_json, blocks)


@app.command(cls=SharedCommand)
@click.argument("spec", shell_complete=completion.complete_specs)
@click.argument("overrides", nargs=-1, shell_complete=completion.complete_overrides)
@click.option("--out", type=click.Path(), help="The run's directory; runs/NAME by default.")
@click.option("--steps", type=click.IntRange(min=0), help="Cap every stage at this many steps.")
@click.option("--resume", is_flag=True, help="Resume from the run's last intact checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace an existing run.")
@click.option("--locked", is_flag=True, help="With --resume: refuse parts that differ from the run's lock.")
@click.option(
    "--evaluate/--no-evaluate", default=True, help="Evaluate the model at the end if SPEC has a section `evaluate`."
)
@report_failures
def train(spec: str, overrides: Sequence[str], out: str | None, **options: Any) -> None:
    """Train SPEC and write a run; k=v are overrides."""
    from modkit.specs.load import load_spec
    from modkit.training.train import train

    if options["resume"] and options["overwrite"]:
        raise ValueError("train expects --resume or --overwrite, got both")
    if options["locked"] and not options["resume"]:
        raise ValueError("train expects --locked together with --resume: a new run has no lock yet")
    loaded = load_spec(spec)
    _train(
        lambda shown: train(loaded, out, overrides=overrides, progress=shown, **options),
        [*(word for word in get_words() if word not in ("--resume", "--overwrite")), "--resume"],
    )


def _join(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value or "")


def _expand(word: str) -> str:
    """Expands a word of the command line, or the value of an option `--name=value`."""
    option, sign, value = word.partition("=")
    return f"{option}={expand_home(value)}" if sign and option.startswith("--") else expand_home(word)


def _train(run: Callable[[Progress], Run], command: Sequence[str]) -> None:
    """Trains, and prints how it ended; `command` is what resumes it."""
    from modkit.cli.console import choose_display, open_terminal
    from modkit.evaluation.report import find_report
    from modkit.progress import show_progress
    from modkit.training.interruption import Stopped
    from modkit.training.trainer import TrainingError

    try:
        with choose_display(open_terminal()) as display, show_progress(display) as shown:
            made = run(shown)
    except Stopped as stopped:
        end(0, f"{stopped}; resume with: {shlex.join(['modkit', *command])}")
    except TrainingError as error:
        end(1, str(error))
    else:
        if find_rank() > 0:
            return
        if report := find_report(made):  # none of an earlier checkpoint, or of another sampler
            print_result(None, False, report.describe())
        pictures = sorted(made.samples.glob("*.png"))
        echo(f"run: {made.path}" + (f", pictures: {pictures[-1]}" if pictures else ""))


@app.command()
@click.argument("run", shell_complete=completion.complete_runs)
@click.argument("overrides", nargs=-1, shell_complete=completion.complete_overrides)
@click.option("--out", type=click.Path(), required=True, help="The new run's directory.")
@click.option("--from", "step", type=click.IntRange(min=0), help="Step of the checkpoint; the last one by default.")
@click.option("--steps", type=click.IntRange(min=0), help="Cap every stage at this many steps.")
@click.option(
    "--evaluate/--no-evaluate", default=True, help="Evaluate the model at the end if the spec has a section `evaluate`."
)
@report_failures
def branch(run: str, overrides: Sequence[str], out: str, **options: Any) -> None:
    """Train a new run that begins at a checkpoint of RUN, with changed settings."""
    from modkit.training.branch import branch

    steps = options["steps"]
    kept = [*([] if steps is None else ["--steps", str(steps)]), *([] if options["evaluate"] else ["--no-evaluate"])]
    _train(
        lambda shown: branch(run, out, overrides, progress=shown, **options),
        ["resume", out, *kept],
    )


@app.command(cls=SharedCommand)
@click.argument("run", shell_complete=completion.complete_runs)
@click.argument("overrides", nargs=-1, shell_complete=completion.complete_overrides)
@click.option("--steps", type=click.IntRange(min=0), help="Cap every stage at this many steps.")
@click.option("--locked", is_flag=True, help="Refuse parts that differ from the run's lock.")
@click.option(
    "--evaluate/--no-evaluate", default=True, help="Evaluate the model at the end if the spec has a section `evaluate`."
)
@report_failures
def resume(run: str, overrides: Sequence[str], **options: Any) -> None:
    """Train RUN further, from its last intact checkpoint; k=v change what may change in it."""
    from modkit.training.train import resume

    _train(lambda shown: resume(run, overrides, progress=shown, **options), get_words())


@app.command(cls=SharedCommand)
@click.argument("run", shell_complete=completion.complete_runs)
@click.argument("overrides", nargs=-1, shell_complete=completion.complete_overrides)
@click.option(
    "-n",
    "num",
    type=click.IntRange(min=1),
    help="Number of samples, 64 by default; with --grid, of each class, 8 by default.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise.")
@click.option(
    "--label", type=int, help="Class of every sample; of a model that reads several fields of classes, its `labels`."
)
@click.option(
    "--grid",
    metavar="classes|FIELD",
    help="One row a class, each column from the same noise; FIELD where the model reads several fields of classes.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples per batch.")
@click.option(
    "--out",
    type=click.Path(),
    help="FILE.png (a grid), .npy or .safetensors, or a new folder of numbered PNGs; samples/seed-SEED.png in the run "
    "by default.",
)
@click.option(
    "--noise",
    type=click.Path(),
    metavar="FILE.npy",
    help="Also write the noise that each sample is made of, as --out FILE.npy does the samples: pairs for reflow.",
)
@click.option("--locked", is_flag=True, help="Refuse parts and a torch that differ from the run's lock.")
@click.option("--precision", type=PRECISION, default="float32", show_default=True, help="What the model computes in.")
@click.option("--checkpoint", help="Checkpoint of RUN: `best` or a name; the last by default.")
@click.option("--compile", is_flag=True, help="Compile the networks, which pays when many samples are drawn.")
@report_failures
def sample(run: str, overrides: Sequence[str], out: str | None, noise: str | None, **options: Any) -> None:
    """Sample from RUN, with overrides such as sampler=dpm-solver++ sampler.steps=20 guidance.scale=3."""
    from modkit.building.addresses import open_run
    from modkit.publishing.samples import check_out, sample_run
    from modkit.runs.files import is_address, make_safe_name

    grid = options["grid"]
    name = f"seed-{options['seed']}" + (f"-{make_safe_name(grid, 50)}" if grid else "")
    path = check_out(Path(out) if out else Path(run) / "samples" / f"{name}.png")
    if noise and not (Path(noise).suffix == path.suffix == ".npy" and Path(noise) != path and not grid):
        raise ValueError(f"--noise expects a .npy file beside another of --out, and no --grid, got {noise} and {path}")
    if is_address(run) and not out:
        raise ValueError(f"sample expects --out for {run}, in which nothing is written")
    opened = open_run(run)
    made = sample_run(opened, overrides, noise=bool(noise), **options)
    if find_rank() > 0:
        return
    if noise:
        made.save_noise(noise)
    if out:
        made.save(path)
    else:
        opened.write_picture(path.stem, made.draw())
    echo(f"{len(made.x)} samples: {path}")
