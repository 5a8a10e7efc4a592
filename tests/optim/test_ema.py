import pytest
import torch
from torch import nn

from modkit.optim.ema import Average
from modkit.optim.profiles import Exponential


@pytest.mark.smoke
def test_averages_follow_their_equation():
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 2)}).double()
    average = Average(model, ["a"], Exponential(0.5))
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
    average = Average(outer, ["one"], Exponential(0.9))
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
    average = Average(model, ["a", "b"], Exponential(0.5))
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
    first, second = (Average(nn.ModuleDict({"m": model}), ["m"], Exponential(0.99)) for model in models)
    moved(first, models[0], range(3))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()}, first.updates)
    for average, model in ((first, models[0]), (second, models[1])):
        moved(average, model, range(3, 6))
    assert torch.equal(first.state_dict()["m.weight"], second.state_dict()["m.weight"])


def test_an_average_of_nothing():
    average = Average(nn.ModuleDict(), [], Exponential(0.9))
    average.update()
    average.copy_to_model()
    assert average.state_dict() == {}


class Doubled:
    """A buffer that is twice the weight; counts how often it is measured."""

    def __init__(self, model):
        self.model, self.steps, self.buffers = model, [], {"one.twice": model["one"].twice}

    def measure(self, step):
        self.steps.append(step)
        self.model["one"].twice.copy_(2 * self.model["one"].weight.detach()[0])


def make_doubled():
    model = nn.ModuleDict({"one": nn.Linear(1, 1, bias=False)}).double()
    model["one"].register_buffer("twice", torch.tensor([-1.0], dtype=torch.float64))
    statistics = Doubled(model)
    return model["one"], statistics, Average(model, ["one"], Exponential(0.9), statistics)


def test_statistics_are_measured_with_the_averages_once_an_update_and_go_where_the_averages_go():
    module, statistics, average = make_doubled()
    assert average.state_dict()["one.twice"].item() == -1 and not statistics.steps  # nothing has been averaged yet
    for _ in range(2):
        with torch.no_grad():
            module.weight.add_(1)
        average.update()
    raw = module.weight.item()
    for _ in range(2):
        with average.apply():
            held = module.weight.item()
            assert module.twice.item() == 2 * held != 2 * raw
        assert module.weight.item() == raw and module.twice.item() == -1
        kept = average.state_dict()
        assert kept["one.weight"].item() == held and kept["one.twice"].item() == 2 * held
    assert statistics.steps == [1]
    average.copy_to_model()
    assert module.weight.item() == held and module.twice.item() == 2 * held and statistics.steps == [1]


@pytest.mark.parametrize("lacking", [False, True])
def test_restored_statistics_are_measured_only_if_they_were_not_kept(lacking):
    _, statistics, average = make_doubled()
    state = {"one.weight": torch.tensor([[5.0]]), **({} if lacking else {"one.twice": torch.tensor([7.0])})}
    average.load_state_dict(state, 3)
    assert average.state_dict()["one.twice"].item() == (10 if lacking else 7)
    assert statistics.steps == ([2] if lacking else [])
    with pytest.raises(KeyError):
        average.load_state_dict({"one.twice": torch.tensor([7.0])}, 3)


def test_a_failed_measurement_leaves_the_weights():
    module, statistics, average = make_doubled()
    weight = module.weight.item()
    statistics.measure = lambda step: 1 / 0
    average.update()
    with pytest.raises(ZeroDivisionError), average.apply():
        pass
    assert module.weight.item() == weight and module.twice.item() == -1
