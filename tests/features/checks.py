"""What every feature extractor promises."""

import pytest
import torch

from modkit.features.frozen import Frozen


def check_extractor(part, x):
    """`part` is frozen, differentiable in `x`, independent of the batch and of `.train()`; `x` is `b ...`, b >= 3."""
    assert isinstance(part.label, str) and part.key() == part.key()
    part.train()
    assert not any(module.training for module in part.modules() if isinstance(part, Frozen))
    assert not any(parameter.requires_grad for parameter in part.parameters())

    x = x.clone().requires_grad_()
    features = part(x)
    assert features.vector.ndim == 2 and len(features.vector) == len(x)
    (gradient,) = torch.autograd.grad(features.vector.square().sum(), x)
    assert gradient.isfinite().all() and gradient.flatten(1).norm(dim=1).min() > 0

    order = torch.tensor([2, 0])
    again = part(x.detach()[order])
    tolerance = 1e-4 * features.vector.abs().max().item()
    torch.testing.assert_close(again.vector, features.vector.detach()[order], rtol=0, atol=tolerance)

    with pytest.raises(ValueError, match=f"{type(part).__name__} expects x of"):
        part(x[0])
    return features
