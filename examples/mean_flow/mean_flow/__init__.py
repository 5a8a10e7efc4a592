"""MeanFlow, as a part of modkit. Importing this imports no torch."""

from modkit import Part, hookimpl


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the part; modkit puts `mean/` before its name."""
    return [Part("model", "flow", "mean_flow.parts:MeanFlow", "Samples by one evaluation (Geng et al., 2025)")]
