"""What is said of the families, held against a study's figures.

    sharp    its sharpness is above the VAE's; detail beyond the data's is noise, so that more than 1 counts as 1
    blurs    its sharpness is below 1, the data's
    covers   its coverage is above the GAN's
    fast     its samples a second are above 3 times DDPM's by DDIM at 50 steps
    slow     3 times its samples a second are below the GAN's
    quality  its Fréchet distance is below the VAE's

One figure is above another if it is by more than both standard errors together, below if the reverse holds, and else
they are not told apart. A claim whose parts all hold is confirmed, one of which any part is reversed is contradicted,
and any other is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from examples.studies.mean import Mean

__all__ = ["CLAIMS", "Figures", "Finding", "Part", "Verdict", "above", "findings"]

Verdict: TypeAlias = Literal["confirmed", "contradicted", "undecided"]
FASTER = 3.0
"""How many times faster is fast: what a latent prior has to reach beside diffusion in pixels."""


Figures: TypeAlias = Mapping[str, Mapping[str, Mean]]
"""By row, then by score: `FD`, `coverage`, `sharpness`, `samples/s`."""


class Part(NamedTuple):
    """One comparison of a claim: what it says, how it came out, and the two figures."""

    says: str
    verdict: Verdict
    figures: tuple[Mean, Mean]


@dataclass(frozen=True)
class Finding:
    """How a claim came out.

    Args:
        claim: The claim.
        parts: Its comparisons.
    """

    claim: str
    parts: tuple[Part, ...]

    @property
    def verdict(self) -> Verdict:
        """Confirmed if all parts are, contradicted if one is, else undecided."""
        found = {part.verdict for part in self.parts}
        return "contradicted" if "contradicted" in found else "undecided" if "undecided" in found else "confirmed"


def above(says: str, a: Mean, b: Mean) -> Part:
    """The comparison that says `a` is above `b`."""
    verdict: Verdict = "undecided"
    if a.error is not None and b.error is not None:
        margin = a.error + b.error
        verdict = "confirmed" if a.value - b.value > margin else verdict
        verdict = "contradicted" if b.value - a.value > margin else verdict
    return Part(says, verdict, (a, b))


def gans(figures: Figures) -> Finding:
    """GANs are fast and sharp but miss modes."""
    parts = (_fast(figures, "gan"), _sharper(figures, "gan", "vae"))
    missing = tuple(
        above(f"coverage: {other} above gan", figures[other]["coverage"], figures["gan"]["coverage"])
        for other in ("vae", "ddpm")
    )
    return Finding("GANs are fast and sharp but miss modes", parts + missing)


def vaes(figures: Figures) -> Finding:
    """VAEs cover and blur."""
    blurs = above("sharpness: data above vae", Mean(1.0, 0.0), figures["vae"]["sharpness"])
    return Finding("VAEs cover and blur", (_covers(figures, "vae"), blurs))


def diffusion(figures: Figures) -> Finding:
    """Diffusion covers and is sharp but slow."""
    slow = above(
        f"samples/s: gan above {FASTER:g} × ddpm",
        figures["gan"]["samples/s"],
        figures["ddpm"]["samples/s"].times(FASTER),
    )
    parts = (_covers(figures, "ddpm"), _sharper(figures, "ddpm", "vae"), slow)
    return Finding("Diffusion covers and is sharp but slow", parts)


def ldm(figures: Figures) -> Finding:
    """LDM has all three."""
    return Finding("LDM has all three", _all_three(figures, "ldm"))


def ddgan(figures: Figures) -> Finding:
    """DDGAN has all three."""
    return Finding("DDGAN has all three", _all_three(figures, "ddgan"))


def vq_vae(figures: Figures) -> Finding:
    """VQ-VAE is sharper than VAE."""
    return Finding("VQ-VAE is sharper than VAE", (_sharper(figures, "vq-vae", "vae"),))


def vqgan(figures: Figures) -> Finding:
    """VQGAN is sharper than VQ-VAE."""
    return Finding("VQGAN is sharper than VQ-VAE", (_sharper(figures, "vqgan", "vq-vae"),))


CLAIMS: tuple[Callable[[Figures], Finding], ...] = (gans, vaes, diffusion, ldm, ddgan, vq_vae, vqgan)
"""In the order of the report."""


def findings(figures: Figures) -> list[Finding]:
    """How all claims came out."""
    return [claim(figures) for claim in CLAIMS]


def _all_three(figures: Figures, row: str) -> tuple[Part, ...]:
    quality = above(f"FD: vae above {row}", figures["vae"]["FD"], figures[row]["FD"])
    return quality, _sharper(figures, row, "vae"), _covers(figures, row), _fast(figures, row)


def _sharper(figures: Figures, row: str, other: str) -> Part:
    a, b = (figures[one]["sharpness"].at_most(1.0) for one in (row, other))
    return above(f"sharpness: {row} above {other}", a, b)


def _covers(figures: Figures, row: str) -> Part:
    return above(f"coverage: {row} above gan", figures[row]["coverage"], figures["gan"]["coverage"])


def _fast(figures: Figures, row: str) -> Part:
    ddpm = figures["ddpm"]["samples/s"].times(FASTER)
    return above(f"samples/s: {row} above {FASTER:g} × ddpm", figures[row]["samples/s"], ddpm)
