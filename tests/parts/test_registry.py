import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import modkit
from modkit.errors import suggest
from modkit.kinds import KINDS
from modkit.parts.registry import Entry, Problem, Registry, find, get_registry
from tests.plugin_factory import make_plugin

ROOT = Path(modkit.__file__).parents[1]
HEAD = "from modkit.part import Part, hookimpl\n"


def returns(expression):
    return f"{HEAD}@hookimpl\ndef modkit_parts():\n    return {expression}\n"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    monkeypatch.delenv("MODKIT_STRICT", raising=False)
    monkeypatch.delenv("MODKIT_DISABLE", raising=False)


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def load():
    importlib.invalidate_caches()
    return Registry.load()


def reasons(read, plugin="acme"):
    return [problem.reason for problem in read.problems if problem.plugin == plugin]


def names(read, plugin):
    return [str(entry.part) for entry in read.list_parts() if entry.part.name.startswith(f"{plugin}/")]


def status(read, plugin):
    return [one.status for one in read.plugins if one.name == plugin]


def test_own_parts_have_bare_names_and_our_distribution():
    entry = load().find_entry("sampler", "ddim")
    assert (entry.part.target, entry.distribution) == ("modkit.samplers.ddim:DDIM", "modkit-generative")
    assert entry.version == modkit.__version__


def test_parts_are_sorted_and_can_be_had_by_kind():
    read = load()
    keys = [(entry.part.kind, entry.part.name) for entry in read.list_parts()]
    assert keys == sorted(keys) and len(keys) == len(set(keys))
    assert {kind for kind, _ in keys} <= set(KINDS)
    assert [entry.part.name for entry in read.list_parts("sampler") if "/" not in entry.part.name] == [
        "ancestral", "ddim", "dpm-solver++", "euler", "heun",
    ]  # fmt: skip


@pytest.mark.smoke
def test_plugin_parts_carry_its_name_and_its_distribution(site):
    make_plugin(site, "acme", distribution="Acme_Parts", version="2.1")
    read = load()
    part = read.find("sampler", "acme/fast")
    assert read.find_entry("sampler", "acme/fast") == Entry(part, "acme-parts", "2.1")
    assert (part.name, part.summary) == ("acme/fast", "A sampler of acme")
    assert (status(read, "acme"), reasons(read)) == (["ok"], [])


def test_plugin_cannot_shadow_a_part_of_ours(site):
    make_plugin(site, "acme", returns('[Part("sampler", "ddim", "fractions:Fraction", "Mine")]'))
    read = load()
    assert read.find("sampler", "ddim").target == "modkit.samplers.ddim:DDIM"
    assert read.find("sampler", "acme/ddim").target == "fractions:Fraction"


def test_former_names_go_on_working(site):
    make_plugin(site, "acme", returns('[Part("sampler", "fast", "fractions:Fraction", "S", aliases=("quick",))]'))
    read = load()
    assert read.find("sampler", "acme/quick") is read.find("sampler", "acme/fast")
    assert names(read, "acme") == ["sampler acme/fast"]


BROKEN = {
    "raises": ("raise RuntimeError('no luck')", r"RuntimeError: no luck \(plugin_\d+_bad_raises.py, line 1\)"),
    "exits": ("import sys; sys.exit(3)", r"SystemExit: 3 \("),
    "generator-exit": ("raise GeneratorExit", r"GeneratorExit"),
    "no-module": ("import no_such_module", r"ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax": ("def f(:", r"SyntaxError"),
    "no-hook": ("x = 1", r"implements no hook: is `@modkit.hookimpl` missing\?"),
    "misspelt": (
        HEAD + "@hookimpl\ndef modkit_partz():\n    return []\n",
        r"implements an unknown hook 'modkit_partz'; did you mean 'modkit_parts'\?",
    ),
    "arguments": (
        HEAD + "@hookimpl\ndef modkit_parts(registry):\n    return []\n",
        r"PluginValidationError: .*modkit_parts.*registry",
    ),
    "hook-raises": (HEAD + "@hookimpl\ndef modkit_parts():\n    return 1 / 0\n", r"ZeroDivisionError: .*line 4\)"),
    "none": (returns("None"), r"expects to return a list of Part, got NoneType"),
    "one": (returns('Part("sampler", "a", "m:A", "S")'), r"expects to return a list of Part, got Part"),
    "text": (returns('["sampler"]'), r"expects to return a list of Part, got str in it"),
    "kind": (returns('[Part("samplr", "a", "m:A", "S")]'), r"unknown kind 'samplr'; did you mean 'sampler'\?"),
    "target": (returns('[Part("sampler", "a", "m.A", "S")]'), r"expects a target 'module.path:Name', got 'm.A'"),
    "target-path": (returns('[Part("sampler", "a", "m/a.py:A", "S")]'), r"expects a target .* got 'm/a.py:A'"),
    "name": (returns('[Part("sampler", "b/a", "m:A", "S")]'), r"name without blanks and slashes, got 'b/a'"),
    "number": (returns('[Part("sampler", 3, "m:A", "S")]'), r"to be text, got \('sampler', 3"),
    "aliases": (returns('[Part("sampler", "a", "m:A", "S", "old")]'), r"aliases to be a tuple of names, got 'old'"),
    "twice": (
        returns('[Part("sampler", "a", "m:A", "S"), Part("sampler", "a", "m:B", "S")]'),
        r"sampler 'a' is declared more than once",
    ),
    "alias-twice": (
        returns('[Part("sampler", "a", "m:A", "S"), Part("sampler", "b", "m:B", "S", aliases=("a",))]'),
        r"sampler 'a' is declared more than once",
    ),
    "bad-str": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        r"E: <exception str\(\) failed>",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_is_named_with_its_reason_and_hurts_no_other(site, case):
    source, reason = BROKEN[case]
    bad = f"bad-{case}"
    make_plugin(site, "aaa")
    make_plugin(site, bad, source)
    make_plugin(site, "zzz")
    read = load()
    (problem,) = [problem for problem in read.problems if problem.plugin == bad]
    assert problem.distribution == f"modkit-{bad}"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(problem.reason)
    assert (status(read, "aaa"), status(read, bad), status(read, "zzz")) == (["ok"], ["failed"], ["ok"])
    assert names(read, "aaa") + names(read, bad) + names(read, "zzz") == ["sampler aaa/fast", "sampler zzz/fast"]
    assert read.find("sampler", "ddim")


def test_all_broken_plugins_together_leave_the_good_one(site):
    for case, (source, _) in BROKEN.items():
        make_plugin(site, f"bad-{case}", source)
    make_plugin(site, "good")
    read = load()
    assert {problem.plugin for problem in read.problems} >= {f"bad-{case}" for case in BROKEN}
    assert names(read, "good") == ["sampler good/fast"]


def test_what_is_good_in_a_plugin_with_a_flaw_works(site):
    make_plugin(site, "acme", returns('[Part("sampler", "a", "m:A", "S"), Part("samplr", "b", "m:B", "S")]'))
    read = load()
    assert (names(read, "acme"), status(read, "acme")) == (["sampler acme/a"], ["failed"])


def test_keyboard_interrupt_is_the_users(site):
    make_plugin(site, "acme", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load()


def test_optional_hook_of_a_newer_modkit_is_no_problem(site):
    source = returns("[]") + "@hookimpl(optionalhook=True)\ndef modkit_newer():\n    return 1\n"
    make_plugin(site, "acme", source)
    assert status(load(), "acme") == ["ok"]


def test_two_distributions_with_one_name_are_both_left_out(site):
    make_plugin(site, "acme", distribution="first")
    make_plugin(site, "acme", distribution="second")
    make_plugin(site, "fine")
    read = load()
    (problem,) = [problem for problem in read.problems if problem.plugin == "acme"]
    assert problem == Problem(
        "acme", "first, second", "the name 'acme' is declared more than once: by first and second"
    )
    assert (names(read, "acme"), status(read, "acme")) == ([], ["failed", "failed"])
    assert names(read, "fine") == ["sampler fine/fast"]


def test_a_distribution_shadowed_on_the_path_counts_once(site, tmp_path, monkeypatch):
    make_plugin(site, "acme", version="1.0")
    nearer = tmp_path / "nearer"
    make_plugin(nearer, "acme", version="2.0")
    monkeypatch.syspath_prepend(str(nearer))
    read = load()
    assert read.find_entry("sampler", "acme/fast").version == "2.0"
    assert status(read, "acme") == ["ok"]


def test_a_nearer_distribution_without_the_plugin_hides_it(site, tmp_path, monkeypatch):
    make_plugin(site, "acme", version="1.0")
    nearer = tmp_path / "nearer"
    make_plugin(nearer, "acme", version="2.0", entry_points="[console_scripts]\nacme = x:y\n")
    monkeypatch.syspath_prepend(str(nearer))
    assert status(load(), "acme") == []


@pytest.mark.parametrize("text", ["[console_scripts]\nnonsense\n", "[modkit]\nnonsense\n"])
def test_a_malformed_table_of_entry_points_hurts_no_other(site, text):
    make_plugin(site, "broken", entry_points=text)
    make_plugin(site, "fine")
    read = load()
    assert names(read, "fine") == ["sampler fine/fast"]
    assert bool(reasons(read, "modkit-broken")) == ("[modkit]" in text)


@pytest.mark.parametrize(
    ("name", "reason"), [("modkit", "modkit's own"), ("a b", "without blanks"), ("a/b", "slashes")]
)
def test_a_name_that_cannot_go_before_parts_is_refused(site, name, reason):
    make_plugin(site, name, distribution="acme-parts")
    read = load()
    assert reason in reasons(read, name)[0]
    assert read.find("sampler", "ddim") and status(read, name) == ["failed"]


def test_one_module_under_two_names_is_a_problem_of_the_second(site):
    module = make_plugin(site, "acme", distribution="acme-parts")
    (site / "acme_parts-1.0.dist-info" / "entry_points.txt").write_text(f"[modkit]\nacme={module}\nother={module}\n")
    read = load()
    assert names(read, "acme") == ["sampler acme/fast"]
    assert "already registered" in reasons(read, "other")[0]


def test_an_object_that_cannot_be_hashed_hurts_no_other(site):
    make_plugin(site, "acme", "plugin = []", entry_points="[modkit]\nacme = string:no_such_name\n")
    module = make_plugin(site, "list", "plugin = []")
    (site / "modkit_list-1.0.dist-info" / "entry_points.txt").write_text(f"[modkit]\nlist = {module}:plugin\n")
    read = load()
    assert "unhashable" in reasons(read, "list")[0] and "no_such_name" in reasons(read)[0]
    assert read.find("sampler", "ddim")


def test_strict_raises_where_the_problem_is(site, monkeypatch):
    make_plugin(site, "acme", "raise RuntimeError('no luck')")
    monkeypatch.setenv("MODKIT_STRICT", "1")
    with pytest.raises(ValueError, match=r"plug-in acme of modkit-acme: RuntimeError: no luck") as caught:
        load()
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("case", ["misspelt", "text", "twice", "kind", "exits"])
def test_strict_raises_for_every_sort_of_problem(site, monkeypatch, case):
    make_plugin(site, "acme", BROKEN[case][0])
    monkeypatch.setenv("MODKIT_STRICT", "1")
    with pytest.raises(ValueError, match="plug-in acme of modkit-acme: "):
        load()


def test_disabled_plugins_are_not_even_imported(site, monkeypatch):
    module = make_plugin(site, "acme", "raise RuntimeError")
    make_plugin(site, "other")
    make_plugin(site, "fine")
    monkeypatch.setenv("MODKIT_DISABLE", "acme, other")
    monkeypatch.setenv("MODKIT_STRICT", "1")
    read = load()
    assert module not in sys.modules
    assert (status(read, "acme"), status(read, "other"), status(read, "fine")) == (["disabled"], ["disabled"], ["ok"])
    with pytest.raises(ValueError, match="plug-in other is disabled"):
        read.find("sampler", "other/fast")


def test_disabling_one_of_two_names_needs_no_mending(site, monkeypatch):
    make_plugin(site, "acme", distribution="first")
    make_plugin(site, "acme", distribution="second")
    monkeypatch.setenv("MODKIT_DISABLE", "acme")
    assert reasons(load()) == []


def test_find_names_the_nearest(site):
    make_plugin(site, "acme")
    read = load()
    with pytest.raises(ValueError, match=r"unknown kind 'samplr'; did you mean 'sampler'\?; there are: .*encoder"):
        read.find("samplr", "ddim")
    with pytest.raises(ValueError, match=r"no sampler is called 'ddmi'; did you mean 'ddim'\?; there are: acme/fast"):
        read.find("sampler", "ddmi")
    with pytest.raises(ValueError, match=r"no sampler is called 'fast'; did you mean 'acme/fast'\?"):
        read.find("sampler", "fast")
    with pytest.raises(ValueError, match=r"unknown kind 'loss_weight'; did you mean 'loss-weight'\?"):
        read.list_parts("loss_weight")


def test_find_says_what_became_of_a_failed_plugin(site):
    make_plugin(site, "acme", "raise RuntimeError('no luck')")
    with pytest.raises(ValueError, match=r"'acme/fast'.*plug-in acme is failed: RuntimeError: no luck"):
        load().find("sampler", "acme/fast")


def test_did_you_mean_is_silent_where_nothing_is_near():
    assert suggest("qqq", ["ddim", "heun"], "; ") == ""


def test_named_finds_the_part_of_a_target_and_of_a_reexport(site):
    module = make_plugin(site, "acme", returns('[Part("sampler", "a", "collections:abc.Sized", "S")]'))
    read = load()
    assert read.find_by_target("modkit.samplers.ddim:DDIM") is read.find("sampler", "ddim")
    assert read.find_by_target("collections.abc:Sized") is read.find("sampler", "acme/a")
    assert read.find_by_target("modkit.samplers.ddim:Nothing") is None
    assert read.find_by_target(f"{module}:None") is None


LISTENER = HEAD + """
seen = []
@hookimpl
def modkit_step_done(run, step):
    seen.append((run, step))
    if step in FAIL:
        raise SystemExit("gone")
    return step
"""  # fmt: skip


def test_call_reaches_every_plugin_and_warns_once_for_each_that_fails(site):
    modules = {name: make_plugin(site, name, f"FAIL = {fail}\n{LISTENER}") for name, fail in
               [("a", ()), ("b", (1, 2)), ("c", (2,)), ("d", ())]}  # fmt: skip
    read = load()
    arguments = {"run": "r", "stage": 0, "losses": {}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answers = [read.call("modkit_step_done", step=step, **arguments) for step in range(4)]
    assert answers == [[0] * 4, [1] * 3, [2] * 2, [3] * 4]
    for module in modules.values():
        assert sys.modules[module].seen == [("r", step) for step in range(4)]
    messages = [str(warning.message) for warning in caught]
    assert [message[:30] for message in messages] == [
        "plug-in b failed in modkit_ste", "plug-in c failed in modkit_ste",
    ]  # fmt: skip
    assert "SystemExit: gone" in messages[0]


def test_call_raises_when_strict(site, monkeypatch):
    make_plugin(site, "b", f"FAIL = (0,)\n{LISTENER}")
    read = load()
    monkeypatch.setenv("MODKIT_STRICT", "1")
    with pytest.raises(SystemExit, match="gone"):
        read.call("modkit_step_done", run=None, stage=0, step=0, losses={})


def test_call_keeps_wrappers_to_their_own_plugin(site):
    wrapper = HEAD + "@hookimpl(wrapper=True)\ndef modkit_step_done():\n    return [x * 10 for x in (yield)]\n"
    make_plugin(site, "a", f"FAIL = ()\n{LISTENER}")
    make_plugin(site, "b", wrapper)
    assert load().call("modkit_step_done", run=None, stage=0, step=3, losses={}) == [3]


def test_call_without_a_listener_is_empty():
    assert load().call("modkit_run_finished", run=None, error=None) == []


def test_registry_is_read_once_until_it_is_cleared(site):
    get_registry.cache_clear()
    try:
        first = get_registry()
        make_plugin(site, "acme")
        assert get_registry() is first and find("sampler", "ddim") is first.find("sampler", "ddim")
        get_registry.cache_clear()
        importlib.invalidate_caches()
        assert find("sampler", "acme/fast").name == "acme/fast"
    finally:
        get_registry.cache_clear()


def test_listing_in_a_fresh_process_imports_no_torch_and_owns_stdout(tmp_path):
    for index in range(20):
        make_plugin(tmp_path, f"plugin{index}", "print('hello')\n" + returns(
            '[Part("sampler", "fast", "torch:no_such_name", "S")]'
        ))  # fmt: skip
    code = (
        "import sys, json; from modkit.cli.describe import diagnose, list_parts\n"
        "rows, state = list_parts(), diagnose()\n"
        "print(json.dumps([len(rows), state['counts'], 'torch' in sys.modules]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    num, counts, torch_imported = json.loads(done.stdout)
    assert counts["ok"] >= 20 and num == counts["parts"] >= 82
    assert torch_imported is False
