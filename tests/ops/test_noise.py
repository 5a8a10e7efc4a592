import pytest
import torch

from modkit.ops.noise import compute_noise, draw_noise, draw_noise_reference, make_state
from modkit.rng import Rng

LAWS = ["normal", "uniform", "integers"]


def refer(state, num, size, law, dtype):
    return draw_noise_reference(state.cpu().numpy().tobytes(), num, size, law, 0, 9).to(dtype)


@pytest.mark.wide(1)
@pytest.mark.parametrize("law", LAWS)
def test_the_op_is_sound_and_draws_what_the_reference_draws(law):
    for (num, size), dtype in zip(((3, 70), (1, 1), (0, 4), (2, 0)), (torch.float32, torch.float16, torch.int64) * 2):
        state = make_state(bytes(range(16)), 2**33, size)
        torch.library.opcheck(compute_noise, (state, num, size, law, 0, 9, dtype))
        assert torch.equal(compute_noise(state, num, size, law, 0, 9, dtype), refer(state, num, size, law, dtype))


@pytest.mark.parametrize(("dtype", "largest"), [(torch.bfloat16, 1 - 2**-8), (torch.float16, 1 - 2**-11)])
def test_uniform_draws_of_16_bits_are_below_1(dtype, largest):
    like = torch.empty(20, 1000)
    exact, drawn = (draw_noise("uniform", bytes(16), 0, one) for one in (like, like.to(dtype)))
    assert drawn.dtype == dtype and drawn.max() == largest
    close = exact.to(dtype) == 1
    assert close.any() and torch.equal(drawn, exact.to(dtype).masked_fill(close, largest))


def test_it_compiles_as_a_whole():
    def double(state, num):
        return 2 * compute_noise(state, num, 5, "normal", 0, 1, torch.float32)

    state, compiled = make_state(bytes(16), 7, 5), torch.compile(double, fullgraph=True, backend="aot_eager")
    for num in (2, 3):
        assert torch.equal(compiled(state, num), double(state, num))


@pytest.fixture
def draw_twice(monkeypatch):
    """Draws what is drawn on a card, and what is on the CPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")

    def draw(law, shape, dtype=torch.float32, first=2**33 + 5, key=bytes(range(16))):
        like = torch.empty(shape, dtype=dtype)
        return [draw_noise(law, key, first, on, 0, 2**31).cpu() for on in (like.cuda(), like)]

    return draw


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_card_draws_the_noise_of_the_cpu(draw_twice, dtype):
    for shape in ((1,), (5, 64), (3, 65), (2, 3, 10, 10), (2, 3, 64, 64), (0, 4)):
        for law in LAWS[1:]:
            ours, wanted = draw_twice(law, shape, torch.int64 if law == "integers" else dtype)
            assert torch.equal(ours, wanted)
        ours, wanted = draw_twice("normal", shape, dtype)
        rounding = 0 if dtype in (torch.float32, torch.float64) else torch.finfo(dtype).eps
        torch.testing.assert_close(ours, wanted, rtol=5e-7 + rounding, atol=1e-7)  # a few ulp of log, cos and sin


@pytest.mark.parametrize("mode", ["auto", "reference"])
def test_a_card_never_waits_for_a_draw(draw_twice, monkeypatch, mode):
    monkeypatch.setenv("MODKIT_OPS", mode)
    like, rng = torch.empty(4, 3, device="cuda"), Rng(0)
    rng.normal("first", like)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = [rng.normal("a", like), rng.uniform("b", like), rng.integers("c", like, 0, 5)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    rng = Rng(0)
    wanted = [rng.normal("a", like.cpu()), rng.uniform("b", like.cpu()), rng.integers("c", like.cpu(), 0, 5)]
    torch.testing.assert_close([x.cpu() for x in drawn], wanted)


def test_a_captured_graph_draws_anew_from_what_its_state_holds(draw_twice):
    state = make_state(bytes(16), 0, 100).cuda()
    compute_noise(state, 7, 100, "normal", 0, 1, torch.float32)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn = compute_noise(state, 7, 100, "normal", 0, 1, torch.float32)
    for first in (3, 2**40):
        state.copy_(make_state(bytes(16), first, 100))
        graph.replay()
        torch.testing.assert_close(drawn.cpu(), refer(state, 7, 100, "normal", torch.float32))
