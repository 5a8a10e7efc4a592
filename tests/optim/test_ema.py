import pytest
import torch
from torch import nn

from modkit.optim.ema import Average


@pytest.mark.smoke
def test_averages_follow_their_equation():
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 2)}).double()
    average = Average(model, ["a"], 0.5)
    want = model["a"].weight.detach().clone()
    for n in range(1, 30):
        with torch.no_grad():
            model["a"].weight.normal_()
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        assert (decay < 0.5) == (n < 8)
        want = decay * want + (1 - decay) * model["a"].weight.detach()
        torch.testing.assert_close(average.state_dict()["a.weight"], want, rtol=1e-12, atol=1e-14)
    assert set(average.state_dict()) == {"a.weight", "a.bias"} and average.updates == 29


def test_applied_averages_stand_in_for_the_weights_and_leave_them_as_they_were():
    model = nn.Linear(1, 1)
    outer = nn.ModuleDict({"one": model})
    average = Average(outer, ["one"], 0.9)
    held = model.weight.item()
    with torch.no_grad():
        model.weight.add_(11.0)
    live = model.weight.item()
    average.update()
    assert live - held == pytest.approx(11)
    for _ in range(2):
        with pytest.raises(KeyError), average.apply():
            assert model.weight.item() == pytest.approx(held + 11 * (1 - 2 / 11))
            raise KeyError
        assert model.weight.item() == live
    average.copy_to_model()
    assert model.weight.item() == pytest.approx(held + 9)


def test_buffers_are_left_alone_and_shared_parameters_averaged_once():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.BatchNorm1d(2)})
    model["b"].shared = model["a"]
    average = Average(model, ["a", "b"], 0.5)
    assert set(average.state_dict()) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    model["b"].running_mean.fill_(7.0)
    with average.apply():
        assert model["b"].running_mean.tolist() == [7.0, 7.0]


def test_it_goes_on_from_where_it_stood():
    def moved(average, model, steps):
        for step in steps:
            with torch.no_grad():
                model.weight.fill_(float(step))
            average.update()

    models = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    first, second = (Average(nn.ModuleDict({"m": model}), ["m"], 0.99) for model in models)
    moved(first, models[0], range(3))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()}, first.updates)
    for average, model in ((first, models[0]), (second, models[1])):
        moved(average, model, range(3, 6))
    assert torch.equal(first.state_dict()["m.weight"], second.state_dict()["m.weight"])


def test_an_average_of_nothing():
    average = Average(nn.ModuleDict(), [], 0.9)
    average.update()
    average.copy_to_model()
    assert average.state_dict() == {}
