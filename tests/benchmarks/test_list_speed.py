from modkit.cli.scaffold import STARTERS
from modkit.parts.registry import get_registry
from tests.benchmarks import list_speed


def test_its_plugins_are_listed(tmp_path, monkeypatch):
    list_speed.install(tmp_path, 3)
    monkeypatch.syspath_prepend(str(tmp_path))
    get_registry.cache_clear()
    try:
        found = [entry.part for entry in get_registry().list_parts() if entry.part.name.startswith("acme")]
    finally:
        get_registry.cache_clear()
    assert [part.kind for part in found] == sorted(list(STARTERS)[:3])


def test_every_command_is_timed():
    costs = list_speed.measure(plugins=1, runs=1)
    assert costs.keys() == list_speed.COMMANDS.keys()
    assert all(0 < one.processor for runs in costs.values() for one in runs)
