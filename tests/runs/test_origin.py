"""Where installed distributions came from."""

import json

import pytest

from modkit.runs.origin import find_source
from tests.plugin_factory import make_plugin


@pytest.mark.parametrize(
    ("told", "source"),
    [
        (None, "index"),
        ({"url": "file:///home/me/acme", "dir_info": {"editable": True}}, "editable file:///home/me/acme"),
        ({"url": "file:///tmp/acme.whl", "archive_info": {}}, "file:///tmp/acme.whl"),
        ({"url": "https://host/a.git", "vcs_info": {"vcs": "git", "commit_id": "12"}}, "https://host/a.git@12"),
        ({"url": "https://host/a.git", "vcs_info": "git"}, "index"),
        ([], "index"),
    ],
)
def test_a_distribution_is_from_where_its_installer_says(site, told, source):
    make_plugin(site, "acme")
    if told is not None:
        (site / "modkit_acme-1.0.dist-info" / "direct_url.json").write_text(json.dumps(told))
    assert find_source("modkit-acme") == source


def test_what_is_not_installed_is_from_nowhere():
    assert find_source("modkit-no-such-thing") == ""
