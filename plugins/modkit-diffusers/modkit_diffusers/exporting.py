r"""Exports the wrapped parts of a run as folders that diffusers' own classes load.

    unet/  transformer/      networks                     vae/  vqvae/      autoencoders
    scheduler/               samplers

`UNet2DModel.from_pretrained(DIR / "unet")` loads the first; a second one of a kind is `unet_2`. An autoencoder in a
`latent` gets the scale that its prior saw, `scaling_factor = 1 / std` and `shift_factor = mean`. Other parts have no
counterpart: they are omitted and named, and a run without any wrapped part is refused.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from modkit import Model, Run
from modkit.building.session import load_run
from modkit.models.latent import Latent
from modkit.part import Part
from modkit_diffusers.coders import PIECES, Coder
from modkit_diffusers.driven import Driven
from modkit_diffusers.networks import Network

__all__ = ["export"]

_logger = logging.getLogger(__name__)

_KINDS = ("network", "prior-network", "generator", "sampler", *PIECES)  # for which diffusers has folders
_AUTOENCODERS = {"AutoencoderKL": "vae", "VQModel": "vqvae"}
_PREDICTIONS = {
    "eps": "epsilon",
    "eps-learned": "epsilon",
    "x0": "sample",
    "v": "v_prediction",
    "flow": "flow_prediction",
}


def export(run: Run, out: Path, *, checkpoint: str | None) -> None:
    """Writes the wrapped parts of a run's model.

    Args:
        run: The run.
        out: An empty folder.
        checkpoint: The checkpoint of the weights by name, or `best`; by default the last one.

    Raises:
        ValueError: If no part is a wrapped one, an autoencoder is only partly so, or a part has something for which
            diffusers has no place.
    """
    made = load_run(run, checkpoint=checkpoint)
    parts, model = made.plan.parts, made.model.eval()
    saved = {path: one for path, part in parts.items() if (one := _convert(path, part, parts, model)) is not None}
    inside = tuple(f"{path}." for path in saved)
    named = {path: f"{path} ({part.name})" for path, part in parts.items() if part.kind in _KINDS}
    left = [name for path, name in named.items() if path not in saved and not path.startswith(inside)]
    if not saved:
        raise ValueError(f"{run.path} expects parts of diffusers to export, got {', '.join(left) or 'none'}")
    for name, part in saved.values():
        part.save_pretrained(_find_free(out, name))
    if left:
        _logger.warning("omitted, since they are not from diffusers: %s", ", ".join(left))


def _convert(path: str, part: Part, parts: Mapping[str, Part], model: Model) -> tuple[str, Any] | None:
    """Returns the folder's name and the object that diffusers saves in it, for a part that wraps one."""
    if part.kind not in ("model", "network", "sampler"):
        return None
    made = _find_part(model, path)
    if part.kind == "model":
        pieces = [getattr(made, piece, None) for piece in PIECES]
        return _assemble(path, made, pieces, parts, model) if any(isinstance(one, Coder) for one in pieces) else None
    if isinstance(made, Driven):
        _check_network(path, made, parts, model)
        return "scheduler", _make_scheduler(path, made)
    if isinstance(made, Network):
        if made.join.codes is not None:
            raise ValueError(f"{path} cannot be exported: diffusers has no place for its embedding of codes")
        return made.place, made.bare
    return None


def _make_scheduler(path: str, sampler: Driven) -> Any:
    """Makes the scheduler of a sampler; warns of what the sampler does and the scheduler does not."""
    scheduler = sampler.make_scheduler()
    name = type(scheduler).__name__
    if sampler.find_clipping() is None:
        bounds = sampler.x.range
        _logger.warning("%s: the run clips predictions of x_0 to %s, which %s cannot", path, bounds, name)
    if options := sampler.find_options():
        told = ", ".join(f"{key}={value}" for key, value in options.items())
        _logger.warning("%s: %s makes the run's samples only if each `step` is given %s", path, name, told)
    return scheduler


def _check_network(path: str, sampler: Driven, parts: Mapping[str, Part], model: Model) -> None:
    """Checks that the network predicts what the scheduler expects, from the scheduler's own timesteps and samples."""
    around = path.rpartition(".")[0]
    while around in parts and parts[around].kind == "sampler":  # which wraps this one
        around = around.rpartition(".")[0]
    place = f"{around}.parametrization"
    part = parts.get(place)
    if part is None:
        return
    if _PREDICTIONS.get(part.name) != sampler.prediction:
        known = ", ".join(f"{theirs} for {ours}" for ours, theirs in _PREDICTIONS.items())
        raise ValueError(
            f"{path} cannot be exported: the prediction that it expects, {sampler.prediction}, is not what the network "
            f"predicts, {part.name}; expected {known}"
        )
    scheduler, parametrization = sampler.make_scheduler(), _find_part(model, place)
    t = sampler.find_times(scheduler)
    coefficients = parametrization.coefficients(t, sampler.schedule.scales(t))
    one = torch.ones(len(t), dtype=torch.float64)
    x_in, time = parametrization.inputs(one, coefficients)
    for name, theirs, ours in (("time", scheduler.timesteps.to(time), time), ("input", one.to(x_in), x_in)):
        if not torch.allclose(theirs, ours, rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"{path} cannot be exported: {type(scheduler).__name__} would give the network another {name} than it "
                f"was trained with, {float(theirs[0]):g} where it was {float(ours[0]):g}; expected a schedule with a "
                f"table (linear, cosine), or the schedule flow and the parametrization flow"
            )


def _assemble(path: str, whole: Any, pieces: list[Any], parts: Mapping[str, Part], model: Model) -> tuple[str, Any]:
    """Assembles diffusers' class from three parts."""
    source = min(piece.origins[0] for piece in pieces if isinstance(piece, Coder))
    for name, piece in zip(PIECES, pieces):
        if not isinstance(piece, Coder) or piece.origins[0] != source:
            place = f"{path}.{name}"
            used = parts[place].name if place in parts else type(piece).__name__
            raise ValueError(f"{place} cannot be exported: {source} expects all three parts of it, got {used}")
    config: dict[str, Any] = {}
    for name, piece in zip(PIECES, pieces):
        for key, value in piece.config.items():
            if config.setdefault(key, value) != value:
                raise ValueError(
                    f"{path}.{name} cannot be exported: {source} has one {key}, got {config[key]} and {value}"
                )
    bare = getattr(importlib.import_module("diffusers"), source)(**config | _find_scale(path, whole, config, model))
    bare.load_state_dict({key: value for piece in pieces for key, value in piece.state_dict().items()})
    return _AUTOENCODERS[source], bare.eval()


def _find_scale(path: str, whole: Any, config: Mapping[str, Any], model: Model) -> dict[str, float | None]:
    """Finds the scale at which a prior saw the latent `continuous`: as configured, or as measured by its `latent`."""
    scale, shift = config["scaling_factor"], config.get("shift_factor")
    around, _, name = path.rpartition(".")
    outer = _find_part(model, around) if name == "autoencoder" else None
    if isinstance(outer, Latent) and outer.at == "continuous" and outer.scale.known:
        moments = outer.scale.get_moments(0)
        if (num := moments[0].numel()) > 1:
            raise ValueError(
                f"{path} cannot be exported: diffusers scales a latent by one factor, got a mean and a deviation for "
                f"each of {num} channels; expected {around} without `by_channel`"
            )
        mean, std = map(float, moments)
        if scale is None or not _is_near(std, 1 / scale) or not _is_near(mean, shift or 0.0):
            scale, shift = 1 / std, mean or None
    if "shift_factor" in config:
        return {"scaling_factor": scale or 1.0, "shift_factor": shift}
    if shift:
        _logger.warning("%s: VQModel has no shift_factor, its latents have a mean of %g", path, shift)
    return {"scaling_factor": scale or 1.0}


def _find_part(model: Model, path: str) -> Any:
    """Returns the part at a path of the spec."""
    place = path.partition(".")[2]
    return attrgetter(place)(model) if place else model


def _is_near(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b), 1e-6)


def _find_free(out: Path, name: str) -> Path:
    """Returns a folder that does not exist yet."""
    number = 1
    while (out / (name if number == 1 else f"{name}_{number}")).exists():
        number += 1
    return out / (name if number == 1 else f"{name}_{number}")
