"""The commands `modkit push` and `modkit pull`; what imports torch or huggingface_hub is imported when they run."""

from __future__ import annotations

import click

from modkit.cli.completion import complete_runs
from modkit.cli.failures import report_failures
from modkit.cli.output import echo

__all__ = ["pull_run", "push_run"]


@click.command("push")
@click.argument("run", shell_complete=complete_runs)
@click.argument("repo", metavar="USER/NAME")
@click.option("--private", is_flag=True, help="Make a private repository.")
@click.option("--revision", default="main", show_default=True, help="The branch, which is made if there is none.")
@click.option("--license", metavar="NAME", help="The license, by the Hub's name for it: mit, apache-2.0, cc-by-4.0, …")
@click.option("--checkpoint", help="Checkpoint of RUN: `best` or a name; the last by default.")
@report_failures
def push_run(run: str, repo: str, private: bool, revision: str, license: str | None, checkpoint: str | None) -> None:
    """Push RUN's model with a model card to Hugging Face's Hub."""
    from modkit_hf.uploading import push

    pushed = push(run, repo, private=private, revision=revision, license=license, checkpoint=checkpoint)
    echo(f"pushed: {pushed.address}, {pushed.page}")


@click.command("pull")
@click.argument("address", metavar="USER/NAME[@REVISION]")
@click.argument("folder", type=click.Path(), required=False)
@report_failures
def pull_run(address: str, folder: str | None) -> None:
    """Download a run of Hugging Face's Hub, and copy it to FOLDER; addresses hf://… in specs need no folder."""
    from modkit_hf.downloading import pull

    found = pull(address, folder)
    echo(f"pulled: {found.address}" + (f", run: {found.folder}" if folder else ""))
