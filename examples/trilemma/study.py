"""The study at work: first all training, then all drawing and measuring, so that speeds are measured alone.

    OUT/plan.json          what it was started with
    OUT/steps.json         CPU time of a step by system, measured once
    OUT/runs/NAME-SEED/    the runs, each with its reports and the CPU time of its training
    OUT/samples/           pictures of samples
    OUT/floor-NUM.json     what real images score
    OUT/study.json         what `report` makes of it, beside study.md, trilemma.svg and comparison.html

It may be killed at any instant and started again: a finished run is kept, an unfinished one resumes from its last
checkpoint, and a report is written once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import modkit
from examples.studies.budget import fit_budget, one_thread, share_time, stages
from examples.studies.folder import check_plan, train_run
from examples.trilemma.measure import measure
from examples.trilemma.plan import Plan
from modkit import Run, Spec
from modkit.evaluation.report import Report, locate_report

__all__ = ["Study"]

_EACH = 20.0  # seconds between lines of progress


class Study:
    """A study in a directory.

    Args:
        plan: What is done.
        out: Where.
        say: Prints a line of progress.

    Raises:
        ValueError: If the directory holds a study of another plan.
    """

    def __init__(self, plan: Plan, out: Path, say: Callable[[str], None] = print) -> None:
        self.plan, self.out, self.say = plan, out, say
        self._fitted: dict[str, Spec] = {}
        check_plan(plan.settings(), out)

    def parameters(self) -> dict[str, int]:
        """Parameters by system, critics included."""
        return {name: modkit.check(spec).parameters for name, spec in self.plan.specs.items()}

    def spec(self, system: str, seed: int) -> Spec:
        """The spec of a run: a system's, with the steps that its budget allows."""
        if system not in self._fitted:
            spec, file = self.plan.specs[system], self.out / "steps.json"
            shares = share_time(len(stages(spec)))
            self._fitted[system] = fit_budget(spec, self.plan.seconds, file, shares=shares, trial=self.plan.trial)
        return self._fitted[system].with_value("train.seed", seed)

    def run(self, system: str, seed: int) -> Path:
        """Where a run is kept."""
        return self.out / "runs" / f"{system}-{seed}"

    def pairs(self) -> Iterator[tuple[str, int]]:
        """Systems and seeds in the order of training, seeds outermost."""
        for seed in self.plan.seeds:
            for system in self.plan.specs:
                yield system, seed

    def train(self) -> None:
        """Trains what is not trained."""
        with one_thread():
            for system in self.plan.specs:
                steps = ", ".join(str(stage["steps"]) for stage in stages(self.spec(system, 0)))
                self.say(f"{system}: {steps} steps in {self.plan.seconds:.0f} s")
            todo = list(self.pairs())
            for number, (system, seed) in enumerate(todo, 1):
                self._train(system, seed, f"train {number}/{len(todo)} {system} seed {seed}")

    def evaluate(self) -> None:
        """Draws from and measures what is not measured."""
        todo = [(row, seed) for seed in self.plan.seeds for row in self.plan.rows]
        with one_thread():
            for number, (row, seed) in enumerate(todo, 1):
                run = Run.open(self.run(row.system, seed))
                path = locate_report(run.path, row.overrides)
                if path.exists() and Report.from_json(path.read_bytes()).checkpoint == run.find_checkpoint().name:
                    continue
                start = time.perf_counter()
                report = measure(self.plan, row, run, seed, self.out)
                report.save(run.path)
                said = ", ".join(f"{name.split(' (')[0]} {score.value:.3g}" for name, score in report.scores.items())
                took = time.perf_counter() - start
                self.say(f"evaluate {number}/{len(todo)} {row.name} seed {seed}: {took:.0f} s: {said}")

    def reports(self) -> dict[str, list[Report]]:
        """The reports by row, one a seed; rows without all of them are left out."""
        paths = {
            row.name: [locate_report(self.run(row.system, seed), row.overrides) for seed in self.plan.seeds]
            for row in self.plan.rows
        }
        whole = {name: found for name, found in paths.items() if all(path.exists() for path in found)}
        return {name: [Report.from_json(path.read_bytes()) for path in found] for name, found in whole.items()}

    def clocks(self) -> dict[str, list[float]]:
        """CPU seconds that trainings took by system, those only that were never interrupted."""
        found: dict[str, list[float]] = {}
        for system, seed in self.pairs():
            if (path := self.run(system, seed) / "cpu-seconds.json").exists():
                found.setdefault(system, []).append(json.loads(path.read_bytes())["CPU s"])
        return found

    def _train(self, system: str, seed: int, title: str) -> None:
        spent = train_run(self.spec(system, seed), self.run(system, seed), _Lines(title, self.say))
        if spent is not None:
            self.say(f"{title}: done in {spent:.0f} s of CPU time")


class _Lines:
    """A `Progress` that says a line now and then."""

    def __init__(self, title: str, say: Callable[[str], None]) -> None:
        self._title, self._say = title, say
        self._name, self._done, self._steps = "", 0, 0
        self._last = time.perf_counter()

    def begin_stage(self, name: str, done: int, steps: int) -> None:
        """A stage begins, or goes on."""
        self._name, self._done, self._steps = name, done, steps
        self._tell({})

    def step(self, losses: Mapping[str, float] | None) -> None:
        """A step is done."""
        self._done += 1
        if losses and (time.perf_counter() - self._last > _EACH or self._done == self._steps):
            self._tell(losses)

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._say(f"{self._title}: {text}")

    def _tell(self, losses: Mapping[str, float]) -> None:
        self._last = time.perf_counter()
        said = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
        self._say(f"{self._title}: {self._name} {self._done}/{self._steps}{': ' if said else ''}{said}")
