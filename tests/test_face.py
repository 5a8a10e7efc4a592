"""The public face: what `import modkit` gives, what it costs, and that nothing in it is ever rebound."""

import json
import pkgutil
from pathlib import Path

import pytest

import modkit
from tests.forks import fork_python
from tests.processes import run_python

ROOT = Path(modkit.__file__).parents[1]
PROMISED = """
    Batch Cond CondType Denoised players fit sample seeded spec_of StepContext
    Event Latents Model Part Player Rng Run Spec SpecError Step TensorType
    build check evaluate find hookimpl load load_spec sample train use Features Score
""".split()
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import modkit
from modkit import Part, Spec, SpecError, TensorType, hookimpl, load_spec, use
import modkit.building.plan, modkit.cli.app, modkit.cli.describe, modkit.kinds, modkit.specs.settings, modkit.types
assert modkit.find("sampler", "ddim").name == "ddim"
assert Spec(model=use("gan"), data=use("digits")).to_yaml()
assert len(modkit.cli.describe.list_parts()) > 50
"""
CALLS = """
import sys, warnings
from functools import cache
warnings.simplefilter("error")
import modkit
import modkit.sweeps.sweep
import torch
from modkit.part import Part
from tests.sweeps.forks import Child

modkit.sweeps.sweep._launch = Child
POINTS = torch.arange(12.0).view(6, 2) ** 2
SMALL = {"width": 8, "depth": 1}
TEXT = '''
name: tiny
data: {use: ring, num: 64, num_test: 64}
model: {use: gan, generator: {use: mlp, width: 8, depth: 1}, discriminator: {use: mlp, width: 8, depth: 1}, z_dim: 2}
train: {steps: 1, batch_size: 8, device: cpu, samples: {num: 4}}
'''
with open("tiny.yaml", "w") as file:
    file.write(TEXT)

number = iter(range(99))

def trained():
    return modkit.train(modkit.load_spec("tiny.yaml"), f"run-{next(number)}")

ran = cache(trained)  # one that was trained before will do for the others

def averaged():
    changes = ["train.ema={std: 0.1, every: 1}", "train.steps=4"]
    return modkit.train(modkit.load_spec("tiny.yaml", changes), f"run-{next(number)}")

def composed():
    from modkit.models import GAN

    return GAN(modkit.TensorType((2,)), generator=modkit.use("mlp", **SMALL), discriminator="mlp", z_dim=2)

def draw_labelled():
    from modkit.models import GAN

    x, fields = modkit.TensorType((1, 4, 4), (-1, 1)), {"labels": modkit.TensorType((), classes=2)}
    model = GAN(x, fields=fields, generator="mlp", discriminator="mlp", conditioner="label")
    return modkit.draw_classes(model, fields, 3)

def measured():
    run = ran()
    modkit.evaluate_run(run, metrics=["modes"]).save(run.path)
    return run

sampler = modkit.find("sampler", "ddim").load()(
    modkit.find("schedule", "cosine").load()(), modkit.TensorType((2,)), steps=2
)
calls = {
    "use": lambda: modkit.use("mlp", width=8),
    "default": lambda: modkit.default("mlp"),
    "find": lambda: modkit.find("network", "mlp").load(),
    "register": lambda: modkit.register("weight", "halved", lambda value: value / 2),
    "hookimpl": lambda: modkit.hookimpl(lambda: None),
    "load_spec": lambda: modkit.load_spec("tiny.yaml", ["train.seed=1"]),
    "check": lambda: modkit.check(modkit.load_spec("tiny.yaml")).parameters,
    "build": lambda: modkit.build(modkit.load_spec("tiny.yaml")).sample(2, seed=0).shape,
    "train": lambda: trained().finished,
    "resume": lambda: modkit.resume(ran()).finished,
    "load": lambda: modkit.load(ran()).sample(2, seed=0).shape,
    "sample": lambda: modkit.sample(sampler, lambda x, t: modkit.Denoised(x), torch.ones(2, 2), seed=0).shape,
    "show": lambda: modkit.show(torch.zeros(2, 1, 4, 4)).size,
    "save_grid": lambda: modkit.save_grid(f"grid-{next(number)}.png", torch.zeros(2, 1, 4, 4)),
    "sample_run": lambda: modkit.sample_run(ran(), num=2).x.shape,
    "players": lambda: modkit.players(composed())[0].name,
    "fit": lambda: modkit.fit(composed(), POINTS, f"run-{next(number)}", steps=1, batch_size=2, device="cpu").finished,
    "seeded": lambda: modkit.seeded(0).__enter__(),
    "spec_of": lambda: str(modkit.spec_of(composed())),
    "branch": lambda: modkit.branch(ran(), f"run-{next(number)}").finished,
    "compare": lambda: modkit.compare([measured()], "page.html").entries,
    "sweep": lambda: modkit.sweep("tiny.yaml", ["seed=0"], "sweep", metrics=["modes"]).failures,
    "draw_classes": lambda: draw_labelled().shape,
    "export": lambda: modkit.export(ran(), f"export-{next(number)}").name,
    "list_runs": lambda: [one.path for one in modkit.list_runs(ran().path)],
    "rebuild_average": lambda: modkit.rebuild_average(averaged(), 0.08, f"average-{next(number)}").path,
    "evaluate_run": lambda: modkit.evaluate_run(ran(), metrics=["modes"]).scores["modes"].value,
    "evaluate": lambda: modkit.evaluate(real=POINTS, fake=POINTS + 1, features=None, metrics=["fd"]).counts,
}
assert set(calls) == {name for name in modkit.__all__ if callable(getattr(modkit, name)) and name.islower()}
for name in sorted(calls, reverse=sys.argv[1] == "backwards"):
    first, again = getattr(modkit, name), None
    for _ in range(2):
        calls[name]()
        assert getattr(modkit, name) is first, name
"""


def test_every_exported_name_resolves_and_is_listed():
    assert set(PROMISED) <= set(modkit.__all__) == set(dir(modkit))
    assert all(getattr(modkit, name) is not None for name in modkit.__all__)
    assert (ROOT / "modkit" / "py.typed").exists()
    with pytest.raises(AttributeError, match="module 'modkit' has no attribute 'tarin'"):
        modkit.tarin  # noqa: B018


def test_every_name_of_each_module_resolves():
    for info in pkgutil.walk_packages(modkit.__path__, "modkit."):
        module = __import__(info.name, fromlist=["__all__"])
        assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == [], info.name


def test_no_module_has_the_name_of_an_exported_one():
    assert {info.name for info in pkgutil.iter_modules(modkit.__path__)} & set(modkit.__all__) == set()


@pytest.mark.wide
def test_the_face_works_where_torch_cannot_be_imported():
    run_python("-c", WITHOUT_TORCH)


def test_importing_imports_no_torch_and_little_else():
    code = "import json, sys, time; t = time.process_time(); import modkit; t = time.process_time() - t;"
    seconds, modules = json.loads(run_python("-c", code + "print(json.dumps([t, sorted(sys.modules)]))").stdout)
    print(f"import modkit: {seconds * 1000:.0f} ms of CPU")
    assert not {"torch", "numpy", "click", "rich", "pluggy", "ruamel.yaml"} & set(modules)


@pytest.mark.wide
@pytest.mark.parametrize("order", ["forwards", pytest.param("backwards", marks=pytest.mark.full)])
def test_each_function_is_itself_however_often_and_in_whatever_order_it_is_called(order, tmp_path):
    fork_python("-c", CALLS, order, cwd=tmp_path)
