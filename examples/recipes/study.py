"""The study: recipes and a plain loop, trained for the same CPU time, and how near their samples are to held-out ones.

    OUT/budget.json             cost of a step, which gives the steps that fit
    OUT/averages/edm2-unet      a run of a seed that is not judged, and what averages of its weights score
    OUT/figures/unet-0.json     what a run's samples score by two kinds of features, its weights, steps and CPU time

`examples.studies.comparison` has the rest.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import modkit
from examples.recipes.plain import Loop, Sampling, train
from examples.recipes.plan import AVERAGED, BASELINE, FLOOR, LATENT, RECIPES, Plan
from examples.recipes.verdict import FEATURES, judge, report
from examples.studies.budget import fit_budget, keep_costs, share_time, stages, time_sampling, time_step
from examples.studies.comparison import compare, make_slug
from examples.studies.folder import keep, train_run
from modkit import Model, Rng, Run, Spec
from modkit.data import read_samples
from modkit.evaluation.extractors import choose_features, make_extractor
from modkit.evaluation.scoring import prepare_extractor
from modkit.kinds import Data
from modkit.runs.files import hash_data
from modkit.runs.hold import Hold

__all__ = ["carry_out", "read_spec"]

_HERE = Path(__file__).parent
_BATCH = 250
_TIMED = 64  # samples, of which the time is taken


def read_spec(recipe: str, plan: Plan) -> Spec:
    """The spec of a recipe."""
    model = "model.prior" if recipe.startswith(LATENT) else "model"
    words = "train.samples.every=1000000", f"{model}.sampler.steps={plan.evaluations}"
    return modkit.load_spec(_HERE / f"{recipe}.yaml", [*words, *plan.overrides])


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print, *, recipes: Sequence[str] = RECIPES) -> str:
    """Does what is not done yet, and writes `study.json` and `report.md`.

    Args:
        plan: What is to be done.
        out: Where everything is kept.
        say: Prints a line of progress.
        recipes: The recipes that stand beside the baseline.

    Returns:
        The report: tables and verdict, Markdown.

    Raises:
        ValueError: If `out` holds a study of another plan.
    """
    data = _open_data(plan)

    def make_spec(recipe: str) -> Spec:
        spec = read_spec(recipe, plan)
        seconds = plan.seconds - (plan.reserve if recipe.startswith(LATENT) else 0)
        shares = share_time(len(stages(spec)))
        return fit_budget(spec, seconds, out / "budget.json", shares=shares, trial=plan.trial)

    def choose(recipe: str) -> float:
        spec = make_spec(recipe).with_value("train.seed", plan.chosen_on)
        return _choose_average(spec, out / "averages" / recipe, plan, data)

    return compare(
        plan,
        out,
        {FLOOR: 1, **dict.fromkeys((BASELINE, *recipes), plan.seeds)},
        make_spec,
        partial(_measure, plan=plan, data=data, choose=choose),
        judge,
        report,
        say,
        beside={FLOOR: _leave, BASELINE: partial(_train_plain, plan=plan, data=data, out=out)},
    )


def _open_data(plan: Plan) -> Data:
    """The data of all systems."""
    data = modkit.check(read_spec(RECIPES[0], plan)).data
    assert data is not None
    return data


def _leave(seed: int, path: Path) -> None:
    """Trains nothing."""


def _train_plain(seed: int, path: Path, plan: Plan, data: Data, out: Path) -> None:
    pictures = _read(data, "train", data.splits["train"])

    def measure() -> list[float]:
        return [time_step(Loop(plan.plain, pictures, 10**6, 0).step, plan.trial)]

    (cost,) = keep_costs(out / "budget.json", BASELINE, hash_data(repr(plan.plain)), measure)
    train(plan.plain, pictures, max(1, round(plan.seconds / cost)), seed, path)


def _choose_average(spec: Spec, folder: Path, plan: Plan, data: Data) -> float:
    """The length of the average whose samples are nearest to training pictures, on a run of its own."""

    def score_all() -> list[list[float]]:
        train_run(spec, folder / "run")
        run, num = Run.open(folder / "run"), plan.num // 2
        real = _read(data, "train", num)
        fakes = ((std, _draw(_load_average(run, std), num, seed=2)) for std in plan.lengths)
        return [[_score(real, fake, data)["FD"], std] for std, fake in fakes]

    folder.mkdir(parents=True, exist_ok=True)
    with Hold(folder, lambda: None):
        return float(min(keep(folder / "lengths.json", score_all))[1])


def _measure(path: Path, plan: Plan, data: Data, choose: Callable[[str], float]) -> dict[str, float]:
    """What a run's samples score against held-out pictures, always the same, its weights, steps and CPU time."""
    real = _read(data, "test", plan.num)
    system = path.name.rpartition("-")[0]
    if system == make_slug(FLOOR):
        return _score(real, _read(data, "train", plan.num), data)
    if system == BASELINE:
        model, costs = _open_plain(path, plan, data)
    else:
        model, costs = _open_run(path, choose(system) if system in AVERAGED else None)
    figures = _score(real, _draw(model, plan.num, seed=1), data)
    seconds = time_sampling({system: model}, _TIMED, rounds=3, batch_size=_TIMED)[system] / _TIMED
    return {**figures, **costs, "CPU s a sample": seconds}


def _open_plain(path: Path, plan: Plan, data: Data) -> tuple[Sampling | Model, dict[str, float]]:
    """The network of a run of the plain loop, and its costs."""
    model = Sampling.load(path, plan.plain, data.x.shape, plan.evaluations)
    found = json.loads((path / "training.json").read_bytes())
    return model, {"weights": _count(model.network), "steps": found["steps"], "CPU s": found["CPU s"]}


def _open_run(path: Path, std: float | None) -> tuple[Sampling | Model, dict[str, float]]:
    """The model of a run, with an average of a length if one is given, and its costs."""
    run = Run.open(path)
    model = modkit.load(run) if std is None else _load_average(run, std)
    costs = {"weights": _count(model), "steps": run.read_metrics()[-1]["step"]}
    if std is not None:
        costs["average"] = std
    if (clock := path / "cpu-seconds.json").exists():
        costs |= json.loads(clock.read_bytes())
    return model, costs


def _load_average(run: Run, std: float) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        return modkit.load(modkit.rebuild_average(run, std, Path(folder) / "average").path)


def _draw(model: Sampling | Model, num: int, seed: int) -> Tensor:
    x = model.sample(num, seed=seed, batch_size=_BATCH)
    assert isinstance(x, Tensor)
    return x


def _score(real: Tensor, fake: Tensor, data: Data) -> dict[str, float]:
    own = prepare_extractor(make_extractor(choose_features(data), data.x), data)
    figures: dict[str, float] = {}
    for features, end in zip((own, "random-conv"), FEATURES, strict=True):
        scores = modkit.evaluate(real=real, fake=fake, features=features, metrics=["fd", "prdc"]).scores
        figures |= {name.partition(" (")[0] + end: score.value for name, score in scores.items()}
    return figures


def _read(data: Data, split: str, num: int) -> Tensor:
    """So many pictures of a split, drawn without replacement, always the same."""
    order = Rng("recipes").uniform(split, torch.empty(data.splits[split])).argsort()[:num].tolist()
    return read_samples(data, split, order, Rng(0)).tensor


def _count(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
