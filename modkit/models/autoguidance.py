r"""Autoguidance: a model guided by a worse version of itself.

    x_0 = x_0_guide + s (x_0_cond - x_0_guide)

The guide is the denoiser of another Model under the same conditions, with less capacity or less training. It errs where
the model errs, only more, so that going away from it corrects errors. A denoiser without conditions also predicts
something else, so that going away from it (`cfg`) changes the distribution as well.

Both are asked at the same noise level, whatever the schedule of each. Where the model's has x_t at t, the guide's has

    x_t alpha'_t' / alpha_t   at t',    sigma'_t' / alpha'_t' = sigma_t / alpha_t

On 25 Gaussians in five classes, small denoisers draw 9.6 % of their samples outside of the modes of the class. At s = 2
these are .65 % with a guide of half the width and a sixth of the steps, and 3.0 % with `cfg`, which also draws modes
less evenly (means of three seeds; in one of them `cfg` has fewer).

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from modkit.diffusion.coefficients import GridCoefficients
from modkit.diffusion.guidance import extrapolate
from modkit.diffusion.schedules import find_noise_range
from modkit.kinds import Denoise, Denoiser, Schedule, Sides, Slot, Unfit
from modkit.models.model import Model
from modkit.types import Cond, CondType, Denoised, TensorType

__all__ = ["AutoGuidance"]

_NEAR = 1e-9  # share of a level by which a table's ends may be missed, in rounding


class AutoGuidance(nn.Module):
    """Extrapolates from the prediction of a guide, another Model, to the conditional prediction.

    The guide is usually a run's, `{use: run, path: runs/guide, at: model}`: a smaller network, trained for a shorter
    time, or the same one early in its training. It is frozen, and no player trains it, so `check` refuses a guide with
    initial weights.

    References:
        Guiding a Diffusion Model with a Bad Version of Itself (Karras et al., 2024), eq. 3 and section 4,
        https://arxiv.org/abs/2406.02507

    Args:
        schedule: The noise in x_t.
        x: Type of a sample.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        conditions: Types of the fields that the model is conditioned on, by name.
        guide: A trained Model that denoises (`{use: run, path: runs/guide}`), under the same conditions. A schedule of
            its own may be another, but a table must have the noise levels that the model's sampler visits.
        scale: The s above; at 1 the guide is not called.

    Raises:
        Unfit: If the guide has no denoiser, or other conditions.

    Examples:
        >>> from functools import partial
        >>> from modkit import use
        >>> from modkit.models import Diffusion
        >>> x = TensorType((2,))
        >>> guide = Diffusion(x, network=use("mlp", width=16))
        >>> model = Diffusion(x, network="mlp", guidance=partial(AutoGuidance, guide=guide, scale=2.0))
        >>> [player.modules for player in model.players()]
        [('network',)]
        >>> model.sample(2, seed=0).shape
        torch.Size([2, 2])
    """

    frozen = True

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        conditions: Mapping[str, TensorType] | None = None,
        *,
        guide: Slot[Model],
        scale: float = 2.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self._compute_scales = schedule.scales  # not the schedule, which may be a module of the model's
        self.guide = guide(x=x, cond=cond, fields=fields or {})
        reads = sorted(self.guide.reads)
        if not isinstance(self.guide, Denoiser):
            got = f"{type(self.guide).__name__}; of a `latent`, take the prior"
            raise Unfit("guide", f"AutoGuidance expects a Model that denoises, got {got}")
        if reads != sorted(conditions or {}):
            got = f"{sorted(conditions or {})} and a guide that reads {reads}"
            raise Unfit("guide", f"AutoGuidance expects a guide under the model's conditions, got {got}")

    @property
    def sides(self) -> Mapping[str, Callable[[Mapping[str, Tensor], Cond, Tensor], Denoise]]:
        """The denoiser of the guide, unless the scale is 1."""
        return {} if self.scale == 1 else {"guide": self._make_denoise}

    def explain_refusal(self, times: Tensor) -> str | None:
        """Explains which noise level at the model's `times`, `n`, the guide's table does not have, or returns None."""
        schedule = self._denoiser.schedule
        _, level, shared = self._compare(times)
        if schedule.num is None or self.scale == 1 or level.is_meta:
            return None
        low, high = find_noise_range(schedule)
        missed = level[~shared & ((level < low * (1 - _NEAR)) | (level > high * (1 + _NEAR)))].tolist()
        if not missed:
            return None
        got = f"{type(schedule).__name__} of {schedule.num} steps, whose levels are {low:.6g} to {high:.6g}"
        return f"AutoGuidance expects a guide with the noise level {missed[0]:.6g}, which is sampled, got {got}"

    def forward(self, sides: Sides) -> Denoise:
        """Returns the guided denoiser."""
        return extrapolate(sides, "guide", self.scale)

    @property
    def _denoiser(self) -> Denoiser:
        assert isinstance(self.guide, Denoiser), "checked where it was built"
        return self.guide

    def _make_denoise(self, fields: Mapping[str, Tensor], cond: Cond, times: Tensor) -> Denoise:
        """Makes the guide's denoiser of the model's x_t and t."""
        grid = GridCoefficients(self._translate, times)
        own = torch.tensor([grid.at(t)["time"] for t in times], dtype=torch.float64, device="cpu")
        denoise = self._denoiser.denoiser(fields, cond, own)

        def ask(x_t: Tensor, t: Tensor) -> Denoised:
            found = grid.at(t)
            time = torch.tensor(found["time"], dtype=torch.float64, device="cpu")
            return denoise(x_t if found["ratio"] == 1 else found["ratio"] * x_t, time)

        return ask

    def _translate(self, t: Tensor) -> dict[str, Tensor]:
        """The guide's times, `n`, at the noise levels of the model's, and the ratios of its signals to the model's."""
        if reason := self.explain_refusal(t):
            raise ValueError(reason)
        alpha, level, shared = self._compare(t)
        schedule = self._denoiser.schedule
        time = torch.where(shared, t, schedule.time(level))
        return {"time": time, "ratio": torch.where(shared, 1.0, schedule.scales(time)[0] / alpha)}

    def _compare(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The model's signal and noise level at times, `n`, and whether the guide's schedule has the same there."""
        alpha, sigma = self._compute_scales(t)
        own_alpha, own_sigma = self._denoiser.schedule.scales(t)
        return alpha, sigma / alpha, (own_alpha == alpha) & (own_sigma == sigma)
