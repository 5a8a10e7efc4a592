"""The study: DDGAN at each T and DDPM, trained for the same updates, scored at three checkpoints, then timed.

    OUT/plan.json                 what the study was started with
    OUT/runs/ddgan-4-0            a run a system and seed (T = 4, seed 0); ddpm-0
    OUT/figures/ddgan-4-0-00001000.json   what a checkpoint's samples score; ddpm-16-0-…: DDPM at 16 steps
    OUT/figures/floor.json        what held-out images score
    OUT/speed/0.json              seconds for 1,000 samples
    OUT/study.json, report.md     all figures, and the tables with the verdict

All that is made is kept: started again, the study goes on where it was. DDPM is sampled in 1, 2, 4, … steps until it is
no worse than DDGAN at T = 4. Speed comes last, when nothing else runs, in CPU time of one thread.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import modkit
from examples.ddgan_steps.verdict import COLUMNS, Rows, no_worse, recall_claim, report, speed_claim
from examples.studies.budget import one_thread
from modkit import Rng, Spec
from modkit.kinds import Data
from modkit.runs.files import replace_file

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
    """Does what is not done yet, and writes `study.json` and `report.md`.

    Args:
        plan: What is to be done.
        out: Where everything is kept.
        say: Is told what begins.

    Returns:
        The report: tables and verdict, Markdown.

    Raises:
        ValueError: If `out` holds a study of another plan.
    """
    out.mkdir(parents=True, exist_ok=True)
    _same(plan, out)
    study = _Study(plan, out, say)
    with one_thread():
        study.train()
        chains = study.chains()
        ddpm = study.ddpm(chains[4][plan.updates])
        floor = study.floor()
        seconds = study.seconds(max(ddpm))
    text = report(chains, ddpm, seconds, floor)
    claims = recall_claim(chains), speed_claim(chains[4][plan.updates], ddpm, seconds)
    figures = {"chains": chains, "ddpm": ddpm, "floor": floor, "seconds": seconds}
    whole = {"plan": asdict(plan), **figures, "claims": list(map(asdict, claims))}
    replace_file(out / "study.json", json.dumps(whole, indent=1).encode())
    replace_file(out / "report.md", text.encode())
    return text


class _Study:
    """A study in a directory, piece by piece."""

    def __init__(self, plan: Plan, out: Path, say: Callable[[str], None]) -> None:
        self.plan, self.out, self.say = plan, out, say

    def train(self) -> None:
        """Trains what is not trained, seeds outermost."""
        for seed in range(self.plan.seeds):
            for name in (*(f"ddgan-{steps}" for steps in self.plan.chains), "ddpm"):
                path = self.out / "runs" / f"{name}-{seed}"
                if (path / "status.json").exists():
                    continue
                self.say(f"training {path.name}")
                start = time.process_time()
                modkit.train(self._spec(name, seed), path, resume=True, evaluate=False)
                self.say(f"trained {path.name}: {time.process_time() - start:.0f} s of CPU time")

    def chains(self) -> dict[int, dict[int, Rows]]:
        """DDGAN's rows by T, then by update."""
        plan = self.plan
        return {
            steps: {update: self._rows(f"ddgan-{steps}", update) for update in plan.checkpoints}
            for steps in plan.chains
        }

    def ddpm(self, ddgan: Rows) -> dict[int, Rows]:
        """DDPM's rows by number of steps, until they are no worse than DDGAN's; all, where one seed cannot tell."""
        found: dict[int, Rows] = {}
        steps = 1
        while steps <= self.plan.most:
            found[steps] = self._rows("ddpm", self.plan.updates, steps)
            if no_worse(found[steps], ddgan):
                break
            steps *= 2
        return found

    def floor(self) -> dict[str, float]:
        """What real images that are not the reference's score against it, as many as there are."""

        def measured() -> dict[str, float]:
            real, others = self._real()
            count = min(len(real), len(others))
            return _scores(real[:count], others[:count])

        found: dict[str, float] = _kept(self.out / "figures" / "floor.json", measured)
        return found

    def seconds(self, steps: int) -> dict[str, list[float]]:
        """For 1,000 samples of DDGAN at T = 4 and of DDPM at so many steps, by seed."""
        rows = [
            _kept(self.out / "speed" / f"{seed}-{steps}.json", partial(self._timed, seed, steps))
            for seed in range(self.plan.seeds)
        ]
        return {name: [row[name] for row in rows] for name in ("ddgan", "ddpm")}

    def _spec(self, name: str, seed: int) -> Spec:
        family, _, steps = name.partition("-")
        every = f"train.checkpoints={{every: {self.plan.updates // _PARTS}, keep: 1000}}"
        given = [f"train.steps={self.plan.updates}", every, "train.samples.every=1000000", *self.plan.overrides]
        chain = [f"model.steps={steps}"] if steps else []
        return modkit.load_spec(_HERE / f"{family}.yaml", [*given, *chain, f"train.seed={seed}"])

    def _rows(self, name: str, update: int, steps: int | None = None) -> Rows:
        title = name if steps is None else f"{name}-{steps}"
        rows = []
        for seed in range(self.plan.seeds):
            path = self.out / "figures" / f"{title}-{seed}-{update:08d}.json"
            rows.append(_kept(path, partial(self._measured, name, seed, update, steps)))
            self.say(f"{path.stem}: " + ", ".join(f"{key} {value:.3g}" for key, value in rows[-1].items()))
        return rows

    def _measured(self, name: str, seed: int, update: int, steps: int | None) -> dict[str, float]:
        """Scores of a checkpoint's samples against training images, always the same."""
        overrides = [] if steps is None else [f"model.sampler.steps={steps}"]
        model = modkit.load(self.out / "runs" / f"{name}-{seed}", overrides, checkpoint=f"step-{update:08d}")
        (real, _), x = self._real(), model.sample(self.plan.num, seed=seed, batch_size=_BATCH)
        assert isinstance(x, Tensor)
        return _scores(real, x)

    def _timed(self, seed: int, steps: int) -> dict[str, float]:
        """Medians of the CPU time that 1,000 samples take, the two in turn."""
        runs = self.out / "runs"
        models = {
            "ddgan": modkit.load(runs / f"ddgan-4-{seed}"),
            "ddpm": modkit.load(runs / f"ddpm-{seed}", [f"model.sampler.steps={steps}"]),
        }
        clocks: dict[str, list[float]] = {name: [] for name in models}
        for number in range(self.plan.rounds):
            for name, model in models.items():
                start = time.process_time()
                model.sample(self.plan.num, seed=number, batch_size=_BATCH)
                clocks[name].append(time.process_time() - start)
        return {name: statistics.median(each) for name, each in clocks.items()}

    def _real(self) -> tuple[Tensor, Tensor]:
        """So many training images, always the same, and all real images that are not among them."""
        data: Data = modkit.find("data", "digits").load()(size=_SIZE)
        train, test = (data.read(split, range(data.splits[split]), Rng(0)).tensor for split in ("train", "test"))
        order = Rng(0, "real").uniform("order", torch.empty(len(train))).argsort()
        return train[order[: self.plan.num]], torch.cat([test, train[order[self.plan.num :]]])


def _scores(real: Tensor, fake: Tensor) -> dict[str, float]:
    found = modkit.evaluate(real=real, fake=fake, features="classifier:digits", metrics=["fd", "prdc"]).scores
    short = {name.split(" (")[0]: score.value for name, score in found.items()}
    return {name: short[name] for name in COLUMNS}


def _kept(path: Path, make: Callable[[], Mapping[str, Any]]) -> Any:
    """What a file holds; made and written where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(make()).encode())
    return json.loads(path.read_bytes())


def _same(plan: Plan, out: Path) -> None:
    path, settings = out / "plan.json", json.loads(json.dumps(asdict(plan)))
    found = _kept(path, lambda: settings)
    if found != settings:
        raise ValueError(f"the study expects {out} to hold one of {settings}, got {found}")
