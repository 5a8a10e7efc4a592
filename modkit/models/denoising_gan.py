r"""Denoising diffusion GAN: few, large denoising steps, each drawn by a conditional GAN.

    x_t ~ q(x_t | x_s),  x_s ~ q(x_s | x_0),   t = k / T,  s = (k - 1) / T,  k uniform in 1..T
    real  (x_s, x_t)
    fake  (x'_s, x_t),   x'_s ~ q(x_s | x_t, x_0 = G(x_t, t, z)),  z ~ N(0, I)

If a step is large, p(x_s | x_t) is not Gaussian. The generator therefore predicts x_0 from x_t and noise z, and x_s is
drawn from the posterior given the prediction. The discriminator is given x_s, x_t and the time. In the paper its
objective has R1, with a gamma of .02 to .05 at every fifteenth step; `modkit check` notes where it has none. With T = 1
it is a GAN that generates x_0 from x_t and z. The networks embed time as `t T - 1`, an index that starts at 0.

References:
    Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), eq. 4 to 8,
    https://arxiv.org/abs/2112.07804

Shape letters: b batch, d noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from modkit import kinds
from modkit.diffusion.coefficients import expand_time, send
from modkit.diffusion.gaussian import add_noise, add_scaled, combine, weigh_posterior
from modkit.diffusion.review import draw_times, review_levels
from modkit.diffusion.sampler_review import review_variance
from modkit.diffusion.schedules import Even, get_std
from modkit.diffusion.time_sampling import Uniform
from modkit.kinds import Round, Slot, Step, Weight, default
from modkit.losses.review import review_critic
from modkit.models.model import Model, make_weights
from modkit.models.penalties import Penalties
from modkit.models.player import Player
from modkit.models.rival import Rival, repeat_conditioner
from modkit.precision import widen
from modkit.rng import Rng
from modkit.samplers.loop import sample
from modkit.samplers.sampling import draw_start
from modkit.types import Batch, Cond, CondType, Denoised, PositiveInt, TensorType, checked

__all__ = ["DenoisingGAN"]

_MOST_NOISE = 16  # deviations of the data; two steps of VP begin the last one at up to 9


@checked
class DenoisingGAN(Model):
    """A generator that predicts x_0 from x_t and noise, a discriminator of single steps, and a sampler.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model, without a map: the discriminator is given x_t as its map.
        fields: The data's fields.
        network: The generator, which maps x_t, the time and noise z to x_0.
        discriminator: Tells a real x_s from a generated one, given x_t as a map and the time.
        schedule: Signal and noise over time, of which T even times are used.
        sampler: Steps from noise to data, all T by default.
        adversarial: Losses of the two sides.
        regularizers: Penalties on the discriminator at x_s (not at x_t) or on the generator, by the names of their
            terms.
        augment: Changes the pairs x_s and x_t that the discriminator judges, both alike; nothing by default.
        conditioner: Computes the network's conditions from fields, without a map either. The discriminator trains one
            of its own.
        steps: Number T of steps.
        z_dim: Width of the noise.
        weights: Weights of the losses by term (`adversarial`, the generator's; `r1`, …); the default weight is 1.

    Raises:
        ValueError: If `steps` is below 1, or a condition is a map.

    Examples:
        >>> x = TensorType((1, 8, 8), (-1, 1))
        >>> model = DenoisingGAN(x, network="mlp", discriminator="mlp", steps=2)
        >>> model.sample(2, seed=0).shape
        torch.Size([2, 1, 8, 8])
    """

    optimizers = {"*": {"use": "adam", "lr": 2e-4, "betas": [0.5, 0.9]}}  # near the paper's 1.6e-4 and 1.25e-4

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        network: Slot[kinds.Network] = default("ncsnpp"),
        discriminator: Slot[kinds.Discriminator] = default("ncsnpp"),
        schedule: Slot[kinds.Schedule] = default("vp"),
        sampler: Slot[kinds.Sampler] = default("ancestral", fixed=True),
        adversarial: Slot[kinds.Adversarial] = default("non-saturating"),
        regularizers: dict[str, Slot[kinds.Regularizer]] | None = None,
        augment: Slot[kinds.Augmentation] | None = None,
        conditioner: Slot[kinds.Conditioner] = default("none"),
        steps: PositiveInt = 4,
        z_dim: int = 64,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self.start_noise = TensorType(x.shape, std=1.0)
        self.z = TensorType((z_dim,))
        self.steps = steps
        self.schedule = Even(schedule(x=x), steps)
        if kinds.read_extras(self.schedule.schedule, kinds.ScheduleExtras).learn:
            name = type(self.schedule.schedule).__name__
            raise kinds.Unfit("schedule", f"expected one that is not trained, since no loss here could, got {name}")
        self.conditioner = conditioner(fields=fields or {})
        self.reads = self.conditioner.reads
        _check_no_map(cond, self.conditioner)
        cond = cond.merge(self.conditioner.type)
        self.network = network(x=x, out=x, cond=cond.merge(CondType(noise=z_dim, time=True)))
        self.discriminator = discriminator(x=x, cond=cond.merge(CondType(concat=x, time=True)))
        self.augment = augment(x=x) if augment else None
        self.sampler = sampler(schedule=self.schedule, x=x)
        self.adversarial = adversarial()
        offers = ("fake", "z", "critic", "generator")
        self.penalties = Penalties(self, regularizers, {"discriminator": offers, "generator": offers})
        self.critic_conditioner = repeat_conditioner(self, conditioner, fields)
        parts = self.adversarial, self.penalties, self.augment, self.critic_conditioner
        self.rival = Rival(self.discriminator, *parts)
        self._weights = make_weights(weights)

    def players(self) -> tuple[Player, ...]:
        """`discriminator`, then `generator`."""
        own = self.list_modules("discriminator", "critic_conditioner", "augment")
        judges = (*own, *self.penalties.list_modules("discriminator"))
        own = (*self.list_modules("network", "conditioner"), *self.penalties.list_modules("generator"))
        return Player("discriminator", judges), Player("generator", own, against=("discriminator",))

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `adversarial` of each side, and its regularizers.

        The generator trains the conditioner through what the network is given; the discriminator trains its own.
        """
        plays = player == "generator"
        if plays and not self.rival.is_wanted(step) and not self.penalties.is_due(player, step):
            return {}
        cond = self.conditioner(batch.fields, None).merge(batch.cond)
        pair = self._draw_pair(batch.tensor, step.rng)
        z = self._draw_noise(len(pair.x_t), step.rng)
        with torch.set_grad_enabled(plays and torch.is_grad_enabled()):
            fake = self._generate(pair, cond, z, step.rng)

        def generate(z: Tensor, given: Cond) -> Tensor:
            return self._predict(pair.x_t, pair.time, replace(given, concat=None), z)

        critic = self.rival.show(step.rng.at("augment"))
        beside = self._add_pair(pair, self.rival.compute_cond(batch, cond))
        if not plays:
            return self.rival.compute_losses(Round(pair.x_s, beside, step.rng, fake, z, critic, generate), step)
        given = self._add_pair(pair, cond.map(Tensor.detach))
        played = Round(pair.x_s, given, step.rng, fake, z, critic, generate, beside=(beside, beside))
        return self.rival.compute_generator_losses(played, step) | self.penalties.compute(player, step, played)

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the conditioner of a side."""
        super().prepare(player, batches, rng)
        if player == "discriminator":
            self.rival.prepare(batches)

    def update(self, player: str, step: Step) -> None:
        """Updates the strength of the augmentation, and the penalties that keep statistics."""
        if player == "discriminator":
            self.rival.update(step)
        else:
            self.penalties.update(player, step)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Runs the sampler from noise, with new z at each prediction; the conditioner draws missing fields."""
        denoise = self._make_denoise(self.conditioner(self.complete(num, fields, rng), None).merge(cond), rng.at("z"))
        like = self.allocate(num, self.single)
        times = self.sampler.times()
        x_t = self.sampler.start(draw_start(rng, "start", widen(like)), times[0])
        return sample(self.sampler, denoise, x_t, times=times, rng=rng).to(like.dtype)

    def review(self) -> Iterator[kinds.Note]:
        """The levels of its steps and of the sampler, what the discriminator is made of, and whether it has R1."""
        drawn, mends = draw_times(Uniform(self.schedule)), ("sampler={use: ancestral, steps: null}",)
        yield from review_levels(self.single, self.schedule, drawn, self.sampler, "sampler", mends)
        yield from review_variance(self.sampler, self, learned=False)
        yield from review_critic("discriminator", self.discriminator, self.penalties.parts)
        if not any(_is_slope_penalty(part) for part in self.penalties.parts.values()):
            setting = "regularizers={r1: {use: r1, gamma: 0.05}} and train.terms={r1: {every: 15}}"
            yield kinds.Fact("discriminator", f"no penalty on its slope; the paper's objective has R1: {setting}")
        alpha, sigma = self.schedule.scales(torch.tensor(1 / self.steps, dtype=torch.float64))
        lowest = float(sigma / alpha) / get_std(self.single)
        if self.steps > 1 and lowest > _MOST_NOISE:
            yield kinds.Finding(
                "schedule",
                f"the lowest noise level of {self.steps} even times is {lowest:.3g} deviations of the data, so that "
                f"every step starts from noise alone; expected at most {_MOST_NOISE}",
                ("schedule=vp",),
                refused=True,
            )

    def _draw_pair(self, x_0: Tensor, rng: Rng) -> _Pair:
        """Draws neighbours x_s and x_t of the forward process, at one time per sample."""
        k = rng.integers("time", torch.empty(len(x_0), device="cpu"), 1, self.steps + 1).to(torch.float64)
        scales_t, scales_s = self.schedule.scales(k / self.steps), self.schedule.scales((k - 1) / self.steps)
        to_x_0, to_x_t, small, large = map(torch.as_tensor, weigh_posterior(scales_t, scales_s))
        ratio, added = scales_t[0] / scales_s[0], large.sqrt()  # of q(x_t | x_s)
        sent = send((*scales_s, ratio, added, k - 1, to_x_0, to_x_t, small.sqrt()), x_0)
        alpha_s, sigma_s, ratio, added, time, *posterior = sent
        x_s = add_noise(x_0, rng.normal("eps_s", x_0), (alpha_s, sigma_s))
        return _Pair(x_s, add_noise(x_s, rng.normal("eps_t", x_0), (ratio, added)), time, *posterior)

    def _generate(self, pair: _Pair, cond: Cond, z: Tensor, rng: Rng) -> Tensor:
        """Generates x_s given the pair's x_t."""
        x_0 = self._predict(pair.x_t, pair.time, cond, z)
        mean = combine(pair.to_x_0, x_0, pair.to_x_t, pair.x_t)
        return add_scaled(mean, pair.deviation, rng.normal("posterior", mean))

    def _draw_noise(self, num: int, rng: Rng) -> Tensor:
        return rng.normal("z", self.allocate(num, self.z))

    def _predict(self, x_t: Tensor, time: Tensor, cond: Cond, z: Tensor) -> Tensor:
        return self.network(x_t, cond.merge(Cond(noise=z)).at(time))

    def _make_denoise(self, cond: Cond, rng: Rng) -> kinds.Denoise:
        calls = count()

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            time, z = expand_time(float(t) * self.steps - 1, x_t), self._draw_noise(len(x_t), rng.at(next(calls)))
            return Denoised(self._predict(x_t.to(self._floating), time, cond, z).to(x_t.dtype))

        return denoise

    def _add_pair(self, pair: _Pair, cond: Cond) -> Cond:
        """Adds x_t and its time to the conditions, for the discriminator."""
        return cond.merge(Cond(concat=pair.x_t, time=pair.time))


def _is_slope_penalty(regularizer: kinds.Regularizer) -> bool:
    extras = kinds.read_extras(regularizer, kinds.RegularizerExtras)
    return extras.side == "discriminator" and extras.per_sample


def _check_no_map(cond: CondType, conditioner: kinds.Conditioner) -> None:
    reason = "without a map, since the discriminator is given x_t as its map, got"
    if cond.concat is not None:
        raise ValueError(f"DenoisingGAN expects conditions from an enclosing Model {reason} {cond}")
    if conditioner.type.concat is not None:
        name = type(conditioner).__name__
        raise kinds.Unfit("conditioner", f"expected one {reason} {name}, which gives {conditioner.type}")


class _Pair(NamedTuple):
    """Neighbours x_s and x_t, `b ...`, the time that networks embed, and the posterior of x_s, `b` each.

    The posterior given x_0 is `N(to_x_0 x_0 + to_x_t x_t, deviation^2 I)`.
    """

    x_s: Tensor
    x_t: Tensor
    time: Tensor
    to_x_0: Tensor
    to_x_t: Tensor
    deviation: Tensor
