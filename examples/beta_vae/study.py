"""The study: systems trained from one spec, their rates, distortions and scores, and pictures of their latents.

    OUT/budget.json              cost of a step, where the plan is in seconds
    OUT/figures/beta-vae-0.json  what is measured of a run on held-out samples
    OUT/latents.svg, planes/     the latents of held-out samples by class, and the decoded plane, of two dimensions

`examples.studies.comparison` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

import modkit
from examples.beta_vae.plan import Plan, list_betas
from examples.beta_vae.verdict import claims, report
from examples.studies.budget import fit_budget
from examples.studies.comparison import compare, locate_run, make_slug
from modkit import Model, Rng, Run, Spec, evaluate_run
from modkit.building.session import open_data
from modkit.data import read_samples
from modkit.kinds import Data
from modkit.latent_space import Points, decode_plane, draw_points, encode_split, find_classes, find_space, save_grid
from modkit.models.model import evaluate_mode
from modkit.models.step import StepContext

__all__ = ["carry_out"]

_EXAMPLES = Path(__file__).parents[1]
_MOST = 10_000  # samples that are measured
_TERMS = {"rate": "kl", "distortion": "nll"}


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    betas, rivals = list_betas(plan), plan.rivals

    def make_spec(name: str) -> Spec:
        spec = modkit.load_spec(_EXAMPLES / plan.spec, (*plan.overrides, *plan.systems[name]))
        spec = spec.with_value("name", make_slug(name))
        if plan.seconds is None:
            return spec
        return fit_budget(spec, plan.seconds, out / "budget.json", trial=plan.trial)

    text = compare(
        plan,
        out,
        {name: plan.fewer.get(name, plan.seeds) for name in plan.systems},
        make_spec,
        partial(_measure, plan=plan),
        partial(claims, betas=betas, rivals=rivals),
        partial(report, betas=betas, rivals=rivals),
        say,
    )
    if plan.plane:
        _draw_latents(plan, out)
    return text


def _measure(path: Path, plan: Plan) -> dict[str, float]:
    """The scores of a run on held-out samples, with the rate and the distortion of these and of training samples."""
    run = Run.open(path)
    scores = evaluate_run(run, metrics=list(plan.metrics), num=plan.num, device="cpu").scores
    model, data = modkit.load(run), open_data(run)
    figures = {name: score.value for name, score in scores.items()}
    for split, prefix in (("train", ""), ("test", "held-out ")):
        num = min(plan.num or _MOST, data.splits[split])
        figures |= {f"{prefix}{name}": value for name, value in _measure_terms(model, data, split, num).items()}
    return figures


def _measure_terms(model: Model, data: Data, split: str, num: int) -> dict[str, float]:
    """The rate, KL(q(z | x) || p(z)), and the distortion, -log p(x | z), in nats a sample, by one draw of each z."""
    totals = dict.fromkeys(_TERMS, 0.0)
    for start in range(0, num, 256):
        batch = read_samples(data, split, range(start, min(start + 256, num)), Rng(0))
        with evaluate_mode(model):
            losses = model.losses("autoencoder", batch, StepContext(Rng("terms", start)))
        for name, term in _TERMS.items():
            totals[name] += float(losses[term]) * model.single.numel * len(batch) / num
    return totals


def _draw_latents(plan: Plan, out: Path) -> None:
    """Draws the latents of held-out samples of each system's first seed in one figure, and the decoded planes."""
    panels: dict[str, Points] = {}
    for name in plan.systems:
        run = Run.open(locate_run(out, name, 0))
        data, space = open_data(run), find_space(modkit.load(run))
        found = encode_split(space, data)
        panels[name] = Points(found.latents.flatten(1), _read_classes(found.fields, find_classes(data)))
        save_grid(out / "planes" / f"{make_slug(name)}.png", decode_plane(space, 16), space.x, 16)
    draw_points(out / "latents.svg", panels)


def _read_classes(fields: Mapping[str, torch.Tensor], name: str | None) -> torch.Tensor | None:
    return None if name is None else fields[name]
