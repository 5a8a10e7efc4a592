"""A refusal by types names the parts that would fit in its place."""

from __future__ import annotations

import pytest

import modkit
from modkit import Spec, SpecError, use
from modkit.errors import Problem


def refuse(spec: Spec) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as error:
        modkit.check(spec)
    return error.value.problems


def test_default_of_another_type_names_what_fits() -> None:
    (problem,) = refuse(Spec(model=use("diffusion"), data=use("ring")))
    assert (problem.path, problem.hint) == ("model.network", "what fits there: mlp")
    assert modkit.check(Spec(model=use("diffusion", network="mlp"), data=use("ring")))


@pytest.mark.wide
def test_each_part_named_builds() -> None:
    model = use("latent", autoencoder=use("autoencoder", bottleneck="gaussian"), prior=use("autoregressive"))
    (problem,) = refuse(Spec(model=model, data=use("digits")))
    assert problem.path == "model.prior" and problem.hint
    named = problem.hint.removeprefix("what fits there: ").split(", ")
    assert {"diffusion", "gan"} <= set(named) and "autoregressive" not in named
    for name in named:
        modkit.check(Spec(model=use("latent", autoencoder=use("autoencoder"), prior=use(name)), data=use("digits")))


def test_each_of_several_problems_has_its_own_hint() -> None:
    problems = refuse(Spec(model=use("gan", generator="dcgan", discriminator="dcgan"), data=use("ring")))
    assert {problem.path: problem.hint for problem in problems} == {
        "model.generator": "what fits there: mlp",
        "model.discriminator": "what fits there: mlp, packed",
    }


def test_nothing_is_named_if_nothing_fits() -> None:
    model = use("diffusion", network=use("mlp", cond={"vector": 3}), conditioner="map")
    assert all(problem.hint is None or "fits" not in problem.hint for problem in refuse(Spec(model=model)))
