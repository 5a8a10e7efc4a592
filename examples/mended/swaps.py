"""Figures of swaps and of compositions whose types fit: what is kept, accepted or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from examples.mended.figure import Value
from examples.mended.toy import MLP, SMALL, make_spec
from modkit import Spec, build, check, use
from modkit.specs.overrides import apply

__all__ = [
    "guide_without_null",
    "leave_fields_unread",
    "predict_eps",
    "scale_by_channel",
    "swap_bottleneck",
    "swap_prior",
]

_CODER = use("autoencoder", encoder=SMALL, decoder=SMALL, weights={"kl": 1e-3})
_EDM = {"schedule": "edm", "times": "log-normal", "parametrization": "edm", "sampler": use("heun", steps=18)}
_LDM = use("latent", autoencoder=_CODER, prior=use("diffusion", network=SMALL, **_EDM))
"""Latent diffusion with the parts of `examples/ldm.yaml` as it was, all of them written out."""


def swap_prior() -> Value:
    """Of `model.prior=denoising-gan` on latent diffusion: its sampler and schedule, and a sample's evaluations."""
    model: Any = build(_swap("model.prior=denoising-gan", "model.prior.network=mlp", "model.prior.discriminator=mlp"))
    prior = model.prior
    count = _count_calls(prior)
    schedule = type(getattr(prior.schedule, "schedule", prior.schedule)).__name__
    return [type(prior.sampler).__name__, schedule, f"{count} evaluations"]


def swap_bottleneck() -> Value:
    """`bottleneck=fsq` on latent diffusion with a weight on `kl`, which is then no loss any more."""
    return _accept(_swap("model.autoencoder.bottleneck=fsq"))


def guide_without_null() -> Value:
    """Classifier-free guidance of a latent without a conditioner."""
    return _accept(_diffuse(parametrization="v", guidance="cfg"))


def predict_eps() -> Value:
    """A latent, which has no range to clip to, whose network predicts eps under `cosine`."""
    return _accept(_diffuse(parametrization="eps"))


def leave_fields_unread() -> Value:
    """An autoencoder, which has no conditioner, of masked digits."""
    return _accept(make_spec(MLP, use("corrupted", data=use("digits", size=8), corruption="mask")))


def scale_by_channel() -> Value:
    """A scale for each channel of the latent; `by_channel` is new."""
    return _accept(make_spec(use("latent", autoencoder=MLP, prior=use("diffusion", network=SMALL), by_channel=True)))


def _diffuse(**parts: Any) -> Spec:
    prior = use("diffusion", network=SMALL, schedule="cosine", sampler=use("ddim", steps=50), **parts)
    return make_spec(use("latent", autoencoder=MLP, prior=prior))


def _swap(*overrides: str) -> Spec:
    return apply(make_spec(_LDM), overrides)[0]


def _accept(spec: Spec) -> str:
    check(spec)
    return "accepted"


def _count_calls(model: Any) -> int:
    calls: list[Sequence[object]] = []
    hook = model.network.register_forward_pre_hook(lambda module, inputs: calls.append(inputs))
    model.sample(1, seed=0)
    hook.remove()
    return len(calls)
