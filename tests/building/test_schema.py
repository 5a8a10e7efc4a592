import json
import math
import random
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import jsonschema
import pytest

from modkit import Part, Spec, SpecError, hookimpl, load_spec
from modkit.building.plan import plan
from modkit.building.schema import make_schema
from modkit.kinds import KINDS
from modkit.parts.registry import Registry, get_registry
from modkit.specs.yaml import parse

FILES = sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml"))
EXAMPLES = [  # those beside a package use its parts, which are not installed
    path for path in FILES if "\nmodel:" in path.read_text() and not (path.parent / "pyproject.toml").exists()
]


@pytest.fixture(scope="module")
def validator():
    found = json.loads(json.dumps(make_schema()))
    jsonschema.Draft7Validator.check_schema(found)
    return jsonschema.Draft7Validator(found)


def plain(spec):
    return parse(spec.to_yaml(), "spec.yaml")[0]


@pytest.mark.wide(20)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_fits_as_written_and_resolved(validator, path):
    spec = load_spec(path)
    validator.validate(plain(spec))
    validator.validate(plain(plan(spec).resolved))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.prior.sampler.steps", "many"),
        ("model.prior.sampler", "no-such-sampler"),
        ("model.prior.sampler", {"steps": 3, "pace": 1}),
        ("model.prior.sampler", {"use": "ddim", "spacing": "sideways"}),
        ("model.prior.schedule", 3),
        ("model.prior", {"ref": "model", "more": 1}),
        ("model.prior", {"use": "run"}),
        ("model.autoencoder.weights", {"kl": "heavy"}),
        ("train.stages", {"players": ["*"]}),
        ("train.batch_size", True),
        ("train.batch_size", 2**31),
        ("data.size", 257),
        ("data.size", None),
    ],
)
def test_what_no_spec_may_say_is_refused(validator, path, value):
    spec = load_spec(next(found for found in EXAMPLES if found.stem == "ldm")).with_value(path, value)
    assert not validator.is_valid(plain(spec))
    with pytest.raises(SpecError):
        plan(spec)


@pytest.mark.wide(4)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_unknown_key_is_refused_wherever_a_part_or_a_record_is(validator, path):
    spec = load_spec(path)
    places = [*plan(spec).parts] + ["train"]
    for at in random.Random(0).sample(places, min(4, len(places))):
        assert not validator.is_valid(plain(spec.with_value(f"{at}.no_such_key", 1)))


def test_a_mapping_without_use_is_the_default_part_alone(validator):
    spec = Spec.from_yaml("{data: digits, model: {use: diffusion, sampler: {eta: 0.5}}}")
    try:
        accepted = bool(plan(spec))
    except SpecError:
        accepted = False
    assert validator.is_valid(plain(spec)) == accepted


def test_a_mapping_without_use_may_be_an_implied_part(validator):
    model = {"use": "diffusion", "schedule": "edm", "times": {"mean": -0.5}, "sampler": {"churn": 1.0}}
    assert validator.is_valid({"model": model})
    assert not validator.is_valid({"model": {**model, "times": {"no_such_key": 1}}})


def test_the_type_of_data_that_are_not_there(validator):
    spec = {"x": {"shape": [1, 8, 8], "fields": {"labels": {"shape": [], "classes": 3}}}, "model": "autoencoder"}
    assert validator.is_valid(spec)
    assert not validator.is_valid({**spec, "x": {"shape": [1], "fields": {"labels": {"classes": 3}}}})


def test_every_kind_part_and_parameter_is_there_with_its_help(validator):
    definitions = validator.schema["definitions"]
    assert set(KINDS) <= set(definitions)
    for kind in KINDS:
        names = [entry.part.name for entry in get_registry().list_parts(kind)]
        assert definitions[kind]["anyOf"][0] == {"enum": names}
    steps = definitions["sampler:ddim"]["properties"]["steps"]
    assert steps["type"] == "integer" and steps["description"]
    assert "$ref" in json.dumps(definitions["model:latent"]["properties"]["prior"])


class Odd:
    """A sampler whose defaults JSON cannot hold."""

    def __init__(
        self,
        *,
        kinds: list[Any] = [Fraction],  # noqa: B006
        most: float = math.inf,
        table: dict[int, float] = {1: 2.0},  # noqa: B006
        pair: tuple[int, int] = (1, 2),
    ) -> None: ...


class Chosen:
    """A sampler whose choices JSON cannot hold."""

    def __init__(self, *, mode: Literal[Path] = Path) -> None: ...  # type: ignore[valid-type]


@pytest.fixture
def acme(monkeypatch):
    """The schema with a plug-in that has parts of all sorts."""
    parts = [
        Part("sampler", "exits", "no_such_module:Sampler", "Broken"),
        Part("sampler", "odd", f"{__name__}:Odd", "Odd", aliases=("old",)),
        Part("sampler", "chosen", f"{__name__}:Chosen", "Chosen"),
    ]
    registry = Registry.load()
    plugin = ModuleType("acme")
    plugin.modkit_parts = hookimpl(lambda: parts)
    registry.add("acme", plugin)
    monkeypatch.setattr("modkit.building.schema.get_registry", lambda: registry)
    found = json.loads(json.dumps(make_schema(), allow_nan=False))
    jsonschema.Draft7Validator.check_schema(found)
    return jsonschema.Draft7Validator(found)


@pytest.mark.wide
def test_a_part_that_cannot_be_used_takes_anything_and_what_json_cannot_hold_is_left_out(acme):
    for name in ("exits", "chosen"):
        assert acme.is_valid({"model": {"use": "diffusion", "sampler": {"use": f"acme/{name}", "anything": 1}}})
    found = acme.schema["definitions"]["sampler:acme.odd"]["properties"]
    assert {name: one["default"] for name, one in found.items() if "default" in one} == {"pair": [1, 2]}
    assert list(found) == ["use", "kinds", "most", "table", "pair"]


@pytest.mark.wide
def test_a_part_is_known_by_its_former_names_too(acme):
    for name in ("acme/odd", "acme/old"):
        for sampler in (name, {"use": name}, {"use": name, "most": 3.0}):
            assert acme.is_valid({"model": {"use": "diffusion", "sampler": sampler}}), sampler
        assert not acme.is_valid({"model": {"use": "diffusion", "sampler": {"use": name, "no_such_key": 3}}})
    assert not acme.is_valid({"model": {"use": "diffusion", "sampler": "acme/older"}})
    assert acme.schema["definitions"]["sampler"]["anyOf"][0]["enum"][:2] == ["acme/chosen", "acme/exits"]
