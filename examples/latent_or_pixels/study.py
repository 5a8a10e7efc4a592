"""The study: two specs trained on the same budget of CPU time, sampled, scored, and timed in turn.

    OUT/budget.json            cost of a step, which gives the steps that fit
    OUT/runs/latent-0          a run a system and seed
    OUT/classifier.safetensors what the pictures are compared by
    OUT/pictures/latent-0.npy  samples; reconstructions-0.npy, held-out.npy beside them
    OUT/figures/latent-0.json  what they score, and what the run costs;  OUT/speed.json what sampling costs
    OUT/study.json, report.md  all figures, and the tables with the verdict

Everything is kept: a study that was stopped resumes where it was, and processes with the same `OUT` share its runs and
their scores. Speed comes last, when nothing else runs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import modkit
from examples.latent_or_pixels.verdict import claims, report
from examples.studies.budget import Trial, fit_budget, one_thread, time_sampling
from examples.studies.folder import check_plan, write_report
from examples.studies.turns import keep_in_turns, take_turns, train_in_turns
from modkit import Model, Rng, Run, Spec
from modkit.building.session import open_data
from modkit.data.loader import read_in_order
from modkit.features.classifier import Classifier
from modkit.kinds import Data, FeatureExtractor
from modkit.runs.files import replace_file

__all__ = ["SYSTEMS", "Plan", "carry_out"]

SYSTEMS = ("latent", "pixels")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        seconds: CPU time of a run's training, all stages together.
        reserve: By system, the part of it that is left for what is no step: measuring the latent's scale, checkpoints.
        shares: Shares of the first stage and of the prior in the latent system's time.
        seeds: Number of runs a system.
        num: Samples on each side of a score.
        rounds: Timings of each system, in turn.
        batch: Samples of a timing.
        epochs: Passes in which the classifier is trained that pictures are compared by.
        trial: How the cost of a step is measured.
        overrides: Of the specs, by system.
    """

    seconds: float = 900.0
    reserve: Mapping[str, float] = field(default_factory=lambda: {"latent": 40.0, "pixels": 5.0})
    shares: tuple[float, float] = (1.0, 2.0)
    seeds: int = 3
    num: int = 1000
    rounds: int = 5
    batch: int = 64
    epochs: int = 10
    trial: Trial = Trial()
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    check_plan(asdict(plan), out)
    specs, seeds = _fit_specs(plan, out), range(plan.seeds)
    with one_thread():
        runs = {f"{name}-{seed}": specs[name].with_value("train.seed", seed) for seed in seeds for name in SYSTEMS}
        train_in_turns(out, runs, say)
        figures = _score(plan, out, say)
        speed = keep_in_turns(out, {"speed": partial(_time, plan, out)})["speed"]
    rows = {
        name: [{**figures[f"{name}-{seed}"], "samples/s": plan.batch / speed[name][seed]} for seed in seeds]
        for name in SYSTEMS
    }
    beside = {
        "its first stage's reconstructions": [figures[f"reconstructions-{seed}"] for seed in seeds],
        "held-out pictures": [figures["held-out"]],
    }
    text = report(rows, beside)
    found = {"rows": rows, "beside": beside, "claims": list(map(asdict, claims(rows)))}
    write_report(out, text, {"plan": asdict(plan), **found})
    return text


def _fit_specs(plan: Plan, out: Path) -> dict[str, Spec]:
    """Both systems with as many steps as fit."""
    specs = {}
    for system in SYSTEMS:
        spec = modkit.load_spec(_HERE / f"{system}.yaml", plan.overrides.get(system, ()))
        shares = plan.shares if system == "latent" else None
        seconds = plan.seconds - plan.reserve[system]
        specs[system] = fit_budget(spec, seconds, out / "budget.json", shares=shares, trial=plan.trial)
    return specs


def _score(plan: Plan, out: Path, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Figures of samples by run, of held-out pictures and their reconstructions."""
    data = open_data(Run.open(out / "runs" / "pixels-0"))
    reference, held = (_read_pictures(data, split, plan.num) for split in ("train", "test"))
    take_turns(out / "turns", ["classifier"], lambda _: _classifier(plan, data, out))
    classifier = _classifier(plan, data, out)

    def score(name: str, draw: Callable[[], Tensor]) -> dict[str, float]:
        say(f"scoring {name}")
        return _compare(reference, _drawn(out / "pictures" / f"{name}.npy", draw), classifier)

    def measure(run: str) -> dict[str, float]:
        path = out / "runs" / run
        model, clock = modkit.load(path), path / "cpu-seconds.json"
        costs = {"parameters": sum(one.numel() for one in model.parameters()), "NFE": _count_evaluations(model)}
        costs |= json.loads(clock.read_bytes()) if clock.exists() else {}
        return {**costs, **score(run, partial(_sample, model, plan.num))}

    def reconstruct(seed: int) -> dict[str, float]:
        model = modkit.load(out / "runs" / f"latent-{seed}")
        return score(f"reconstructions-{seed}", partial(_reconstruct, model, held))

    tasks: dict[str, Callable[[], dict[str, float]]] = {}
    for seed in range(plan.seeds):
        tasks |= {f"{system}-{seed}": partial(measure, f"{system}-{seed}") for system in SYSTEMS}
        tasks[f"reconstructions-{seed}"] = partial(reconstruct, seed)
    tasks["held-out"] = partial(score, "held-out", lambda: held)
    found = keep_in_turns(out, {f"figures/{name}": task for name, task in tasks.items()})
    return {name: found[f"figures/{name}"] for name in tasks}


def _time(plan: Plan, out: Path) -> dict[str, list[float]]:
    """CPU seconds of a batch of samples of each system, by seed."""
    rows = []
    for seed in range(plan.seeds):
        models = {system: modkit.load(out / "runs" / f"{system}-{seed}") for system in SYSTEMS}
        rows.append(time_sampling(models, plan.batch, rounds=plan.rounds, batch_size=plan.batch))
    return {system: [row[system] for row in rows] for system in SYSTEMS}


def _compare(reference: Tensor, pictures: Tensor, classifier: FeatureExtractor) -> dict[str, float]:
    """`FD`, `precision`, … of pictures by the classifier's features, and `FD (random-conv)` by random ones."""
    chosen: list[tuple[FeatureExtractor | str, list[str]]] = [(classifier, ["fd", "prdc"]), ("random-conv", ["fd"])]
    found, other = (
        modkit.evaluate(real=reference, fake=pictures, features=features, metrics=metrics).scores
        for features, metrics in chosen
    )
    figures = {name.partition(" (")[0]: score.value for name, score in found.items()}
    return {**figures, "FD (random-conv)": next(iter(other.values())).value}


def _read_pictures(data: Data, split: str, num: int) -> Tensor:
    """So many pictures of a split, drawn without replacement, always the same."""
    order = Rng(0, "pictures", split).uniform("order", torch.empty(data.splits[split])).argsort()
    return data.read(split, order[:num].tolist(), Rng(0)).tensor


def _classifier(plan: Plan, data: Data, out: Path) -> FeatureExtractor:
    """A classifier of the data at their own size, trained once."""
    file = out / "classifier.safetensors"
    settings: dict[str, Any] = {"name": "fashion-mnist", "size": data.x.shape[-1], "epochs": plan.epochs}
    if not file.exists():
        made = Classifier(data.x, **settings)
        made.prepare(list(read_in_order(data, "train", 500, Rng(0))))
        made.save(str(file))
    return Classifier(data.x, weights=str(file), **settings)


def _sample(model: Model, num: int) -> Tensor:
    x = model.sample(num, seed=0)
    assert isinstance(x, Tensor)
    return x


def _reconstruct(model: Model, pictures: Tensor, size: int = 250) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.reconstruct(part) for part in torch.split(pictures, size)])


def _count_evaluations(model: Model) -> int:
    """How often the denoiser is called for a sample."""
    calls: list[None] = []
    network: nn.Module = getattr(model, "prior", model).network  # type: ignore[assignment]
    hook = network.register_forward_hook(lambda *_: calls.append(None))
    model.sample(1, seed=0)
    hook.remove()
    return len(calls)


def _drawn(file: Path, draw: Callable[[], Tensor]) -> Tensor:
    """Pictures from a file, drawn where it is not there."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        content = io.BytesIO()
        np.save(content, draw().clamp(-1, 1).numpy())
        replace_file(file, content.getvalue())
    return torch.from_numpy(np.load(file))
