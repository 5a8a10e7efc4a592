"""Discovery as users meet it: the command line as a process, with many plug-ins and with broken ones on the path."""

import json
import re

import pytest

from tests.parts.broken import BROKEN, make_source
from tests.plugin_factory import make_plugin
from tests.processes import run_python

RUN = """
import json, os, sys, time
from modkit.cli.app import main
try:
    main()
finally:
    clock = sum(os.times()[:2])
    print(json.dumps({"torch": "torch" in sys.modules, "seconds": clock}), file=sys.stderr)
"""


def command(site, *arguments, **environment):
    """A run of the command line with the plug-ins of `site` and of this interpreter: its output and what it says."""
    done = run_python("-c", RUN, *arguments, fail=True, path=(site,), **environment)
    return done, json.loads([line for line in done.stderr.splitlines() if line.startswith("{")][-1])


def names(rows):
    return {f"{row['kind']} {row['name']}" for row in rows}


def test_listing_twenty_plugins_imports_no_torch_and_owns_stdout(site):
    source = make_source("[Part('sampler', 'fast', 'torch:x', '')]")
    for number in range(20):
        make_plugin(site, f"plugin{number}", f"print('hello')\n{source}")
    make_plugin(site, "heavy", make_source("[Part('network', 'x', 'torch:nn', '')]"))
    done, facts = command(site, "list", "--json")
    assert done.returncode == 0 and not facts["torch"]
    print(f"modkit list --json with 21 plug-ins: {facts['seconds']:.2f} s of CPU")
    rows = json.loads(done.stdout)
    own = {f"sampler plugin{number}/fast" for number in range(20)} | {"network heavy/x", "sampler ddim"}
    assert own <= names(rows)
    done, _ = command(site, "doctor", "--json")
    counts = json.loads(done.stdout)["counts"]
    assert counts["ok"] >= 21 and counts["parts"] == len(rows) >= 83


LOUD = (
    "import atexit, os, warnings\natexit.register(print, 'late')\nos.write(1, b'now')\n"
    "warnings.warn('\\x1b[2J')\nos.fork()\nos.close(1)"
)
"""Disturbs what other code of the process writes, but has no problem."""


@pytest.mark.wide
def test_each_broken_plugin_is_named_with_its_reason_and_hurts_no_other(site):
    for name, (source, _) in BROKEN.items():
        make_plugin(site, f"bad-{name}", source)
    for distribution in ("modkit-twin-one", "modkit-twin-two"):
        make_plugin(site, "twin", distribution=distribution)
    make_plugin(site, "table", distribution="modkit-table", entry_points="[modkit]\nthis is no table\n")
    make_plugin(site, "gone", entry_points="[modkit]\ngone = nowhere_to_be_found\n")
    make_plugin(site, "old", requires=["modkit-generative<0.0.1"])
    make_plugin(site, "group", entry_points="[modkit_plugins]\ngroup = fractions\n")
    make_plugin(site, "good")
    make_plugin(site, "loud", f"{LOUD}\n{make_source('[]')}")
    listed, _ = command(site, "list", "--json")
    assert listed.returncode == 0 and "late" in listed.stderr
    assert "\\x1b[2J" in listed.stderr and "\x1b" not in listed.stderr
    found = names(json.loads(listed.stdout))
    assert {"sampler good/fast", "sampler old/fast", "sampler ddim", "model latent"} <= found
    failed = (*(f"bad-{name}" for name in BROKEN), "gone", "group", "twin")
    assert not any(f" {name}/" in row for row in found for name in failed)
    diagnosed, _ = command(site, "doctor", "--json")
    assert diagnosed.returncode == 0
    assert "torch cannot be imported: " in json.loads(diagnosed.stdout)["ops"][0]["reason"]  # it reads all metadata
    rows = {row["plugin"]: row for row in json.loads(diagnosed.stdout)["plugins"]}
    for name, (_, reason) in BROKEN.items():
        row = rows[f"bad-{name}"]
        assert row["status"] == "failed" and re.search(reason, row["reason"]), row
        assert row["distribution"] == f"modkit-bad-{name}" and row["parts"] == 0
    assert (rows["twin"]["status"], rows["twin"]["parts"]) == ("failed", 0)
    assert "modkit-twin-one and modkit-twin-two each declare a plug-in 'twin'" in rows["twin"]["reason"]
    assert "got the group 'modkit_plugins'" in rows["group"]["reason"]
    assert "entry points" in rows["modkit-table"]["reason"]
    assert "nowhere_to_be_found" in rows["gone"]["reason"]
    assert "requires modkit-generative<0.0.1" in rows["old"]["reason"]
    assert (rows["good"]["status"], rows["good"]["parts"], rows["good"]["reason"]) == ("ok", 1, None)
    table, _ = command(site, "doctor")
    assert table.returncode == 0
    assert all(name in table.stdout for name in (*rows, "no luck", "SystemExit: 3"))


@pytest.mark.wide
def test_a_broken_plugin_is_fatal_where_it_is_asked_to_be_and_can_be_left_out(site):
    make_plugin(site, "raises", BROKEN["raises"][0])
    strict, _ = command(site, "list", "--json", MODKIT_STRICT="1")
    assert strict.returncode == 1 and strict.stdout == ""
    assert strict.stderr.startswith("modkit: plug-in raises of modkit-raises: RuntimeError: no luck")
    without, _ = command(site, "doctor", "--json", MODKIT_STRICT="1", MODKIT_DISABLE="raises")
    (row,) = [row for row in json.loads(without.stdout)["plugins"] if row["plugin"] == "raises"]
    assert row["status"] == "disabled"


@pytest.mark.wide
def test_a_part_whose_target_does_not_import_is_named_when_it_is_used(site):
    (site / "module_that_exits.py").write_text("import sys\nsys.exit(3)")
    parts = "Part('sampler', 'lost', 'nowhere_to_be_found:X', ''), Part('sampler', 'exits', 'module_that_exits:X', '')"
    make_plugin(site, "acme", make_source(f"[{parts}]"))
    shown, _ = command(site, "show", "sampler", "acme/lost")
    assert shown.returncode == 1
    message = "part sampler acme/lost cannot be imported: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    assert f"modkit: {message}\n" in shown.stderr and "Traceback" not in shown.stderr
    other, _ = command(site, "show", "model", "diffusion")
    assert other.returncode == 0 and other.stdout.startswith("model diffusion: ")
    planned, _ = command(site, "check", write_spec(site), "model.sampler=acme/exits")
    message = "model.sampler: part sampler acme/exits cannot be imported: SystemExit: 3 (module_that_exits.py, line 2)"
    assert planned.returncode == 2 and message in planned.stderr


def write_spec(folder):
    path = folder / "spec.yaml"
    path.write_text("{data: digits, model: diffusion}")
    return str(path)
