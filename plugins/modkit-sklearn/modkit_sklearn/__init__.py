"""scikit-learn's models as parts of modkit. Importing this imports neither torch nor scikit-learn."""

from __future__ import annotations

from modkit import Part, hookimpl

__all__ = ["modkit_parts"]


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the parts of this plug-in; modkit puts `sklearn/` before their names."""
    return [
        Part(
            "model",
            "gaussian-mixture",
            "modkit_sklearn.gaussian_mixture:GaussianMixture",
            "Gaussians fitted by expectation maximisation (Dempster et al., 1977)",
        )
    ]
