import torch

from modkit.precision import widen


def test_widens_to_float32_and_leaves_float64():
    want = {torch.bfloat16: torch.float32, torch.float16: torch.float32}
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        value = torch.tensor([0.5, 3.0], dtype=dtype)
        assert widen(value).dtype == want.get(dtype, dtype)
        assert widen(value).tolist() == [0.5, 3.0]
