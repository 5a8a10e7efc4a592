"""vector-quantize-pytorch's quantizers as bottlenecks of modkit. Importing this imports no torch."""

from __future__ import annotations

from modkit import Part, hookimpl

__all__ = ["modkit_parts"]


@hookimpl
def modkit_parts() -> list[Part]:
    """The parts of this plug-in; modkit puts `quantizers/` before their names."""
    return [
        Part("bottleneck", "vq", "modkit_quantizers.vq:VectorQuantizer", "Nearest code (van den Oord et al., 2017)"),
        Part(
            "bottleneck",
            "residual-vq",
            "modkit_quantizers.residual_vq:ResidualQuantizer",
            "Sum of codes, coarse to fine (Zeghidour et al., 2021)",
        ),
        Part(
            "bottleneck",
            "grouped-residual-vq",
            "modkit_quantizers.residual_vq:GroupedResidualQuantizer",
            "Residual codes for each group of channels (Yang et al., 2023)",
        ),
        Part(
            "bottleneck",
            "fsq",
            "modkit_quantizers.fsq:FiniteScalarQuantizer",
            "Channels rounded to a few levels (Mentzer et al., 2023)",
        ),
        Part(
            "bottleneck",
            "residual-fsq",
            "modkit_quantizers.fsq:ResidualFiniteScalarQuantizer",
            "Levels of levels, coarse to fine (Mentzer et al., 2023)",
        ),
        Part(
            "bottleneck",
            "lfq",
            "modkit_quantizers.lfq:LookupFreeQuantizer",
            "A bit a channel, its sign (Yu et al., 2023)",
        ),
        Part(
            "bottleneck",
            "sim-vq",
            "modkit_quantizers.sim_vq:SimQuantizer",
            "Random codes under one learned linear map (Zhu et al., 2024)",
        ),
    ]
