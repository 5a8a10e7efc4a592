r"""Export: the parts of a run that came from here, as folders that diffusers' own classes load.

    unet/  transformer/      networks                     vae/  vqvae/      autoencoders
    scheduler/               samplers

`UNet2DModel.from_pretrained(DIR / "unet")`, and so on; a second one of a kind is `unet_2`. An autoencoder under a
`latent` is given the scale that its prior saw, `scaling_factor = 1 / std` and `shift_factor = mean`. Other parts have
no counterpart: they are left out and named, and a run of nothing else is refused.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from modkit import Model, Run
from modkit.building.call import Call
from modkit.building.session import load_run
from modkit.models.latent import Latent
from modkit_diffusers.coders import PIECES, Coder
from modkit_diffusers.driven import Driven
from modkit_diffusers.networks import Network

__all__ = ["export"]

_logger = logging.getLogger(__name__)

_KINDS = ("network", "prior-network", "generator", "sampler", *PIECES)  # what diffusers has folders for
_AUTOENCODERS = {"AutoencoderKL": "vae", "VQModel": "vqvae"}
_PREDICTIONS = {
    "eps": "epsilon",
    "eps-learned": "epsilon",
    "x0": "sample",
    "v": "v_prediction",
    "flow": "flow_prediction",
}


def export(run: Run, out: Path, *, checkpoint: str | None) -> None:
    """Writes the parts of a run's model that came from here.

    Args:
        run: The run.
        out: An empty folder.
        checkpoint: Which weights: the last good ones, the `best`, or those of one by its name.

    Raises:
        ValueError: If no part came from here, an autoencoder is one only in part, or a part has been given something
            that diffusers has no place for.
    """
    made = load_run(run, checkpoint=checkpoint)
    calls, model = made.plan.calls, made.model.eval()
    saved = {path: part for path, call in calls.items() if (part := _exported(path, call, calls, model)) is not None}
    inside = tuple(f"{path}." for path in saved)
    named = {path: f"{path} ({call.part.name})" for path, call in calls.items() if call.part.kind in _KINDS}
    left = [name for path, name in named.items() if path not in saved and not path.startswith(inside)]
    if not saved:
        raise ValueError(f"{run.path} expects parts of diffusers to export, got {', '.join(left) or 'none'}")
    for name, part in saved.values():
        part.save_pretrained(_free(out, name))
    if left:
        _logger.warning("left out, being none of diffusers': %s", ", ".join(left))


def _exported(path: str, call: Call, calls: Mapping[str, Call], model: Model) -> tuple[str, Any] | None:
    """The folder's name and what diffusers saves in it, of a part that is one of diffusers' or holds one."""
    kind = call.part.kind
    if kind == "model":
        part = _at(model, path)
        pieces = [getattr(part, piece, None) for piece in PIECES]
        return _autoencoder(path, part, pieces, calls, model) if any(isinstance(one, Coder) for one in pieces) else None
    if kind not in ("network", "sampler"):
        return None
    part = _at(model, path)
    if isinstance(part, Driven):
        scheduler = part.scheduler()
        _check_prediction(path, scheduler.config.get("prediction_type"), calls)
        return "scheduler", scheduler
    if isinstance(part, Network):
        if part.join.codes is not None:
            raise ValueError(f"{path} cannot be exported: diffusers has no place for its embedding of codes")
        return part.place, part.bare
    return None


def _check_prediction(path: str, told: str | None, calls: Mapping[str, Call]) -> None:
    """A scheduler's folder says what the network predicts, which there must be true."""
    call = calls.get(f"{path.rpartition('.')[0]}.parametrization")
    if call is None or told is None or _PREDICTIONS.get(call.part.name) == told:
        return
    known = ", ".join(f"{theirs} for {ours}" for ours, theirs in _PREDICTIONS.items())
    raise ValueError(
        f"{path} cannot be exported: its prediction_type {told} is not what the network predicts, "
        f"{call.part.name}; expected {known}"
    )


def _autoencoder(path: str, whole: Any, pieces: list[Any], calls: Mapping[str, Call], model: Model) -> tuple[str, Any]:
    """The class of diffusers, put together from three parts."""
    source = min(piece.sources[0] for piece in pieces if isinstance(piece, Coder))
    for name, piece in zip(PIECES, pieces):
        if not isinstance(piece, Coder) or piece.sources[0] != source:
            place = f"{path}.{name}"
            used = calls[place].part.name if place in calls else type(piece).__name__
            raise ValueError(f"{place} cannot be exported: {source} expects all three parts of it, got {used}")
    config: dict[str, Any] = {}
    for name, piece in zip(PIECES, pieces):
        for key, value in piece.config.items():
            if config.setdefault(key, value) != value:
                raise ValueError(
                    f"{path}.{name} cannot be exported: {source} has one {key}, got {config[key]} and {value}"
                )
    bare = getattr(importlib.import_module("diffusers"), source)(**config | _scale(path, whole, config, model))
    bare.load_state_dict({key: value for piece in pieces for key, value in piece.state_dict().items()})
    return _AUTOENCODERS[source], bare.eval()


def _scale(path: str, whole: Any, config: Mapping[str, Any], model: Model) -> dict[str, float | None]:
    """How a prior saw the latent `continuous`: as it was told, or as the `latent` around it measured."""
    told, shift = config["scaling_factor"], config.get("shift_factor")
    around, _, name = path.rpartition(".")
    outer = _at(model, around) if name == "autoencoder" else None
    if isinstance(outer, Latent) and outer.at == "continuous" and outer.scale.known:
        mean, std = (float(outer.get_buffer(one)) for one in ("mean_0", "std_0"))
        if told is None or not _near(std, 1 / told) or not _near(mean, shift or 0.0):
            told, shift = 1 / std, mean or None
    if "shift_factor" in config:
        return {"scaling_factor": told or 1.0, "shift_factor": shift}
    if shift:
        _logger.warning("%s: VQModel has no shift_factor, its latents have a mean of %g", path, shift)
    return {"scaling_factor": told or 1.0}


def _at(model: Model, path: str) -> Any:
    """The part at a path of the spec."""
    place = path.partition(".")[2]
    return attrgetter(place)(model) if place else model


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b), 1e-6)


def _free(out: Path, name: str) -> Path:
    """A folder that is not there yet."""
    number = 1
    while (out / (name if number == 1 else f"{name}_{number}")).exists():
        number += 1
    return out / (name if number == 1 else f"{name}_{number}")
