"""The claims come out each way on figures made up for it."""

import pytest

from examples.studies.mean import Mean
from examples.trilemma.claims import CLAIMS, above, findings, judge

AS_SAID = {  # FD, coverage, sharpness, samples/s
    "vae": (3.0, 0.9, 0.6, 9000.0),
    "gan": (2.0, 0.6, 1.02, 9000.0),
    "ddpm": (1.0, 0.95, 0.98, 100.0),
    "vq-vae": (2.0, 0.9, 0.8, 500.0),
    "vqgan": (1.5, 0.9, 0.95, 500.0),
    "ldm": (1.0, 0.95, 0.9, 900.0),
    "ddgan": (1.0, 0.95, 0.97, 900.0),
}
GANS, VAES, DIFFUSION, LDM, DDGAN, VQ_VAE, VQGAN = CLAIMS
NAMES = ("FD", "coverage", "sharpness", "samples/s")


def made_up(**changes):
    """`vq_vae__sharpness=0.5` in words of Python; errors of 1 %."""
    rows = {row: list(values) for row, values in AS_SAID.items()}
    for key, value in changes.items():
        row, _, score = key.partition("__")
        rows[row.replace("_", "-")][NAMES.index("samples/s" if score == "speed" else score)] = value
    return {
        row: {name: Mean(v, 0.01 * v) for name, v in zip(NAMES, values, strict=True)} for row, values in rows.items()
    }


def test_all_are_confirmed_where_all_is_as_said():
    found = findings(made_up())
    assert [one.verdict for one in found] == ["confirmed"] * 7
    assert [one.claim for one in found] == list(CLAIMS)


@pytest.mark.parametrize(
    ("claim", "change", "part"),
    [
        (GANS, {"gan__speed": 200.0}, "samples/s: gan above 3 × ddpm"),
        (GANS, {"gan__sharpness": 0.5}, "sharpness: gan above vae"),
        (GANS, {"gan__coverage": 0.92}, "coverage: vae above gan"),
        (GANS, {"ddpm__coverage": 0.4}, "coverage: ddpm above gan"),
        (VAES, {"vae__coverage": 0.5}, "coverage: vae above gan"),
        (VAES, {"vae__sharpness": 1.1}, "sharpness: data above vae"),
        (DIFFUSION, {"ddpm__coverage": 0.5}, "coverage: ddpm above gan"),
        (DIFFUSION, {"ddpm__sharpness": 0.5}, "sharpness: ddpm above vae"),
        (DIFFUSION, {"ddpm__speed": 4000.0}, "samples/s: gan above 3 × ddpm"),
        (LDM, {"ldm__FD": 4.0}, "FD: vae above ldm"),
        (LDM, {"ldm__sharpness": 0.3}, "sharpness: ldm above vae"),
        (LDM, {"ldm__coverage": 0.3}, "coverage: ldm above gan"),
        (LDM, {"ldm__speed": 250.0}, "samples/s: ldm above 3 × ddpm"),
        (DDGAN, {"ddgan__FD": 4.0}, "FD: vae above ddgan"),
        (DDGAN, {"ddgan__sharpness": 0.3}, "sharpness: ddgan above vae"),
        (DDGAN, {"ddgan__coverage": 0.3}, "coverage: ddgan above gan"),
        (DDGAN, {"ddgan__speed": 250.0}, "samples/s: ddgan above 3 × ddpm"),
        (VQ_VAE, {"vq_vae__sharpness": 0.5}, "sharpness: vq-vae above vae"),
        (VQGAN, {"vqgan__sharpness": 0.7}, "sharpness: vqgan above vq-vae"),
    ],
)
def test_one_reversed_part_contradicts(claim, change, part):
    found = judge(claim, made_up(**change))
    assert found.verdict == "contradicted"
    assert [one.text for one in found.parts if one.verdict == "contradicted"] == [part]


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        (GANS, {"gan__coverage": 0.9}),
        (VAES, {"vae__sharpness": 1.0}),
        (DIFFUSION, {"ddpm__coverage": 0.6}),
        (LDM, {"ldm__speed": 300.0}),
        (DDGAN, {"ddgan__FD": 3.0}),
        (VQ_VAE, {"vq_vae__sharpness": 0.6}),
        (VQGAN, {"vqgan__sharpness": 0.8}),
    ],
)
def test_what_is_not_told_apart_is_undecided(claim, change):
    assert judge(claim, made_up(**change)).verdict == "undecided"


def test_a_reversed_part_outweighs_one_that_is_not_told_apart():
    assert judge(VAES, made_up(vae__sharpness=1.0, vae__coverage=0.5)).verdict == "contradicted"


def test_both_standard_errors_together_are_the_margin():
    assert above("", Mean(1.0, 0.1), Mean(0.8, 0.09)).verdict == "confirmed"
    assert above("", Mean(1.0, 0.1), Mean(0.8, 0.11)).verdict == "undecided"
    assert above("", Mean(0.8, 0.1), Mean(1.0, 0.09)).verdict == "contradicted"
    assert above("", Mean(1.0, None), Mean(0.0, 0.1)).verdict == "undecided"


def test_detail_beyond_the_datas_is_no_sharpness():
    noisy = made_up(vqgan__sharpness=1.5, vq_vae__sharpness=1.2)
    assert judge(VQGAN, noisy).verdict == "undecided"
    assert judge(VQ_VAE, noisy).verdict == "confirmed"
