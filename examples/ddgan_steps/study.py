"""The study: DDGAN at each T and DDPM, trained for the same updates, scored at three checkpoints, then timed.

    OUT/plan.json                 what the study was started with
    OUT/runs/ddgan-4-0            a run a system and seed (T = 4, seed 0); ddpm-0
    OUT/figures/ddgan-4-0-00001000.json   what a checkpoint's samples score; ddpm-16-0-…: DDPM at 16 steps
    OUT/figures/floor.json        what held-out images score
    OUT/speed-8.json              seconds for 1,000 samples, of DDPM in 8 steps
    OUT/study.json, report.md     all figures, and the tables with the verdict

Everything is kept: a study that was stopped resumes where it was, and processes with the same `OUT` share its runs and
their scores. DDPM is sampled in 1, 2, 4, … steps until it is no worse than DDGAN at T = 4. Speed comes last, when
nothing else runs, in CPU time of one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import modkit
from examples.ddgan_steps.verdict import COLUMNS, Rows, no_worse, recall_claim, report, speed_claim
from examples.studies.budget import one_thread, time_sampling
from examples.studies.folder import check_plan, write_report
from examples.studies.turns import keep_in_turns, train_in_turns
from modkit import Rng, Spec
from modkit.data import Digits

__all__ = ["Plan", "carry_out"]

_HERE = Path(__file__).parent
_PARTS = 3  # checkpoints of a run that are measured
_BATCH = 250  # samples at a time
_SIZE = 8  # of the digits, as both specs say


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        updates: Of each run, a multiple of 3: a third of them apart are the checkpoints that are measured.
        seeds: Number of runs a system.
        chains: T of each DDGAN; 1 and 4 among them.
        most: Steps that DDPM is sampled in at most, a power of two.
        num: Samples on each side of a score.
        rounds: Timings of each system, in turn.
        overrides: Of both specs.
    """

    updates: int = 1800
    seeds: int = 3
    chains: tuple[int, ...] = (1, 2, 4, 8)
    most: int = 1024
    num: int = 1000
    rounds: int = 3
    overrides: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.updates < _PARTS or self.updates % _PARTS or self.seeds < 1 or not {1, 4} <= set(self.chains):
            raise ValueError(
                f"Plan expects updates of a multiple of {_PARTS}, a seed or more and 1 and 4 among the chains, got "
                f"{self.updates}, {self.seeds} and {self.chains}"
            )

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The updates after which a run is measured."""
        return tuple(self.updates * part // _PARTS for part in range(1, _PARTS + 1))


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    check_plan(asdict(plan), out)
    study = _Study(plan, out, say)
    with one_thread():
        study.train()
        chains = {steps: study.rows(f"ddgan-{steps}", plan.checkpoints) for steps in plan.chains}
        ddpm = study.ddpm(chains[4][plan.updates])
        floor = study.floor()
        seconds = study.seconds(max(ddpm))
    text = report(chains, ddpm, seconds, floor)
    claims = recall_claim(chains), speed_claim(chains[4][plan.updates], ddpm, seconds)
    figures = {"chains": chains, "ddpm": ddpm, "floor": floor, "seconds": seconds}
    write_report(out, text, {"plan": asdict(plan), **figures, "claims": list(map(asdict, claims))})
    return text


class _Study:
    """A study in a directory, piece by piece."""

    def __init__(self, plan: Plan, out: Path, say: Callable[[str], None]) -> None:
        self.plan, self.out, self.say = plan, out, say

    def train(self) -> None:
        """Trains what is not trained, seeds outermost."""
        names = (*(f"ddgan-{steps}" for steps in self.plan.chains), "ddpm")
        specs = {f"{name}-{seed}": self._spec(name, seed) for seed in range(self.plan.seeds) for name in names}
        train_in_turns(self.out, specs, self.say)

    def ddpm(self, ddgan: Rows) -> dict[int, Rows]:
        """DDPM's rows by number of steps, until they are no worse than DDGAN's; all, where one seed cannot tell."""
        found: dict[int, Rows] = {}
        steps = 1
        while steps <= self.plan.most:
            found[steps] = self.rows("ddpm", [self.plan.updates], steps)[self.plan.updates]
            if no_worse(found[steps], ddgan):
                break
            steps *= 2
        return found

    def floor(self) -> dict[str, float]:
        """What real images that are not the reference's score against it, as many as there are."""
        return keep_in_turns(self.out, {"figures/floor": self._measure_floor})["figures/floor"]

    def seconds(self, steps: int) -> dict[str, list[float]]:
        """For 1,000 samples of DDGAN at T = 4 and of DDPM at so many steps, by seed."""
        name = f"speed-{steps}"
        return keep_in_turns(self.out, {name: partial(self._time, steps)})[name]

    def rows(self, name: str, updates: Sequence[int], steps: int | None = None) -> dict[int, Rows]:
        """What the samples of checkpoints score, by update, then by seed."""
        title, seeds = name if steps is None else f"{name}-{steps}", range(self.plan.seeds)
        files = {update: [f"figures/{title}-{seed}-{update:08d}" for seed in seeds] for update in updates}
        found = keep_in_turns(
            self.out,
            {
                file: partial(self._measure, file, name, seed, update, steps)
                for update, by_seed in files.items()
                for seed, file in enumerate(by_seed)
            },
        )
        return {update: [found[file] for file in by_seed] for update, by_seed in files.items()}

    def _spec(self, name: str, seed: int) -> Spec:
        family, _, steps = name.partition("-")
        every = f"train.checkpoints={{every: {self.plan.updates // _PARTS}, keep: 1000}}"
        given = [f"train.steps={self.plan.updates}", every, "train.samples.every=1000000", *self.plan.overrides]
        chain = [f"model.steps={steps}"] if steps else []
        return modkit.load_spec(_HERE / f"{family}.yaml", [*given, *chain, f"train.seed={seed}"])

    def _measure(self, file: str, name: str, seed: int, update: int, steps: int | None) -> dict[str, float]:
        """Scores of a checkpoint's samples against training images, always the same."""
        overrides = [] if steps is None else [f"model.sampler.steps={steps}"]
        model = modkit.load(self.out / "runs" / f"{name}-{seed}", overrides, checkpoint=f"step-{update:08d}")
        (real, _), x = self._real(), model.sample(self.plan.num, seed=seed, batch_size=_BATCH)
        assert isinstance(x, Tensor)
        scores = _scores(real, x)
        self.say(f"{file}: " + ", ".join(f"{key} {value:.3g}" for key, value in scores.items()))
        return scores

    def _measure_floor(self) -> dict[str, float]:
        real, others = self._real()
        count = min(len(real), len(others))
        return _scores(real[:count], others[:count])

    def _time(self, steps: int) -> dict[str, list[float]]:
        runs, rows = self.out / "runs", []
        for seed in range(self.plan.seeds):
            models = {
                "ddgan": modkit.load(runs / f"ddgan-4-{seed}"),
                "ddpm": modkit.load(runs / f"ddpm-{seed}", [f"model.sampler.steps={steps}"]),
            }
            rows.append(time_sampling(models, self.plan.num, rounds=self.plan.rounds, batch_size=_BATCH))
        return {name: [row[name] for row in rows] for name in ("ddgan", "ddpm")}

    def _real(self) -> tuple[Tensor, Tensor]:
        """So many training images, always the same, and all real images that are not among them."""
        data = Digits(size=_SIZE)
        train, test = (data.read(split, range(data.splits[split]), Rng(0)).tensor for split in ("train", "test"))
        order = Rng(0, "real").uniform("order", torch.empty(len(train))).argsort()
        return train[order[: self.plan.num]], torch.cat([test, train[order[self.plan.num :]]])


def _scores(real: Tensor, fake: Tensor) -> dict[str, float]:
    found = modkit.evaluate(real=real, fake=fake, features="classifier:digits", metrics=["fd", "prdc"]).scores
    short = {name.split(" (")[0]: score.value for name, score in found.items()}
    return {name: short[name] for name in COLUMNS}
