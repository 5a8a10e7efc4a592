from importlib import metadata

import pytest

from modkit.parts.distributions import find_distributions, read_header
from tests.plugin_factory import make_plugin


def test_those_that_declare_a_group_are_named_as_installers_name_them(site):
    make_plugin(site, "one", distribution="Acme_One.x")
    make_plugin(site, "two", distribution="acme-two", entry_points="[others]\ntwo = fractions\n")
    found = find_distributions("modkit")
    assert "acme-one-x" in found and "acme-two" not in found
    assert find_distributions("others") == {"acme-two": ["others"]}


@pytest.mark.parametrize(
    "group", ["modkits", "modkit_plugins", "modkit-plugin", "modkit.parts", "Modkit", "modkti", "mokit"]
)
def test_a_slip_in_the_group_is_seen(site, group):
    make_plugin(site, "acme", entry_points=f"[console_scripts]\na = b:c\n\n[{group}]\nacme = fractions\n")
    assert find_distributions("modkit")["modkit-acme"] == [group]


@pytest.mark.parametrize("group", ["toolkit", "molkit", "model", "kit", "pytest11", "console_scripts"])
def test_another_group_is_none(site, group):
    make_plugin(site, "acme", entry_points=f"[{group}]\nmodkit = fractions\n")
    assert "modkit-acme" not in find_distributions("modkit")


def test_headers_are_those_that_importlib_finds():
    for distribution in list(metadata.distributions())[:50]:
        for field in ("Name", "Version"):
            assert read_header(distribution, field) == distribution.metadata[field]


def test_what_is_no_header_is_not_taken_for_one(site):
    make_plugin(site, "acme", version="2.0")
    (info,) = site.glob("*.dist-info")
    (info / "METADATA").write_text("Name: modkit-acme\nX-Version: 3\nVersion: 2.0\n\nVersion: 9\n")
    assert read_header(metadata.distribution("modkit-acme"), "Version") == "2.0"
