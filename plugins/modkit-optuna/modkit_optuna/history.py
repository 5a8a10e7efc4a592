"""The history of a search: what it asked for, in `search.json` beside its sweep's files.

    {"format": 1, "axes": […], "spec": "…", "asked": [{"values": …, "attributes": …, "label": …}], "pruned": ["RUN"]}

`label` names the sweep's trial, and is null where the spec refuses the values. What became of a trial is read from its
run and its report. The file is replaced as a whole before anything that it names is started.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from modkit.runs.files import read_regular, replace_file
from modkit.sweeps.trials import Trial
from modkit_optuna.proposal import Proposal

__all__ = ["Asked", "History", "read_history", "read_trials"]

_FORMAT = 1
_SEARCH = "search.json"


@dataclass(frozen=True)
class Asked:
    """Values that were asked for, and the label of their trial; None if the spec refuses them."""

    proposal: Proposal
    label: str | None


@dataclass
class History:
    """What a search asked for.

    Args:
        path: The search's directory.
        axes: Its ranges, as text.
        spec: Its spec, YAML.
        asked: What was asked for, in order.
        pruned: Names of the runs whose training was ended early.
    """

    path: Path
    axes: Sequence[str]
    spec: str
    asked: list[Asked] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)

    def add(self, one: Asked) -> None:
        """Adds what was asked for, and writes the history."""
        self.asked.append(one)
        self.save()

    def save(self) -> None:
        """Writes the history."""
        asked = [{**asdict(one.proposal), "label": one.label} for one in self.asked]
        kept = {"format": _FORMAT, "axes": [*self.axes], "spec": self.spec, "asked": asked, "pruned": self.pruned}
        replace_file(self.path / _SEARCH, json.dumps(kept, indent=1).encode())


def read_history(path: Path, axes: Sequence[str], spec: str) -> History:
    """Reads the history of a search in its directory; an empty one if there is none.

    Args:
        path: The directory.
        axes: The ranges that the search has now, as text.
        spec: The spec that it has now, YAML.

    Raises:
        ValueError: If the directory holds a search with other ranges or another spec, a sweep, or a damaged file.
    """
    file = path / _SEARCH
    if not file.exists():
        if (path / "sweep.json").exists() and read_trials(path):
            raise ValueError(f"search expects a new directory or a search, got the sweep {path}")
        return History(path, axes, spec)
    try:
        kept = json.loads(read_regular(file))
        before = {name: kept[name] for name in ("format", "axes", "spec")}
        asked = [Asked(Proposal(one["values"], one["attributes"]), one["label"]) for one in kept["asked"]]
        pruned = list(kept["pruned"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error!r}") from error
    now = {"format": _FORMAT, "axes": [*axes], "spec": spec}
    if changed := [name for name in now if now[name] != before[name]]:
        raise ValueError(
            f"{path} holds a search of other {' and '.join(changed)}: they were {before[changed[0]]}, now "
            f"{now[changed[0]]}; choose another directory with --out"
        )
    return History(path, axes, spec, asked, pruned)


def read_trials(path: Path) -> dict[str, Trial]:
    """Reads the trials of a directory's sweep by their labels; none if there is no sweep.

    Raises:
        ValueError: If the file is damaged.
    """
    file = path / "sweep.json"
    if not file.exists():
        return {}
    try:
        kept = json.loads(read_regular(file))
        made = [
            Trial(one["label"], one["run"], kept["runs"][one["run"]], tuple(one["sampling"])) for one in kept["trials"]
        ]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error!r}") from error
    return {one.label: one for one in made}
