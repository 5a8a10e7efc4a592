"""The study: two specs trained on the same budget of CPU time, sampled, scored, and timed in turn.

    OUT/budget.json            cost of a step, which gives the steps that fit
    OUT/runs/latent-0          a run a system and seed
    OUT/classifier.safetensors what the pictures are compared by
    OUT/pictures/latent-0.npy  samples; reconstructions-0.npy, held-out.npy beside them
    OUT/figures/latent-0.json  what they score;  OUT/speed/0.json what sampling costs
    OUT/study.json, report.md  all figures, and the tables with the verdict

All that is made is kept: started again, the study goes on where it was. Speed comes last, when nothing else runs.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import modkit
from examples.latent_or_pixels.verdict import Rows, claims, report
from examples.studies.budget import Trial, budgeted, one_thread
from modkit import Batch, Model, Rng, Spec
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
    specs = _specs(plan, out)
    with one_thread():
        for seed in range(plan.seeds):
            for system in SYSTEMS:
                say(f"training {system}-{seed}")
                _trained(specs[system], seed, out / "runs" / f"{system}-{seed}")
        rows, beside = _scores(plan, specs, out, say)
        for seed in range(plan.seeds):
            speed = _kept(out / "speed" / f"{seed}.json", partial(_timed, plan, out, seed))
            for system in SYSTEMS:
                rows[system][seed] |= speed[system]
    text = report(rows, beside)
    study = {"plan": asdict(plan), "rows": rows, "beside": beside, "claims": list(map(asdict, claims(rows)))}
    replace_file(out / "study.json", json.dumps(study, indent=1).encode())
    replace_file(out / "report.md", text.encode())
    return text


def _same(plan: Plan, out: Path) -> None:
    """Refuses to mix figures of two plans."""
    file, wanted = out / "plan.json", json.loads(json.dumps(asdict(plan)))
    if not file.exists():
        replace_file(file, json.dumps(wanted, indent=1).encode())
    elif (got := json.loads(file.read_bytes())) != wanted:
        other = [name for name in wanted if got.get(name) != wanted[name]]
        raise ValueError(f"carry_out expects {out} to hold a study of the same plan, got another {', '.join(other)}")


def _specs(plan: Plan, out: Path) -> dict[str, Spec]:
    """Both systems with as many steps as fit."""
    specs = {}
    for system in SYSTEMS:
        spec = modkit.load_spec(_HERE / f"{system}.yaml", plan.overrides.get(system, ()))
        shares = plan.shares if system == "latent" else None
        seconds = plan.seconds - plan.reserve[system]
        specs[system] = budgeted(spec, seconds, out / "budget.json", shares=shares, trial=plan.trial)
    return specs


def _trained(spec: Spec, seed: int, path: Path) -> None:
    """A run, begun, gone on with, or there already; the CPU time of one that was never interrupted is kept."""
    new, start = not path.exists(), time.process_time()
    run = modkit.train(spec.with_value("train.seed", seed), path, resume=not new, evaluate=False)
    clock = run.path / "cpu-seconds.json"
    if new:
        replace_file(clock, json.dumps({"CPU s": time.process_time() - start}).encode())


def _scores(
    plan: Plan, specs: Mapping[str, Spec], out: Path, say: Callable[[str], None]
) -> tuple[dict[str, list[dict[str, float]]], Rows]:
    """Figures of samples by system and seed, and of held-out pictures and their reconstructions."""
    data = _data(specs["pixels"])
    reference, held = (_pictures(data, split, plan.num) for split in ("train", "test"))
    compared = _Compared(reference, _classifier(plan, data, out))

    def scored(name: str, made: Callable[[], Tensor]) -> dict[str, float]:
        say(f"scoring {name}")
        file = out / "pictures" / f"{name}.npy"
        return _kept(out / "figures" / f"{name}.json", lambda: compared.figures(_drawn(file, made)))

    rows: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
    reconstructed = []
    for seed in range(plan.seeds):
        for system in SYSTEMS:
            path = out / "runs" / f"{system}-{seed}"
            model = modkit.load(path)
            clock = path / "cpu-seconds.json"
            costs = {"parameters": sum(one.numel() for one in model.parameters()), "NFE": _evaluations(model)}
            costs |= json.loads(clock.read_bytes()) if clock.exists() else {}
            rows[system].append({**costs, **scored(path.name, partial(_samples, model, plan.num))})
            if system == "latent":
                reconstructed.append(scored(f"reconstructions-{seed}", partial(_reconstructions, model, held)))
    beside = {
        "its first stage's reconstructions": reconstructed,
        "held-out pictures": [scored("held-out", lambda: held)],
    }
    return rows, beside


class _Compared:
    """Compares pictures with the training data by two kinds of features.

    Args:
        reference: Training pictures, `n c h w`.
        classifier: The features of the claims.
    """

    def __init__(self, reference: Tensor, classifier: FeatureExtractor) -> None:
        self._reference, self._classifier = reference, classifier

    def figures(self, pictures: Tensor) -> dict[str, float]:
        """`FD`, `precision`, …, and `FD (random-conv)`."""
        found = self._scores(pictures, self._classifier, ["fd", "prdc"])
        other = self._scores(pictures, "random-conv", ["fd"])
        return {**found, "FD (random-conv)": other["FD"]}

    def _scores(self, pictures: Tensor, features: FeatureExtractor | str, metrics: list[str]) -> dict[str, float]:
        made = modkit.evaluate(real=self._reference, fake=pictures, features=features, metrics=metrics)
        return {name.partition(" (")[0]: score.value for name, score in made.scores.items()}


def _timed(plan: Plan, out: Path, seed: int) -> dict[str, dict[str, float]]:
    """Samples per second of CPU time of both systems, timed in turn: the median."""
    models = {system: modkit.load(out / "runs" / f"{system}-{seed}") for system in SYSTEMS}
    seconds: dict[str, list[float]] = {system: [] for system in SYSTEMS}
    for number in range(plan.rounds + 1):
        for system, model in models.items():
            start = time.process_time()
            model.sample(plan.batch, seed=number, batch_size=plan.batch)
            seconds[system].append(time.process_time() - start)
    return {system: {"samples/s": plan.batch / statistics.median(spent[1:])} for system, spent in seconds.items()}


def _data(spec: Spec) -> Data:
    """The data set that a spec names."""
    node: Mapping[str, Any] = spec.tree["data"]  # type: ignore[assignment]  # a node, in both specs
    keywords = {**node}
    data: Data = modkit.find("data", keywords.pop("use")).load()(**keywords)
    return data


def _pictures(data: Data, split: str, num: int) -> Tensor:
    """So many pictures of a split, drawn without replacement, always the same."""
    order = Rng(0, "pictures", split).uniform("order", torch.empty(data.splits[split])).argsort()
    return data.read(split, order[:num].tolist(), Rng(0)).tensor


def _classifier(plan: Plan, data: Data, out: Path) -> FeatureExtractor:
    """A classifier of the data at their own size, trained once."""
    make, file = modkit.find("features", "classifier").load(), out / "classifier.safetensors"
    settings = {"name": "fashion-mnist", "size": data.x.shape[-1], "epochs": plan.epochs}
    if not file.exists():
        made = make(data.x, **settings)
        made.prepare(_batches(data))
        made.save(str(file))
    extractor: FeatureExtractor = make(data.x, weights=str(file), **settings)
    return extractor


def _batches(data: Data, size: int = 500) -> Iterator[Batch]:
    for start in range(0, data.splits["train"], size):
        yield data.read("train", range(start, min(start + size, data.splits["train"])), Rng(0))


def _samples(model: Model, num: int) -> Tensor:
    x = model.sample(num, seed=0)
    assert isinstance(x, Tensor)
    return x


def _reconstructions(model: Model, pictures: Tensor, size: int = 250) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.reconstruct(part) for part in torch.split(pictures, size)])


def _evaluations(model: Model) -> int:
    """How often the denoiser is called for a sample."""
    calls: list[None] = []
    network: nn.Module = getattr(model, "prior", model).network  # type: ignore[assignment]
    hook = network.register_forward_hook(lambda *_: calls.append(None))
    model.sample(1, seed=0)
    hook.remove()
    return len(calls)


def _drawn(file: Path, made: Callable[[], Tensor]) -> Tensor:
    """Pictures from a file, made where it is not there."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        with open(file.with_suffix(".part"), "wb") as part:
            np.save(part, made().clamp(-1, 1).numpy())
        file.with_suffix(".part").replace(file)
    return torch.from_numpy(np.load(file))


def _kept(file: Path, made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Figures from a file, made where it is not there."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        replace_file(file, json.dumps(made(), indent=1).encode())
    found: dict[str, Any] = json.loads(file.read_bytes())
    return found
