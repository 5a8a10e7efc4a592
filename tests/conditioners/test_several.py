from functools import partial

import pytest
import torch
from safetensors.torch import load, save

from modkit import use
from modkit.conditioners import Label, Map, NoConditioner, Several, Tokens, Vector
from modkit.data.corrupted import Corrupted
from modkit.data.corruptions import Mask
from modkit.diffusion.guidance import make_conditions
from modkit.kinds import ConditionerExtras, read_extras
from modkit.models.diffusion import Diffusion
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType
from tests.play import shake, spec, trainer
from tests.refusals import refusals

FIELDS = {
    "labels": TensorType((), classes=4),
    "caption": TensorType((3,), classes=5),
    "mask": TensorType((1, 4, 4)),
}
LABEL = lambda **types: Label(**types, width=6, drop=0.5)  # noqa: E731
WORDS = lambda **types: Tokens(**types, field="caption", width=8, depth=1, drop=0.5)  # noqa: E731


def fields(num):
    g = torch.Generator().manual_seed(0)
    return {
        "labels": torch.randint(0, 4, (num,), generator=g),
        "caption": torch.randint(0, 5, (num, 3), generator=g),
        "mask": torch.randn(num, 1, 4, 4, generator=g),
    }


def test_types_and_values_are_merged_in_order():
    part, given = Several(FIELDS, parts={"a": LABEL, "b": WORDS, "c": Map, "d": LABEL}).eval(), fields(5)
    assert part.type == CondType(vector=12, context=(3, 8), concat=FIELDS["mask"])
    assert part.reads == ("labels", "caption", "mask") and part.together == (("mask",),)
    a, b, c, d = (part.parts[name] for name in "abcd")
    cond = part(given, None)
    assert torch.equal(cond.vector, torch.cat([a(given, None).vector, d(given, None).vector], 1))
    assert torch.equal(cond.context, b(given, None).context) and torch.equal(cond.concat, given["mask"])
    null = part.null(5)
    assert torch.equal(null.vector, torch.cat([a.null(5).vector, d.null(5).vector], 1))
    assert torch.equal(null.context, b.null(5).context) and null.concat is None


def test_guidance_keeps_what_is_never_dropped():
    """The fault: it had the null of a conditioner with `drop: 0` beside others, which nothing had trained."""
    kept = {"words": partial(Tokens, field="caption", width=8, depth=1, drop=0.0), "other": partial(Label, drop=0.0)}
    part = Several(FIELDS, parts={"a": LABEL, **kept, "c": Map, "in": partial(Several, parts={"d": LABEL, **kept})})
    part, given = part.eval(), fields(5)
    cond, null = make_conditions(part, given, 5, Cond()).values()
    a, words, other, inner = (part.parts[name] for name in ("a", "words", "other", "in"))
    vectors = [a.null(5), other(given, None), inner.parts["d"].null(5), inner.parts["other"](given, None)]
    assert torch.equal(null.vector, torch.cat([one.vector for one in vectors], 1))
    tokens = [one(given, None).context for one in (words, inner.parts["words"])]
    assert torch.equal(null.context, torch.cat(tokens, 1)) and torch.equal(null.context, cond.context)
    assert torch.equal(null.concat, given["mask"])
    loss = null.vector.square().sum() + null.context.square().sum()
    loss.backward()
    for one in (words, other):
        assert one.embedding.weight.grad.any() and not one.embedding.weight.grad[-1].any()  # the last stands for none


def test_each_drops_by_itself():
    part, given = Several(FIELDS, parts={"a": LABEL, "b": WORDS, "c": Map}), fields(4000)
    with torch.no_grad():
        cond, null = part(given, Rng(0)), part.null(4000)
    vector = (cond.vector == null.vector).all(1)
    context = torch.isclose(cond.context, null.context, atol=1e-5).flatten(1).all(1)
    both = (vector & context).float().mean()
    assert abs(vector.float().mean() - 0.5) < 0.04 and abs(context.float().mean() - 0.5) < 0.04  # sd .008
    assert abs(both - 0.25) < 0.04  # independent; sd .007
    assert torch.equal(cond.concat, given["mask"])


def test_fields_are_drawn_by_the_first_that_reads_them():
    part = Several(FIELDS, parts={"a": LABEL, "b": Tokens, "c": Map, "d": lambda **types: NoConditioner()})
    part.prepare([Batch(torch.zeros(9, 1), fields(9))])
    drawn = part.draw(7, Rng(0))
    assert set(drawn) == {"labels", "mask"}
    assert torch.equal(drawn["labels"], part.parts["a"].draw(7, Rng(0).at("a"))["labels"])
    assert set(part.state_dict()) >= {"parts.a.embedding.weight", "parts.b.embedding.weight", "parts.c.examples.num"}


def test_a_part_whose_fields_are_given_is_not_asked_for_them():
    """The fault: a map that stores no examples had to draw even where it was given."""
    x, low = TensorType((1, 4, 4)), torch.zeros(2, 1, 4, 4)
    parts = {"class": "label", "in": use("several", parts={"low": use("map", maps=["mask"], keep=0), "a": "label"})}
    slots = {"network": "mlp", "sampler": use("ddim", steps=2)}
    model = Diffusion(x, fields=FIELDS, **slots, conditioner=use("several", parts=parts))
    given = model.complete(2, {"mask": low}, Rng(0))
    part = model.conditioner.parts["class"]
    assert torch.equal(given["labels"], part.draw(2, Rng(0).at("fields", "class"))["labels"])
    assert given["mask"] is low and model.sample(2, mask=low, seed=0).shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match="Map has no examples to draw from: give mask"):
        model.sample(2, seed=0)


def test_fields_that_a_part_reads_together_are_drawn_by_it():
    """The fault: the first part drew the mask of one sample, and the second what another mask hides."""
    types = {"mask": TensorType((1, 4, 4)), "masked": TensorType((1, 4, 4))}
    numbers = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 1, 4, 4)
    both = partial(Vector, names=["masked", "mask"], width=4)
    part = Several(types, parts={"a": partial(Map, maps=["mask"]), "b": both})
    part.prepare([Batch(torch.zeros(64, 1), {"mask": numbers, "masked": numbers})])
    drawn = part.draw(9, Rng(0))
    assert torch.equal(drawn["mask"], drawn["masked"]) and len(drawn["mask"].unique()) > 4


@pytest.mark.parametrize("make", [LABEL, WORDS, Map])
def test_a_round_trip_keeps_what_a_part_was_prepared_with(make):
    part, other, given = make(fields=FIELDS).eval(), make(fields=FIELDS).eval(), fields(6)
    part.prepare([Batch(torch.zeros(6, 1), given)])
    other.load_state_dict(load(save(part.state_dict())))
    torch.testing.assert_close(other.draw(9, Rng(0)), part.draw(9, Rng(0)), rtol=0, atol=0)
    one, same = part(given, None).list_entries(), other(given, None).list_entries()
    assert one.keys() == same.keys() and all(torch.equal(one[name], same[name]) for name in one)


def test_none_is_nothing():
    part = Several(FIELDS)
    assert part.type == CondType() and part(fields(2), Rng(0)) == part.null(2) == Cond() and part.draw(2, Rng(0)) == {}


test_clashes_are_refused = refusals(
    (
        {"a": Map, "b": Map},
        "Several cannot join 'b' to the conditioners before it: .* `concat` from one side",
    ),
    ({"a": WORDS, "b": Tokens}, "Several cannot join 'b' .* joined contexts expect one width, got 8 and 128"),
    of=lambda parts: Several(FIELDS, parts=parts),
)


def in_painting(scale):
    data = use(Corrupted, data=use("digits", size=8), corruption=use(Mask))
    parts = {"maps": use(Map), "label": use("label", width=4), "tokens": use(Tokens, width=8, depth=1)}
    slots = {"conditioner": use(Several, parts=parts), "guidance": use("cfg", scale=scale), "parametrization": "x0"}
    return spec(
        use("diffusion", network=use("unet", channels=[8], blocks=1), sampler=use("ddim", steps=1), **slots), data
    )


@pytest.mark.parametrize("scale", [0.0, 2.0, 3.5])
def test_guidance_has_null_labels_and_tokens_and_keeps_the_maps(scale, tmp_path):
    made = trainer(in_painting(scale), tmp_path / "run")
    model: Diffusion = shake(made.model, 0.2).eval()
    given = {name: value for name, value in made.data.read("test", range(3), Rng(0)).fields.items()}
    x = model.sample(3, seed=0, **given)
    with torch.no_grad():
        t = model.sampler.times()[0]
        rows = t.expand(3)
        x_t = model.sampler.start(Rng("sample", 0).normal("start", x), t)
        coefficients = model.parametrization.coefficients(rows, model.schedule.scales(rows))
        x_in, time = model.parametrization.inputs(x_t, coefficients)
        cond = model.conditioner(given, None)
        null = Cond(
            vector=model.conditioner.parts["label"].null(3).vector,
            context=model.conditioner.parts["tokens"].null(3).context,
            concat=torch.cat([given["masked"], given["mask"]], 1),
        )
        x_c, x_n = (
            model.parametrization.denoised(model.network(x_in, side.at(time)), x_t, coefficients).x_0
            for side in (cond, null)
        )
    want = (x_n + scale * (x_c - x_n)).clamp(-1, 1)
    assert (want.abs() < 1).any() and (x_c - x_n).abs().max() > 1e-3
    torch.testing.assert_close(x, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("parts", "drop"),
    [
        ({"one": use("label", width=4, drop=0.0), "mask": "map"}, 0.0),
        ({"one": use("label", width=4, drop=0.2), "mask": "map"}, 0.2),
        ({"mask": "map"}, 0.0),
    ],
)
def test_it_drops_as_often_as_the_part_that_drops_most(parts, drop):
    fields = {"labels": TensorType((), classes=10), "mask": TensorType((1, 8, 8))}
    model = Diffusion(TensorType((1, 8, 8)), fields=fields, network="mlp", conditioner=use("several", parts=parts))
    assert read_extras(model.conditioner, ConditionerExtras).drop == drop


def test_what_a_part_does_not_state_is_unknown_unless_another_drops():
    conditioner = Several({})
    conditioner._parts = {"silent": object()}
    assert conditioner.drop is None
    conditioner._parts["loud"] = NoConditioner()
    assert conditioner.drop is None
