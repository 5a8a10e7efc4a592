"""diffusers' schedulers as samplers.

Parameters that modkit's own samplers have bear their names (`steps`, `spacing`, `eta`, `order`), others diffusers' own.
A step is one of the grid, whatever evaluations it takes. `prediction_type` is what the scheduler is told that the
network predicts: x_0 is turned into it, and where the model's parametrization is the same, nothing is lost on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from modkit import TensorType
from modkit.kinds import Schedule
from modkit_diffusers.driven import Driven, Scheduler
from modkit_diffusers.following import Following, follow_chain, follow_line, is_line

__all__ = ["ddim", "ddpm", "dpm_solver", "euler", "euler_ancestral", "flow_euler", "heun", "lms", "pndm", "unipc"]

Spacing: TypeAlias = Literal["leading", "trailing", "linspace"]
Strides: TypeAlias = Literal["leading", "trailing"]
EpsOrV: TypeAlias = Literal["epsilon", "v_prediction"]
Prediction: TypeAlias = Literal["epsilon", "sample", "v_prediction"]

_PRK = 4  # evaluations of a step of Runge and Kutta's, and the least steps that its warm-up takes


def ddpm(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: int = 50,
    spacing: Spacing = "trailing",
    variance_type: Literal["fixed_small", "fixed_large", "learned_range"] = "fixed_small",
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`DDPMScheduler`: each step draws from the posterior.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), algorithm 2, https://arxiv.org/abs/2006.11239

    Args:
        steps: Number of steps.
        spacing: Which timesteps are visited.
        variance_type: The posterior's own variance, the forward process's, or a learned one between them.
        prediction_type: What the scheduler is told that the network predicts.

    Raises:
        ValueError: If the schedule does not preserve variance, or `steps` is out of range.
    """
    config = {"clip_sample": False, "variance_type": variance_type, **_told(spacing, prediction_type)}
    scheduler = Scheduler("DDPMScheduler", config, prediction_type, draws=True)
    return _on_chain(scheduler, schedule, x, steps)


def ddim(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: int = 50,
    spacing: Strides = "trailing",
    eta: float = 0.0,
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`DDIMScheduler`: few steps that keep the predicted noise.

    Its strides are of `num // steps` whatever the spacing, so `trailing` is taken only where `steps` divides num.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), eq. 12, https://arxiv.org/abs/2010.02502

    Args:
        steps: Number of steps.
        spacing: Which timesteps are visited.
        eta: Share of fresh noise: 0 is deterministic, 1 is ancestral sampling.
        prediction_type: What the scheduler is told that the network predicts.

    Raises:
        ValueError: If the schedule does not preserve variance, or `steps` or `eta` is out of range.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"DDIMScheduler expects eta in [0, 1], got {eta}")
    config = {"clip_sample": False, **_told(spacing, prediction_type)}
    scheduler = Scheduler("DDIMScheduler", config, prediction_type, draws=eta > 0, options={"eta": eta})
    return _on_strides(scheduler, follow_chain(scheduler.name, schedule), schedule, x, steps, spacing)


def euler(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: int = 50,
    spacing: Spacing = "trailing",
    use_karras_sigmas: bool = False,
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`EulerDiscreteScheduler`: Euler's method over noise levels.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), algorithm 2 without
        churn and correction, https://arxiv.org/abs/2206.00364

    Args:
        steps: Number of steps.
        spacing: Which timesteps are visited.
        use_karras_sigmas: Space noise levels by the paper's eq. 5 instead.
        prediction_type: What the scheduler is told that the network predicts.

    Raises:
        ValueError: If the schedule does not preserve variance, or `steps` is out of range.
    """
    config = {"use_karras_sigmas": use_karras_sigmas, **_told(spacing, prediction_type)}
    return _on_chain(Scheduler("EulerDiscreteScheduler", config, prediction_type), schedule, x, steps)


def euler_ancestral(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: int = 50,
    spacing: Spacing = "trailing",
    prediction_type: EpsOrV = "epsilon",
) -> Driven:
    """`EulerAncestralDiscreteScheduler`: Euler's method to below a noise level, and fresh noise up to it.

    References:
        k-diffusion's sample_euler_ancestral, https://github.com/crowsonkb/k-diffusion

    Args:
        steps: Number of steps.
        spacing: Which timesteps are visited.
        prediction_type: What the scheduler is told that the network predicts.

    Raises:
        ValueError: If the schedule does not preserve variance, or `steps` is out of range.
    """
    config = _told(spacing, prediction_type)
    scheduler = Scheduler("EulerAncestralDiscreteScheduler", config, prediction_type, draws=True)
    return _on_chain(scheduler, schedule, x, steps)


def heun(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: int = 18,
    spacing: Spacing = "trailing",
    use_karras_sigmas: bool = False,
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`HeunDiscreteScheduler`: second order over noise levels, two evaluations a step but for the last.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), algorithm 1,
        https://arxiv.org/abs/2206.00364

    Args:
        steps: Number of steps.
        spacing: Which timesteps are visited.
        use_karras_sigmas: Space noise levels by the paper's eq. 5 instead.
        prediction_type: What the scheduler is told that the network predicts.

    Raises:
        ValueError: If the schedule does not preserve variance, or `steps` is out of range.
    """
    config = {"use_karras_sigmas": use_karras_sigmas, **_told(spacing, prediction_type)}
    return _on_chain(Scheduler("HeunDiscreteScheduler", config, prediction_type, each=2), schedule, x, steps)


def lms(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: int = 50,
    spacing: Spacing = "trailing",
    order: Literal[1, 2, 3, 4] = 4,
    prediction_type: Prediction = "epsilon",
) -> Driven:
    """`LMSDiscreteScheduler`: linear multistep over noise levels.

    References:
        k-diffusion's sample_lms, https://github.com/crowsonkb/k-diffusion

    Args:
        steps: Number of steps.
        spacing: Which timesteps are visited.
        order: Evaluations that a step looks back on.
        prediction_type: What the scheduler is told that the network predicts.

    Raises:
        ValueError: If the schedule does not preserve variance, or `steps` is out of range.
    """
    config = _told(spacing, prediction_type)
    scheduler = Scheduler("LMSDiscreteScheduler", config, prediction_type, options={"order": order})
    return _on_chain(scheduler, schedule, x, steps)


def pndm(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: int = 50,
    spacing: Strides = "trailing",
    skip_prk_steps: bool = True,
    prediction_type: EpsOrV = "epsilon",
) -> Driven:
    """`PNDMScheduler`: linear multistep along the manifold of noisy samples.

    Its strides are of `num // steps` whatever the spacing, so `trailing` is taken only where `steps` divides num.

    References:
        Pseudo Numerical Methods for Diffusion Models on Manifolds (Liu et al., 2022), algorithm 2,
        https://arxiv.org/abs/2202.09778

    Args:
        steps: Number of steps.
        spacing: Which timesteps are visited.
        skip_prk_steps: Begin with a step of two evaluations; else with three of Runge and Kutta's, of four.
        prediction_type: What the scheduler is told that the network predicts.

    Raises:
        ValueError: If the schedule does not preserve variance, or `steps` is out of range.
    """
    config = {"set_alpha_to_one": True, "skip_prk_steps": skip_prk_steps, **_told(spacing, prediction_type)}
    lead = (2,) if skip_prk_steps else (_PRK,) * 3
    scheduler = Scheduler("PNDMScheduler", config, prediction_type, lead=lead)
    following = follow_chain(scheduler.name, schedule)
    if not skip_prk_steps and not _PRK <= steps <= following.num // 2:
        raise ValueError(
            f"PNDMScheduler expects steps in [{_PRK}, {following.num // 2}] with Runge and Kutta's on {following.num} "
            f"timesteps, got {steps}"
        )
    return _on_strides(scheduler, following, schedule, x, steps, spacing)


def dpm_solver(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: int = 20,
    spacing: Spacing = "trailing",
    order: Literal[1, 2, 3] = 2,
    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++",
    use_karras_sigmas: bool = False,
    prediction_type: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] | None = None,
) -> Driven:
    """`DPMSolverMultistepScheduler`: the probability-flow equation solved exactly but for x_0; on `flow` too.

    References:
        DPM-Solver++ (Lu et al., 2022), algorithm 2, https://arxiv.org/abs/2211.01095

    Args:
        steps: Number of steps.
        spacing: Which timesteps of a chain are visited.
        order: Evaluations that a step looks back on.
        algorithm_type: Deterministic, or with fresh noise in each step.
        use_karras_sigmas: Space a chain's noise levels by eq. 5 of Karras et al. (2022) instead.
        prediction_type: What the scheduler is told that the network predicts; None is epsilon on a chain and
            flow_prediction on `flow`.

    Raises:
        ValueError: If the schedule neither preserves variance nor is `flow`, or `steps` is out of range.
    """
    config = {
        "solver_order": order,
        "algorithm_type": algorithm_type,
        "use_karras_sigmas": use_karras_sigmas,
        "timestep_spacing": spacing,
    }
    draws = algorithm_type == "sde-dpmsolver++"
    return _on_either("DPMSolverMultistepScheduler", config, prediction_type, schedule, x, steps, draws=draws)


def unipc(
    schedule: Schedule,
    x: TensorType,
    *,
    steps: int = 20,
    spacing: Spacing = "trailing",
    order: Literal[1, 2, 3] = 2,
    use_karras_sigmas: bool = False,
    prediction_type: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] | None = None,
) -> Driven:
    """`UniPCMultistepScheduler`: a predictor and a corrector of one evaluation a step; on `flow` too.

    Its B(h) is `e^h - 1`: with the other, h, the last step is not finite.

    References:
        UniPC (Zhao et al., 2023), algorithm 1, https://arxiv.org/abs/2302.04867

    Args:
        steps: Number of steps.
        spacing: Which timesteps of a chain are visited.
        order: Evaluations that a step looks back on.
        use_karras_sigmas: Space a chain's noise levels by eq. 5 of Karras et al. (2022) instead.
        prediction_type: What the scheduler is told that the network predicts; None is epsilon on a chain and
            flow_prediction on `flow`.

    Raises:
        ValueError: If the schedule neither preserves variance nor is `flow`, or `steps` is out of range.
    """
    config = {"solver_order": order, "use_karras_sigmas": use_karras_sigmas, "timestep_spacing": spacing}
    return _on_either("UniPCMultistepScheduler", config, prediction_type, schedule, x, steps)


def flow_euler(schedule: Schedule, x: TensorType, *, steps: int = 28, shift: float = 1.0) -> Driven:
    """`FlowMatchEulerDiscreteScheduler`: Euler's method along a flow.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), eq. 23: the shift,
        https://arxiv.org/abs/2403.03206

    Args:
        steps: Number of steps.
        shift: How much the times crowd at the noisy end; 1 is even spacing.

    Raises:
        ValueError: If the schedule is not `flow`, `steps` is out of range or `shift` is not positive.
    """
    if shift <= 0:
        raise ValueError(f"FlowMatchEulerDiscreteScheduler expects shift above 0, got {shift}")
    scheduler = Scheduler("FlowMatchEulerDiscreteScheduler", {"shift": shift}, "flow_prediction")
    return Driven(schedule, x, follow_line(scheduler.name, schedule), scheduler, steps)


def _told(spacing: str, prediction_type: str) -> dict[str, object]:
    return {"timestep_spacing": spacing, "prediction_type": prediction_type}


def _on_chain(scheduler: Scheduler, schedule: Schedule, x: TensorType, steps: int) -> Driven:
    return Driven(schedule, x, follow_chain(scheduler.name, schedule), scheduler, steps)


def _on_strides(
    scheduler: Scheduler, following: Following, schedule: Schedule, x: TensorType, steps: int, spacing: str
) -> Driven:
    """Of a scheduler that takes `num // steps` for its stride, which trailing times have only where nothing is left."""
    if spacing == "trailing" and 0 < steps <= following.num and following.num % steps:
        raise ValueError(
            f"{scheduler.name} expects steps that divide its {following.num} timesteps, or spacing leading, got "
            f"{steps} trailing"
        )
    return Driven(schedule, x, following, scheduler, steps)


def _on_either(
    name: str,
    config: Mapping[str, object],
    prediction_type: str | None,
    schedule: Schedule,
    x: TensorType,
    steps: int,
    *,
    draws: bool = False,
) -> Driven:
    """Of a scheduler that follows a chain or the line."""
    line = is_line(schedule)
    prediction = prediction_type or ("flow_prediction" if line else "epsilon")
    config = {**config, "prediction_type": prediction, "use_flow_sigmas": line}
    following = follow_line(name, schedule) if line else follow_chain(name, schedule)
    return Driven(schedule, x, following, Scheduler(name, config, prediction, draws=draws), steps)
