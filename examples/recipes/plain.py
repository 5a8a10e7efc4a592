r"""diffusers' U-Net in a plain loop, as in diffusers' example of unconditional training.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps,   minimise |out(x_t, t) - eps|^2,   t even over the table

AdamW, its rate along a cosine after a warm-up, gradients of norm 1 at most, and diffusers' `EMAModel`, whose decay at
step n is 1 - n^(-3/4). Samples are those of DDIM with the averaged weights.

    RUN/unet.safetensors   the averaged weights, written last
    RUN/training.json      steps, CPU seconds, and the mean losses of each hundred steps

A run that was stopped starts anew.

References:
    https://github.com/huggingface/diffusers/blob/main/examples/unconditional_image_generation/train_unconditional.py
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.runs.files import replace_file

__all__ = ["Loop", "Plain", "Sampling", "train"]

_LOGGED = 100  # steps, over which losses are averaged


@dataclass(frozen=True)
class Plain:
    """The network and its training.

    Args:
        channels: Channels of each level, finest first.
        blocks: Residual blocks a level on the way down.
        groups: Groups of a norm.
        lr: Highest learning rate.
        warmup: Steps over which it rises.
        batch_size: Pictures a step.
    """

    channels: tuple[int, ...] = (16, 32, 64, 64)
    blocks: int = 1
    groups: int = 8
    lr: float = 1e-3
    warmup: int = 500
    batch_size: int = 16

    def make_network(self, channels: int, size: int) -> Any:
        """Makes the network of pictures of so many channels and of a size; the lowest level but one attends."""
        levels = len(self.channels)
        down, up = ["DownBlock2D"] * levels, ["UpBlock2D"] * levels
        down[-2], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
        return UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=self.blocks,
            block_out_channels=self.channels,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            norm_num_groups=self.groups,
        )


class Loop:
    """A training.

    Args:
        plain: The network and how it is trained.
        pictures: The training set, `b c h w`, in [-1, 1].
        steps: Number of steps along which the rate falls.
        seed: Seed of weights, batches, times and noise.
    """

    def __init__(self, plain: Plain, pictures: Tensor, steps: int, seed: int) -> None:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.network = plain.make_network(*pictures.shape[1:3])
        weights = list(self.network.parameters())
        self._optimizer = torch.optim.AdamW(weights, plain.lr, betas=(0.95, 0.999), weight_decay=1e-6)
        self._rates = get_scheduler("cosine", self._optimizer, num_warmup_steps=plain.warmup, num_training_steps=steps)
        self._average = EMAModel(weights, decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
        self._noise: Any = DDPMScheduler(num_train_timesteps=1000)
        self._generator = torch.Generator().manual_seed(seed)
        self._batches = self._draw_batches(pictures, plain.batch_size)

    def step(self) -> float:
        """Takes a step; returns its loss."""
        clean, rng = next(self._batches), self._generator
        noise = torch.randn(clean.shape, generator=rng)
        times = torch.randint(self._noise.config.num_train_timesteps, (len(clean),), generator=rng)
        loss = F.mse_loss(self.network(self._noise.add_noise(clean, noise, times), times).sample, noise)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        self._rates.step()
        self._average.step(self.network.parameters())
        self._optimizer.zero_grad()
        return loss.item()

    def use_average(self) -> None:
        """Gives the network the averaged weights."""
        self._average.copy_to(self.network.parameters())

    def _draw_batches(self, pictures: Tensor, size: int) -> Iterator[Tensor]:
        while True:
            order = torch.randperm(len(pictures), generator=self._generator)
            yield from (pictures[chosen] for chosen in order.split(size))


class Sampling:
    """A trained network with diffusers' DDIM.

    Args:
        network: The network.
        evaluations: How often it is evaluated for a sample.
    """

    def __init__(self, network: Any, evaluations: int) -> None:
        self.network = network.eval()
        self._evaluations = evaluations

    @classmethod
    def load(cls, path: Path, plain: Plain, shape: tuple[int, ...], evaluations: int) -> Sampling:
        """Loads the network of a run, of pictures `c h w`."""
        network = plain.make_network(*shape[:2])
        network.load_state_dict(load_file(path / "unet.safetensors"))
        return cls(network, evaluations)

    @torch.no_grad()
    def sample(self, num: int, *, seed: int, batch_size: int = 250) -> Tensor:
        """Draws samples, `b c h w`, in [-1, 1], in batches."""
        config, rng = self.network.config, torch.Generator().manual_seed(seed)
        training: Any = DDPMScheduler(num_train_timesteps=1000)
        scheduler = DDIMScheduler.from_config(training.config)
        scheduler.set_timesteps(self._evaluations)
        drawn = []
        for first in range(0, num, batch_size):
            shape = (min(batch_size, num - first), config.in_channels, config.sample_size, config.sample_size)
            x = torch.randn(shape, generator=rng)
            for t in scheduler.timesteps:
                x = scheduler.step(self.network(x, t).sample, t, x).prev_sample
            drawn.append(x.clamp(-1, 1))
        return torch.cat(drawn)


def train(plain: Plain, pictures: Tensor, steps: int, seed: int, path: Path) -> None:
    """Trains a run, or returns at once if it is finished."""
    if (path / "unet.safetensors").exists():
        return
    start = time.process_time()
    loop = Loop(plain, pictures, steps, seed)
    losses = [loop.step() for _ in range(steps)]
    loop.use_average()
    means = [statistics.fmean(losses[first : first + _LOGGED]) for first in range(0, steps, _LOGGED)]
    if not all(map(math.isfinite, means)):
        raise ValueError(f"train expects losses that stay finite, got {means}")
    path.mkdir(parents=True, exist_ok=True)
    found = {"steps": steps, "CPU s": time.process_time() - start, "losses": means}
    replace_file(path / "training.json", json.dumps(found, indent=1).encode())
    replace_file(path / "unet.safetensors", save(loop.network.state_dict()))
