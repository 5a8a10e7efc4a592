"""Small systems of every family in float64, trained by one process or by several.

    python -m tests.engines.systems OUT NAME …

The variables of a launcher say which process this is, and `TEST_DEVICE` the device, the CPU by default.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from modkit import Rng, Spec, TensorType, use
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.data import Digits
from modkit.engines.ddp import DDPEngine
from modkit.engines.fsdp2 import FSDP2Engine
from modkit.engines.processes import keep_open
from modkit.evaluation.evaluate_run import make_watch
from modkit.kinds import Engine
from modkit.nn.conv import ConvDecoder
from modkit.optim.shards import get_local
from modkit.progress import Silent
from modkit.runs import checkpoint as store
from modkit.runs.follower import Follower
from modkit.runs.ranks import count_launched
from modkit.runs.run import Run
from modkit.specs.node import Node
from modkit.training.callbacks import Muted
from modkit.training.schedule import schedule_stages
from modkit.training.trainer import Trainer
from modkit.training.training import _tune
from modkit.types import Batch
from tests.engines.conditions import ClassMap, Joined
from tests.forks import Fork

ROOT = Path(__file__).parents[2]
DEVICE = os.environ.get("TEST_DEVICE", "cpu")
STEPS = 10
HALF = STEPS // 2
MLP = use("mlp", width=16, depth=1)
CONV = {"encoder": use("conv", channels=[8, 8]), "decoder": use("conv", channels=[8, 8])}
R1 = {"r1": use("r1", gamma=0.5)}
LAZY = {"*r1": {"every": 4}}
DDIM = use("ddim", steps=5)
VQ = use("vq", num_codes=32, channels=4, decay=0.9, revive=0.5)  # an idle code is revived after seven steps
CRITIC = use("patch", channels=4, layers=1, spectral_norm=True)


def use_coder(bottleneck: Any, **more: Any) -> Node:
    """An autoencoder of small convolutions."""
    return use("autoencoder", **{**CONV, "bottleneck": bottleneck, **more})


def use_latent(bottleneck: Any, prior: Node) -> Node:
    """A prior over the latent of a small autoencoder."""
    return use("latent", autoencoder=use_coder(bottleneck), prior=prior)


PENALTIES = {"mmd": "mmd", "tc": "total-correlation", "dip": "dip"}
JUDGES = {"judges": {**PENALTIES, "latent-critic": use("latent-critic", network=MLP, against="shuffled")}}
LATENTS = use("autoencoder", encoder=MLP, decoder=MLP, bottleneck=use("gaussian", channels=3), **JUDGES)
GAME = use("gan", generator=MLP, discriminator=MLP, regularizers=R1)
ADA = use("ada", p=0.5, images=500)
TERMS = {**R1, "length": "path-length", "features": "feature-matching"}
FOLLOWED = use("gan", generator=MLP, discriminator=MLP, augment=ADA, regularizers=TERMS)
TWO = {"one": MLP, "other": MLP}
TRANSFORMER = use("transformer", width=16, depth=1, heads=2, dropout=0.0)
DCGAN = use("dcgan", channels=4)
COUPLING = use("coupling", network=MLP)
FLOW = use("flow", bijection=use("chain", layers=["actnorm", "linear", COUPLING]))
UNET = use("unet", channels=[8], blocks=1, attention=[])
ALIGNMENT = use("features", features=use("random-conv", dim=8), width=16)
OWN = use("several", parts={"class": use("label", width=4), "map": use(ClassMap)})
SYSTEMS: Mapping[str, tuple[Node, Mapping[str, Any]]] = {
    "vae": (use_coder(use("gaussian", channels=2)), {}),
    "gan-r1": (GAME, {"terms": LAZY, "clip": 1.0}),
    "ddgan": (use("denoising-gan", network=MLP, discriminator=MLP, steps=2, regularizers=R1), {"terms": LAZY}),
    "vq-ema": (use_coder(VQ), {}),
    "residual-vq": (use_coder(use("residual-vq", num_codes=16, channels=4, depth=2, revive=0.5)), {}),
    "lfq": (use_coder(use("lfq", bits=10)), {}),
    "latent penalties": (LATENTS, {}),
    "vqgan": (use_coder(VQ, critic=CRITIC, critic_start=HALF), {}),
    "vqgan-adaptive": (use_coder(VQ, critic=CRITIC, critic_start=HALF, weights={"adversarial": use("adaptive")}), {}),
    "ldm": (use_latent(use("gaussian", channels=2), use("diffusion", network=MLP, schedule="learned")), {}),
    "ldm, cached": (
        use_latent(use("gaussian", channels=2), use("diffusion", network=MLP, schedule="edm")),
        {"stages": [{"players": ["autoencoder/*"], "steps": 3}, {"players": ["prior/*"], "steps": 7, "cache": 2}]},
    ),
    "d2gan": (
        use("gan", generator=MLP, discriminators=TWO, adversarials={"one": "kl", "other": "reverse-kl"}),
        {},
    ),
    "codes": (use_latent(VQ, use("autoregressive", network=TRANSFORMER)), {}),
    "path-length, ada": (FOLLOWED, {"terms": {"length": {"every": 2}}}),
    "labels": (use("diffusion", network=MLP, schedule="edm", conditioner="label", loss_weight="uncertainty"), {}),
    "own conditions": (
        use("diffusion", network=use(Joined), conditioner=OWN, guidance=use("cfg", scale=2.0), sampler=DDIM),
        {},
    ),
    "flow": (use_latent(use("gaussian", channels=2, flow=use("chain", layers=["actnorm", COUPLING])), FLOW), {}),
    "ladder": (
        use(
            "latent",
            autoencoder=use_coder(use("ladder", channels=2), objective=use("balanced", steps=HALF)),
            prior=FLOW,
        ),
        {},
    ),
    "ldm-unet": (use_latent(use("gaussian", channels=2), use("diffusion", network=UNET, alignment=ALIGNMENT)), {}),
    "vae, two stages": (
        use_coder(use("gaussian", channels=2), likelihood=use("gaussian", variance="shared")),
        {"stages": [{"players": ["autoencoder"], "steps": HALF}] * 2, "ema": {"std": 0.2, "every": 2}},
    ),
    "dcgan": (use("gan", generator=DCGAN, discriminator=DCGAN, regularizers=R1), {"terms": LAZY}),
    "gan-r1, overflowing": (
        GAME,
        {"terms": LAZY, "clip": 0.5, "precision": "fp16", "players": {"*": {"skip": 0.995}}},
    ),
    "gan-r1, accumulated": (GAME, {"terms": LAZY, "clip": 1.0, "accumulate": 2}),
    "vq-ema, accumulated": (use_coder(VQ), {"accumulate": 2}),
    "lfq!": (use_coder(use("lfq", bits=10)), {}),
    "vq-ema!counts": (use_coder(VQ), {}),
    "vq-ema!vectors": (use_coder(VQ), {}),
    "vq-ema!priorities": (use_coder(VQ), {}),
    "vq-ema!features": (use_coder(VQ), {}),
    "path-length, ada!counts": (FOLLOWED, {"terms": {"length": {"every": 2}}}),
    "path-length, ada!means": (FOLLOWED, {"terms": {"length": {"every": 2}}}),
    "latent penalties!latents": (LATENTS, {}),
    "labels!labels": (
        use("diffusion", network=MLP, schedule="edm", conditioner="label", loss_weight="uncertainty"),
        {},
    ),
    "vqgan-adaptive!": (use_coder(VQ, critic=CRITIC, critic_start=HALF, weights={"adversarial": use("adaptive")}), {}),
}
"""The model of each system and its training settings; behind `!` is which exchange is left out.

Autocast leaves float64 as it is: of float16, `overflowing` has the scaled losses alone, and a step that is skipped,
since a gradient of the last process overflows; others are skipped since the norm of a gradient exceeds its limit.

The layers of `dcgan` see the rows of their own process, so that several do not train what one does. A name with `@` is
that of a system whose weights several processes divide, and recompute, by `fsdp2`.
"""


JOINED: Mapping[str, tuple[Node, Mapping[str, Any]]] = {
    "batch-norm": (use("gan", generator=DCGAN, discriminator=DCGAN), {}),
}
"""Systems of which several processes train what one does only on CUDA, where batch norm is synchronized."""


class Wide(Digits):
    """Digits in float64."""

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads samples."""
        batch = super().read(split, indices, rng)
        return Batch(batch.tensor.double(), batch.fields)


class Idle(ConvDecoder):
    """A decoder with a parameter that nothing reaches."""

    def __init__(self, z: TensorType, x: TensorType) -> None:
        super().__init__(z, x, channels=[8, 8])
        self.idle = nn.Parameter(torch.zeros(1))


class Partial(DDPEngine):
    """An engine that leaves an exchange out."""

    left_out = ""

    def total(self, value: Tensor) -> Tensor:
        """Sums, or does not."""
        kind = ("means" if value.requires_grad else "counts") if value.ndim == 1 else "vectors"
        return value if self.left_out in ("", kind) else super().total(value)

    def gather(self, value: Tensor) -> Tensor:
        """Gathers, or repeats the rows of this process."""
        kinds = {(1, True): "priorities", (1, False): "labels", (4, True): "features", (2, True): "latents"}
        kind = kinds.get((value.ndim, value.is_floating_point()), "")
        return torch.cat([value] * self.world) if self.left_out == kind else super().gather(value)


def overflow(engine: Engine) -> None:
    """Has a gradient of the last process overflow at the engine's fifth step."""
    steps, step = iter(range(1, 1000)), engine.step

    def plant(optimizer: Any) -> None:
        if next(steps) == 5 and engine.rank == engine.world - 1:
            gradients = get_local([p.grad for group in optimizer.param_groups for p in group["params"]])
            next(one for one in gradients if one.numel()).view(-1)[0] = torch.inf
        step(optimizer)

    engine.step = plant  # type: ignore[method-assign]


def train(name: str, path: Path, **settings: Any) -> None:
    """Trains a system into a run at `path`, or goes on with it."""
    system = name.partition("+")[0].partition("@")[0]
    model, own = {**SYSTEMS, **JOINED, "idle": (use_coder("gaussian", decoder=use(Idle)), {})}[system]
    every = {"samples": {"every": 1000, "num": 4}, "checkpoints": {"every": HALF, "keep": 9}, "log": {"every": 1}}
    divides = "@" in name and count_launched() > 1
    given = {"device": DEVICE, "batch_size": 16, "steps": STEPS, "ema": 0.9, "recompute": divides}
    given |= {**every, **own, **settings}
    watch = {"every": HALF, "num": 300, "metrics": ["fd", "prdc"]} if name == "labels" else {}
    measured = {"features": "pixels", "watch": watch}
    spec = Spec(name=name, data=use("digits", size=8), model=model, train=given, evaluate=measured)
    site = Site(plan(spec), meta=False)
    data = Wide(size=8)
    made, chosen = site.build_model(data.x, data.fields).double(), site.settings
    several = FSDP2Engine if divides else DDPEngine
    launched = count_launched() > 1 and "engine" not in settings
    engine: Engine = several(DEVICE, sync_batch_norm=system in JOINED) if launched else chosen.engine(device=DEVICE)
    if "!" in name:
        engine = Partial(DEVICE)
        engine.left_out = name.partition("!")[2]
    if "overflowing" in name:
        overflow(engine)
        sample = made.sample
        made.sample = lambda *args, precision, **given: sample(*args, **given)  # refused in float64
    site.data = data
    scorer = make_watch(site, chosen.seed)
    site.check()
    _tune(made, chosen)
    with keep_open(engine):
        if engine.rank == 0 and not (path / "modkit.lock").exists():
            Run.create(path, SimpleNamespace(to_yaml=lambda: "name: toy\n"), {}).close()
        engine.barrier()
        with Run.open(path).hold() if engine.rank == 0 else Follower.open(path) as run:
            made, stages = made.to(engine.device), schedule_stages(made, chosen)
            Trainer(made, data, chosen, stages, engine, run, Muted(run, made), Silent(), scorer).fit()


def read_rows(run: Path, kind: str = "losses") -> list[dict[str, float]]:
    """The losses of a run by step, its measures, or its scores."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[kind] for row in rows if kind in row]


def measure_difference(run: Path, other: Path) -> float:
    """The largest difference between losses, between measures and between last weights of two runs."""
    mine, theirs = ([*read_rows(one), *read_rows(one, "measures")] for one in (run, other))
    assert len(mine) == len(theirs) and [row.keys() for row in mine] == [row.keys() for row in theirs]
    found = [abs(row[key] - other[key]) for row, other in zip(mine, theirs) for key in row]
    last = max(path.name for path in (run / "checkpoints").iterdir())
    kept = sorted(path.name for path in (run / "averages").glob("*"))
    groups = [(f"checkpoints/{last}", name) for name in ("model", "ema")]
    for place, name in groups + [(f"averages/{one}", f"ema-{std}") for one in kept for std in (0.05, 0.1)]:
        weights, same = (store.load(one / place).tensors[name] for one in (run, other))
        assert weights.keys() == same.keys() and weights
        found += [float((weights[key].double() - same[key].double()).abs().max()) for key in weights]
    return max(found)


def launch(
    out: Path, names: Sequence[str], num: int, timeout: float = 900, module: str = "tests.engines.systems"
) -> list[str]:
    """Trains systems in `num` processes, or runs another module; returns what each wrote to stderr, and its status."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {**os.environ, "WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    base["MODKIT_CACHE"] = str(out / "cache")  # what several processes compute is their own
    started = []
    for rank in range(num):
        environment = {**base, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        started.append(Fork("-m", module, out, *names, cwd=ROOT, environment=environment))
    ended = [one.end(timeout) for one in started]
    return [f"{one.stderr}status {one.returncode}" for one in ended]


def main(out: str, *names: str) -> None:
    """Trains systems one after the other."""
    torch.set_num_threads(1)
    if count_launched() > 1:
        if DEVICE == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("gloo" if DEVICE == "cpu" else "nccl", timeout=timedelta(seconds=60))
    for name in names:
        train(name, Path(out) / name)
    if count_launched() > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
