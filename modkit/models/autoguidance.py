r"""Autoguidance: a model guided by a worse version of itself.

    x_0 = x_0_guide + s (x_0_cond - x_0_guide)

The guide is the denoiser of another Model under the same conditions, with less capacity or less training. It errs where
the model errs, only more, so that going away from it corrects errors. A denoiser without conditions also predicts
something else, so that going away from it (`cfg`) changes the distribution as well.

On 25 Gaussians in five classes, small denoisers draw 9.6 % of their samples outside of the modes of the class. At s = 2
these are .65 % with a guide of half the width and a sixth of the steps, and 3.0 % with `cfg`, which also draws modes
less evenly (means of three seeds; in one of them `cfg` has fewer).

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from modkit.diffusion.guidance import extrapolate
from modkit.kinds import Denoise, Denoiser, Schedule, Sides, Slot, Unfit, default
from modkit.models.model import Model
from modkit.types import Cond, CondType, TensorType

__all__ = ["AutoGuidance"]

_TIMES = 9  # at which two schedules are compared


class AutoGuidance(nn.Module):
    """Extrapolates from the prediction of a guide, another Model, to the conditional prediction.

    The guide is usually a run's, `{use: run, path: runs/guide, at: model}`: a smaller network, trained for a shorter
    time, or the same one early in its training. It is frozen, and no player trains it. A guide that is not trained, as
    the default is, says nothing.

    References:
        Guiding a Diffusion Model with a Bad Version of Itself (Karras et al., 2024), eq. 3 and section 4,
        https://arxiv.org/abs/2406.02507

    Args:
        schedule: The noise in x_t.
        x: Type of a sample.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        conditions: Types of the fields that the model is conditioned on, by name.
        guide: A Model that denoises, under the same schedule and conditions.
        scale: The s above; at 1 the guide is not called.

    Raises:
        Unfit: If the guide has no denoiser, another schedule, or other conditions.

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
        guide: Slot[Model] = default("diffusion"),
        scale: float = 2.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.guide = guide(x=x, cond=cond, fields=fields or {})
        reads = sorted(self.guide.reads)
        if not isinstance(self.guide, Denoiser):
            got = f"{type(self.guide).__name__}; of a `latent`, take the prior"
            raise Unfit("guide", f"AutoGuidance expects a Model that denoises, got {got}")
        if reads != sorted(conditions or {}):
            got = f"{sorted(conditions or {})} and a guide that reads {reads}"
            raise Unfit("guide", f"AutoGuidance expects a guide under the model's conditions, got {got}")
        if not _has_same_noise(schedule, self.guide.schedule):
            got = " and ".join(map(_describe, (schedule, self.guide.schedule)))
            raise Unfit("guide", f"AutoGuidance expects a guide with the noise of the model's schedule, got {got}")

    @property
    def sides(self) -> Mapping[str, Callable[[Mapping[str, Tensor], Cond], Denoise]]:
        """The denoiser of the guide."""
        assert isinstance(self.guide, Denoiser), "checked where it was built"
        return {"guide": self.guide.denoiser}

    def forward(self, sides: Sides) -> Denoise:
        """Returns the guided denoiser."""
        return extrapolate(sides, "guide", self.scale)


def _describe(schedule: Schedule) -> str:
    alpha, sigma = schedule.scales(torch.ones((), dtype=torch.float64, device="cpu"))
    table = f" of {schedule.num} steps" if schedule.num else ""
    return f"{type(schedule).__name__}{table} with a noise level of {float(sigma / alpha):.4g} at t = 1"


def _has_same_noise(one: Schedule, other: Schedule) -> bool:
    """Whether two schedules have the same noise; taken to be so on the meta device, where it is unknown."""
    num = one.num or _TIMES
    times = torch.linspace(1, num, min(num, _TIMES), dtype=torch.float64, device="cpu").round() / num
    mine, yours = (torch.stack(schedule.scales(times)) for schedule in (one, other))
    return one.num == other.num and (mine.is_meta or yours.is_meta or torch.allclose(mine, yours))
