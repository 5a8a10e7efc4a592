r"""Denoising diffusion GAN: few, large denoising steps, each drawn by a conditional GAN.

    x_t ~ q(x_t | x_s),  x_s ~ q(x_s | x_0),   t = k / T,  s = (k - 1) / T,  k uniform in 1..T
    real  (x_s, x_t)
    fake  (x'_s, x_t),   x'_s ~ q(x_s | x_t, x_0 = G(x_t, t, z)),  z ~ N(0, I)

Where a step is large, p(x_s | x_t) is no Gaussian: the generator predicts x_0 from x_t and a noise z, and the posterior
takes the prediction to x_s; the discriminator sees x_s beside x_t and the time. T = 1 is a GAN of x_0 from x_t and z.
The networks embed time as `t T - 1`, the index from 0.

References:
    Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), eq. 4 to 8,
    https://arxiv.org/abs/2112.07804

Shape letters: b batch, d noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from modkit.diffusion.gaussian import add_noise, broadcast, posterior, tau
from modkit.diffusion.schedules import Even
from modkit.kinds import (
    Adversarial,
    Conditioner,
    Denoise,
    Discriminator,
    Network,
    Regularizer,
    Sampler,
    Schedule,
    Slot,
    Step,
    Weight,
    default,
)
from modkit.models.model import Model, Player, made_weights
from modkit.rng import Rng
from modkit.samplers.loop import sample
from modkit.types import Batch, Cond, CondType, Denoised, TensorType

__all__ = ["DenoisingGAN"]


class DenoisingGAN(Model):
    """A generator of x_0 from x_t and noise, a discriminator of single steps, and a sampler.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model; a map is refused, since x_t takes its place beside x_s.
        fields: The data's fields.
        network: The generator: x_t, time and the noise z to x_0.
        discriminator: Tells a real x_s from a fake one; it is given x_t as a map beside it, and the time.
        schedule: Signal and noise over time, of which T even times are used.
        sampler: Steps from noise to data; all T of them by default.
        adversarial: Losses of the two sides.
        regularizers: Penalties on the discriminator at real x_s (not at x_t), by the name of their term.
        conditioner: Fields to conditions of both networks; trained with the generator.
        steps: Number T of steps.
        z_dim: Width of the noise.
        weights: Weights of the losses by term (`adversarial`, `r1`, …); a term not named weighs 1.

    Raises:
        ValueError: If `steps` is below 1.
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        fields: dict[str, TensorType],
        *,
        network: Slot[Network] = default("ncsnpp"),
        discriminator: Slot[Discriminator] = default("ncsnpp"),
        schedule: Slot[Schedule] = default("vp"),
        sampler: Slot[Sampler] = default("ancestral"),
        adversarial: Slot[Adversarial] = default("non-saturating"),
        regularizers: dict[str, Slot[Regularizer]] | None = None,
        conditioner: Slot[Conditioner] = default("none"),
        steps: int = 4,
        z_dim: int = 64,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"DenoisingGAN expects steps of at least 1, got {steps}")
        self.event = x
        self.z = TensorType((z_dim,))
        self.steps = steps
        self.schedule = Even(schedule(), steps)
        self.conditioner = conditioner(fields=fields)
        self.reads = self.conditioner.reads
        cond = cond.merge(self.conditioner.type)
        self.network = network(x=x, out=x, cond=cond.merge(CondType(noise=z_dim, time=True)))
        self.discriminator = discriminator(x=x, cond=cond.merge(CondType(concat=x, time=True)))
        self.sampler = sampler(schedule=self.schedule, x=x)
        self.adversarial = adversarial()
        self.regularizers = {name: make() for name, make in (regularizers or {}).items()}
        self._weights = made_weights(weights)

    def players(self) -> tuple[Player, ...]:
        """`discriminator`, then `generator`."""
        return (
            Player("discriminator", self.owned("discriminator")),
            Player("generator", self.owned("network", "conditioner"), against=("discriminator",)),
        )

    def weights(self, player: str) -> Mapping[str, Weight]:
        """Weights by term."""
        return self._weights

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """`adversarial` of each side, and the discriminator's regularizers."""
        cond = self.conditioner(batch.fields, None).merge(batch.cond)
        pair = self._pair(batch.tensor, step.rng)
        if player == "generator":
            if not step.wants("adversarial"):
                return {}
            return {
                "adversarial": self.adversarial.generator(self._logits(self._fake(pair, cond, step.rng), pair, cond))
            }
        with torch.no_grad():
            fake = self._fake(pair, cond, step.rng)
        real_logits, fake_logits = self._logits(pair.x_s, pair, cond), self._logits(fake, pair, cond)
        losses = {"adversarial": self.adversarial.discriminator(real_logits, fake_logits)}
        for name, regularizer in self.regularizers.items():
            if step.wants(name):
                losses[name] = regularizer(self.discriminator.forward, pair.x_s, self._beside(pair, cond))
        return losses

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Measures the conditioner's frequencies."""
        if player == "generator":
            self.conditioner.prepare(batches)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Runs the sampler from noise, a fresh z at each prediction; fields not given are drawn by the conditioner."""
        denoise = self._denoise(self.conditioner(self.complete(num, fields, rng), None).merge(cond), rng.at("z"))
        x_t = self.sampler.start(rng.normal("start", self.blank(num, self.single)), self.sampler.times()[0])
        return sample(self.sampler, denoise, x_t, rng=rng)

    def _pair(self, x_0: Tensor, rng: Rng) -> _Pair:
        """A real pair of neighbours in the forward process, one time a sample."""
        k = rng.integers("time", torch.empty(len(x_0), device=x_0.device), 1, self.steps + 1)
        t, s = k.to(torch.float64) / self.steps, (k - 1).to(torch.float64) / self.steps
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.schedule.scales(t), self.schedule.scales(s)
        x_s = add_noise(x_0, rng.normal("eps_s", x_0), (alpha_s, sigma_s))
        added = sigma_t * torch.as_tensor(tau((alpha_t, sigma_t), (alpha_s, sigma_s))).sqrt()
        x_t = add_noise(x_s, rng.normal("eps_t", x_0), (alpha_t / alpha_s, added))
        return _Pair(x_s, x_t, s, t)

    def _fake(self, pair: _Pair, cond: Cond, rng: Rng) -> Tensor:
        """x_s as the generator has it, given the pair's x_t."""
        x_0 = self._predict(pair.x_t, pair.t, cond, rng)
        mean, small, _ = posterior(pair.x_t, x_0, self.schedule.scales(pair.t), self.schedule.scales(pair.s))
        return mean + broadcast(small**0.5, mean) * rng.normal("posterior", mean)

    def _predict(self, x_t: Tensor, t: Tensor, cond: Cond, rng: Rng) -> Tensor:
        z = rng.normal("z", self.blank(len(x_t), self.z))
        return self.network(x_t, cond.merge(Cond(noise=z)).at(self._time(x_t, t)))

    def _denoise(self, cond: Cond, rng: Rng) -> Denoise:
        calls = count()

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            return Denoised(self._predict(x_t, t.to(x_t.device).expand(len(x_t)), cond, rng.at(next(calls))))

        return denoise

    def _logits(self, x_s: Tensor, pair: _Pair, cond: Cond) -> Tensor:
        return self.discriminator(x_s, self._beside(pair, cond))

    def _beside(self, pair: _Pair, cond: Cond) -> Cond:
        """What the discriminator sees beside x_s."""
        return cond.merge(Cond(concat=pair.x_t, time=self._time(pair.x_t, pair.t)))

    def _time(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Time as the networks embed it, in float32 at least: bfloat16 has few whole numbers."""
        return (t * self.steps - 1).to(torch.promote_types(x_t.dtype, torch.float32))


class _Pair(NamedTuple):
    """x_s and x_t, `b ...`, with their times, `b`, float64."""

    x_s: Tensor
    x_t: Tensor
    s: Tensor
    t: Tensor
