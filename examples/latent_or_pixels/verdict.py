r"""The verdict: what the figures of all seeds say of the claims, and the tables that show them.

    mean and its standard error over seeds: m, s = std / sqrt(n)
    higher:  m_latent - m_pixels > s_latent + s_pixels
    not lower:  m_latent >= m_pixels - (s_latent + s_pixels)

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from examples.studies.mean import Claim, Mean, table

__all__ = ["LEAST_SPEEDUP", "claims", "report"]

Rows: TypeAlias = Mapping[str, Sequence[Mapping[str, float]]]
"""By system (`latent`, `pixels`), a row of figures a seed."""

LEAST_SPEEDUP = 3.0
_MOST_APART = 0.1  # of the parameters
_SYSTEMS = {"latent": "latent diffusion", "pixels": "diffusion in pixels"}
_COST = {"parameters": "parameters", "NFE": "NFE", "samples/s": "samples/s", "CPU s": "CPU s of training"}
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
    cost = _table(_COST, {_SYSTEMS[name]: rows[name] for name in _SYSTEMS})
    quality = _table({name: name for name in _QUALITY}, {**{_SYSTEMS[name]: rows[name] for name in _SYSTEMS}, **beside})
    verdict = "\n".join(f"- {claim}" for claim in claims(rows))
    return f"{cost}\n\n{quality}\n\n{verdict}\n"


def _alike(rows: Rows) -> Claim:
    latent, pixels = (_mean(rows, name, "parameters").value for name in _SYSTEMS)
    apart = abs(latent - pixels) / pixels
    return Claim("Parameters are within 10 %", f"{apart:.1%} apart", apart <= _MOST_APART)


def _faster(rows: Rows) -> Claim:
    """The ratio of each seed's pair, which was timed in turn."""
    pairs = zip(rows["latent"], rows["pixels"], strict=True)
    ratio = Mean.of([latent["samples/s"] / pixels["samples/s"] for latent, pixels in pairs])
    text = f"The latent samples at least {LEAST_SPEEDUP:g} times as fast, decoding included"
    return Claim(text, f"{ratio} times", ratio.value >= LEAST_SPEEDUP)


def _closer(rows: Rows) -> Claim:
    latent, pixels = (_mean(rows, name, "FD") for name in _SYSTEMS)
    text = "The latent's mean FD is lower by more than both standard errors together"
    return Claim(text, f"{latent} against {pixels}", pixels.exceeds(latent))


def _covers(rows: Rows) -> Claim:
    latent, pixels = (_mean(rows, name, "coverage") for name in _SYSTEMS)
    lower = pixels.exceeds(latent)
    text = "Its coverage is no lower by more than that"
    return Claim(text, f"{latent} against {pixels}", None if lower is None else not lower)


def _mean(rows: Rows, system: str, figure: str) -> Mean:
    return Mean.of([row[figure] for row in rows[system]])


def _table(columns: Mapping[str, str], rows: Rows) -> str:
    """Means over seeds; a figure that a row of the table lacks is left out."""
    cells = [
        [name, *(str(_mean(rows, name, key)) if all(key in row for row in seeds) else "–" for key in columns)]
        for name, seeds in rows.items()
    ]
    return table(["", *columns.values()], cells)
