"""Guard bands: poisoned values beside every tensor that a kernel reads or writes, for Triton's interpreter finds no bad
address by itself."""

import torch
from torch.overrides import TorchFunctionMode

BAND = 64
POISON = {torch.int64: -(2**40) - 1, torch.int32: -(2**30) - 1, torch.uint8: 173}


def guard(x, poison=None):
    """A copy of `x` with its strides, inside a poisoned buffer: NaN, or a number that no kernel computes."""
    size = sum((length - 1) * stride for length, stride in zip(x.shape, x.stride())) + 1 if x.numel() else 0
    poison = POISON.get(x.dtype, float("nan")) if poison is None else poison
    buffer = torch.full((size + 2 * BAND,), poison, dtype=x.dtype, device=x.device)
    return buffer.as_strided(x.shape, x.stride(), BAND).copy_(x)


class Guards(TorchFunctionMode):
    """Puts guard bands around all that a launcher allocates, and finds what was written there.

    What is allocated is poisoned as well, so that a value that a kernel leaves out is noticed.
    """

    ALLOCATE = (torch.empty, torch.empty_like, torch.Tensor.new_empty)

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func not in self.ALLOCATE or not made.numel():
            return made
        made = guard(torch.full_like(made, POISON.get(made.dtype, float("nan"))))
        self.made.append(made)
        return made

    def __exit__(self, *error):
        super().__exit__(*error)
        for made in self.made:
            bands, poison = torch.cat([made._base[:BAND], made._base[-BAND:]]), POISON.get(made.dtype)
            assert (bands.isnan() if poison is None else bands == poison).all(), "a kernel wrote beside its output"
