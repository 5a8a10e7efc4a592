from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from modkit.metrics.flops import count_operations
from modkit.nn.transformer import Transformer
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions
from tests.play import shake
from tests.refusals import refusals

CODES = TensorType((2, 3), classes=5)
MAP = TensorType((3, 2, 3))
NOTHING = CondType()
FULL = CondType(vector=3, noise=2, labels=4, context=(2, 7), concat=TensorType((4, 5), classes=6), time=True)
KINDS = {
    "nothing": CondType(),
    "vector": CondType(vector=3),
    "context": CondType(context=(2, 7)),
    "codes": CondType(concat=TensorType((1, 1), classes=6)),
    "map": CondType(concat=TensorType((2, 4, 6))),
    "everything": FULL,
}


def network(cond=NOTHING, causal=True, codes=CODES, **options):
    torch.manual_seed(0)
    return shake(
        Transformer(codes, cond, causal, **{"width": 8, "depth": 2, "heads": 2, **options}).double().eval(), 0.2
    )


def codes(num, type=CODES, seed=1):
    return torch.randint(type.classes, (num, *type.shape), generator=torch.Generator().manual_seed(seed))


def stepped(made, x, cond):
    flat, cache, logits = x.flatten(1), None, []
    for i in range(flat.shape[1]):
        one, cache = made.step(flat[:, max(i - 1, 0)], i, cond, cache)
        logits.append(one)
    return torch.stack(logits, 1)


@pytest.mark.parametrize("cond", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("positions", ["axial", "table"])
def test_steps_give_the_logits_of_forward(cond, positions):
    made, x, given = network(cond, positions=positions), codes(3), conditions(cond, 3)
    whole = made(x, given)
    assert whole.shape == (3, 6, 5)
    torch.testing.assert_close(stepped(made, x, given), whole, rtol=0, atol=1e-10)
    single = conditions(cond, 3, torch.float32)
    torch.testing.assert_close(stepped(made.float(), x, single), made(x, single), rtol=0, atol=1e-5)


def test_logits_depend_on_the_codes_before_them_alone():
    made, x = network(), codes(2)
    logits = made(x, Cond())
    for i in range(6):
        other = x.flatten(1).clone()
        other[:, i] = (other[:, i] + 1) % 5
        moved = (made(other.view(2, 2, 3), Cond()) - logits).abs().amax((0, 2))
        assert not moved[: i + 1].any() and (moved[i + 1 :] > 1e-6).all()


@pytest.mark.parametrize("cond", KINDS.values(), ids=KINDS)
def test_of_a_continuous_map_steps_give_the_vectors_of_forward(cond):
    made, given = network(cond, codes=MAP), conditions(cond, 3)
    x = torch.randn(3, *MAP.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, cache, flat = made(x, given), None, x.flatten(2)
    assert made.width == 8 and whole.shape == (3, 6, 8)
    for i in range(6):
        one, cache = made.step(flat[..., max(i - 1, 0)], i, given, cache)
        torch.testing.assert_close(one, whole[:, i], rtol=0, atol=1e-10)


def test_vectors_depend_on_the_tokens_before_them_alone():
    made, x = network(codes=MAP), torch.ones(1, *MAP.shape, dtype=torch.float64)
    moved = torch.autograd.functional.jacobian(lambda one: made(one, Cond())[0], x)  # n d 1 c h w
    reached = moved.abs().amax((1, 2, 3)).flatten(1) > 1e-6
    assert torch.equal(reached, torch.ones(6, 6, dtype=torch.bool).tril(-1))


def test_logits_of_masked_codes_depend_on_all_others():
    made, x = network(causal=False), torch.full((2, 2, 3), 5)
    logits = made(x, Cond())
    for i in range(6):
        other = x.flatten(1).clone()
        other[:, i] = 2
        assert ((made(other.view(2, 2, 3), Cond()) - logits).abs().amax((0, 2)) > 1e-6).all()


@pytest.mark.parametrize("causal", [True, False])
def test_the_input_is_prefix_start_and_shifted_codes_with_each_position_s_own(causal):
    cond = replace(FULL, concat=TensorType((2, 3), classes=6), time=False, noise=None, labels=None)
    made, x, given = network(cond, causal), codes(3), conditions(cond, 3)
    seen = []
    made.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    made(x, given)
    rows, columns = made.positions
    places = (rows[:, None] + columns).reshape(6, 8) + made.map.embedding(given.concat).flatten(1, 2)
    tokens = made.codes(x.flatten(1))
    start = made.start + made.embedding.vector(given.vector)[:, None]
    prefix = made.context(given.context) + made.context_positions
    want = torch.cat([start, tokens[:, :-1]], 1) + places if causal else torch.cat([start, tokens + places], 1)
    torch.testing.assert_close(seen[0], torch.cat([prefix, want], 1), rtol=0, atol=1e-12)


def test_a_coarser_map_is_repeated_and_of_a_finer_one_values_are_averaged():
    for shape, at in (((1, 3), None), ((4, 6), "mean")):
        made = network(CondType(concat=TensorType(shape, classes=6)))
        x = torch.randint(6, (2, *shape))
        vectors = made.map.embedding(x)
        want = F.avg_pool2d(vectors.movedim(-1, 1), 2).movedim(1, -1) if at else vectors.expand(2, 2, 3, 8)
        torch.testing.assert_close(made.map(x), want.flatten(1, 2), rtol=0, atol=1e-12)


def test_a_map_reaches_a_causal_position_at_that_position():
    cond = CondType(concat=TensorType((2, 2, 3)))
    made, x, given = network(cond), codes(1), conditions(cond, 1)
    given.concat.requires_grad_()
    for i in range(6):
        (gradient,) = torch.autograd.grad(made(x, given)[0, i, 0], given.concat)
        reached = gradient.abs().sum((0, 1)).flatten() > 0
        assert reached[: i + 1].all() and not reached[i + 1 :].any()


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 2, 2)])
@pytest.mark.parametrize("causal", [True, False])
def test_codes_of_any_rank_move_every_parameter(shape, causal):
    type = TensorType(shape, classes=5)
    cond = replace(FULL, concat=TensorType((3, *shape)))
    made = network(cond, causal, type)
    made(codes(4, type), conditions(cond, 4)).square().sum().backward()
    assert not [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_network_without_dropout_is_the_same_in_training():
    made, x = network(dropout=0.0), codes(2)
    whole = made(x, Cond())
    assert torch.equal(made.train()(x, Cond()), whole)
    noisy = network(dropout=0.5).train()
    assert not torch.equal(noisy(x, Cond()), noisy(x, Cond()))


test_what_does_not_fit_is_refused = refusals(
    (lambda: network(causal=False, codes=MAP), "expects codes in one, two or three sizes, got 3×2×3"),
    (lambda: network(codes=TensorType((3,))), "expects codes in one, two or three sizes, got 3 unbounded"),
    (lambda: network(codes=TensorType((), classes=3)), "expects codes in one, two or three sizes, got scalar"),
    (lambda: network(depth=0), "Transformer expects depth to be at least 1, got 0"),
    (lambda: network(positions="none"), "expects positions to be 'axial' or 'table', got 'none'"),
    (lambda: network(CondType(concat=TensorType((4,), classes=3))), "a map of 2 sizes .* got 4 codes"),
    (lambda: network()(torch.zeros(2, 3, 2).long(), Cond()), r"expects codes b×2×3, got \(2, 3, 2\)"),
    (lambda: network(KINDS["context"])(codes(2), Cond()), "expects a Cond with `context`"),
    (lambda: network(KINDS["map"])(codes(2), Cond()), "expects a Cond with `concat`"),
    (lambda: network(KINDS["vector"])(codes(2), Cond()), "expects a Cond with `vector`"),
    (lambda: network(causal=False).step(torch.zeros(2).long(), 0, Cond(), None), "to be causal.* got causal False"),
    (lambda: network().step(torch.zeros(2).long(), 1, Cond(), None), "a cache at every position but 0, got .* 1"),
)  # fmt: skip


@torch.no_grad()
def test_the_operations_of_steps_are_counted_as_those_of_forward():
    """Without its cache a network of n positions would run n times."""
    made, x, given = network(KINDS["vector"]), codes(3), conditions(KINDS["vector"], 3)
    forward = count_operations(lambda: made(x, given)).flops
    assert 0.7 * forward < count_operations(lambda: stepped(made, x, given)).flops <= forward
