r"""Compares EDM's networks, preconditioning and sampler with ours: `python -m faithful.edm --peer PATH`.

Preconditioned networks are perturbed, pickled by their code into a snapshot and read and converted by ours; the inner
networks and denoisers are compared, then trajectories of Heun's method with the same noise.
"""

from __future__ import annotations

import importlib
import math
import pickle
import tempfile
from typing import Any

import numpy as np
import torch
from modkit_checkpoints.edm import convert
from modkit_checkpoints.pickled import read
from torch import Tensor

from faithful.measure import TOLERANCE, Figure, compare, draw_normal, format_table, perturb
from faithful.peer import build_ours, find_commit, load_pieces, read_arguments, stand_in
from modkit import Cond, sample
from modkit.rng import Rng
from modkit.samplers.heun import Heun

_SONG = {"model_type": "SongUNet", "model_channels": 16, "num_blocks": 1, "attn_resolutions": [], "dropout": 0.1}
_DHARIWAL = {"model_type": "DhariwalUNet", "model_channels": 64, "num_blocks": 1, "attn_resolutions": []}
_FIR = [1, 3, 3, 1]
_NETWORKS: dict[str, dict[str, Any]] = {
    "DDPM++, classes, augmentation, attention at 8": {
        **_SONG, "channel_mult": [2, 2], "attn_resolutions": [8], "label_dim": 5, "augment_dim": 9,
    },
    "NCSN++: Fourier, filter, residual": {
        **_SONG, "channel_mult": [1, 2, 2], "attn_resolutions": [16, 4], "embedding_type": "fourier",
        "channel_mult_noise": 2, "encoder_type": "residual", "resample_filter": _FIR, "num_blocks": 2,
    },
    "filter, skips down and up, grey": {
        **_SONG, "channel_mult": [1, 2], "encoder_type": "skip", "decoder_type": "skip", "img_channels": 1,
        "resample_filter": _FIR,
    },
    "no filter, residual down, skips up, classes": {
        **_SONG, "channel_mult": [1, 1, 2], "encoder_type": "residual", "decoder_type": "skip", "label_dim": 3,
    },
    "classes, augmentation, attention at 8": {
        **_DHARIWAL, "channel_mult": [1, 2], "attn_resolutions": [8], "label_dim": 5, "augment_dim": 9,
    },
    "three levels, sigma_data 1": {
        **_DHARIWAL, "channel_mult": [1, 1, 2], "sigma_data": 1.0, "channel_mult_emb": 2, "num_blocks": 2,
    },
    "iDDPM, classes, attention at 16 and 8": {
        **_DHARIWAL, "channel_mult": [1, 2], "attn_resolutions": [16, 8], "label_dim": 4,
    },
}  # fmt: skip


def main() -> None:
    """Prints every figure, and the table."""
    (peer,) = read_arguments("peer")
    # of their library, only a dict with attributes is needed
    easy = type("EasyDict", (dict,), {"__getattr__": dict.__getitem__, "__setattr__": dict.__setitem__})
    stand_in("dnnlib", EasyDict=easy)
    networks, figures, denoisers, lines = importlib.import_module("training.networks"), [], [], []
    sampler = load_pieces(peer / "generate.py", {"edm_sampler"}, {"torch": torch, "np": np}).edm_sampler
    with torch.no_grad():
        for name, options in _NETWORKS.items():
            kind = "iDDPMPrecond" if name.startswith("iDDPM") else "EDMPrecond"
            for size in (16, 32):
                theirs, model = _make_pair(networks, kind, options, size)
                figures.append(_compare_network(name, options, size, theirs, model))
                denoisers.append((name, size, _compare_denoiser(theirs, model, options)))
                if kind == "EDMPrecond" and size == 16:
                    lines += _compare_trajectories(name, sampler, theirs, model, options)
    print(f"\nEDM {find_commit(peer)}\n\n{format_table(figures)}\n")
    print(*(f"denoiser, {name}, {size}x{size}: {error:.1e}" for name, size, error in denoisers), *lines, sep="\n")
    assert max(error for _, _, error in denoisers) <= TOLERANCE


def _make_pair(networks: Any, kind: str, options: dict[str, Any], size: int) -> tuple[Any, Any]:
    """Makes theirs, perturbed, and ours, read from the snapshot that their code pickles."""
    given = {"img_resolution": size, "img_channels": 3, "label_dim": 0, **options}
    theirs = perturb(getattr(networks, kind)(**given), 0)
    with tempfile.NamedTemporaryFile(suffix=".pkl") as file:
        pickle.dump({"ema": theirs, "loss_fn": None, "augment_pipe": None, "dataset_kwargs": {}}, file)
        file.flush()
        made = convert(read(file.name), None, False)
    return theirs, build_ours(made)


def _compare_network(name: str, options: dict[str, Any], size: int, theirs: Any, model: Any) -> Figure:
    x, time = draw_normal(3, options.get("img_channels", 3), size, size), torch.tensor([-1.5, 0.1, 1.0])
    onehot, ids = _make_labels(options.get("label_dim", 0), 3)
    augment = draw_normal(3, options["augment_dim"], seed=5) if "augment_dim" in options else None
    output = theirs.model(x, time, onehot, augment_labels=augment)
    cond = Cond(time=time, labels=ids)
    kind = options["model_type"]
    return compare(kind, name, (size, size), output, lambda: model.network(x, cond, augment), model.network)


def _compare_denoiser(theirs: Any, model: Any, options: dict[str, Any]) -> float:
    """Computes the largest relative error of the predicted x_0 over noise levels: of a table, its own."""
    if hasattr(theirs, "u"):
        times = torch.tensor([2, 300, 600, 900, 997], dtype=torch.float64) / len(theirs.u[:-1])
    else:
        times = model.schedule.time(torch.tensor([0.002, 0.1, 0.7, 5.0, 80.0], dtype=torch.float64))
    size, channels = theirs.img_resolution, options.get("img_channels", 3)
    onehot, ids = _make_labels(options.get("label_dim", 0), 3)
    worst = 0.0
    for time_ in times:
        alpha, sigma = (float(scale) for scale in model.schedule.scales(time_))
        u, t = sigma / alpha * draw_normal(3, channels, size, size), time_.expand(3)
        coefficients = model.parametrization.coefficients(t, model.schedule.scales(t))
        x_in, time = model.parametrization.inputs(alpha * u, coefficients)
        out = model.network(x_in, Cond(time=time, labels=ids))
        ours = model.parametrization.denoised(out, alpha * u, coefficients).x_0
        a = theirs(u, torch.tensor(sigma / alpha), onehot)
        worst = max(worst, float((a - ours).norm() / ours.norm()))
    return worst


def _compare_trajectories(name: str, sampler: Any, theirs: Any, model: Any, options: dict[str, Any]) -> list[str]:
    """Computes the relative errors of the samples of Heun's method, without churn and with it."""
    size, channels = theirs.img_resolution, options.get("img_channels", 3)
    start = draw_normal(3, channels, size, size)
    onehot, ids = _make_labels(options.get("label_dim", 0), 3)
    lines = []
    for steps, churn in ((6, {}), (6, {"churn": 4.0, "churn_min": 0.05, "churn_max": 50.0, "noise": 1.003})):
        heun = Heun(model.schedule, model.event, steps=steps, **churn)
        noises = [Rng(0).at("sampler", index).normal("eps", start) for index in range(steps)]
        denoise = model._make_denoise(Cond(labels=ids))
        mine = sample(heun, denoise, heun.start(start, heun.times()[0]), rng=Rng(0))
        names = {"churn": "S_churn", "churn_min": "S_min", "churn_max": "S_max", "noise": "S_noise"}
        draws = iter(noises)
        given = {names[key]: value for key, value in churn.items()}
        a = sampler(theirs, start, onehot, lambda like, draws=draws: next(draws).to(like), num_steps=steps, **given)
        error = float((a - mine).norm() / mine.norm())
        lines.append(f"Heun, {name}, {steps} steps, {'churn' if churn else 'no churn'}: {error:.1e}")
        assert error <= TOLERANCE and math.isfinite(error), lines[-1]
    return lines


def _make_labels(classes: int, num: int) -> tuple[Tensor | None, Tensor | None]:
    """Makes labels, the last of no class, in their form and in ours."""
    if not classes:
        return None, None
    ids = torch.tensor([*range(num - 1), classes])
    return torch.nn.functional.one_hot(ids, classes + 1)[:, :classes].float(), ids


if __name__ == "__main__":
    main()
