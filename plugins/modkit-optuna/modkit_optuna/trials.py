"""The trials of a search: a source for a sweep, which reads what became of earlier trials in the sweep's directory."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from modkit.errors import SpecError
from modkit.evaluation.report import Report, find_report
from modkit.runs.run import Run
from modkit.specs.spec import Spec
from modkit.sweeps.source import TrialSource
from modkit.sweeps.trials import Trial, freeze
from modkit_optuna.domain import Domain
from modkit_optuna.history import Asked, History, read_history, read_trials
from modkit_optuna.objective import Value, read_objectives
from modkit_optuna.proposal import Past, Proposal, propose, should_prune

__all__ = ["Searched"]

_PAUSE = 1.0  # seconds between looks at what a training has watched
_logger = logging.getLogger(__name__)


class Searched(TrialSource):
    """The trials of a search.

    Args:
        spec: The spec that all trials start from.
        axes: What varies, sorted by path.
        objectives: Names of the objectives.
        num: Number of trials at the end.
        algorithm: Proposes values, see `modkit_optuna.proposal.ALGORITHMS`.
        seed: Seed of the proposals.
        prune: Whether trainings are ended by their watched scores.
    """

    def __init__(
        self, spec: Spec, axes: Sequence[Domain], objectives: Sequence[str], num: int, algorithm: str, seed: int,
        *, prune: bool,
    ) -> None:  # fmt: skip
        super().__init__(())
        self._spec, self._axes, self._objectives, self._num = spec, axes, objectives, num
        self._algorithm, self._seed, self._prune = algorithm, seed, prune
        self._history: History
        self._by_label: dict[str, Trial] = {}
        self._reports: dict[str, Report] = {}  # of complete trials, by label
        self._next: dict[str, float] = {}  # when the watched scores of a run are looked at next

    @property
    def pruned(self) -> Sequence[str]:
        """Names of the runs whose training was ended early."""
        return self._history.pruned

    @property
    def num(self) -> int:
        """Number of trials at the end, fewer if the axes have fewer values."""
        return self._num

    def begin(self, path: Path) -> list[Trial]:
        """Lists the trials of earlier starts."""
        self._history = read_history(path, [repr(axis) for axis in self._axes], self._spec.to_yaml())
        written = read_trials(path)
        for one in self._history.asked:
            if one.label is not None:
                self._by_label[one.label] = written.get(one.label) or self._freeze(one.proposal)
        return list(self._by_label.values())

    def ask(self, pending: Sequence[Trial]) -> Trial | None:
        """Proposes values that the spec does not refuse, and records them; None if there are enough trials."""
        self._read_reports(pending)
        while len(self._by_label) < self._num:
            scores = self.list_scores()
            better = [value.better for value in next(iter(scores.values()), {}).values()] or ["lower"]
            past = [self._judge(one, scores, pending) for one in self._history.asked]
            made = propose(self._axes, past, better, self._algorithm, self._seed)
            if made is None:
                return None
            try:
                trial = self._freeze(made)
            except SpecError as error:  # such values do not go together
                _logger.warning("left out %s: %s", made.values, error)
                self._history.add(Asked(made, None))
                continue
            untrained = self._list_untrained(pending)
            self._history.add(Asked(made, trial.label))
            self._by_label[trial.label] = trial
            if trial.run not in untrained:
                return trial
        return None

    def is_pruned(self, run: str) -> bool:
        """Tells whether a training is worse than the median of the others, by the scores that are watched."""
        if run in self._history.pruned or not self._prune or time.monotonic() < self._next.get(run, 0):
            return run in self._history.pruned
        self._next[run] = time.monotonic() + _PAUSE
        directions = {n: s.better for report in self._reports.values() for n, s in report.scores.items() if s.better}
        rows = self._read_watched(run)
        name = next((name for row in rows.values() for name in row if name in directions), None)
        if name is None:
            return False
        finished = {self._by_label[label].run for label in self._reports} - {run}
        kept = [_select(rows, name), *(_select(self._read_watched(other), name) for other in sorted(finished))]
        if not should_prune(kept[0], [one for one in kept[1:] if one], directions[name]):
            return False
        self._history.pruned.append(run)
        self._history.save()
        return True

    def list_scores(self) -> dict[str, dict[str, Value]]:
        """Lists the objectives of the trials that are complete, by label.

        Raises:
            ValueError: If trials were evaluated, and none of them has all objectives.
        """
        found = {label: read_objectives(report, self._objectives) for label, report in self._reports.items()}
        scores = {label: values for label, values in found.items() if len(values) == len(self._objectives)}
        if found and not scores:
            label = next(iter(found))
            missing = ", ".join(name for name in self._objectives if name not in found[label])
            titles = ", ".join(self._reports[label].scores)
            raise ValueError(f"search expects objectives that evaluations report, got {missing}; there are: {titles}")
        return scores

    def _read_reports(self, pending: Sequence[Trial]) -> None:
        """Reads the reports of trials that were not complete yet."""
        for label, trial in self._by_label.items():
            if label not in self._reports and trial not in pending:
                with contextlib.suppress(FileNotFoundError, ValueError):  # not trained, or damaged: evaluated again
                    run = Run.open(self._history.path / "runs" / trial.run)
                    report = find_report(run, trial.sampling, checkpoint=run.find_checkpoint_name())
                    if run.finished and report is not None:
                        self._reports[label] = report

    def _judge(self, one: Asked, scores: Mapping[str, Mapping[str, Value]], pending: Sequence[Trial]) -> Past:
        """Finds what became of a proposal."""
        if one.label is None:
            return Past(one.proposal, "failed")
        if one.label in scores:
            return Past(one.proposal, "complete", [value.value for value in scores[one.label].values()])
        trial = self._by_label[one.label]
        if trial in pending:
            return Past(one.proposal, "running")
        return Past(one.proposal, "pruned" if trial.run in self._history.pruned else "failed")

    def _list_untrained(self, pending: Sequence[Trial]) -> set[str]:
        """Lists the runs whose training was pruned, or has failed since the start and would fail again."""
        ended = [one for label, one in self._by_label.items() if label not in self._reports and one not in pending]
        return {one.run for one in ended if not self._is_trained(one.run)}

    def _is_trained(self, run: str) -> bool:
        try:
            return Run.open(self._history.path / "runs" / run).finished
        except ValueError:  # it has not begun
            return False

    def _read_watched(self, run: str) -> dict[int, Mapping[str, float]]:
        """Reads the scores of a training that are watched, by step."""
        try:
            rows = Run.open(self._history.path / "runs" / run).read_metrics()
        except ValueError:  # it has not begun
            return {}
        return {row["step"]: row["scores"] for row in rows if "scores" in row}

    def _freeze(self, made: Proposal) -> Trial:
        (trial,) = freeze(self._spec, [f"{path}={value}" for path, value in made.values.items()])
        return trial


def _select(rows: Mapping[int, Mapping[str, float]], name: str) -> dict[int, float]:
    return {step: row[name] for step, row in rows.items() if name in row}
