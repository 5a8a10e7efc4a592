"""Runs to the Hub: what `modkit export` writes, with a card that the Hub accepts."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from huggingface_hub import HfApi, ModelCard

from modkit.publishing.export import export
from modkit.runs.run import Run
from modkit_hf.address import Address
from modkit_hf.card import make_card
from modkit_hf.failures import explain_failures
from modkit_hf.files import OPTIONAL, copy_run, warn_left

__all__ = ["Pushed", "push"]


class Pushed(NamedTuple):
    """What was pushed: the address of its commit, and the page that shows it."""

    address: str
    page: str


def push(
    run: Run | str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    revision: str = "main",
    license: str | None = None,
    checkpoint: str | None = None,
) -> Pushed:
    """Pushes a run to the Hub: weights, spec, lock, scores, pictures and a model card.

    A run that trains is exported first. Of one that `modkit export` wrote, the card keeps what its author has written.

    Args:
        run: The run, or its directory.
        repo: The repository, `USER/NAME`, which is made if there is none.
        private: Whether to make a private one.
        revision: The branch, which is made if there is none.
        license: The license, by the Hub's name for it (`mit`); by default what the card has, or else `unknown`.
        checkpoint: The checkpoint of the run: `best` or a name; the last by default.

    Returns:
        The address of the commit, and its page.

    Raises:
        ValueError: If the run cannot be exported, its card is not valid, the Hub refuses, or a repository is public
            that is to be private.
        OSError: If the Hub cannot be reached.
    """
    target = Address.parse(f"{repo.removeprefix('hf://')}@{revision}")
    run = run if isinstance(run, Run) else Run.open(run)
    with TemporaryDirectory(prefix="modkit-push-") as scratch:
        folder = Path(scratch) / "run"
        if run.exported:
            warn_left(str(run.path), copy_run(run.path, folder))
        else:
            export(run, folder, checkpoint=checkpoint)
        card = make_card(folder, target.repo, license)
        card.save(folder / "README.md")
        with explain_failures(target, "pushed"):
            _validate(card, target)
            return _upload(folder, target, private)


def _validate(card: ModelCard, target: Address) -> None:
    """Has the Hub check a card, before there is a repository."""
    try:
        card.validate()
    except ValueError as error:
        raise ValueError(f"{target} cannot be pushed: the Hub does not accept its card: {error}") from error


def _upload(folder: Path, target: Address, private: bool) -> Pushed:
    """Uploads a folder in place of the run that the branch holds."""
    api = HfApi()
    api.create_repo(target.repo, private=private or None, exist_ok=True)
    page = f"{api.endpoint}/{target.repo}"
    if private and not api.model_info(target.repo).private:
        raise ValueError(f"{target} cannot be pushed as private: the repository is public, see {page}/settings")
    if target.revision != "main":
        api.create_branch(target.repo, branch=target.revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=target.repo,
        folder_path=folder,
        revision=target.revision,
        commit_message="Push a run of modkit",
        delete_patterns=list(OPTIONAL),
    )
    return Pushed(str(target._replace(revision=commit.oid)), f"{page}/tree/{commit.oid}")
