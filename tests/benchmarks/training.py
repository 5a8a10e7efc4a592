"""What the trainer costs: the steps of `examples/ldm.yaml` by modkit, beside the same steps by a bare torch loop.

    python -m tests.benchmarks.training [--rounds N] [--block N] [--threads N] [key=value …]

Both play in one process and take turns, a block of steps each, so that what else the machine does falls on both. The
bare loop has the same networks, its data in one tensor, torch's own noise, the fused optimizer, an average of the
weights, and writes the loss each 50 steps; pictures and checkpoints are left out of both.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

import modkit
from modkit.data import Digits
from modkit.progress import Silent
from modkit.types import Cond
from tests.benchmarks.turns import parse, read_clock

EXAMPLE = Path(__file__).parents[2] / "examples" / "ldm.yaml"
NEVER = 10**9
LOG_EVERY = 50


def autoencoder_loss(model: nn.Module, x: Tensor, noise: Callable[[Tensor], Tensor] = torch.randn_like) -> Tensor:
    """The loss of the first stage, written out."""
    autoencoder = model.autoencoder
    mean, logvar = autoencoder.bottleneck.project(autoencoder.encoder(x)).chunk(2, dim=1)
    logvar = logvar.clamp(-30, 20)
    out = autoencoder.decoder(mean + (logvar / 2).exp() * noise(mean))
    nll = ((x - out) ** 2 / 2).flatten(1).sum(1).mean() / x[0].numel()
    kl = (mean**2 + torch.expm1(logvar) - logvar).flatten(1).sum(1).mean() / 2 / x[0].numel()
    return nll + 1e-3 * kl


def denoiser_loss(model: nn.Module, x: Tensor, noise: Callable[[Tensor], Tensor] = torch.randn_like) -> Tensor:
    """The loss of the second stage, written out; noise is drawn for the latent, the level and x_t, in this order."""
    autoencoder = model.autoencoder
    with torch.no_grad():
        mean, logvar = autoencoder.bottleneck.project(autoencoder.encoder(x)).chunk(2, dim=1)
        z = mean + (logvar.clamp(-30, 20) / 2).exp() * noise(mean)
        x_0 = (z - model.mean_0) / model.std_0
    sigma = torch.exp(noise(x_0[:, 0, 0, 0])).view(-1, 1, 1, 1)
    t, eps = sigma / (1 + sigma), noise(x_0)
    out = model.prior.network((1 - t) * x_0 + t * eps, Cond(time=1000 * t.flatten()))
    return ((out - (eps - x_0)) ** 2).flatten(1).mean(1).mean()


def diffusion_loss(model: nn.Module, x_0: Tensor, noise: Callable[[Tensor], Tensor] = torch.randn_like) -> Tensor:
    """The loss of a diffusion model under EDM's schedule, written out; noise is drawn for the level and x_t."""
    sigma = torch.exp(1.2 * noise(x_0[:, 0, 0, 0]) + model.times.mean).view(-1, 1, 1, 1)
    eps = noise(x_0)
    root = torch.sqrt(sigma**2 + 1)
    out = model.network((x_0 + sigma * eps) / root, Cond(time=sigma.flatten().log() / 4))
    return ((out - (sigma * x_0 - eps) / root) ** 2).flatten(1).mean(1).mean()


class Bare:
    """A bare loop over one stage: it trains one side (`part`) of a model by a loss of the model and a batch."""

    def __init__(
        self, model: nn.Module, part: nn.Module, loss: Any, x: Tensor, batch_size: int, decay: float, log: TextIO
    ) -> None:
        self.model, self.loss, self.decay, self.log, self.steps = model, loss, decay, log, 0
        model.eval().requires_grad_(False)
        part.train().requires_grad_(True)
        self.parameters = list(part.parameters())
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, fused=True)
        self.batches = _batches(x, batch_size)

    def step(self) -> None:
        """One step."""
        loss = self.loss(self.model, next(self.batches))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1 - self.decay)
        self.steps += 1
        if self.steps % LOG_EVERY == 0:
            self.log.write(json.dumps({"step": self.steps, "loss": loss.item()}) + "\n")
            self.log.flush()


class Turns(Silent):
    """A `Progress` that lets a bare loop play a block of steps after each block of the trainer's.

    `.seconds` has, by stage, the (trainer's, bare loop's) time of each round after the first, which warms up.
    """

    def __init__(self, bares: Sequence[Bare], block: int) -> None:
        self.seconds: dict[str, list[tuple[float, float]]] = {}
        self._bares, self._block = iter(bares), block

    def begin_stage(self, name: str, done: int, steps: int) -> None:
        """The next loop's turn."""
        self._bare, self._played = next(self._bares), 0
        self._rounds = self.seconds[name] = []
        self._started = read_clock()

    def step(self, losses: Mapping[str, float] | None) -> None:
        """At the end of a block, times it and plays the bare loop's."""
        self._played += 1
        if self._played % self._block:
            return
        started = read_clock()
        ours = started - self._started
        for _ in range(self._block):
            self._bare.step()
        self._started = read_clock()
        if self._played > self._block:
            self._rounds.append((ours, self._started - started))


def measure(overrides: Sequence[str] = (), *, rounds: int = 8, block: int = 50) -> dict[str, list[tuple[float, float]]]:
    """(trainer's, bare loop's) seconds of each round, by stage."""
    quiet = [f"train.checkpoints.every={NEVER}", f"train.samples.every={NEVER}", f"train.log.every={LOG_EVERY}"]
    spec = modkit.load_spec(EXAMPLE, [*overrides, *quiet])
    size, data = spec.train.get("batch_size", 128), Digits(size=spec.data["size"])
    x = data.read("train", range(data.splits["train"]), modkit.Rng(0)).tensor
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "bare.jsonl"), "w") as log:
        first, second = modkit.build(spec), modkit.build(spec)
        second.mean_0.fill_(0)
        second.std_0.fill_(1)
        bares = [
            Bare(first, first.autoencoder, autoencoder_loss, x, size, 0.99, log),
            Bare(second, second.prior, denoiser_loss, x, size, 0.999, log),
        ]
        turns = Turns(bares, block)
        modkit.train(spec, Path(folder, "run"), steps=block * (rounds + 1), progress=turns)
    return turns.seconds


def _batches(x: Tensor, size: int) -> Iterator[Tensor]:
    while True:
        for rows in torch.randperm(len(x), device=x.device).split(size):
            if len(rows) == size:
                yield x[rows]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the ratios."""
    given = parse(
        __doc__,
        arguments,
        words="overrides of the spec, key=value",
        rounds=(8, "blocks timed of each, after one that warms up"),
        block=(50, "steps in a block"),
        threads=(torch.get_num_threads(), "threads of torch"),
    )
    torch.set_num_threads(given.threads)
    print(f"{given.rounds} rounds of {given.block} steps, {given.threads} threads", flush=True)
    for stage, rounds in measure(given.overrides, rounds=given.rounds, block=given.block).items():
        ours, bare = (min(times) / given.block * 1e3 for times in zip(*rounds, strict=True))
        ratios = [mine / plain for mine, plain in rounds]
        print(
            f"{stage}: modkit/bare median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); "
            f"fastest blocks {ours:.2f} and {bare:.2f} ms a step, {ours / bare:.3f}"
        )


if __name__ == "__main__":
    main()
