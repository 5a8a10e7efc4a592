r"""Diffusion: a network learns to remove noise, and a sampler removes it step by step.

    x_t = alpha_t x_0 + sigma_t eps,   minimise  w(t) |out(x_t, t) - target|^2,   eps ~ N(0, I)

The parametrization sets what the network predicts, the schedule how much noise there is, `times` the times at which the
network is trained, the coupling the noise that it is trained with, and the sampler how samples are drawn. Each can be
replaced without changing the others.

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), alg. 1 and 2, https://arxiv.org/abs/2006.11239

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from modkit import kinds
from modkit.diffusion.coefficients import GridCoefficients, send
from modkit.diffusion.gaussian import add_noise, find_slope, snr
from modkit.diffusion.guidance import ConditionSides, choose_layers, make_conditions
from modkit.diffusion.loss_weights import check_likelihood
from modkit.diffusion.probability_flow import EXACT, compute_log_prob, draw_signs
from modkit.diffusion.review import (
    draw_times,
    review_cross_entropy,
    review_drift,
    review_growth,
    review_levels,
    review_scale,
    review_weight,
)
from modkit.diffusion.sampler_review import (
    has_variance,
    list_asked,
    review_coupling,
    review_distilled,
    review_ends,
    review_guidance,
    review_variance,
)
from modkit.diffusion.schedules import get_std
from modkit.diffusion.variational import variational_bound
from modkit.kinds import Round, Slot, Step, Unfit, Weight, default, read_extras
from modkit.models.judges import Judges
from modkit.models.model import Model, check_draws, make_weights
from modkit.models.passes import select_fields
from modkit.models.player import Player
from modkit.models.rival import repeat_conditioner
from modkit.nn.attention import attend_to_itself
from modkit.nn.compiled import run_uncompiled
from modkit.precision import widen
from modkit.rng import Rng
from modkit.samplers.loop import sample
from modkit.samplers.sampling import draw_start
from modkit.types import Batch, Cond, CondType, Denoised, TensorType

__all__ = ["Diffusion"]

_LATENT = "expected a Model with latents, such as `autoencoder`, got `diffusion`, whose predictions of x_0 are judged"
_OFFERS = {"fake": None, **dict.fromkeys(("z", "encoder", "decoder", "generator", "prior", "moments"), _LATENT)}


class Diffusion(Model):
    """A denoiser under a noise schedule, and a sampler.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        network: The denoiser.
        schedule: Signal and noise over time.
        times: Distribution of the times in training.
        coupling: Noise that each sample is trained with.
        parametrization: Target that the network predicts.
        loss_weight: Weight of the denoising loss over time.
        sampler: Steps from noise to data.
        guidance: Combines the conditional and the unconditional denoiser in sampling.
        conditioner: Computes conditions from fields; it is trained with the network.
        alignment: Draws an inner map of the network to features of the clean sample (REPA), by the loss `alignment`;
            nothing by default. Sampling does not use it.
        judges: What judges the predictions of x_0 beside the denoising loss, by name: a `critic` (Adversarial Diffusion
            Distillation, with the data in place of a teacher), `perceptual`.
        weights: Weights of the losses by term (`denoising`, a judge's name); the default is the parametrization's, or
            else 1.

    Raises:
        ValueError: If there is an alignment, and the network has no taps or the schedule learns; or if there are
            judges, and the schedule learns or one of them replaces a likelihood.

    Examples:
        >>> model = Diffusion(TensorType((1, 8, 8), (-1, 1)), network="mlp")
        >>> model.sample(2, seed=0).shape
        torch.Size([2, 1, 8, 8])

    References:
        Adversarial Diffusion Distillation (Sauer et al., 2023), eq. 1 to 3, https://arxiv.org/abs/2311.17042
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        network: Slot[kinds.Network] = default("unet"),
        schedule: Slot[kinds.Schedule] = default("cosine"),
        times: Slot[kinds.Times] = default("uniform"),
        coupling: Slot[kinds.Coupling] = default("independent"),
        parametrization: Slot[kinds.Parametrization] = default("v"),
        loss_weight: Slot[kinds.LossWeight] = default("simple"),
        sampler: Slot[kinds.Sampler] = default("ddim"),
        guidance: Slot[kinds.Guidance] = default("none"),
        conditioner: Slot[kinds.Conditioner] = default("none"),
        alignment: Slot[kinds.Alignment] | None = None,
        judges: dict[str, Slot[kinds.Judge]] | None = None,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self.start_noise = TensorType(x.shape, std=1.0)
        self.schedule = schedule(x=x)
        self.times = times(schedule=self.schedule, x=x)
        self.parametrization: kinds.Parametrization = parametrization(schedule=self.schedule, x=x)
        self.loss_weight = loss_weight()
        self.conditioner = conditioner(fields=fields or {})
        self.reads = self.conditioner.reads
        conditions = {name: one for name, one in (fields or {}).items() if name in self.reads}
        self.coupling = coupling(x=x, cond=cond, fields=fields or {}, conditions=conditions)
        check_likelihood(self.schedule, self.times, self.loss_weight)
        given = cond.merge(self.conditioner.type)
        self.cond = given.merge(CondType(time=True))
        self.network = network(x=x, out=self.parametrization.out(x), cond=self.cond)
        self.alignment: kinds.Alignment | None = None
        if alignment:
            self.alignment = alignment(x=x, fields=fields or {}, taps=self._find_taps(network.where))
        self.sampler = sampler(schedule=self.schedule, x=x)
        if read_extras(self.sampler, kinds.SamplerExtras).deterministic:
            self.sources = {"x_T": self.start_noise}
        self.guidance = guidance(schedule=self.schedule, x=x, cond=cond, fields=fields or {}, conditions=conditions)
        choose_layers(self.guidance, self.network)  # refuses one that the network does not have
        repeat = partial(repeat_conditioner, self, conditioner, fields)
        self.judges = Judges(judges, {"x": x, "cond": given, "repeat": repeat}, _OFFERS)
        self._check_judges()
        defaults = read_extras(self.parametrization, kinds.ParametrizationExtras).weights
        self._weights = make_weights({**defaults, **(weights or {})})

    def players(self) -> tuple[Player, ...]:
        """`denoiser`, then the judges that play."""
        rivals = self.judges.players()
        owned = ("network", "conditioner", "parametrization", "schedule", "loss_weight", "alignment")
        own = (*self.list_modules(*owned), *self.judges.list_modules())
        against = tuple(rival.name for rival in rivals)
        return (Player("denoiser", own, against=against), *rivals)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `denoising`, weighted over time, `alignment`, if there is one, and judges' losses.

        Parametrization, loss weight and schedule may have losses besides. A judge that plays has its own.
        """
        x_0, rng = batch.tensor, step.rng
        t, scales = self._draw_times(x_0, rng.at("times"))
        computed = self.parametrization.coefficients(t, scales)
        alpha_t, sigma_t, weight, *sent = send((*scales, self._weigh(t, scales, computed), *computed.values()), x_0)
        coefficients = dict(zip(computed, sent))

        cond = self.conditioner(batch.fields, rng.at("conditioner")).merge(batch.cond)
        eps = self.coupling(x_0, batch.fields, rng)
        x_t = add_noise(x_0, eps, (alpha_t, sigma_t))
        if player != "denoiser":
            return self._play(player, x_t, coefficients, cond, batch, step)
        aligned = self.alignment if self.alignment and step.wants("alignment") else None
        out, maps = self._run_network(x_t, coefficients, cond, [aligned.tap] if aligned else [])
        losses = self.parametrization.losses(out, x_0, eps, x_t, coefficients)
        losses["denoising"] = weight * losses["denoising"]
        if log_variance := read_extras(self.loss_weight, kinds.LossWeightExtras).log_variance:
            u = log_variance(snr((alpha_t, sigma_t)).log())
            losses |= {"denoising": (-u).exp() * losses["denoising"], "uncertainty": u}
        if compute_own := read_extras(self.schedule, kinds.ScheduleExtras).losses:
            losses |= compute_own(x_0, t, losses["denoising"])
        if aligned:
            losses["alignment"] = aligned(maps[aligned.tap], x_0, batch.fields)
        means = {name: loss.mean() for name, loss in losses.items()}
        if not self.judges.parts:
            return means
        round = self._make_round(out, x_t, coefficients, batch, step)
        return means | self.judges.compute(round, step, self.single.numel)

    def update(self, player: str, step: Step) -> None:
        """Updates the judges."""
        self.judges.update(player, step)

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the conditioner and the judges."""
        self.judges.prepare(player, batches)
        if player == "denoiser":
            self.conditioner.prepare(select_fields(batches))

    def denoiser(self, fields: Mapping[str, Tensor], cond: Cond = Cond(), times: Tensor | None = None) -> kinds.Denoise:
        """The denoiser under fixed conditions, without guidance or clipping.

        It is called with x_t, `b ...`, and a time, float64 on the CPU: a scalar, or one for each sample, `b`. Gradients
        flow through x_t, the weights and the conditions, and through times that are `b`; `torch.no_grad()` is the
        caller's.

        Args:
            fields: Those that the conditioner reads, `b` rows each; none is dropped or drawn.
            cond: Conditions from an enclosing Model.
            times: Scalar times at which it will be called, `n`, as far as they are known; the coefficients of others
                are computed when they are asked for.

        Examples:
            >>> import torch
            >>> model = Diffusion(TensorType((2,)), network="mlp")
            >>> denoise = model.denoiser({})
            >>> denoise(torch.zeros(3, 2), torch.tensor(0.5, dtype=torch.float64)).x_0.shape
            torch.Size([3, 2])
            >>> denoise(torch.zeros(3, 2), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).x_0.shape
            torch.Size([3, 2])
        """
        given = self.conditioner(fields, None).merge(cond)
        return partial(self._predict, GridCoefficients(self._compute_coefficients, times), cond=given)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Runs the sampler from noise; the conditioner draws missing fields.

        Samples are clamped to the range of x: not every sampler clips its predictions.
        """
        times, fields = self.sampler.times(), self.complete(num, fields, rng)
        denoise = self.guidance(self._make_sides(times[:-1], num, fields, cond))
        like = self.allocate(num, self.single)
        x_t = self.sampler.start(draw_start(rng, "start", widen(like)), times[0])
        x = sample(self.sampler, denoise, x_t, times=times, rng=rng).to(like.dtype)
        return x if self.single.range is None else x.clamp(*self.single.range)

    def review(self) -> Iterator[kinds.Note]:
        """Levels, inputs, errors that grow or weigh too much, the sampler's ends and its noise, and guidance."""
        x, mends = self.single, ("times=log-normal", "times=uniform", "times.mean=null")
        drawn = draw_times(self.times)
        yield from review_levels(x, self.schedule, drawn, self.sampler, "times", mends)
        yield from review_scale(x, self.schedule, self.parametrization, self.sampler)
        yield from review_growth(x, self.schedule, self.parametrization, self.sampler)
        yield from review_drift(x, self.schedule, self.parametrization, drawn, self.sampler)
        yield from review_ends(x, self.schedule, self.sampler)
        yield from review_distilled(self.sampler)
        learned = has_variance(x, self.schedule, self.parametrization)
        yield from review_variance(self.sampler, self.parametrization, learned=learned)
        yield from self._review_weight(drawn)
        yield from review_coupling(self.coupling, self.loss_weight, self.sampler)
        asked = list_asked(self.sampler).tolist()
        yield from review_guidance(self.guidance, self.conditioner, x, asked, self._list_sides())
        yield from self.judges.review()

    def review_cross_entropy(self) -> Iterator[kinds.Note]:
        """What the bound makes of a network that predicts nothing."""
        yield from review_cross_entropy(self.single, self.schedule, self.parametrization)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The variational bound of the ancestral chain over the whole schedule, for any sampler.

        The `num` draws are averaged, which makes the bound less noisy but not tighter. As in the samplers, predictions
        are clipped to the range of x if it has one. Guidance is not applied.
        """
        predict, ends = self.denoiser(batch.fields, batch.cond), self.single.range

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            x_0, v = predict(x_t, t)
            return Denoised(x_0 if ends is None else x_0.clamp(*ends), v)

        return variational_bound(self.schedule, denoise, batch.tensor, len(check_draws(self, num)), rng, grain=grain)

    def log_prob(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0, steps: int = 64) -> Tensor:
        """The density log p(x) by the probability flow, for any sampler, without gradients, clipping or guidance.

        Its divergence is exact up to 64 dimensions, and above that the mean over `num` random signs.

        Examples:
            >>> import torch
            >>> model = Diffusion(TensorType((2,), std=1.0), network="mlp")
            >>> model.log_prob(Batch(torch.zeros(3, 2), {}), 1, Rng(0), steps=2).shape
            torch.Size([3])
        """
        x_0, draws = batch.tensor, len(check_draws(self, num))
        signs = draw_signs(x_0, draws, rng) if self.single.numel > EXACT else ()
        denoise, std = self.denoiser(batch.fields, batch.cond), get_std(self.single)
        return compute_log_prob(self.schedule, denoise, x_0, steps=steps, std=std, grain=grain, signs=signs)

    def cross_entropy(self, batch: Batch, step: Step) -> Tensor:
        """An upper bound on -log p(x), see `bound`, by which joint training learns: its noise is independent of x.

        Raises:
            ValueError: If the coupling pairs noise with the data, or there are judges or an alignment: all would be
                ignored.
        """
        if self.judges.parts:
            raise ValueError(f"Diffusion expects no judges in joint training, got {', '.join(self.judges.parts)}")
        if self.alignment:
            raise ValueError(f"Diffusion expects no alignment in joint training, got {type(self.alignment).__name__}")
        if not read_extras(self.coupling, kinds.CouplingExtras).independent:
            name = type(self.coupling).__name__
            raise ValueError(f"Diffusion expects the coupling `independent` in joint training, got {name}")
        return super().cross_entropy(batch, step)

    @property
    def differentiable(self) -> bool:
        """True.

        `bound` draws most times in proportion to the share that white data have in it, which keeps the noise of its
        gradient low. This is LSGM's likelihood weighting with importance sampling of times (Vahdat et al., 2021,
        section 3), for any schedule; one time in ten is drawn for errors of eps.
        """
        return True

    def _find_taps(self, where: str) -> Mapping[str, TensorType]:
        """Finds the types of the inner maps of the network, which was declared at `where`."""
        extras = read_extras(self.network, kinds.NetworkExtras)
        if extras.tap is None:
            raise Unfit("alignment", f"expected a network with taps, such as unet or dit, got {where}")
        if read_extras(self.schedule, kinds.ScheduleExtras).learn:
            got = f"{type(self.schedule).__name__}, which it would move to the noise levels that are easiest to align"
            raise Unfit("alignment", f"expected a schedule that does not learn, got {got}")
        return extras.taps

    def _check_judges(self) -> None:
        if name := self.judges.replacing:
            raise Unfit(f"judges.{name}", "expected a judge beside the denoising loss, got one in place of `nll`")
        if self.judges.parts and read_extras(self.schedule, kinds.ScheduleExtras).learn:
            got = f"{type(self.schedule).__name__}, which they would move to the noise levels that they judge best"
            raise Unfit("judges", f"expected a schedule that does not learn, got {got}")

    def _play(
        self,
        player: str,
        x_t: Tensor,
        coefficients: kinds.Coefficients,
        cond: Cond,
        batch: Batch,
        step: Step,
    ) -> dict[str, Tensor]:
        """Computes the losses of a judge, at predictions without gradients."""
        with torch.no_grad():
            out, _ = self._run_network(x_t, coefficients, cond)
            round = self._make_round(out, x_t, coefficients, batch, step)
        return self.judges.play(player, round, step)

    def _make_round(
        self, out: Tensor, x_t: Tensor, coefficients: kinds.Coefficients, batch: Batch, step: Step
    ) -> Round:
        """Makes the round in which x_0 is judged as `out` predicts it; judges are given conditions without dropout."""
        fake, _ = self.parametrization.denoised(out.to(x_t.dtype), x_t, coefficients)
        cond = self.conditioner(batch.fields, None).merge(batch.cond)
        return Round(batch.tensor, cond, step.rng, fake, step=step, batch=batch)

    def _draw_times(self, x_0: Tensor, rng: Rng) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Draws times and computes their scales; where these are learned, on the device of `x_0`."""
        t = self.times(len(x_0), rng)
        if learn := read_extras(self.schedule, kinds.ScheduleExtras).learn:
            (t,) = send((t,), x_0)
            return t, learn(t)
        return t, self.schedule.scales(t)

    def _weigh(self, t: Tensor, scales: tuple[Tensor, Tensor], computed: Mapping[str, Tensor]) -> Tensor:
        weight = self.loss_weight(snr(scales), self.parametrization.error_scale(computed))
        if read_extras(self.loss_weight, kinds.LossWeightExtras).likelihood:
            learn = read_extras(self.schedule, kinds.ScheduleExtras).learn
            weight = weight * find_slope(learn or self.schedule.scales, t, learns=bool(learn))
        return weight

    def _review_weight(self, t: Tensor) -> Iterator[kinds.Note]:
        """Reviews the weights at times that training draws, `n`, unless they are learned and have no values yet."""
        if isinstance(self.loss_weight, nn.Module) and any(one.is_meta for one in self.loss_weight.parameters()):
            return
        scales = self.schedule.scales(t)
        computed = self.parametrization.coefficients(t, scales)
        weight, error_scale = self._weigh(t, scales, computed), self.parametrization.error_scale(computed)
        yield from review_weight(self.single, weight.detach(), error_scale)

    def _compute_coefficients(self, t: Tensor) -> Mapping[str, Tensor]:
        return self.parametrization.coefficients(t, self.schedule.scales(t))

    def _run_network(
        self, x_t: Tensor, coefficients: kinds.Coefficients, cond: Cond, read: Sequence[str] = ()
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Evaluates the network; also returns the inner maps that `read` names."""
        x_in, time = self.parametrization.inputs(x_t, coefficients)
        given = x_in.to(self._floating), cond.at(time)
        if not read:
            return self.network(*given), {}
        tap = read_extras(self.network, kinds.NetworkExtras).tap
        assert tap is not None, "checked where the alignment was built"
        return tap(*given, read, {})

    def _predict(self, grid: GridCoefficients, x_t: Tensor, t: Tensor | float, cond: Cond) -> Denoised:
        t = torch.as_tensor(t, dtype=torch.float64)
        coefficients = grid.send(t, x_t) if t.ndim else grid.at(t)
        out, _ = self._run_network(x_t, coefficients, cond)
        return self.parametrization.denoised(out.to(x_t.dtype), x_t, coefficients)

    def _list_sides(self) -> tuple[str, ...]:
        perturbed = ("perturbed",) if read_extras(self.network, kinds.NetworkExtras).self_attention else ()
        return ("cond", "null", "zero", *perturbed, *read_extras(self.guidance, kinds.GuidanceExtras).sides)

    def _make_sides(self, times: Tensor, num: int, fields: Mapping[str, Tensor], cond: Cond) -> ConditionSides:
        grid = GridCoefficients(self._compute_coefficients, times)
        conds = make_conditions(self.conditioner, fields, num, cond)
        others: dict[str, kinds.Denoise] = {"zero": partial(self._predict_zero, grid)}
        if "perturbed" in self._list_sides():
            others["perturbed"] = partial(self._predict_perturbed, grid, conds["cond"])
        brought = read_extras(self.guidance, kinds.GuidanceExtras).sides
        others |= {name: make(fields, cond, times) for name, make in brought.items()}
        return ConditionSides(partial(self._predict, grid), conds, others)

    def _predict_perturbed(self, grid: GridCoefficients, cond: Cond, x_t: Tensor, t: Tensor) -> Denoised:
        layers = choose_layers(self.guidance, self.network)
        with run_uncompiled(), attend_to_itself(layers):  # what is compiled or captured knows of no perturbation
            return self._predict(grid, x_t, t, cond)

    def _predict_zero(self, grid: GridCoefficients, x_t: Tensor, t: Tensor) -> Denoised:
        zeros = x_t.new_zeros((len(x_t), *self.parametrization.out(self.single).shape))
        return self.parametrization.denoised(zeros, x_t, grid.at(t))
