import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from modkit.bottlenecks import VectorQuantizer
from modkit.rng import Rng
from modkit.types import TensorType
from tests.bottlenecks.parts import SHAPES, passing, project
from tests.play import turn
from tests.refusals import refusals


def make(num_codes=4, channels=2, **keywords):
    """A quantizer whose projection is the identity, on vectors."""
    return passing(
        VectorQuantizer(TensorType((channels,)), num_codes=num_codes, channels=channels, tokens=1, **keywords)
    )


@pytest.mark.smoke
@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_brute_force(shape, codebook):
    options = {"num_codes": 11, "channels": 3, "codebook": codebook, "commitment": 0.5}
    part = VectorQuantizer(TensorType(shape), tokens=1, **options).double()
    h = torch.randn(5, *shape, dtype=torch.float64)
    z = project(part, h)
    points = z.reshape(5, 3, -1)
    codes = ((points[:, None] - part.codebook.codes[None, :, :, None]) ** 2).sum(2).argmin(1)  # b n
    z_q = part.codebook.codes[codes].transpose(1, 2).reshape(z.shape)

    values, kl, losses = part(h, None)
    assert list(values) == list(part.latents) == ["codes", "continuous", "quantized"]
    assert part.latents["codes"] == TensorType(shape[1:] or (1,), classes=11)
    assert part.latents["continuous"] == part.latents["quantized"] == TensorType((3, *shape[1:]))
    assert torch.equal(values["codes"], codes.view(5, *(shape[1:] or (1,))))
    torch.testing.assert_close(values["continuous"], z)
    assert torch.equal(values["quantized"], z_q)
    assert kl is None
    torch.testing.assert_close(losses["commitment"], 0.5 * ((z - z_q) ** 2).mean())
    assert ("codebook" in losses) == (codebook == "gradient")
    for name, value in values.items():
        assert torch.equal(part.to_z(name, value), z_q)


def test_each_loss_pulls_on_its_own_side():
    part = make(codebook="gradient", commitment=0.25)
    z = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    values, _, losses = part(z, None)
    codes, e = values["codes"].flatten(), part.codebook.codes
    difference = (z - e[codes]).detach()

    gradient_z, gradient_e = torch.autograd.grad(losses["commitment"], (z, e), allow_unused=True, retain_graph=True)
    assert gradient_e is None
    torch.testing.assert_close(gradient_z, 0.25 * 2 * difference / 12)
    gradient_z, gradient_e = torch.autograd.grad(losses["codebook"], (z, e), allow_unused=True, retain_graph=True)
    assert gradient_z is None
    torch.testing.assert_close(gradient_e, torch.zeros_like(e).index_add_(0, codes, -2 * difference / 12))
    assert torch.autograd.grad(values["quantized"].sum(), e, allow_unused=True) == (None,)


def test_moving_averages_over_three_steps_by_hand():
    part = make(num_codes=3, channels=2, decay=0.9, revive=0.0)
    part.codebook.codes.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0], [50.0, 50.0]]))
    batches = [[[1.0, 0], [0, 1], [5, 0]], [[3, 1], [4, 4], [-1, 0]], [[0, 0.5], [1, 1], [0, -1]]]
    usage, moment = [1.0] * 3, [[0.0, 0.0], [4.0, 0.0], [50.0, 50.0]]
    codes = [list(m) for m in moment]
    for rows in batches:
        part(torch.tensor(rows, dtype=torch.float64), turn())
        part.update(turn())

        chosen = [min(range(3), key=lambda k: sum((a - b) ** 2 for a, b in zip(row, codes[k]))) for row in rows]
        usage = [0.9 * usage[k] + 0.1 * chosen.count(k) for k in range(3)]
        for k in range(3):
            mine = [row for row, c in zip(rows, chosen) if c == k]
            moment[k] = [0.9 * moment[k][i] + 0.1 * sum(row[i] for row in mine) for i in range(2)]
        total = sum(usage)
        codes = [[m / ((u + 1e-5) / (total + 3e-5) * total) for m in ms] for u, ms in zip(usage, moment)]

        torch.testing.assert_close(part.codebook.usage, torch.tensor(usage, dtype=torch.float64))
        torch.testing.assert_close(part.codebook.codes, torch.tensor(codes, dtype=torch.float64), rtol=1e-12, atol=0)
        assert not part.codebook.counts.any() and not part.codebook.sums.any()


def test_a_gradient_codebook_is_not_moved_by_update():
    part = make(codebook="gradient", revive=0.0)
    before = part.codebook.codes.detach().clone()
    part(torch.randn(9, 2, dtype=torch.float64), turn())
    counts = part.codebook.counts.clone()
    part.update(turn())
    assert torch.equal(part.codebook.codes, before)
    torch.testing.assert_close(part.codebook.usage, 0.99 + 0.01 * counts)


@pytest.mark.parametrize("step", [None, turn(training=False)])
def test_nothing_moves_outside_the_owners_turn(step):
    part = make(revive=0.5)
    before = copy.deepcopy(dict(part.named_buffers()))
    part(torch.randn(9, 2, dtype=torch.float64), step)
    part.update(turn(training=False))
    assert all(torch.equal(value, before[name]) for name, value in part.named_buffers())


def test_microbatches_keep_the_sums_of_one_batch():
    whole = VectorQuantizer(TensorType((3, 4, 4)), num_codes=32, revive=0.9).double()
    split = copy.deepcopy(whole)
    h = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    whole(h, turn())
    for first, stop in ((0, 3), (3, 4), (4, 8)):
        split(h[first:stop], replace(turn(), rng=turn().rng.rows(first)))
    assert torch.equal(whole.codebook.counts, split.codebook.counts) and whole.codebook.counts.sum() == 128
    torch.testing.assert_close(whole.codebook.sums, split.codebook.sums)
    assert torch.equal(whole.codebook.priority, split.codebook.priority) and whole.codebook.priority.max() < 1
    whole.update(turn())
    split.update(turn())
    torch.testing.assert_close(whole.codebook.codes, split.codebook.codes)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_dead_codes_become_encoder_outputs_of_the_step(codebook):
    part = make(num_codes=6, decay=0.5, revive=0.3, codebook=codebook)
    far = torch.tensor([[0.0, 0], [9, 9], [90, 0], [0, 90], [-90, 0], [0, -90]], dtype=torch.float64)
    part.codebook.codes.data.copy_(far)
    z = torch.cat([torch.randn(20, 2), 9 + torch.randn(20, 2)]).double()
    part(z, turn())
    part.update(turn())
    assert ((part.codebook.codes[2:].detach()[:, None] - z).abs().sum(2).min(1).values == 0).all()
    assert len(part.codebook.codes[2:].detach().unique(dim=0)) == 4  # no output is given to two codes
    assert part.codebook.codes[:2].detach().sub(far[:2]).abs().max() < 2
    torch.testing.assert_close(part.codebook.usage[2:], torch.full((4,), (2 * 10.5 + 4 * 0.5) / 6, dtype=torch.float64))


def test_revival_takes_no_more_than_was_seen():
    part = make(num_codes=8, decay=0.0, revive=0.5)
    start = part.codebook.codes.clone()
    z = torch.full((2, 2), 30.0, dtype=torch.float64)
    z[1] += 1
    owner = part(z, turn()).values["codes"].flatten().unique()
    part.update(turn())
    seen = (part.codebook.codes[:, None] == z).all(2).any(1)
    assert seen.sum() == 2 and not seen[owner].any()
    alone = [k for k in range(8) if not seen[k] and k not in owner]
    assert torch.equal(part.codebook.usage[alone], torch.zeros(len(alone), dtype=torch.float64))
    assert len(alone) == 5 and not (part.codebook.codes[alone] == start[alone]).all(1).any()  # averages of nothing


@pytest.mark.wide
def test_revival_draws_uniformly_by_the_steps_rng():
    z = torch.arange(4.0, dtype=torch.float64)[:, None].repeat(1, 2)
    taken = torch.zeros(4)
    for seed in range(300):
        part = make(num_codes=2, decay=0.0, revive=0.5)
        part.codebook.codes.copy_(torch.tensor([[0.0, 0.0], [99.0, 99.0]]))
        part(z, turn(seed))
        part.update(turn())
        taken[int(part.codebook.codes[1, 0])] += 1
    torch.testing.assert_close(taken / 300, torch.full((4,), 0.25), atol=0.1, rtol=0)  # sd .025


def test_prepare_starts_the_codes_at_kmeans():
    centres = 20 * torch.randn(8, 3)
    h = (centres[torch.arange(64) % 8] + 0.01 * torch.randn(64, 3)).view(8, 8, 3).transpose(1, 2)
    part = VectorQuantizer(TensorType((3, 8)), num_codes=8, channels=3)
    part.codebook.usage.fill_(7)
    same = copy.deepcopy(part)
    before = part(h, None).losses["commitment"]
    part.prepare([h[:3], h[3:]], Rng(1))
    after = part(h, None)
    assert after.losses["commitment"] < 1e-4 < before
    assert after.values["codes"].unique().numel() == 8
    assert torch.equal(part.codebook.usage, torch.ones(8))
    same.prepare(iter([h[:3], h[3:]]), Rng(1))
    assert torch.equal(part.codebook.codes, same.codebook.codes)


def test_prepare_keeps_a_bounded_number_of_vectors(monkeypatch):
    part = VectorQuantizer(TensorType((3, 50)), num_codes=2, channels=3)
    received = []
    monkeypatch.setattr("modkit.bottlenecks.codebook.kmeans", lambda x, codes, rng: received.append(x) or codes)
    features = [torch.randn(4, 3, 50) for _ in range(3)]
    part.prepare(features, Rng(0))
    (vectors,) = received
    assert vectors.shape == (128, 3)  # 64 a code, of 600
    points = [part.project(h).transpose(1, 2).reshape(1, -1, 3) for h in features]
    of_batch = [(vectors[:, None] == p).all(2).any(1).sum() for p in points]
    assert sum(of_batch) == 128 and min(of_batch) > 25  # 43 each expected, sd 5


def test_prepare_with_fewer_vectors_than_codes():
    part = VectorQuantizer(TensorType((3,)), num_codes=16, channels=3, tokens=1)
    h = torch.randn(5, 3)
    part.prepare([h], Rng(0))
    torch.testing.assert_close(part(h, None).losses["commitment"], torch.tensor(0.0))
    assert part.codebook.codes.isfinite().all()
    with pytest.raises(ValueError, match="VectorQuantizer expects features to initialise its codes from, got none"):
        part.prepare([], Rng(0))


def test_safetensors_round_trip_holds_codes_and_usage_only():
    part, other = (VectorQuantizer(TensorType((3, 4, 4))) for _ in range(2))
    part(torch.randn(2, 3, 4, 4), turn())
    part.update(turn())
    state = load(save(part.state_dict()))
    assert set(state) == {"codebook.codes", "codebook.usage", "project.weight", "project.bias"}
    other.load_state_dict(state)
    h = torch.randn(2, 3, 4, 4)
    for module in (part, other):
        module(h, turn(5))
        module.update(turn())
    assert torch.equal(part.codebook.codes, other.codebook.codes) and torch.equal(
        part.codebook.usage, other.codebook.usage
    )


test_refuses_keywords = refusals(
    ({"num_codes": 0}, "VectorQuantizer expects num_codes to be at least 1, got 0"),
    ({"codebook": "sgd"}, "VectorQuantizer expects codebook to be 'ema' or 'gradient', got 'sgd'"),
    ({"distance": "l1"}, "VectorQuantizer expects distance to be 'euclidean' or 'cosine', got 'l1'"),
    ({"gradient": "none"}, "VectorQuantizer expects gradient to be 'straight-through' or 'rotation', got 'none'"),
    ({"decay": 1.0}, r"VectorQuantizer expects decay to be in \[0, 1\), got 1\.0"),
    ({"commitment": -1.0}, r"VectorQuantizer expects commitment to be at least 0, got -1\.0"),
    of=lambda keywords: VectorQuantizer(TensorType((3, 4, 4)), **keywords),
)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_the_cosine_is_on_the_unit_sphere(codebook):
    options = {"num_codes": 11, "channels": 3, "codebook": codebook, "distance": "cosine", "commitment": 0.5}
    part = VectorQuantizer(TensorType((6, 5)), **options).double()
    part.codebook.codes.data.mul_(torch.rand(11, 1) + 0.5 if codebook == "gradient" else 1.0)  # lengths do not count
    h = torch.randn(4, 6, 5, dtype=torch.float64)
    z = project(part, h)
    cosine = torch.nn.functional.cosine_similarity(z[:, None], part.codebook.codes[None, :, :, None], dim=2)
    codes = cosine.argmax(1)
    values, _, losses = part(h, None)
    assert torch.equal(values["codes"], codes)
    torch.testing.assert_close(values["continuous"], z / z.norm(dim=1, keepdim=True))
    e = part.codebook.codes / part.codebook.codes.norm(dim=1, keepdim=True)
    torch.testing.assert_close(values["quantized"], e[codes].transpose(1, 2))
    torch.testing.assert_close(losses["commitment"], 0.5 * (2 - 2 * cosine.amax(1)).mean() / 3)
    assert torch.equal(part.to_z("continuous", 7 * values["continuous"]), values["quantized"])


def test_the_cosine_s_codes_stay_on_the_unit_sphere():
    part = make(num_codes=3, revive=0.0, decay=0.9, distance="cosine")
    part.codebook.codes.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0]]))
    z = torch.tensor([[3.0, 1.0], [4.0, -1.0], [1.0, 5.0]], dtype=torch.float64)
    unit = z / z.norm(dim=1, keepdim=True)
    part(z, turn())
    part.update(turn())
    moments = [0.9 * torch.tensor([1.0, 0]) + 0.1 * (unit[0] + unit[1]), 0.9 * torch.tensor([0, 1.0]) + 0.1 * unit[2]]
    want = torch.stack([*(m / m.norm() for m in moments), torch.tensor([-1.0, 0])])
    torch.testing.assert_close(part.codebook.codes, want)
    part.prepare([torch.randn(50, 2).double()], Rng(0))
    torch.testing.assert_close(part.codebook.codes.norm(dim=1), torch.ones(3).double())


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_rotation_turns_the_gradient_of_forward_and_of_decoding(distance):
    part = make(gradient="rotation", distance=distance)
    z = torch.tensor([[2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    part.codebook.codes.copy_(torch.tensor([[0.6, 0.8], [-1.0, 0.0], [-1.0, -1.0], [0.0, -1.0]]))
    # the code is z turned by arctan(4/3) and shrunk from 2 to 1, or from 1 by the cosine
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    weight = torch.tensor([[5.0, 7.0]], dtype=torch.float64)
    want = weight @ turn / 2
    if distance == "cosine":  # of the gradient at z / |z| what is across it passes, divided by |z|
        want = torch.stack([torch.zeros(1).double(), want[:, 1]], 1)
    for quantized in (part(z, None).values["quantized"], part.to_z("continuous", z)):
        torch.testing.assert_close(quantized, torch.tensor([[0.6, 0.8]]).double())
        torch.testing.assert_close(torch.autograd.grad((weight * quantized).sum(), z)[0], want)
