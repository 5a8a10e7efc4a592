"""Any autoencoder with any prior that accepts its latent; each part of them has its say in the samples, or a reason."""

import re

import pytest

import modkit
from modkit import SpecError
from modkit.building.builder import Site
from modkit.building.plan import plan
from tests.covering import cover, draw
from tests.play import trainer
from tests.swap.crossing import AUTOENCODERS, PRIORS, crossings
from tests.swap.reinitialised import moved

IDLE = {
    r" encoder [\w-]+$": "sampling only decodes",
    r" discriminator [\w-]+$": "it plays in training",
    r" bottleneck (deterministic|gaussian|fsq|lfq)$": "all its weights map features to the latent",
    r"^(map|levels) ladder, (?!cascade).* bottleneck ladder$": "the prior draws the state",
    r"^map iaf, .* model\.autoencoder\.bottleneck\.flow": "the posterior's flow draws the latent of data",
    r" bottleneck top-down$": "its own nets join features on their way to the latents",
    r"^(map|levels) gumbel, (?!.*(autoregressive|masked)).* bottleneck gumbel$": "the prior draws the embeddings",
}
"""Parts that samples do not depend on, and why; every other part changes them."""

_FEW = 4  # with neither --wide nor --full
FITTING = [case for case in crossings() if case.fits]
REFUSED = [case for case in crossings() if not case.fits]


def pytest_generate_tests(metafunc):
    full, wide = (metafunc.config.getoption(option) for option in ("--full", "--wide"))
    for name, cases in (("fitting", FITTING), ("refused", REFUSED)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, cases if full else thin(cases) if wide else draw(cases, _FEW), ids=str)


def thin(cases):
    """Some of the cases at random: each prior with each kind of latents, and each autoencoder."""
    return cover(cases, lambda case: {(case.prior, *sorted(AUTOENCODERS[case.autoencoder][1])), case.autoencoder})


def idle(case, part):
    """Why samples of a case need not depend on a part."""
    return [pattern for pattern in IDLE if re.search(pattern, f"{case}: {part}")]


def test_it_trains_and_every_part_has_its_say(fitting, device, dtype, tmp_path, record_property):
    spec = fitting.spec.with_value("train.device", device).with_value("train.precision", dtype)
    playing = trainer(spec, tmp_path / "run")
    playing.fit()
    x = playing.model.sample(4, seed=0)
    assert x.shape == (4, 1, 8, 8) and x.is_floating_point() and x.isfinite().all()
    site = Site(plan(spec.with_value("train.seed", 1)), meta=False)
    data = site.data
    changed = moved(playing.model, site.build_model(data.x, data.fields).to(playing.model.device))
    assert {part: does for part, does in changed.items() if does == bool(idle(fitting, part))} == {}
    record_property("swap", ("ran", 1))


def test_it_is_refused_in_words_before_weights(refused, no_candidates, tmp_path, record_property):
    with pytest.raises(SpecError) as refusal:
        modkit.train(refused.spec, tmp_path / "run")
    assert re.search(refused.refusal, str(refusal.value))
    assert not (tmp_path / "run").exists()
    record_property("swap", ("refused", 1))


def test_every_autoencoder_has_a_prior_and_every_prior_an_autoencoder():
    assert {case.autoencoder for case in FITTING} == set(AUTOENCODERS)
    assert {case.prior for case in FITTING} == set(PRIORS)
    assert {case.prior for case in FITTING if case.autoencoder == "latent gaussian"} >= {
        "diffusion",
        "latent diffusion",
    }


def test_every_part_excused_is_in_a_case():
    found = {case: plan(case.spec).parts.items() for case in FITTING}
    parts = [f"{case}: {path} {part.kind} {part.name}" for case in found for path, part in found[case]]
    assert [pattern for pattern in IDLE if not any(re.search(pattern, part) for part in parts)] == []
