import pytest
import torch

from modkit.conditioners import Label, Map, Several
from modkit.diffusion.guidance import ClassifierFree, ConditionSides, NoGuidance, make_conditions
from modkit.diffusion.schedules import VP
from modkit.rng import Rng
from modkit.types import Cond, Denoised, TensorType
from tests.refusals import refusals

T = torch.tensor(0.5, dtype=torch.float64)


def make_sides(asked=None, **denoisers):
    """Sides that are evaluated one by one; `asked` is given their names."""

    def ask(x_t, t, *names):
        if asked is not None:
            asked.append(names)
        return tuple(denoisers[name](x_t, t) for name in names)

    return ask


def normal(name):
    return Rng(0).normal(name, torch.empty(2, 3, dtype=torch.float64))


def test_none_and_unit_scale_are_the_conditional_denoiser_and_never_call_the_other():
    x_t, sides = normal("x"), make_sides(cond=lambda x_t, t: Denoised(2 * x_t))
    for guidance in (NoGuidance(), ClassifierFree(scale=1.0)):
        assert torch.equal(guidance(sides)(x_t, T).x_0, 2 * x_t)


@pytest.mark.smoke
@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
def test_combining_x_0_combines_eps(scale):
    alpha, sigma = 0.6, 0.8
    x_t, eps_c, eps_u = normal("x"), normal("c"), normal("u")

    def denoiser(eps):
        return lambda x_t, t: Denoised((x_t - sigma * eps) / alpha)

    x_0 = ClassifierFree(scale=scale)(make_sides(cond=denoiser(eps_c), null=denoiser(eps_u)))(x_t, T).x_0
    expected = eps_u + scale * (eps_c - eps_u)
    torch.testing.assert_close((x_t - alpha * x_0) / sigma, expected, rtol=1e-12, atol=1e-12)


def test_the_learned_variance_is_the_conditional_one():
    v = normal("v")
    sides = make_sides(cond=lambda x_t, t: Denoised(x_t, v), null=lambda x_t, t: Denoised(x_t, v + 1))
    guided = ClassifierFree()(sides)
    assert guided(normal("x"), T).v is v


def test_both_sides_are_asked_for_at_once():
    asked = []
    same = {name: lambda x_t, t: Denoised(x_t) for name in ("cond", "null")}
    ClassifierFree()(make_sides(asked, **same))(normal("x"), T)
    assert asked == [("cond", "null")]


def test_sides_asked_for_together_are_one_batch_unless_their_conditions_differ_in_shape():
    sizes = []

    def denoise(x_t, t, cond):
        sizes.append(len(x_t))
        return Denoised(x_t * cond.context.sum(1), x_t + cond.context.sum(1))

    x_t = normal("x")
    tokens = {"cond": normal("a")[:, None], "null": normal("b")[:, None]}
    longer = tokens["null"].expand(2, 4, 3)
    for null, rows in ((tokens["null"], [4]), (longer, [2, 2])):
        sizes.clear()
        conds = {"cond": Cond(context=tokens["cond"]), "null": Cond(context=null)}
        got = ConditionSides(denoise, conds)(x_t, T, "cond", "null")
        assert sizes == rows
        for one, cond in zip(got, conds.values()):
            want = denoise(x_t, T, cond)
            assert torch.equal(one.x_0, want.x_0) and torch.equal(one.v, want.v)


def test_one_side_is_evaluated_on_x_t_itself():
    x_t, conds = normal("x"), {"cond": Cond(vector=normal("c")), "null": Cond(vector=normal("n"))}
    (only,) = ConditionSides(lambda x_t, t, cond: Denoised(x_t), conds)(x_t, T, "null")
    assert only.x_0 is x_t and only.v is None


def test_the_unconditional_side_keeps_maps_and_outer_conditions():
    types = {"labels": TensorType((), classes=3), "low_res": TensorType((1, 2, 2))}
    parts = {"label": lambda fields: Label(fields, width=4), "map": lambda fields: Map(fields)}
    conditioner = Several(types, parts=parts)
    fields = {"labels": torch.tensor([0, 2]), "low_res": normal("x").view(2, 3)[:, :1, None, None].expand(2, 1, 2, 2)}
    outer = Cond(context=normal("outer")[:, None])
    sides = make_conditions(conditioner, fields, 2, outer)
    given, null = sides["cond"], sides["null"]
    assert torch.equal(given.vector, conditioner(fields, None).vector)
    assert torch.equal(null.vector, conditioner.null(2).vector) and not torch.equal(null.vector, given.vector)
    for side in (given, null):
        assert side.concat is not None and torch.equal(side.concat, conditioner(fields, None).concat)
        assert side.context is outer.context


def test_outside_of_the_interval_only_the_conditional_side_is_asked_for():
    asked, schedule = [], VP()
    sides = make_sides(asked, cond=lambda x_t, t: Denoised(2 * x_t), null=lambda x_t, t: Denoised(x_t))
    times = schedule.time(torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64))
    low, high = (float(sigma / alpha) for alpha, sigma in (schedule.scales(times[index]) for index in (1, 3)))
    guided, x_t = ClassifierFree(schedule, scale=3.0, interval=[low, high])(sides), normal("x")
    gains = [float((guided(x_t, t).x_0 / x_t).mean()) for t in times]
    assert gains == pytest.approx([2, 2, 4, 4, 2])
    assert asked == [("cond",), ("cond",), ("cond", "null"), ("cond", "null"), ("cond",)]


def test_sides_of_other_denoisers_are_asked_for_beside_those_of_the_conditions():
    x_t, conds = normal("x"), {"cond": Cond(vector=normal("c")), "null": Cond(vector=normal("n"))}
    sides = ConditionSides(
        lambda x_t, t, cond: Denoised(x_t + cond.vector), conds, {"zero": lambda x_t, t: Denoised(7 * x_t)}
    )
    cond, zero, null = sides(x_t, T, "cond", "zero", "null")
    assert torch.equal(cond.x_0, x_t + normal("c")) and torch.equal(null.x_0, x_t + normal("n"))
    assert torch.equal(zero.x_0, 7 * x_t)
    with pytest.raises(ValueError, match="guidance expects sides among cond, null, zero, got guide"):
        sides(x_t, T, "cond", "guide")


test_mistakes_are_refused = refusals(
    (lambda: ClassifierFree(VP(), interval=[0.5]), r"interval \[low, high\] with 0 <= low < high, got \[0.5\]"),
    (lambda: ClassifierFree(VP(), interval=[2.0, 1.0]), r"0 <= low < high, got \[2.0, 1.0\]"),
    (lambda: ClassifierFree(interval=[1.0, 2.0]), r"no interval without noise levels, as for codes, got \[1.0, 2.0\]"),
    (lambda: ClassifierFree(rescale=1.5), r"ClassifierFree expects rescale to be in \[0, 1\], got 1.5"),
    (lambda: ClassifierFree(x=TensorType((1,)), rescale=0.5), "got 0.5 for 1 unbounded"),
    (lambda: ClassifierFree(x=TensorType((2, 2), classes=3), rescale=0.5), "got 0.5 for 2×2 codes of 3 classes"),
)
