import enum
import math

import numpy as np
import pytest
import torch
from scipy import stats

from modkit.rng import Rng

ROWS = 100_000


def drawn(rng, shape=(ROWS, 4), name="x", dtype=torch.float32):
    return rng.normal(name, torch.empty(shape, dtype=dtype))


@pytest.mark.smoke
def test_draws_are_the_same_in_every_process_and_forever():
    rng = Rng(7, "a")
    normal = [[2.64725327, 0.76420814, 2.06938505], [1.17577867, 1.29507387, -0.11030032]]
    np.testing.assert_allclose(
        rng.normal("n", torch.empty(2, 3)), normal, rtol=1e-6
    )  # log and cos may differ by an ulp
    uniform = [[0.41310715675354004, 0.7503105998039246], [0.8477466702461243, 0.4548065662384033]]
    assert rng.uniform("u", torch.empty(2, 2)).tolist() == uniform
    assert rng.integers("i", torch.empty(2, 4), 0, 1000).tolist() == [[924, 928, 682, 957], [731, 292, 961, 900]]
    assert rng.draw_seed() == 8697414878375950274
    with rng.seed_torch():
        assert torch.initial_seed() == 3456966993825366476
    assert [g.initial_seed() for g in rng.make_generators(1)] == [4749239128383145806]


@pytest.mark.wide
def test_a_hundred_thousand_rows_do_not_repeat():
    assert len(torch.unique(drawn(Rng(0)), dim=0)) == ROWS


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    "other",
    [
        (Rng(0), "y"),
        (Rng(1), "x"),
        (Rng(0).at("x"), "x"),
        (Rng(0).at(0), "x"),
        (Rng("0"), "x"),
        (Rng(0).rows(1), "x"),
        (Rng(0).rows(ROWS), "x"),
    ],
    ids=str,
)
def test_other_names_seeds_children_and_rows_are_uncorrelated(other):
    rng, name = other
    a, b = drawn(Rng(0)).flatten().double(), drawn(rng, name=name).flatten().double()
    for x, y in ((a, b), (a**2, b**2)):
        r = torch.corrcoef(torch.stack([x, y]))[0, 1]
        assert abs(r) < 4 / math.sqrt(len(a))  # exceeded by chance once in 16,000


@pytest.mark.wide
def test_a_row_s_elements_are_uncorrelated():
    r = torch.corrcoef(drawn(Rng(0), (ROWS, 70)).double().T) - torch.eye(70, dtype=torch.float64)
    assert r.abs().max() < 5.5 / math.sqrt(ROWS)  # 2,415 pairs


@pytest.mark.parametrize("shape", [(), (3,), (64,), (65,), (2, 8, 8)], ids=str)
@pytest.mark.parametrize("kind", ["normal", "uniform", "integers"])
def test_any_split_gives_the_same_rows_bit_for_bit(kind, shape):
    def draw(rng, num):
        like = torch.empty(num, *shape)
        return rng.integers("x", like, -5, 90) if kind == "integers" else getattr(rng, kind)("x", like)

    whole = draw(Rng(3, "a"), 50)
    for cuts in ([0, 1, 2, 50], [0, 17, 33, 50], list(range(51))):
        rng = Rng(3, "a")
        parts = [draw(rng.rows(first), stop - first) for first, stop in zip(cuts, cuts[1:])]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(draw(Rng(3, "a").rows(20).rows(10), 20), whole[30:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_gets_the_same_noise_rounded(dtype):
    assert torch.equal(drawn(Rng(0), (99, 5), dtype=dtype), drawn(Rng(0), (99, 5)).to(dtype))
    uniform = [Rng(0).uniform("u", torch.empty(99, 5, dtype=d)) for d in (dtype, torch.float32)]
    assert torch.equal(uniform[0], uniform[1].to(dtype))


@pytest.mark.parametrize("width", [1, 3, 64, 100])
def test_normal_is_standard_normal(width):
    x = drawn(Rng(width), (ROWS // width, width)).double().flatten().numpy()
    n = len(x)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 4 * math.sqrt(variance / n)
    assert stats.kstest(x, "norm").pvalue > 1e-3


def test_uniform_is_uniform_on_the_half_open_interval():
    x = Rng(0).uniform("u", torch.empty(ROWS, 10)).double().flatten()
    assert 0 <= x.min() < 1e-4 and 1 - 1e-4 < x.max() < 1
    assert stats.kstest(x.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("low, high", [(0, 2), (-3, 4), (0, 10), (5, 1005), (7, 8)])
def test_integers_are_uniform(low, high):
    x = Rng(0).integers("i", torch.empty(ROWS), low, high)
    counts = np.bincount((x - low).numpy(), minlength=high - low)
    assert x.dtype == torch.int64 and len(counts) == high - low
    assert high - low == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_integers_fill_the_widest_interval_and_refuse_others():
    x = Rng(0).integers("i", torch.empty(ROWS), -5, 2**31 - 5)
    assert -5 <= x.min() < 2**17 and 2**31 - 2**17 < x.max() < 2**31 - 5
    for low, high in ((0, 0), (3, 2), (0, 2**31 + 1)):
        with pytest.raises(ValueError, match=rf"low < high within 2\^31 of each other, got \[{low}, {high}\)"):
            Rng(0).integers("i", torch.empty(1), low, high)


def test_a_child_is_named_by_its_path_and_by_nothing_else():
    rng = Rng(0)
    want = drawn(Rng(0, "a", 1), (2, 2))
    drawn(rng, name="before")
    assert torch.equal(drawn(rng.at("a").at(1), (2, 2)), want)
    for other in (Rng(0, "a", "1"), Rng(0, "a1"), Rng(0, 1, "a"), Rng(0, "a")):
        assert not torch.equal(drawn(other, (2, 2)), want)
    assert torch.equal(drawn(Rng(0, "a", np.int64(1)), (2, 2)), want)


class Word(str, enum.Enum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize("name", [np.str_("a"), Word.A], ids=["numpy", "enum"])
def test_names_draw_by_their_text_whatever_their_class(name):
    want = drawn(Rng(0, "a"), (2, 2), "a")
    for rng in (Rng(0, name), Rng(0).at(name)):
        assert torch.equal(drawn(rng, (2, 2), name), want)
        with pytest.raises(ValueError, match="got 'a' a second time"):
            drawn(rng, (2, 2), "a")
    one = drawn(Rng(0, 1), (2, 2))
    assert torch.equal(drawn(Rng(0, Number.ONE), (2, 2)), one) and torch.equal(drawn(Rng(0, True), (2, 2)), one)


def test_one_name_is_drawn_once_through_whatever_children():
    rng = Rng(0)
    drawn(rng.at("a"), (2, 2))
    drawn(rng.at("a").rows(2), (2, 2))
    drawn(rng, (2, 2))
    for again in (rng, rng.rows(0), rng.at("a"), rng.at("a").rows(2), rng.rows(2).at("a")):
        with pytest.raises(ValueError, match=r"Rng\(0.*expects each name to be drawn once, got 'x' a second time"):
            again.uniform("x", torch.empty(2, 2))
    drawn(Rng(0), (2, 2))


def test_a_source_of_another_is_the_same_and_has_one_record_with_it():
    rng = Rng(0).at("a").rows(2)
    same = Rng(source=rng)
    assert (same.first, rng.first, Rng(0, first=5).first, repr(same)) == (2, 2, 5, repr(rng))
    assert torch.equal(drawn(same, (2, 2)), drawn(rng.replay(), (2, 2)))
    with pytest.raises(ValueError, match="expects each name to be drawn once, got 'x' a second time"):
        rng.uniform("x", torch.empty(2, 2))


def test_on_meta_tensors_draws_have_a_form_alone():
    rng = Rng(0)
    assert rng.normal("m", torch.empty(3, 2, device="meta")).shape == (3, 2)
    assert rng.integers("i", torch.empty(3, device="meta"), 0, 9).dtype == torch.int64


def test_a_scope_seeds_the_generators_of_all_devices_in_use(monkeypatch):
    cards = {name: [torch.Generator() for _ in range(num)] for name, num in {"cuda": 2, "xpu": 1, "mps": 1}.items()}
    for name in ("cuda", "xpu"):
        monkeypatch.setattr(getattr(torch, name), "is_initialized", lambda: True)
        monkeypatch.setattr(getattr(torch, name), "default_generators", cards[name])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "_get_default_mps_generator", lambda: cards["mps"][0])
    each = [one for kind in cards.values() for one in kind]
    before = [torch.rand(1, generator=one) for one in each]
    with Rng(0, "a").seed_torch():
        drawn = [torch.rand(3, generator=one) for one in each]
        own = torch.rand(3)
    assert all(torch.equal(one, own) for one in drawn)
    after = [torch.rand(1, generator=one) for one in each]
    assert all(not torch.equal(one, other) for one, other in zip(before, after))


def test_scope_is_a_function_of_the_key_and_leaves_the_global_generator_alone():
    def inside(rng):
        with rng.seed_torch():
            return torch.rand(3)

    before = torch.get_rng_state()
    first = inside(Rng(0, "a"))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(KeyError), Rng(0).seed_torch():
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(inside(Rng(0, "a")), first)
    for other in (Rng(0), Rng(1, "a"), Rng(0, "a").rows(1)):
        assert not torch.equal(inside(other), first)


def test_generators_and_integers_belong_to_rows():
    rng = Rng(0, "a")
    rows = [torch.rand(2, generator=g).tolist() for g in rng.make_generators(5)]
    assert [torch.rand(2, generator=g).tolist() for g in rng.rows(3).make_generators(2)] == rows[3:]
    assert len({tuple(row) for row in rows}) == 5
    numbers = {rng.rows(i).draw_seed() for i in range(1000)}
    assert len(numbers) == 1000 and all(0 <= number < 2**63 for number in numbers)
    assert np.mean(list(numbers)) == pytest.approx(2**62, rel=0.06)  # three standard errors
