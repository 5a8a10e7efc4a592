"""Data sets that keep what they were made with: a run of the object has them in its spec."""

from functools import partial

import pytest

import modkit
from modkit.data import Augmented, Corrupted, Digits, Mask, Ring, Subset, recorded
from modkit.models import Diffusion
from modkit.runs.run import Run

TINY = {"steps": 1, "batch_size": 8, "device": "cpu", "samples": {"num": 4}}


def fit(data, path, **options):
    fields = {"fields": data.fields, "conditioner": modkit.use("vector", names=["augmentation"], drop=0)}
    given = fields if "augmentation" in data.fields else {}
    with modkit.seeded(0):
        model = Diffusion(data.x, network=modkit.use("mlp", width=4, depth=1), **given)
    return modkit.fit(model, data, path, **{**TINY, **options})


@pytest.mark.parametrize(
    ("data", "written"),
    [
        (Ring(num=64, num_test=64), modkit.use("ring", num=64, num_test=64)),
        (Ring(), modkit.use("ring")),
        (
            Augmented(data=Digits(size=8), p=0.5, changes=["scaling"]),
            modkit.use("augmented", data=modkit.use("digits", size=8), p=0.5, changes=["scaling"]),
        ),
        (
            Subset(data=Subset(data=partial(Digits, size=8), num=64), num=32, seed=1),
            modkit.use("subset", data=modkit.use("subset", data=modkit.use("digits", size=8), num=64), num=32, seed=1),
        ),
    ],
)
def test_a_run_of_an_object_has_the_spec_of_its_arguments(data, written, tmp_path):
    run = fit(data, tmp_path / "run")
    planned = modkit.Spec.from_yaml(run.spec_text).with_value("data", written)
    assert modkit.check(planned).plan.resolved.data == modkit.Spec.from_yaml(run.spec_text).data
    assert run.lock["data"] == data.key
    assert modkit.resume(run, ["train.steps=2"]).find_checkpoint_name() == "step-00000002"


def test_it_is_measured_without_being_handed_in(tmp_path):
    run = fit(Ring(num=64, num_test=64), tmp_path / "run")
    assert modkit.evaluate_run(run, metrics=["fd"], features="pixels", num=32, device="cpu").data == run.lock["data"]


def test_slots_take_factories_and_classes_beside_built_data():
    data = Corrupted(data=Digits(size=8), corruption=Mask)
    same = Corrupted(data=partial(Digits, size=8), corruption=Mask)
    assert data.key == same.key and data.fields == same.fields


def test_a_run_that_an_earlier_version_made_of_an_object_is_resumed(tmp_path, monkeypatch):
    data = Ring(num=64, num_test=64)
    monkeypatch.delattr(data, "arguments")
    run = fit(data, tmp_path / "run")
    assert modkit.Spec.from_yaml(run.spec_text).data is None
    fit(Ring(num=64, num_test=64), tmp_path / "run", steps=2, resume=True)
    assert modkit.Spec.from_yaml(Run.open(run.path).spec_text).at("data.use") == "ring"
    with pytest.raises(modkit.SpecError, match="data.num: got 32 in a run that has trained with 64"):
        fit(Ring(num=32, num_test=64), tmp_path / "run", steps=3, resume=True)


class Shifted(Ring):
    """A data set with parameters of its own, of which nothing is kept."""

    def __init__(self, *, by=1.0):
        super().__init__(num=64, num_test=64)
        self._by = by


def test_what_keeps_nothing_is_not_in_the_spec(tmp_path):
    assert modkit.Spec.from_yaml(fit(Shifted(by=2.0), tmp_path / "own").spec_text).data is None
    held = Subset(data=lambda: Shifted(), num=32)
    assert recorded(type("Kept", (Shifted,), {"__init__": Shifted.__init__}))(by=3.0).arguments == {"by": 3.0}
    assert held.splits["train"] == 32
