"""diffusers' schedulers as samplers.

Parameters that modkit's own samplers have are named as there (`steps`, `spacing`, `eta`, `order`), others as in
diffusers. A step is one of the grid, however many evaluations it takes. `prediction_type` is the prediction that the
scheduler expects: x_0 is converted to it, without loss if the model's parametrization is the same.

Each function raises a `ValueError` if the schedule does not preserve variance (`dpm_solver` and `unipc` also accept
`flow`, `flow_euler` accepts only `flow`), or a keyword is out of range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from modkit import TensorType
from modkit.kinds import Schedule
from modkit.types import PositiveFloat, Share, checked
from modkit_diffusers.driven import Clipping, Driven, Scheduler
from modkit_diffusers.following import Following, follow_chain, follow_line, is_line

__all__ = ["ddim", "ddpm", "dpm_solver", "euler", "euler_ancestral", "flow_euler", "heun", "lms", "pndm", "unipc"]

_SPACING = "Which timesteps are visited."
_CHAIN_KARRAS = "Space a chain's noise levels by eq. 5 of Karras et al. (2022) instead."
_PREDICTION = "The network's prediction that the scheduler expects"
Steps = Annotated[int, "Number of steps."]
Spacing = Annotated[Literal["leading", "trailing", "linspace"], _SPACING]
Strides = Annotated[Literal["leading", "trailing"], _SPACING]
ChainSpacing = Annotated[Literal["leading", "trailing", "linspace"], "Which timesteps of a chain are visited."]
Order = Annotated[Literal[1, 2, 3], "Number of evaluations that a step combines."]
Karras = Annotated[bool, "Space noise levels by the paper's eq. 5 instead."]
EpsOrV = Annotated[Literal["epsilon", "v_prediction"], f"{_PREDICTION}."]
Prediction = Annotated[Literal["epsilon", "sample", "v_prediction"], f"{_PREDICTION}."]
AnyPrediction = Annotated[
    Literal["epsilon", "sample", "v_prediction", "flow_prediction"] | None,
    f"{_PREDICTION}; by default epsilon on a chain and flow_prediction on `flow`.",
]

_NAMES = {"spacing": "timestep_spacing", "order": "solver_order"}  # diffusers' own
_PRK = 4  # evaluations of a Runge-Kutta step, and the least number of steps for its warm-up


def ddpm(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: Steps = 50,
    spacing: Spacing = "trailing",
    variance_type: Literal["fixed_small", "fixed_large", "learned_range"] = "fixed_small",
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`DDPMScheduler`: each step draws from the posterior.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), algorithm 2, https://arxiv.org/abs/2006.11239

    Args:
        variance_type: Variance of a step: the posterior's, the forward process's, or a learned one between them.
    """
    return _make("DDPMScheduler", locals(), {"clip_sample": False}, draws=True, clip=_clip)


@checked
def ddim(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: Steps = 50,
    spacing: Strides = "trailing",
    eta: Share = 0.0,
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`DDIMScheduler`: few steps that keep the predicted noise.

    Its strides are `num // steps` for any spacing, so `trailing` requires that `steps` divides num.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), eq. 12, https://arxiv.org/abs/2010.02502

    Args:
        eta: Fraction of fresh noise: 0 is deterministic, 1 is ancestral sampling.
    """
    return _make(
        "DDIMScheduler",
        locals(),
        {"clip_sample": False},
        strides=True,
        options=("eta",),
        draws=eta > 0,
        clip=_clip_and_recover,
    )


def euler(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: Steps = 50,
    spacing: Spacing = "trailing",
    use_karras_sigmas: Karras = False,
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`EulerDiscreteScheduler`: Euler's method over noise levels.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), algorithm 2 without
        churn and correction, https://arxiv.org/abs/2206.00364
    """
    return _make("EulerDiscreteScheduler", locals())


def euler_ancestral(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: Steps = 50,
    spacing: Spacing = "trailing",
    prediction_type: EpsOrV = "epsilon",
) -> Driven:
    """`EulerAncestralDiscreteScheduler`: Euler's method to below a noise level, and fresh noise up to it.

    References:
        k-diffusion's sample_euler_ancestral, https://github.com/crowsonkb/k-diffusion
    """
    return _make("EulerAncestralDiscreteScheduler", locals(), draws=True)


def heun(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: Steps = 18,
    spacing: Spacing = "trailing",
    use_karras_sigmas: Karras = False,
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`HeunDiscreteScheduler`: second order over noise levels, two evaluations per step except the last.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), algorithm 1,
        https://arxiv.org/abs/2206.00364
    """
    return _make("HeunDiscreteScheduler", locals(), each=2, clip=_clip)


def lms(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: Steps = 50,
    spacing: Spacing = "trailing",
    order: Annotated[Literal[1, 2, 3, 4], "Number of evaluations that a step combines."] = 4,
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`LMSDiscreteScheduler`: linear multistep over noise levels.

    References:
        k-diffusion's sample_lms, https://github.com/crowsonkb/k-diffusion
    """
    return _make("LMSDiscreteScheduler", locals(), options=("order",), ordered=True)


def pndm(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: Steps = 50,
    spacing: Strides = "trailing",
    skip_prk_steps: bool = True,
    prediction_type: EpsOrV = "epsilon",
) -> Driven:
    """`PNDMScheduler`: linear multistep along the manifold of noisy samples.

    Its strides are `num // steps` for any spacing, so `trailing` requires that `steps` divides num.

    References:
        Pseudo Numerical Methods for Diffusion Models on Manifolds (Liu et al., 2022), algorithm 2,
        https://arxiv.org/abs/2202.09778

    Args:
        skip_prk_steps: Begin with a step of two evaluations; otherwise with three Runge-Kutta steps of four.
    """
    given, lead = locals(), (2,) if skip_prk_steps else (_PRK,) * 3
    return _make("PNDMScheduler", given, {"set_alpha_to_one": True}, strides=True, lead=lead, ordered=True)


def dpm_solver(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: Steps = 20,
    spacing: ChainSpacing = "trailing",
    order: Order = 2,
    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++",
    use_karras_sigmas: Annotated[bool, _CHAIN_KARRAS] = False,
    prediction_type: AnyPrediction = None,
) -> Driven:
    """`DPMSolverMultistepScheduler`: the probability-flow equation solved exactly but for x_0; on `flow` too.

    References:
        DPM-Solver++ (Lu et al., 2022), algorithm 2, https://arxiv.org/abs/2211.01095

    Args:
        algorithm_type: Deterministic, or with fresh noise in each step.
    """
    return _make_for_either("DPMSolverMultistepScheduler", locals(), draws=algorithm_type == "sde-dpmsolver++")


def unipc(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: Steps = 20,
    spacing: ChainSpacing = "trailing",
    order: Order = 2,
    use_karras_sigmas: Annotated[bool, _CHAIN_KARRAS] = False,
    prediction_type: AnyPrediction = None,
) -> Driven:
    """`UniPCMultistepScheduler`: a predictor and a corrector with one evaluation per step; on `flow` too.

    Its B(h) is `e^h - 1`, since with h the last step is not finite.

    References:
        UniPC (Zhao et al., 2023), algorithm 1, https://arxiv.org/abs/2302.04867
    """
    return _make_for_either("UniPCMultistepScheduler", locals())


@checked
def flow_euler(schedule: Schedule, x: TensorType, *, steps: Steps = 28, shift: PositiveFloat = 1.0) -> Driven:
    """`FlowMatchEulerDiscreteScheduler`: Euler's method along a flow.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), eq. 23: the shift,
        https://arxiv.org/abs/2403.03206

    Args:
        shift: Concentration of the times at the noisy end; with 1 they are even.
    """
    return _make("FlowMatchEulerDiscreteScheduler", locals(), follow=follow_line)


def _make(
    name: str,
    given: Mapping[str, Any],
    fixed: Mapping[str, Any] = {},  # noqa: B006
    *,
    follow: Callable[[str, Schedule], Following] = follow_chain,
    strides: bool = False,
    options: Sequence[str] = (),
    **driven: Any,
) -> Driven:
    """Makes the sampler of a scheduler, configured by the arguments of its function.

    Args:
        name: The scheduler's class.
        given: The arguments, by name.
        fixed: Further configuration.
        follow: How it follows the schedule.
        strides: Whether its stride is `num // steps`, which suits trailing times only if `steps` divides num.
        options: Names of the arguments that are passed to each step instead.
        **driven: Further arguments of `Scheduler`.
    """
    schedule, steps = given["schedule"], given["steps"]
    left = {"schedule", "x", "steps", *options}
    config = {_NAMES.get(key, key): value for key, value in given.items() if key not in left} | dict(fixed)
    num = follow(name, schedule).num
    if not given.get("skip_prk_steps", True) and not _PRK <= steps <= num // 2:
        expected = f"steps in [{_PRK}, {num // 2}] of Runge-Kutta on {num} timesteps"
        raise ValueError(f"{name} expects {expected}, got {steps}")
    if strides and given["spacing"] == "trailing" and 0 < steps <= num and num % steps:
        expected = f"steps that divide its {num} timesteps, or spacing leading"
        raise ValueError(f"{name} expects {expected}, got {steps} trailing")
    prediction, passed = given.get("prediction_type", "flow_prediction"), {key: given[key] for key in options}
    scheduler = Scheduler(name, config, prediction, options=passed, **driven)
    return Driven(schedule, given["x"], follow, scheduler, steps)


def _make_for_either(name: str, given: Mapping[str, Any], *, draws: bool = False) -> Driven:
    """Makes the sampler of a scheduler that follows a chain or the line."""
    line = is_line(given["schedule"])
    prediction = given["prediction_type"] or ("flow_prediction" if line else "epsilon")
    given = {**given, "prediction_type": prediction, "use_flow_sigmas": line}
    return _make(name, given, follow=follow_line if line else follow_chain, draws=draws, clip=_threshold)


def _clip(high: float) -> Clipping:
    return Clipping({"clip_sample": True, "clip_sample_range": high})


def _clip_and_recover(high: float) -> Clipping:
    """Clips x_0, and recovers eps from it only if each step is told to."""
    return Clipping(_clip(high).config, {"use_clipped_model_output": True})


def _threshold(high: float) -> Clipping | None:
    """Thresholds at a quantile that is at least 1 and at most 1, after which nothing is left to scale."""
    return Clipping({"thresholding": True, "sample_max_value": 1.0}) if high == 1 else None
