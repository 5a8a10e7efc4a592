"""Review of priors: whether a bottleneck has one to draw from, and the Models that another one draws by can draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modkit.kinds import Bottleneck, Finding, Note
from modkit.models.model import Model
from modkit.rng import Rng

__all__ = ["explain_undrawn", "review_priors"]


def explain_undrawn(bottleneck: Bottleneck) -> str | None:
    """Returns why a bottleneck has no prior to draw from, or None.

    Examples:
        >>> from modkit.bottlenecks import Gaussian, Identity
        >>> from modkit.types import TensorType
        >>> explain_undrawn(Gaussian(TensorType((4,))))
        >>> explain_undrawn(Identity(TensorType((4,))))[:36]
        'Identity has no prior to sample from'
    """
    try:
        bottleneck.sample(1, Rng(0))
    except ValueError as error:
        return str(error)
    return None


def review_priors(models: Mapping[str, Model]) -> Iterator[Note]:
    """Finds Models that cannot draw.

    Args:
        models: The Models that an enclosing one draws by, by their paths in it.

    Examples:
        >>> from modkit.models import Autoencoder
        >>> from modkit.types import TensorType
        >>> model = Autoencoder(TensorType((4,)), encoder="mlp", decoder="mlp", bottleneck="identity")
        >>> [note.path for note in review_priors({"prior": model})]
        ['prior']
    """
    for path, model in models.items():
        if reason := model.explain_undrawn():
            yield Finding(
                path,
                f"expected a Model that can draw, got {type(model).__name__}: {reason}",
                (f"{path}.bottleneck=gaussian", f"{path}=diffusion"),
                refused=True,
            )
