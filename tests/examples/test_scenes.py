"""A package of a stranger with a kind of its own: layouts, of which its Model has a slot."""

import json
from pathlib import Path

import pytest
import torch
from click.shell_completion import ShellComplete
from jsonschema import Draft7Validator

import modkit
from modkit import Rng, TensorType
from modkit.building.schema import make_schema
from modkit.cases import find_case
from modkit.cli import completion
from modkit.cli.app import app
from modkit.cli.describe import diagnose, list_parts
from modkit.specs.load import load_spec
from modkit.specs.overrides import apply
from modkit.testing import Case, find_subjects, make_battery
from modkit.testing.checks import LONG
from modkit.testing.hosts import list_hosts
from tests.examples.packages import check_package, install_package

FOLDER = Path(__file__).parents[2] / "examples" / "scenes"
SPEC = load_spec(FOLDER / "scenes.yaml")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    with install_package(FOLDER, tmp_path_factory.mktemp("site")) as module:
        yield module


def test_it_has_150_lines_with_its_test_and_imports_what_is_public():
    check_package(FOLDER)
    files = [path for path in FOLDER.rglob("*.py") if path.parent.name != "starters"]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 150


def find_flaws(kind):
    subjects = [one for one in find_subjects("scenes", data="scenes/blobs") if one.part.kind == kind]
    checks = [one for one in make_battery(subjects) if one.name not in LONG]
    return len(subjects), [flaw for flaw in (one.checklist.find_flaw(one.name) for one in checks) if flaw is not None]


@pytest.mark.parametrize(("kind", "num"), [("scenes/layout", 2), ("conditioner", 1), ("data", 1)])
def test_the_battery_finds_nothing(parts, kind, num):
    assert find_flaws(kind) == (num, [])


@pytest.mark.wide
def test_the_battery_finds_nothing_in_the_model(parts):
    assert find_flaws("model") == (1, [])


def test_the_battery_needs_the_data_for_the_field(parts):
    (subject,) = (one for one in find_subjects("scenes") if one.part.kind == "conditioner")
    flaws = [one.checklist.find_flaw("builds") for one in make_battery([subject]) if one.name == "builds"]
    assert "expects a field `places`, got" in str(flaws[0])
    with pytest.raises(ValueError, match=r"no data is called 'scenes/blob'; did you mean 'scenes/blobs'\?"):
        find_subjects("scenes", data="scenes/blob")


def test_its_kind_is_listed_completed_and_in_the_schema(parts, monkeypatch):
    assert [row["name"] for row in list_parts("scenes/layout")] == ["scenes/learned", "scenes/standard"]
    (row,) = (one for one in diagnose()["plugins"] if one["plugin"] == "scenes")
    assert (row["status"], row["reason"], row["parts"]) == ("ok", None, 5)
    schema = json.loads(json.dumps(make_schema()))
    monkeypatch.setattr(completion, "_load_schema", lambda: schema)
    train = ["train", str(FOLDER / "scenes.yaml")]
    for before, word, wanted in (
        (["list"], "scen", ["scenes/layout"]),
        (["show", "scenes/layout"], "scenes/s", ["scenes/standard"]),
        (train, "model.layout=scenes/", ["model.layout=scenes/learned", "model.layout=scenes/standard"]),
    ):
        assert [one.value for one in ShellComplete(app, {}, "modkit", "").get_completions(before, word)] == wanted
    spec = {"model": {"use": "scenes/stage", "layout": "scenes/learned"}, "data": "scenes/blobs"}
    assert Draft7Validator(schema).is_valid(spec)
    assert not Draft7Validator(schema).is_valid({**spec, "model": {**spec["model"], "layout": "ddim"}})


def test_a_part_of_it_is_swapped_by_an_override_and_others_are_refused(parts):
    assert modkit.check(SPEC).findings == ()
    built = {one: modkit.build(apply(SPEC, [f"model.layout=scenes/{one}"])[0]) for one in ("standard", "learned")}
    assert [model.layout.mean.requires_grad for model in built.values()] == [False, True]
    assert [sum(one.requires_grad for one in model.layout.parameters()) for model in built.values()] == [0, 1]
    for layout, message in (
        (
            "ddim",
            "'ddim'; it is the name of a part of kind sampler: `scenes.parts.Layout` states what a scenes/lay",
        ),
        ("learned", "no scenes/layout is called 'learned'; did you mean 'scenes/learned'?"),
    ):
        with pytest.raises(ValueError) as caught:
            modkit.build(apply(SPEC, [f"model.layout={layout}"])[0])
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="expected a scenes/layout with `loss`, `draw`, got an Identity without them"):
        parts.Stage(parts.Blobs.x, fields=parts.Blobs.fields, layout=torch.nn.Identity())


def test_a_process_registers_a_part_of_its_own_for_it(parts, modkit_registry):
    modkit_registry([])
    modkit.register("scenes/layout", "mine", type("Mine", (parts.Standard,), {"__doc__": "Places of mine."}))
    model = modkit.build(apply(SPEC, ["model.layout=mine"])[0])
    assert type(model.layout).__name__ == "Mine" and [row["name"] for row in list_parts("scenes/layout")][0] == "mine"


def test_a_layout_that_is_learned_follows_the_data(parts):
    places = 0.5 + Rng(0).normal("places", torch.empty(4000, 2))
    layout = parts.learn(TensorType((2,)))
    layout.loss(places).backward()
    assert torch.allclose(layout.mean.grad, -places.mean(0))
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(places).sum(1).mean()
    assert torch.allclose(layout.loss(places), expected)
    drawn = layout.draw(4000, Rng(1))
    assert drawn.mean(0).abs().max() < 4 / 4000**0.5 and (drawn.std(0) - 1).abs().max() < 4 / 8000**0.5


def test_a_kind_without_a_case_or_hosts_is_refused_by_the_battery(parts, modkit_registry):
    kinds = [modkit.kinds.Kind(name, "scenes.parts:Layout", (), "S", case=case) for name, case in CASES.items()]
    modkit_registry([], plugin="acme", kinds=kinds)
    for name, message in (
        ("none", "kind acme/none to name its Case in `case`, got None"),
        ("number", "kind acme/number to name its Case in `case`, got 'math:pi'"),
    ):
        with pytest.raises(ValueError, match=message):
            find_case(f"acme/{name}")
    with pytest.raises(ImportError, match="kind acme/absent cannot be imported: ModuleNotFoundError"):
        find_case("acme/absent")
    with pytest.raises(ValueError, match=r"unknown kind 'layout'; did you mean 'scenes/layout'\?"):
        find_case("layout")
    with pytest.raises(ValueError, match="expects the Case of kind acme/homeless to have `hosts`, got none"):
        next(list_hosts("acme/homeless"))
    assert [path for _, path in list_hosts("scenes/layout")] == ["model.layout"]


CASES = {"none": None, "number": "math:pi", "absent": "no_such_module:CASE", "homeless": f"{__name__}:HOMELESS"}
HOMELESS = Case("acme/homeless", {}, lambda *_: {})
