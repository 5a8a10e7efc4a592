import pytest
import torch
from torch import nn

from modkit.losses.coefficients import Constant
from modkit.models.model import Model, evaluate_mode, make_weights
from modkit.models.player import Player
from modkit.rng import Rng
from modkit.types import TensorType
from tests.play import turn

CODES, VECTOR = TensorType((2, 2), classes=5), TensorType((3,))


class Noise(Model):
    """Noise of any event, in which a condition shows."""

    def __init__(self, event):
        super().__init__()
        self.event, self.scale = event, nn.Parameter(torch.ones(()))

    def draw(self, num, fields, cond, rng):
        if isinstance(self.event, tuple):
            return tuple(rng.normal(str(i), self.allocate(num, level)) for i, level in enumerate(self.event))
        return rng.normal("x", self.allocate(num, self.event))


def test_a_number_is_a_constant_weight_and_a_part_is_told_its_term():
    told = []
    weights = make_weights({"kl": 4, "nll": 0.5, "adversarial": lambda term: told.append(term) or Constant(value=2.0)})
    assert {name: weight(turn(), {}, None) for name, weight in weights.items()} == {
        "kl": 4,
        "nll": 0.5,
        "adversarial": 2.0,
    }
    assert told == ["adversarial"] and make_weights(None) == {}


def test_evaluate_mode_puts_each_module_s_own_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model[1][0].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), evaluate_mode(model):
        assert not torch.is_grad_enabled() and not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before == [True, True, True, False, True]
    assert torch.is_grad_enabled()


def test_a_hierarchy_is_sampled_level_by_level():
    model = Noise((TensorType((2,)), TensorType((4, 4))))
    whole, parts = model.sample(5, seed=1), model.sample(5, seed=1, batch_size=2)
    assert [level.shape for level in whole] == [(5, 2), (5, 4, 4)]
    assert all(torch.equal(a, b) for a, b in zip(whole, parts))
    with pytest.raises(ValueError, match="Noise expects one tensor, got a hierarchy of 2 levels"):
        model.single  # noqa: B018


def test_by_default_a_model_takes_one_continuous_tensor():
    assert Model.accepts(VECTOR) is None
    assert Model.accepts(CODES) == "Model expects a continuous type, got 2×2 codes of 5 classes"
    assert Noise.accepts((VECTOR, VECTOR)) == "Noise expects one tensor, got a hierarchy of 2 levels"


def test_an_allocated_batch_has_the_type_s_dtype():
    model = Noise(VECTOR)
    assert (model.allocate(4, VECTOR).shape, model.allocate(4, VECTOR).dtype) == ((4, 3), torch.float32)
    assert (model.allocate(4, CODES).shape, model.allocate(4, CODES).dtype) == ((4, 2, 2), torch.int64)
    assert model.to("meta").allocate(1, VECTOR).device.type == "meta"
    assert Model().device == torch.device("cpu")


def test_a_model_without_latents_neither_encodes_nor_decodes():
    model = Noise(VECTOR)
    assert model.coder is None
    for call in (lambda: model.encode(torch.zeros(1, 3), "z"), lambda: model.reconstruct(torch.zeros(1, 3))):
        with pytest.raises(ValueError, match="Noise has no latents to encode to"):
            call()
    with pytest.raises(ValueError, match="Noise has no latents to decode"):
        model.decode(torch.zeros(1, 3), "z")


def test_what_is_frozen_has_no_active_players():
    class Game(Noise):
        def players(self):
            return (Player("one", ()),)

    model = Game(VECTOR)
    assert model.list_active_players() == model.players() != () and model.stages() == (("*",),)
    model.frozen = True
    assert model.list_active_players() == ()
    assert model.list_modules("scale") == () and model.weights("one") == {}


def test_fields_that_are_missing_are_drawn_for_the_same_rows():
    class Drawn:
        reads = ("a", "b")

        def draw(self, num, rng):
            numbers = rng.integers("n", torch.empty(num), 0, 1000)
            return {"a": numbers, "b": -numbers}

    model = Noise(VECTOR)
    model.conditioner, model.reads = Drawn(), Drawn.reads
    given = {"a": torch.arange(4), "b": torch.arange(4)}
    assert model.complete(4, given, Rng(0)) is given
    whole = model.complete(4, {"a": torch.arange(4)}, Rng(0))
    assert whole["a"].tolist() == [0, 1, 2, 3] and (whole["b"] < 0).all()
    assert torch.equal(model.complete(2, {}, Rng(0).rows(2))["b"], whole["b"][2:])


def test_fields_that_belong_together_are_given_together():
    class Pair:
        together = (("masked", "mask"),)
        reads = ("masked", "mask", "labels")

        def draw(self, num, rng):
            return {name: torch.zeros(num) for name in ("masked", "mask", "labels")}

    model, given = Noise(VECTOR), {"masked": torch.ones(2), "mask": torch.ones(2)}
    model.conditioner, model.reads = Pair(), Pair.reads
    assert model.complete(2, given, Rng(0)).keys() == {"masked", "mask", "labels"}
    assert model.complete(2, {"labels": torch.ones(2)}, Rng(0))["labels"].all()
    with pytest.raises(ValueError, match="sample expects mask beside masked, got masked alone"):
        model.complete(2, {"masked": given["masked"]}, Rng(0))


def test_fields_with_rows_are_taken_in_the_model_s_precision():
    model = Noise(VECTOR).double()
    model.reads, seen = ("maps", "labels"), {}
    model.draw = lambda num, fields, cond, rng: seen.update(fields) or torch.zeros(num, 3)
    maps = torch.randn(5, 1, 2, 2)
    model.sample(5, seed=0, maps=maps, labels=3)
    assert torch.equal(seen["maps"], maps.double()) and seen["maps"].dtype == torch.float64
    assert seen["labels"].tolist() == [3] * 5
    model.sample(5, seed=0, maps=maps, labels=range(5), batch_size=4)
    assert torch.equal(seen["maps"], maps[4:].double()) and seen["labels"].tolist() == [4]
    with pytest.raises(ValueError, match="sample expects one value of 'maps' for each of 4 samples, got 5"):
        model.sample(4, maps=maps)
