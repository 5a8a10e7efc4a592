import re
import sys
import warnings

import pytest

import modkit
from modkit.kinds import KINDS, Slot
from modkit.parts.annotation import name_kind
from modkit.parts.diagnosis import find_flaws
from modkit.parts.entry import Entry
from modkit.parts.registry import Registry, find, find_kind, get_registry
from modkit.parts.signature import parse_slot
from tests.parts.broken import BROKEN, HEAD, make_kinds, make_source
from tests.plugin_factory import make_plugin


def reasons(read, plugin="acme"):
    return [problem.reason for problem in read.problems if problem.plugin == plugin]


def names(read, plugin):
    return [str(entry.part) for entry in read.list_parts() if entry.part.name.startswith(f"{plugin}/")]


def status(read, plugin):
    return [one.status for one in read.plugins if one.name == plugin]


def test_own_parts_are_sorted_by_kind_and_have_bare_names_and_our_distribution():
    read = Registry.load()
    entry = read.find_entry("sampler", "ddim")
    assert (entry.part.target, entry.distribution) == ("modkit.samplers.ddim:DDIM", "modkit-generative")
    assert entry.version == modkit.__version__
    keys = [(entry.part.kind, entry.part.name) for entry in read.list_parts()]
    assert keys == sorted(keys) and len(keys) == len(set(keys)) and {kind for kind, _ in keys} <= set(KINDS)
    samplers = [entry.part.name for entry in read.list_parts("sampler") if "/" not in entry.part.name]
    assert samplers == "ancestral consistency ddim dpm-solver++ euler heun restart sde unipc".split()


@pytest.mark.smoke
def test_plugin_parts_carry_its_name_and_its_distribution(site):
    make_plugin(site, "acme", distribution="Acme_Parts", version="2.1")
    read = Registry.load()
    part = read.find("sampler", "acme/fast")
    assert read.find_entry("sampler", "acme/fast") == Entry(part, "acme-parts", "2.1")
    assert (part.name, part.summary) == ("acme/fast", "A sampler of acme")
    assert (status(read, "acme"), reasons(read)) == (["ok"], [])


def test_plugin_cannot_shadow_a_part_of_ours_and_its_former_names_go_on_working(site):
    parts = '[Part("sampler", "ddim", "fractions:Fraction", "Mine", aliases=("quick",))]'
    make_plugin(site, "acme", make_source(parts))
    read = Registry.load()
    assert read.find("sampler", "ddim").target == "modkit.samplers.ddim:DDIM"
    assert read.find("sampler", "acme/ddim").target == "fractions:Fraction"
    assert read.find("sampler", "acme/quick") is read.find("sampler", "acme/ddim")
    assert names(read, "acme") == ["sampler acme/ddim"]


def test_what_is_good_in_a_plugin_with_a_flaw_works(site):
    make_plugin(site, "acme", make_source('[Part("sampler", "a", "m:A", "S"), Part("samplr", "b", "m:B", "S")]'))
    read = Registry.load()
    assert (names(read, "acme"), status(read, "acme")) == (["sampler acme/a"], ["failed"])


def test_keyboard_interrupt_is_the_users_and_names_the_plugin(site):
    make_plugin(site, "acme", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt, match="loading modkit-acme:acme; MODKIT_DISABLE=acme leaves it out"):
        Registry.load()


def test_optional_hook_of_a_newer_modkit_is_no_problem(site):
    source = make_source("[]") + "@hookimpl(optionalhook=True)\ndef modkit_newer():\n    return 1\n"
    make_plugin(site, "acme", source)
    assert status(Registry.load(), "acme") == ["ok"]


@pytest.fixture
def twins(site):
    """Two plug-ins called acme, beside another one."""
    make_plugin(site, "fine")
    return [make_plugin(site, "acme", distribution=which) for which in ("first", "second")]


def test_of_two_plugins_with_one_name_neither_is_loaded_and_the_message_names_both(twins):
    read = Registry.load()
    message = (
        "first and second each declare a plug-in 'acme', expected one: "
        "leave one out by MODKIT_DISABLE=first:acme or MODKIT_DISABLE=second:acme"
    )
    assert reasons(read) == [message] * 2 and status(read, "acme") == ["failed"] * 2
    assert names(read, "acme") == [] and not {*twins} & {*sys.modules} and names(read, "fine") == ["sampler fine/fast"]
    with pytest.raises(ValueError, match="plug-in acme is failed: first and second each declare"):
        read.find("sampler", "acme/fast")
    with pytest.raises(ValueError, match="no plug-in is called 'acmee'; did you mean 'acme'"):
        read.find_plugin("acmee")


def test_one_of_two_plugins_with_one_name_is_left_out_by_its_distribution(twins, monkeypatch):
    monkeypatch.setenv("MODKIT_DISABLE", "first:acme")
    read = Registry.load()
    assert status(read, "acme") == ["disabled", "ok"] and read.problems == []
    assert read.find_entry("sampler", "acme/fast").distribution == read.find_plugin("acme").distribution == "second"


def test_a_plugin_that_cannot_be_loaded_takes_no_name(site):
    make_plugin(site, "acme", distribution="first", entry_points="[modkit_plugins]\nacme = fractions\n")
    make_plugin(site, "acme", distribution="second")
    read = Registry.load()
    assert status(read, "acme") == ["failed", "ok"] and read.find("sampler", "acme/fast")


def test_one_name_twice_in_a_distribution_is_refused(site):
    make_plugin(site, "acme", entry_points="[modkit]\nacme = fractions\nacme = decimal\n")
    read = Registry.load()
    assert (
        reasons(read) == ["the name 'acme' is declared more than once"] * 2 and status(read, "acme") == ["failed"] * 2
    )


GROUPED = r"in the group 'modkit', got the group 'modkit_plugins': write \[project.entry-points.modkit\]"
NAMED = "expected the entry point to name the module with the hooks, got "
CLASS = HEAD + "class Acme:\n    @hookimpl\n    def modkit_parts(self):\n        return []\n"
PARTS_OF = make_source("[]") + "PARTS = [Part('sampler', 'a', 'm:A', 'S')]\n"


@pytest.mark.parametrize(
    ("source", "points", "reason"),
    [
        (PARTS_OF, "[modkit_plugins]\nacme = MODULE\n", GROUPED),
        (PARTS_OF, "[modkit]\nacme = MODULE:modkit_parts\n", NAMED + r"the function 'MODULE:.*': write \"MODULE\""),
        (PARTS_OF, "[modkit]\nacme = MODULE:Part\n", NAMED + "the class 'MODULE:Part'"),
        (PARTS_OF, "[modkit]\nacme = MODULE:PARTS\n", NAMED + "a list"),
        (
            CLASS,
            "[modkit]\nacme = MODULE:Acme\n",
            "an object with the hooks, got the class 'MODULE:Acme': name an inst",
        ),
    ],
)
def test_a_slip_in_the_entry_point_is_named(site, monkeypatch, source, points, reason):
    module = make_plugin(site, "acme", source)
    (site / "modkit_acme-1.0.dist-info" / "entry_points.txt").write_text(points.replace("MODULE", module))
    read = Registry.load()
    assert re.search(reason.replace("MODULE", module), *reasons(read)) and status(read, "acme") == ["failed"]
    with pytest.raises(ValueError, match="plug-in acme is failed: expected"):
        read.find("sampler", "acme/a")
    monkeypatch.setenv("MODKIT_STRICT", "1")
    with pytest.raises(ValueError, match="plug-in acme of modkit-acme: expected"):
        Registry.load()


def test_an_object_with_hooks_is_a_plugin(site):
    module = make_plugin(site, "acme", f"{CLASS}\nacme = Acme()\n")
    (site / "modkit_acme-1.0.dist-info" / "entry_points.txt").write_text(f"[modkit]\nacme = {module}:acme\n")
    assert status(Registry.load(), "acme") == ["ok"]


@pytest.mark.parametrize(("entry_points", "want"), [(None, ["ok"]), ("[console_scripts]\nacme = x:y\n", [])])
def test_of_a_distribution_that_is_twice_on_the_path_the_nearer_counts(site, tmp_path, monkeypatch, entry_points, want):
    make_plugin(site, "acme", version="1.0")
    make_plugin(tmp_path / "nearer", "acme", version="2.0", entry_points=entry_points)
    monkeypatch.syspath_prepend(str(tmp_path / "nearer"))
    read = Registry.load()
    assert status(read, "acme") == want
    assert not want or read.find_entry("sampler", "acme/fast").version == "2.0"


@pytest.mark.parametrize("text", ["[console_scripts]\nnonsense\n", "[modkit]\nnonsense\n"])
def test_a_malformed_table_of_entry_points_hurts_no_other(site, text):
    make_plugin(site, "broken", entry_points=text)
    make_plugin(site, "fine")
    read = Registry.load()
    assert names(read, "fine") == ["sampler fine/fast"]
    assert bool(reasons(read, "modkit-broken")) == ("[modkit]" in text)


@pytest.mark.parametrize(
    "name, reason", [("modkit", "modkit's own"), ("a b", "without blanks"), ("a/b", "slashes"), ("a:b", "colons")]
)
def test_a_name_that_cannot_go_before_parts_is_refused(site, name, reason):
    make_plugin(site, name, distribution="acme-parts")
    read = Registry.load()
    assert reason in reasons(read, name)[0]
    assert read.find("sampler", "ddim") and status(read, name) == ["failed"]


def test_one_module_under_two_names_is_a_problem_of_the_second(site):
    module = make_plugin(site, "acme", distribution="acme-parts")
    (site / "acme_parts-1.0.dist-info" / "entry_points.txt").write_text(f"[modkit]\nacme={module}\nother={module}\n")
    read = Registry.load()
    assert names(read, "acme") == ["sampler acme/fast"]
    assert "already registered" in reasons(read, "other")[0]


def test_an_object_that_cannot_be_hashed_hurts_no_other(site):
    make_plugin(site, "acme", "plugin = []", entry_points="[modkit]\nacme = string:no_such_name\n")
    module = make_plugin(site, "list", f"{CLASS}\n    __hash__ = None\n\nplugin = Acme()\n")
    (site / "modkit_list-1.0.dist-info" / "entry_points.txt").write_text(f"[modkit]\nlist = {module}:plugin\n")
    read = Registry.load()
    assert "unhashable" in reasons(read, "list")[0] and "no_such_name" in reasons(read)[0]
    assert read.find("sampler", "ddim")


@pytest.mark.parametrize("case", ["misspelt", "text", "twice", "kind", "exits", "raises"])
def test_strict_raises_where_the_problem_is(site, monkeypatch, case):
    make_plugin(site, "acme", BROKEN[case][0])
    monkeypatch.setenv("MODKIT_STRICT", "1")
    reason = "RuntimeError: no luck" if case == "raises" else ""
    with pytest.raises(ValueError, match=f"plug-in acme of modkit-acme: {reason}") as caught:
        Registry.load()
    assert case != "raises" or isinstance(caught.value.__cause__, RuntimeError)


def test_disabled_plugins_are_not_even_imported(site, monkeypatch):
    module = make_plugin(site, "acme", "raise RuntimeError")
    make_plugin(site, "other")
    make_plugin(site, "fine")
    monkeypatch.setenv("MODKIT_DISABLE", "acme, other")
    monkeypatch.setenv("MODKIT_STRICT", "1")
    read = Registry.load()
    assert module not in sys.modules
    assert (status(read, "acme"), status(read, "other"), status(read, "fine")) == (["disabled"], ["disabled"], ["ok"])
    with pytest.raises(ValueError, match="plug-in other is disabled"):
        read.find("sampler", "other/fast")


def test_disabling_one_of_two_names_needs_no_mending(site, monkeypatch):
    make_plugin(site, "acme", distribution="first")
    make_plugin(site, "acme", distribution="second")
    monkeypatch.setenv("MODKIT_DISABLE", "acme")
    assert reasons(Registry.load()) == []


def test_find_names_the_nearest_and_says_what_became_of_a_failed_plugin(site):
    make_plugin(site, "acme")
    make_plugin(site, "bad", "raise RuntimeError('no luck')")
    read = Registry.load()
    for kind, name, message in (
        ("samplr", "ddim", r"unknown kind 'samplr'; did you mean 'sampler'\?; there are: .*encoder"),
        ("sampler", "ddmi", r"no sampler is called 'ddmi'; did you mean 'ddim'\?; there are: acme/fast"),
        ("sampler", "none", r"no sampler is called 'none'; null leaves an optional slot empty; there are: acme/fast"),
        ("sampler", "fast", r"no sampler is called 'fast'; did you mean 'acme/fast'\?"),
        ("sampler", "bad/fast", r"'bad/fast'.*plug-in bad is failed: RuntimeError: no luck"),
        ("sampler", "lab/fast", r"'lab/fast'.*no plug-in 'lab' is installed: install the distribution .* lab/…$"),
        ("decoder", "resnet", r"'resnet'; it is the name of a part of kind generator, .*`modkit.kinds.Decoder` states"),
    ):
        with pytest.raises(ValueError, match=message):
            read.find(kind, name)
    with pytest.raises(ValueError, match=r"unknown kind 'loss_weight'; did you mean 'loss-weight'\?"):
        read.list_parts("loss_weight")


def test_named_finds_the_part_of_a_target_and_of_a_reexport(site):
    module = make_plugin(site, "acme", make_source('[Part("sampler", "a", "collections:abc.Sized", "S")]'))
    read = Registry.load()
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
    read = Registry.load()
    arguments = {"run": "r", "stage": 0, "losses": {}, "measures": {}, "timing": {}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answers = [read.call("modkit_step_done", step=step, **arguments) for step in range(4)]
    assert answers == [[0] * 4, [1] * 3, [2] * 2, [3] * 4]
    for module in modules.values():
        assert sys.modules[module].seen == [("r", step) for step in range(4)]
    messages = [str(warning.message) for warning in caught]
    assert [message[:26] for message in messages] == ["plug-in b failed in modkit", "plug-in c failed in modkit"]
    assert "SystemExit: gone" in messages[0]


def test_call_raises_when_strict(site, monkeypatch):
    make_plugin(site, "b", f"FAIL = (0,)\n{LISTENER}")
    read = Registry.load()
    monkeypatch.setenv("MODKIT_STRICT", "1")
    with pytest.raises(SystemExit, match="gone"):
        read.call("modkit_step_done", run=None, stage=0, step=0, losses={}, measures={}, timing={})


def test_call_keeps_wrappers_to_their_own_plugin(site):
    wrapper = HEAD + "@hookimpl(wrapper=True)\ndef modkit_step_done():\n    return [x * 10 for x in (yield)]\n"
    make_plugin(site, "a", f"FAIL = ()\n{LISTENER}")
    make_plugin(site, "b", wrapper)
    read = Registry.load()
    assert read.call("modkit_step_done", run=None, stage=0, step=3, losses={}, measures={}, timing={}) == [3]
    assert read.call("modkit_run_finished", run=None, error=None) == [], "nobody listens"


def test_registry_is_read_once_until_it_is_cleared(site):
    first = get_registry()
    make_plugin(site, "acme")
    assert get_registry() is first and find("sampler", "ddim") is first.find("sampler", "ddim")
    get_registry.cache_clear()
    assert find("sampler", "acme/fast").name == "acme/fast"


PROTOCOL = """
from typing import Protocol

class Layout(Protocol):
    def place(self): ...
"""


@pytest.fixture
def fresh():
    """The registry is read again, before and after."""
    get_registry.cache_clear()
    yield
    get_registry.cache_clear()


def test_kinds_of_equal_names_keep_apart_by_plugin_and_their_protocols_by_module(site, fresh):
    source = make_kinds("[Kind('layout', f'{__name__}:Layout', ('x',), 'Places things')]") + PROTOCOL
    modules = [make_plugin(site, name, source) for name in ("acme", "lab")]
    read = get_registry()
    assert [*read.kinds] == [*KINDS, "acme/layout", "lab/layout"] and reasons(read) == reasons(read, "lab") == []
    for name, module in zip(("acme/layout", "lab/layout"), modules):
        protocol = find_kind(name).load_protocol()
        assert (protocol.__module__, find_kind(name).given) == (module, ("x",)) and name_kind(protocol) == name
        assert parse_slot(list[Slot[protocol]]).kind == name and find_flaws(read, read.find_plugin(name[:-7])) == []
    stranger = type("Layout", (), {"__module__": "elsewhere"})
    ours = type("Encoder", (), {"__module__": modules[0]})
    assert name_kind(stranger) is None and name_kind(ours) is None
    with pytest.raises(
        ValueError, match=r"unknown kind 'layout'; did you mean '(acme|lab)/layout'\?; there are: acme/lay"
    ):
        find_kind("layout")


def test_a_part_may_be_of_the_kind_of_a_plugin_that_is_read_after_its_own(site):
    make_plugin(site, "acme", make_source('[Part("lab/layout", "grid", "m:A", "S"), Part("layout", "b", "m:B", "S")]'))
    make_plugin(site, "lab", make_kinds("[Kind('layout', f'{__name__}:Layout', (), 'S')]") + PROTOCOL)
    read = Registry.load()
    assert read.find("lab/layout", "acme/grid").target == "m:A" and status(read, "lab") == ["ok"]
    assert reasons(read) == ["part layout b: unknown kind 'layout'; did you mean 'lab/layout'?"]
    with pytest.raises(ValueError, match=r"no lab/layout is called 'ddim'; .* `plugin_\w+.Layout` states"):
        read.find("lab/layout", "ddim")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:Layout", "kind acme/layout cannot be imported: ModuleNotFoundError: No module named 'no_such"),
        ("fractions:Layout", "kind acme/layout: module fractions has no 'Layout'"),
        ("fractions:Fraction", "kind acme/layout expects a Protocol as fractions:Fraction, got <class"),
    ],
)
def test_a_protocol_that_cannot_be_used_is_a_flaw_of_its_plugin(site, target, reason):
    make_plugin(site, "acme", make_kinds(f"[Kind('layout', '{target}', (), 'S')]"))
    read = Registry.load()
    (flaw,) = find_flaws(read, read.find_plugin("acme"))
    assert flaw.startswith(reason)


def test_what_the_module_of_a_protocol_prints_goes_to_stderr_and_what_ends_it_is_named(site, capfd):
    (site / "loud_layouts.py").write_text("print('hello')\nimport os\nos._exit(3)\n")
    make_plugin(site, "acme", make_kinds("[Kind('layout', 'loud_layouts:Layout', (), 'S')]"))
    read = Registry.load()
    (flaw,) = find_flaws(read, read.find_plugin("acme"))
    assert flaw.startswith("kind acme/layout cannot be imported: SystemExit: os._exit(3)")
    assert capfd.readouterr() == ("", "hello\n")
