"""vector-quantize-pytorch's quantizers as bottlenecks of modkit. Importing this imports no torch."""

from __future__ import annotations

from modkit import Part, hookimpl

__all__ = ["modkit_parts"]


_PARTS = [
    ("vq", "vq:VectorQuantizer", "Nearest code (van den Oord et al., 2017)"),
    ("residual-vq", "residual_vq:ResidualQuantizer", "Sum of codes, coarse to fine (Zeghidour et al., 2021)"),
    (
        "grouped-residual-vq",
        "residual_vq:GroupedResidualQuantizer",
        "Residual codes for each group of channels (Yang et al., 2023)",
    ),
    ("fsq", "fsq:FiniteScalarQuantizer", "Channels rounded to a few levels (Mentzer et al., 2023)"),
    ("residual-fsq", "fsq:ResidualFiniteScalarQuantizer", "Levels of levels, coarse to fine (Mentzer et al., 2023)"),
    ("lfq", "lfq:LookupFreeQuantizer", "A bit a channel, its sign (Yu et al., 2023)"),
    ("sim-vq", "sim_vq:SimQuantizer", "Random codes under one learned linear map (Zhu et al., 2024)"),
]


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the parts of this plug-in; modkit puts `quantizers/` before their names."""
    earlier = {"tokens": 1}
    return [Part("bottleneck", name, f"{__name__}.{target}", text, earlier=earlier) for name, target, text in _PARTS]
