"""The verdict: what the figures of all seeds say of the claims, and the tables that show them.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from examples.studies.mean import Claim, Mean, Rows, average, join_report, tabulate

__all__ = ["LEAST_SPEEDUP", "claims", "report"]

LEAST_SPEEDUP = 3.0
_MOST_APART = 0.1  # of the parameters
_SYSTEMS = {"latent": "latent diffusion", "pixels": "diffusion in pixels"}
_COST = ("parameters", "NFE", "samples/s", "CPU s")
_QUALITY = ("FD", "precision", "recall", "density", "coverage", "FD (random-conv)")


def claims(rows: Rows) -> list[Claim]:
    """What the figures say of the claims; those of quality need two seeds or more of each system.

    Raises:
        ValueError: If a system has no row.
    """
    if missing := [name for name in _SYSTEMS if not rows.get(name)]:
        raise ValueError(f"claims expects rows of {' and '.join(_SYSTEMS)}, got none of {' and '.join(missing)}")
    return [_alike(rows), _faster(rows), _closer(rows), _covers(rows)]


def report(rows: Rows, beside: Rows) -> str:
    """The tables and the verdict, Markdown.

    Args:
        rows: Figures of each system's samples by seed.
        beside: Figures of what stands beside them (`held-out images`, `reconstructions`).
    """
    named = {title: rows[name] for name, title in _SYSTEMS.items()}
    tables = tabulate(named, _COST, {"CPU s": "CPU s of training"}), tabulate({**named, **beside}, _QUALITY)
    return join_report(tables, claims(rows))


def _alike(rows: Rows) -> Claim:
    latent, pixels = (average(rows, name, "parameters").value for name in _SYSTEMS)
    apart = abs(latent - pixels) / pixels
    return Claim("Parameters are within 10 %", f"{apart:.1%} apart", apart <= _MOST_APART)


def _faster(rows: Rows) -> Claim:
    """The ratio of each seed's pair, which was timed in turn."""
    pairs = zip(rows["latent"], rows["pixels"], strict=True)
    ratio = Mean.of([latent["samples/s"] / pixels["samples/s"] for latent, pixels in pairs])
    text = f"The latent samples at least {LEAST_SPEEDUP:g} times as fast, decoding included"
    return Claim(text, f"{ratio} times", ratio.value >= LEAST_SPEEDUP)


def _closer(rows: Rows) -> Claim:
    latent, pixels = (average(rows, name, "FD") for name in _SYSTEMS)
    text = "The latent's mean FD is lower by more than both standard errors together"
    return Claim(text, f"{latent} against {pixels}", pixels.exceeds(latent))


def _covers(rows: Rows) -> Claim:
    latent, pixels = (average(rows, name, "coverage") for name in _SYSTEMS)
    text = "Its coverage is no lower by more than that"
    holds = None if latent.error is None else pixels.exceeds(latent) is not True
    return Claim(text, f"{latent} against {pixels}", holds)
