import json
import math
import statistics
from dataclasses import asdict

import pytest
import torch

import modkit
from modkit import use
from modkit.metrics.cost import Cost, get_device_name, median
from modkit.models.compiling import compile_networks
from modkit.rng import Rng
from modkit.specs.settings import Compilation
from tests.play import MLP, spec
from tests.refusals import check_refusal

TIMES = ("samples/s", "latency (s)")


def diffusion(width=8, steps=3, **parts):
    return modkit.build(
        spec(use("diffusion", network=use("mlp", width=width, depth=1), sampler=use("ddim", steps=steps), **parts))
    )


def scored(model, *, seed=0, **how):
    metric = Cost(**{"batch_size": 4, "repeats": 2, **how})
    seen = metric.update(metric.init(), "fake", {"model": model}, torch.arange(3))
    for state in (metric.merge(seen, metric.init()), metric.merge(metric.init(), seen), metric.merge(seen, seen)):
        assert state == {"fake": (model, "float32")}
    return metric.result(seen, Rng(seed))


def test_what_is_counted_is_exact():
    scores = scored(diffusion())
    e, w = 4, 8  # MLPNetwork's: the time's embedding, its modulation, stem, one block, out
    by_hand = 2 * e * e + e * 2 * w + 64 * w + 2 * w * w + w * 64
    biases, norms = 2 * e + 2 * w + w + 2 * w + 64, 2 * 2 * w
    assert list(scores) == ["samples/s", "latency (s)", "NFE", "GFLOPs", "parameters"]
    assert scores["NFE"].value == 3
    assert scores["GFLOPs"].value == pytest.approx(2 * 3 * by_hand / 1e9, rel=1e-12)
    assert scores["parameters"].value == by_hand + biases + norms


@pytest.mark.wide
def test_what_costs_more_counts_more():
    small, large = scored(diffusion()), scored(diffusion(width=32))
    slow, guided = scored(diffusion(steps=9)), scored(diffusion(conditioner=use("label", width=4), guidance="cfg"))
    assert slow["NFE"].value == 9 and guided["NFE"].value == 6 and large["NFE"].value == small["NFE"].value
    assert slow["GFLOPs"].value == pytest.approx(3 * small["GFLOPs"].value)
    assert large["GFLOPs"].value > small["GFLOPs"].value
    assert large["parameters"].value > small["parameters"].value == slow["parameters"].value


@pytest.mark.wide
def test_times_of_compiled_networks_are_others():
    model = diffusion()
    before = scored(model)
    compile_networks(model, Compilation(backend="eager"))
    after = scored(model)
    assert [name for name in before if not before[name].is_comparable_to(after[name])] == [*TIMES]


def test_scores_say_what_they_depend_on_and_are_plain():
    scores = scored(diffusion().double())
    for name in TIMES:
        score = scores[name]
        assert score.value > 0 and score.error > 0
        assert score.settings == {
            "device": get_device_name(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "batch size": 4 if name == "samples/s" else 1,
            "dtype": "float64",
        }
        assert score.details == {"ops": []}
    assert "aten::native_layer_norm" in scores["GFLOPs"].details["uncounted"]
    assert [score.better for score in scores.values()] == ["higher", "lower", "lower", "lower", "lower"]
    for score in scores.values():
        assert json.loads(json.dumps(asdict(score), allow_nan=False))["value"] == score.value


def test_counts_do_not_depend_on_the_seed_and_one_timing_has_no_error():
    model = modkit.build(spec(use("gan", generator=use("mlp", width=8, depth=1))))
    first, second = scored(model, repeats=1), scored(model, seed=1, batch_size=7)
    assert first["samples/s"].error is None and first["latency (s)"].error is None
    for name in ("NFE", "GFLOPs", "parameters"):
        assert first[name] == second[name] and first[name].is_comparable_to(second[name])
    assert not first["samples/s"].is_comparable_to(second["samples/s"])


def test_the_rate_and_its_error_are_those_of_the_median_time(monkeypatch):
    model, ticks = diffusion(), iter(range(10_000))
    seconds = iter([9.0, 2.0, 4.0, 3.0, 9.0, 0.5, 1.5, 0.25])  # the first of four is thrown away
    clock = [0.0]

    def read():
        if next(ticks) % 2:
            clock[0] += next(seconds)
        return clock[0]

    monkeypatch.setattr("modkit.metrics.cost.time.perf_counter", read)
    scores = scored(model, batch_size=6, repeats=3)
    assert scores["samples/s"].value == 2.0 and scores["latency (s)"].value == 0.5
    error = math.sqrt(math.pi / 6)
    assert scores["samples/s"].error == pytest.approx(6 / 3**2 * error * statistics.stdev([2, 4, 3]))
    assert scores["latency (s)"].error == pytest.approx(error * statistics.stdev([0.5, 1.5, 0.25]))


def test_the_error_of_a_median_is_that_of_many_medians():
    draws = Rng(0).normal("x", torch.empty(4000, 41)).double()
    errors = [median(row.tolist()).error for row in draws[:400]]
    assert statistics.mean(errors) == pytest.approx(float(draws.median(1).values.std()), rel=0.06)


def test_a_model_without_known_networks_has_no_evaluations():
    model = diffusion()
    del model.network.origin
    assert "NFE" not in scored(model)


def test_costs_are_those_of_the_precision_that_is_sampled_in():
    model, metric, seen = diffusion(), Cost(batch_size=2, repeats=1), set()
    model.network.register_forward_hook(lambda network, given, out: seen.add(out.dtype))
    metric.compute(fake={"model": model, "precision": "bf16"})
    assert seen == {torch.bfloat16}


def test_what_cannot_be_measured_is_refused():
    check_refusal("Cost expects batch_size to be at least 1, got 0", Cost, batch_size=0)
    check_refusal("Cost expects a Model to sample, got none", Cost().result, {}, Rng(0))
    model = modkit.build(spec(use("latent", autoencoder=use("autoencoder", **MLP), prior="gan")))
    check_refusal("Latent cannot be sampled before its prior has been prepared", scored, model)
    assert not [module for module in model.modules() if "forward" in vars(module)]
