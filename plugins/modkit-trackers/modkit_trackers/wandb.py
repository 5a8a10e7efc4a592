"""Weights & Biases (https://docs.wandb.ai)."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Mapping
from typing import Any, Literal

from modkit import Run
from modkit.runs.files import make_own_folder
from modkit_trackers.tracker import Picture, Tracker, check_installed

__all__ = ["WandB"]


class WandB(Tracker):
    """Logs losses, scores, grids of samples and the resolved spec to Weights & Biases.

    Its files are in the folder `wandb` of the run. A resumed run goes on with its W&B run; of steps that are logged
    again W&B keeps the first values. Neither the terminal's output nor code or git's state is uploaded.

    Args:
        project: Project of the W&B run.
        entity: User or team that owns the project; None is W&B's default.
        mode: Whether to upload; `offline` keeps the files for `wandb sync`. None is W&B's own setting, `WANDB_MODE`.
        every: Losses are logged at steps divisible by this number.

    Raises:
        ImportError: If the package `wandb` is missing.
        ValueError: If `every` is below 1.
    """

    name = "wandb"

    def __init__(
        self,
        *,
        project: str = "modkit",
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        every: int = 1,
    ) -> None:
        super().__init__(every)
        check_installed("wandb", "WandB")
        self._project, self._entity, self._mode = project, entity, mode
        self._wandb: Any = None
        self._run: Any = None

    def begin(self, run: Run, config: Mapping[str, Any], identifier: str | None) -> str:
        """Begins a W&B run, or goes on with one."""
        self._wandb = importlib.import_module("wandb")
        make_own_folder(run.path / "wandb")  # where `init` would follow a link
        identifier = identifier or secrets.token_hex(8)
        self._run = self._wandb.init(
            project=self._project,
            entity=self._entity,
            mode=self._mode,
            id=identifier,
            name=run.path.resolve().name,
            resume="allow",
            dir=str(run.path),
            config=dict(config),
            allow_val_change=True,
            settings=self._wandb.Settings(console="off", save_code=False, disable_git=True),
        )
        return identifier

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers of a step."""
        self._run.log(dict(values), step=step)

    def show(self, step: int, name: str, picture: Picture) -> None:
        """Logs a picture of a step."""
        self._run.log({name: self._wandb.Image(picture)}, step=step)

    def end(self, *, failed: bool) -> None:
        """Ends the W&B run."""
        self._run.finish(exit_code=int(failed))
