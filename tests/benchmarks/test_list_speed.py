from modkit.cli.scaffold import STARTERS
from modkit.parts.registry import registry
from tests.benchmarks import list_speed


def test_its_plugins_are_listed(tmp_path, monkeypatch):
    list_speed.install(tmp_path, 3)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.cache_clear()
    try:
        found = [entry.part for entry in registry().parts() if entry.part.name.startswith("acme")]
    finally:
        registry.cache_clear()
    assert [part.kind for part in found] == sorted(list(STARTERS)[:3])


def test_every_command_is_timed():
    costs = list_speed.measure(plugins=1, runs=1)
    assert costs.keys() == list_speed.COMMANDS.keys()
    assert all(0 < one.processor for runs in costs.values() for one in runs)
