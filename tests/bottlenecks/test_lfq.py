import itertools

import pytest
import torch

from modkit.bottlenecks import LookupFreeQuantizer
from modkit.bottlenecks.lfq import compute_code_entropies
from modkit.types import TensorType
from tests.bottlenecks.parts import passing
from tests.refusals import refusals


def make(bits, **keywords):
    return passing(LookupFreeQuantizer(TensorType((bits,)), bits=bits, tokens=1, **keywords))


def over_all_codes(z, temperature):
    """E H(q) and H(E q) by the table of 2^n codes."""
    table = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=z.shape[1])), dtype=z.dtype)
    q = (-((z[:, None] - table) ** 2).sum(2) / temperature).softmax(1)
    entropy = torch.special.entr
    return entropy(q).sum(1).mean(), entropy(q.mean(0)).sum()


def test_codes_are_the_bits_of_signs():
    part = make(5)
    z = torch.randn(100, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[0] = 0
    values, kl, losses = part(z, None)
    want = [sum(2**i for i, value in enumerate(row) if value > 0) for row in z.tolist()]
    assert values["codes"].flatten().tolist() == want and want[0] == 0
    assert torch.equal(values["continuous"], z)
    assert torch.equal(values["quantized"], torch.where(z > 0, 1.0, -1.0).double())
    assert kl is None and set(losses) == {"code_entropy", "commitment"}
    codes = torch.arange(32)[:, None]
    assert torch.equal(part.encode(part.embed(codes)), codes)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_entropies_are_those_over_all_codes(bits, temperature):
    z = torch.randn(40, bits, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    z = z + z[:, :1]  # bits that go together
    got = compute_code_entropies(4 * z.view(8, 5, bits) / temperature)
    torch.testing.assert_close(got, over_all_codes(z, temperature))


def test_the_entropy_of_many_bits_is_that_of_groups(monkeypatch):
    monkeypatch.setattr("modkit.bottlenecks.lfq._GROUP", 4)
    z = torch.randn(30, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    each, whole = compute_code_entropies(4 * z[:, None])
    groups = [over_all_codes(part, 1.0) for part in z.split(4, 1)]
    torch.testing.assert_close(whole, sum(group[1] for group in groups))
    torch.testing.assert_close(each, over_all_codes(z, 1.0)[0])
    assert whole > over_all_codes(z, 1.0)[1]
    first, second = torch.randn(5, 4).double(), torch.randn(6, 4).double()
    z = torch.cat([first.repeat_interleave(6, 0), second.repeat(5, 1)], 1)  # independent groups
    torch.testing.assert_close(compute_code_entropies(4 * z[:, None]), over_all_codes(z, 1.0))


def test_entropies_stay_float32_under_autocast():
    z = torch.randn(50, 1, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        each, whole = compute_code_entropies(4 * z)
    torch.testing.assert_close((each, whole), tuple(one.float() for one in over_all_codes(z[:, 0].double(), 1.0)))


def test_losses_by_hand():
    part = make(3, entropy=0.2, diversity=0.7, temperature=0.8, commitment=0.5)
    z = torch.cartesian_prod(*[torch.tensor([0.3, -0.9])] * 3).double()
    losses = part(z, None).losses
    each, whole = over_all_codes(z, 0.8)
    torch.testing.assert_close(losses["code_entropy"], 0.2 * (each - 0.7 * whole))
    torch.testing.assert_close(losses["commitment"], 0.5 * (z - z.sign()).square().mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_the_entropy_at_sure_bits_are_finite(dtype):
    logits = torch.tensor([[[1e4, -1e4, 0.1], [1e4, -1e4, 3.0]]], dtype=dtype, requires_grad=True)
    each, whole = compute_code_entropies(logits)
    gradient = torch.autograd.grad(each - whole, logits)[0]
    assert gradient.isfinite().all() and gradient[..., 2].abs().min() > 0
    assert torch.autograd.gradcheck(
        compute_code_entropies, torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    )


test_refuses_keywords = refusals(
    ({"bits": 0}, r"LookupFreeQuantizer expects bits to be in \[1, 30\], got 0"),
    ({"bits": 31}, r"LookupFreeQuantizer expects bits to be in \[1, 30\], got 31"),
    ({"temperature": 0.0}, r"LookupFreeQuantizer expects temperature to be above 0, got 0\.0"),
    ({"diversity": -1.0}, r"LookupFreeQuantizer expects diversity to be at least 0, got -1\.0"),
    of=lambda keywords: LookupFreeQuantizer(TensorType((3,)), **keywords),
)
