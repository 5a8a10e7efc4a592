import json
import platform
from importlib import metadata

import pytest

import modkit
from modkit.cli.describe import describe_part, diagnose, list_parts
from modkit.parts.registry import get_registry
from tests.plugin_factory import make_plugin

INSTALLED = f"but {modkit.__version__} is installed"
SOURCE = '''
from typing import Literal
from modkit.kinds import Encoder, Slot, default
from modkit.part import Part, hookimpl
from modkit.types import TensorType


class Critic:
    """Tells real from fake.

    Args:
        width: Number of features.
        sizes: Of each level.
        inner: Looks first.
    """

    def __init__(
        self,
        x: TensorType,
        *,
        width: int,
        sizes: tuple[int, ...] = (1, 2),
        mode: Literal["a"] | None = None,
        inner: Slot[Encoder] = default("conv"),
        most: float = float("inf"),
    ) -> None:
        self.width = width


@hookimpl
def modkit_parts():
    return [Part("discriminator", "odd", __name__ + ":Critic", "An odd critic (Doe et al., 2020)", aliases=("old",))]
'''


def row(name):
    get_registry.cache_clear()
    (found,) = [one for one in diagnose()["plugins"] if one["plugin"] == name]
    return found


def test_listing_says_who_brings_what(site):
    make_plugin(site, "acme", distribution="acme-parts", version="2.1")
    rows = list_parts("sampler")
    assert {one["kind"] for one in rows} == {"sampler"}
    facts = ("sampler", "acme/fast", "acme-parts", "2.1", "A sampler of acme")
    assert dict(zip(("kind", "name", "distribution", "version", "summary"), facts)) in rows
    assert len(list_parts()) == sum(len(list_parts(kind)) for kind in modkit.kinds.KINDS)


def test_description_is_the_signature_and_the_docstring_with_source_and_paper(site):
    module = make_plugin(site, "acme", SOURCE)
    found = describe_part("discriminator", "acme/old")
    parameters = found.pop("parameters")
    assert found == {
        "kind": "discriminator",
        "name": "acme/odd",
        "summary": "Tells real from fake.",
        "distribution": "modkit-acme",
        "version": "1.0",
        "source": f"{module}:8",
        "paper": "Doe et al., 2020",
        "implies": {},
        "implied": {},
    }
    assert [tuple(one.values()) for one in parameters] == [
        ("width", "int", True, None, "Number of features."),
        ("sizes", "tuple[int, ...]", False, [1, 2], "Of each level."),
        ("mode", "'a' | None", False, None, ""),
        ("inner", "slot of encoder", False, "conv", "Looks first."),
        ("most", "float", False, "inf", ""),
    ]
    assert list(parameters[0]) == ["name", "type", "required", "default", "help"]
    found = describe_part("optimizer", "adam")
    assert found["source"].startswith("modkit.optim.optimizers:")
    assert "lr" in [one["name"] for one in found["parameters"]]
    assert "https://arxiv.org/abs/2010.02502" in describe_part("sampler", "ddim")["paper"]


@pytest.mark.wide
def test_every_part_of_ours_can_be_described_as_json(site):
    for entry in get_registry().list_parts():
        if entry.distribution == "modkit-generative":
            found = describe_part(entry.part.kind, entry.part.name)
            assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_diagnosis_counts_names_versions_and_gives_each_plugin_its_reason(site, monkeypatch):
    before = diagnose()["counts"]
    make_plugin(site, "good", version="3.0")
    make_plugin(site, "bad", "1 / 0")
    make_plugin(site, "off", "1 / 0")
    monkeypatch.setenv("MODKIT_DISABLE", "off")
    facts = {"plugin": "good", "distribution": "modkit-good", "version": "3.0", "status": "ok", "parts": 1}
    added = {"kinds": [], "hooks": ["modkit_parts"], "source": "index"}
    assert row("good") == {**facts, **added, "reason": None}
    assert (row("bad")["status"], row("bad")["parts"]) == ("failed", 0)
    assert row("bad")["reason"].startswith("ZeroDivisionError: division by zero (plugin_")
    assert (row("off")["status"], row("off")["reason"]) == ("disabled", None)
    found = diagnose()
    assert (found["python"], found["modkit"]) == (platform.python_version(), modkit.__version__)
    assert found["torch"] == metadata.version("torch")
    added = {key: found["counts"][key] - before[key] for key in before}
    assert added == {"parts": 1, "plugins": 3, "ok": 1, "disabled": 1, "failed": 1}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        (["modkit-generative>=0.1"], None),
        (["Modkit_Generative>=90"], f"requires modkit-generative>=90, {INSTALLED}"),
        (["numpy", "modkit-generative<0.0.1"], f"requires modkit-generative<0.0.1, {INSTALLED}"),
        (["modkit-generative>=90; extra == 'dev'"], None),
        (["modkit-generative>=90; python_version < '3'"], None),
        (["modkit-generative >>> 1"], "has a requirement that cannot be parsed, 'modkit-generative >>> 1': "),
        (["other>=90"], None),
    ],
)
def test_diagnosis_checks_the_plugins_own_requirement(site, requires, reason):
    make_plugin(site, "acme", requires=requires)
    found = row("acme")
    assert found["parts"] == 1
    if reason is None:
        assert (found["status"], found["reason"]) == ("ok", None)
    else:
        assert found["status"] == "failed" and found["reason"].startswith(reason)


def test_ranges_stand_beside_types():
    types = {one["name"]: one["type"] for one in describe_part("metric", "prdc")["parameters"]}
    assert types["k"] == types["coverage_k"] == "int, at least 1"
