r"""EDM's networks, preconditioning and sampler beside ours: `python -m faithful.edm --peer PATH`.

Preconditioned networks are perturbed and pickled by their code into a snapshot, which our reader reads and `convert`
converts; inner networks and denoisers are compared, then trajectories of Heun's method under one noise.
"""

from __future__ import annotations

import argparse
import importlib
import math
import pickle
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modkit_checkpoints.edm import convert
from modkit_checkpoints.pickled import read
from torch import Tensor

from faithful.measure import TOLERANCE, Figure, compare, generator, perturbed, table
from faithful.peer import commit, pieces
from modkit import Cond, Spec, build, sample
from modkit.rng import Rng
from modkit.samplers.heun import Heun

_SONG = {"model_type": "SongUNet", "model_channels": 16, "num_blocks": 1, "attn_resolutions": [], "dropout": 0.1}
_DHARIWAL = {"model_type": "DhariwalUNet", "model_channels": 64, "num_blocks": 1, "attn_resolutions": []}
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDPM++, classes, augmentation, attention at 8": (
        "EDMPrecond",
        {**_SONG, "channel_mult": [2, 2], "attn_resolutions": [8], "label_dim": 5, "augment_dim": 9},
    ),
    "NCSN++: Fourier, filter, residual": (
        "EDMPrecond",
        {
            **_SONG, "channel_mult": [1, 2, 2], "attn_resolutions": [16, 4], "embedding_type": "fourier",
            "channel_mult_noise": 2, "encoder_type": "residual", "resample_filter": [1, 3, 3, 1], "num_blocks": 2,
        },
    ),
    "filter, skips down and up, grey": (
        "EDMPrecond",
        {
            **_SONG, "channel_mult": [1, 2], "encoder_type": "skip", "decoder_type": "skip", "img_channels": 1,
            "resample_filter": [1, 3, 3, 1],
        },
    ),
    "no filter, residual down, skips up, classes": (
        "EDMPrecond",
        {**_SONG, "channel_mult": [1, 1, 2], "encoder_type": "residual", "decoder_type": "skip", "label_dim": 3},
    ),
    "classes, augmentation, attention at 8": (
        "EDMPrecond",
        {**_DHARIWAL, "channel_mult": [1, 2], "attn_resolutions": [8], "label_dim": 5, "augment_dim": 9},
    ),
    "three levels, sigma_data 1": (
        "EDMPrecond",
        {**_DHARIWAL, "channel_mult": [1, 1, 2], "sigma_data": 1.0, "channel_mult_emb": 2, "num_blocks": 2},
    ),
    "iDDPM, classes, attention at 16 and 8": (
        "iDDPMPrecond",
        {**_DHARIWAL, "channel_mult": [1, 2], "attn_resolutions": [16, 8], "label_dim": 4},
    ),
}  # fmt: skip


def main() -> None:
    """Prints every figure, and the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", type=Path, required=True)
    peer = parser.parse_args().peer
    torch.set_num_threads(1)
    torch.manual_seed(0)
    networks, figures, denoisers, lines = _modules(peer), [], [], []
    sampler = pieces(peer / "generate.py", {"edm_sampler"}, {"torch": torch, "np": np}).edm_sampler
    with torch.no_grad():
        for name, (kind, options) in _NETWORKS.items():
            for size in (16, 32):
                theirs, model = _pair(networks, kind, options, size)
                figures.append(_network(name, options, size, theirs, model))
                denoisers.append((name, size, _denoiser(theirs, model, options)))
                if kind == "EDMPrecond" and size == 16:
                    lines += _trajectories(name, sampler, theirs, model, options)
    print(f"\nEDM {commit(peer)}\n\n{table(figures)}\n")
    print(*(f"denoiser, {name}, {size}x{size}: {error:.1e}" for name, size, error in denoisers), *lines, sep="\n")
    assert max(error for _, _, error in denoisers) <= TOLERANCE


def _modules(peer: Path) -> Any:
    """Their networks; of their library, only a dict with attributes is needed."""
    library: Any = types.ModuleType("dnnlib")
    library.EasyDict = type("EasyDict", (dict,), {"__getattr__": dict.__getitem__, "__setattr__": dict.__setitem__})
    sys.modules.setdefault("dnnlib", library)
    if str(peer) not in sys.path:
        sys.path.insert(0, str(peer))
    return importlib.import_module("training.networks")


def _pair(networks: Any, kind: str, options: dict[str, Any], size: int) -> tuple[Any, Any]:
    """Theirs, perturbed, and ours, read from the snapshot that their code pickles."""
    given = {"img_resolution": size, "img_channels": 3, "label_dim": 0, **options}
    theirs = perturbed(getattr(networks, kind)(**given), 0)
    with tempfile.NamedTemporaryFile(suffix=".pkl") as file:
        pickle.dump({"ema": theirs, "loss_fn": None, "augment_pipe": None, "dataset_kwargs": {}}, file)
        file.flush()
        made = convert(read(file.name), None, False)
    model = build(Spec(**made.spec))
    model.load_state_dict(made.weights)
    return theirs, model.eval()


def _network(name: str, options: dict[str, Any], size: int, theirs: Any, model: Any) -> Figure:
    x, time = _normal(3, options.get("img_channels", 3), size, size), torch.tensor([-1.5, 0.1, 1.0])
    onehot, ids = _labels(options.get("label_dim", 0), 3)
    augment = torch.rand(3, options["augment_dim"], generator=generator(5)) if "augment_dim" in options else None
    output = theirs.model(x, time, onehot, augment_labels=augment)
    cond = Cond(time=time, labels=ids)
    kind = options["model_type"]
    return compare(kind, name, f"{size}x{size}", output, lambda: model.network(x, cond, augment), model.network)


def _denoiser(theirs: Any, model: Any, options: dict[str, Any]) -> float:
    """Largest relative error of the predicted x_0 over noise levels; on a table, over its own."""
    if hasattr(theirs, "u"):
        times = torch.tensor([2, 300, 600, 900, 997], dtype=torch.float64) / len(theirs.u[:-1])
    else:
        times = model.schedule.time(torch.tensor([0.002, 0.1, 0.7, 5.0, 80.0], dtype=torch.float64))
    size, channels = theirs.img_resolution, options.get("img_channels", 3)
    onehot, ids = _labels(options.get("label_dim", 0), 3)
    worst = 0.0
    for time_ in times:
        alpha, sigma = (float(scale) for scale in model.schedule.scales(time_))
        u, t = sigma / alpha * _normal(3, channels, size, size), time_.expand(3)
        x_in, time = model.parametrization.inputs(alpha * u, t)
        out = model.network(x_in, Cond(time=time, labels=ids))
        ours = model.parametrization.denoised(out, alpha * u, t).x_0
        a = theirs(u, torch.tensor(sigma / alpha), onehot)
        worst = max(worst, float((a - ours).norm() / ours.norm()))
    return worst


def _trajectories(name: str, sampler: Any, theirs: Any, model: Any, options: dict[str, Any]) -> list[str]:
    """Relative errors of what Heun's method ends in, without churn and with it."""
    size, channels = theirs.img_resolution, options.get("img_channels", 3)
    start = _normal(3, channels, size, size)
    onehot, ids = _labels(options.get("label_dim", 0), 3)
    lines = []
    for steps, churn in ((6, {}), (6, {"churn": 4.0, "churn_min": 0.05, "churn_max": 50.0, "noise": 1.003})):
        heun = Heun(model.schedule, model.event, steps=steps, **churn)
        noises = [Rng(0).at("sampler", index).normal("eps", start) for index in range(steps)]
        mine = _run(model, heun, start, Cond(labels=ids))
        names = {"churn": "S_churn", "churn_min": "S_min", "churn_max": "S_max", "noise": "S_noise"}
        draws = iter(noises)
        given = {names[key]: value for key, value in churn.items()}
        a = sampler(theirs, start, onehot, lambda like, draws=draws: next(draws).to(like), num_steps=steps, **given)
        error = float((a - mine).norm() / mine.norm())
        lines.append(f"Heun, {name}, {steps} steps, {'churn' if churn else 'no churn'}: {error:.1e}")
        assert error <= TOLERANCE and math.isfinite(error), lines[-1]
    return lines


def _run(model: Any, heun: Any, start: Tensor, cond: Cond) -> Tensor:
    denoise = model._denoise(cond)
    return sample(heun, denoise, heun.start(start, heun.times()[0]), rng=Rng(0))


def _labels(classes: int, num: int) -> tuple[Tensor | None, Tensor | None]:
    """Labels, the last of none, as theirs and as ours."""
    if not classes:
        return None, None
    ids = torch.tensor([*range(num - 1), classes])
    return torch.nn.functional.one_hot(ids, classes + 1)[:, :classes].float(), ids


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(3))


if __name__ == "__main__":
    main()
