"""What is said of the families, held against a study's figures.

    sharp    its sharpness is above the VAE's; detail beyond the data's is noise, so that more than 1 counts as 1
    blurs    its sharpness is below 1, the data's
    covers   its coverage is above the GAN's
    fast     its samples a second are above 3 times DDPM's by DDIM at 50 steps
    slow     3 times its samples a second are below the GAN's
    quality  its Fréchet distance is below the VAE's

`examples.studies.mean` says when one figure is above another, and what a claim of several parts comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from examples.studies.mean import VERDICTS, Claim, Mean, Verdict, judge_all

__all__ = ["CLAIMS", "Figures", "Finding", "above", "findings", "judge"]

FASTER = 3.0
"""How many times faster is fast: what a latent prior has to reach beside diffusion in pixels."""


Figures: TypeAlias = Mapping[str, Mapping[str, Mean]]
"""By row, then by score: `FD`, `coverage`, `sharpness`, `samples/s`."""


@dataclass(frozen=True)
class Finding:
    """How a claim came out.

    Args:
        claim: The claim.
        parts: Its comparisons.
    """

    claim: str
    parts: tuple[Claim, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict on all parts together."""
        return VERDICTS[judge_all(part.holds for part in self.parts)]


Compare: TypeAlias = Callable[[Figures], Claim]


def above(says: str, a: Mean, b: Mean) -> Claim:
    """The comparison that says `a` is above `b`."""
    return Claim(says, f"{a} and {b}", a.exceeds(b))


def _covers(row: str) -> Compare:
    return lambda f: above(f"coverage: {row} above gan", f[row]["coverage"], f["gan"]["coverage"])


def _sharper(row: str, other: str = "vae") -> Compare:
    def compare(figures: Figures) -> Claim:
        a, b = (figures[one]["sharpness"].at_most(1.0) for one in (row, other))
        return above(f"sharpness: {row} above {other}", a, b)

    return compare


def _faster(row: str) -> Compare:
    says = f"samples/s: {row} above {FASTER:g} × ddpm"
    return lambda f: above(says, f[row]["samples/s"], f["ddpm"]["samples/s"].times(FASTER))


def _closer(row: str) -> Compare:
    return lambda f: above(f"FD: vae above {row}", f["vae"]["FD"], f[row]["FD"])


def _blurs(figures: Figures) -> Claim:
    return above("sharpness: data above vae", Mean(1.0, 0.0), figures["vae"]["sharpness"])


def _all_three(row: str) -> tuple[Compare, ...]:
    return _closer(row), _sharper(row), _covers(row), _faster(row)


CLAIMS: dict[str, tuple[Compare, ...]] = {
    "GANs are fast and sharp but miss modes": (_faster("gan"), _sharper("gan"), _covers("vae"), _covers("ddpm")),
    "VAEs cover and blur": (_covers("vae"), _blurs),
    "Diffusion covers and is sharp but slow": (_covers("ddpm"), _sharper("ddpm"), _faster("gan")),
    "LDM has all three": _all_three("ldm"),
    "DDGAN has all three": _all_three("ddgan"),
    "VQ-VAE is sharper than VAE": (_sharper("vq-vae"),),
    "VQGAN is sharper than VQ-VAE": (_sharper("vqgan", "vq-vae"),),
}
"""The comparisons of each claim, in the order of the report."""


def judge(claim: str, figures: Figures) -> Finding:
    """How a claim came out."""
    return Finding(claim, tuple(compare(figures) for compare in CLAIMS[claim]))


def findings(figures: Figures) -> list[Finding]:
    """How all claims came out."""
    return [judge(claim, figures) for claim in CLAIMS]
