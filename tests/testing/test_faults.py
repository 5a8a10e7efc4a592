"""Each planted fault is found by the check that names it and by no other; the sound twin passes the whole battery."""

import importlib
import re
import sys
from dataclasses import replace

import pytest
import torch

from modkit import Part, find
from modkit.cli.scaffold import find_starter
from modkit.testing import Bench, Flaw, Subject, find_subjects, make_battery, parametrize_parts
from modkit.testing.checks import LONG, is_possible
from modkit.testing.modules import check_device
from tests.parts.broken import make_source
from tests.plugin_factory import make_plugin
from tests.testing.faults import FAULTS, MISDECLARED, read_source

KINDS = list(dict.fromkeys(fault.kind for fault in FAULTS))


def subject_of(kind, name, module):
    return Subject(Part(kind, name, f"{module}:{find_starter(kind).target}", "A part of a test"))


@pytest.fixture(scope="session")
def checklists(tmp_path_factory):
    """What each check says of each part, made when it is asked for: by the part's name."""
    folder = tmp_path_factory.mktemp("faults")
    sources = {fault.name: (fault.kind, fault.source.replace(fault.sound, fault.broken)) for fault in FAULTS}
    sources |= {f"sound {kind}": (kind, read_source(kind)) for kind in KINDS}
    subjects = []
    for number, (name, (kind, source)) in enumerate(sources.items()):
        (folder / f"faulty_{number}.py").write_text(source)
        subjects.append(subject_of(kind, name, f"faulty_{number}"))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield {check.checklist.bench.subject.part.name: check.checklist for check in make_battery(subjects)}
    sys.path.remove(str(folder))


def found(checklist):
    """The checks that find a fault, of those that are not long and whose grounds hold."""
    names = checklist.checks.keys() - LONG
    return {
        name for name in names if checklist.find_missing_ground(name) is None and checklist.find_flaw(name) is not None
    }


@pytest.mark.wide(2)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_by_the_check_that_names_it_alone(fault, checklists):
    assert fault.source.count(fault.sound) == 1
    checklist = checklists[fault.name]
    assert found(checklist) == {fault.check}
    assert checklist.bench.subject.part.name in str(checklist.find_flaw(fault.check))


@pytest.mark.wide(1)
@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_twin_passes_the_whole_battery(kind, checklists):
    checklist = checklists[f"sound {kind}"]
    assert found(checklist) == set()
    assert "plays" in checklist.checks


def test_there_are_faults_for_most_checks():
    assert len(FAULTS) >= 25
    every = {name for check in make_battery([Subject(Part("network", "x", "x:y", ""))]) for name in [check.name]}
    assert every - {fault.check for fault in FAULTS} == {
        name for name in ("declaration", "inductor", "cuda") if is_possible(name)
    }  # tested below


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import torch\n", "import no torch"),
        ("raise RuntimeError('no')\n", "RuntimeError: no"),
        ("import json\n", None),
    ],
)
def test_a_declaration_is_light_and_whole(source, said, tmp_path, monkeypatch):
    name = f"declaration_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    subject = Subject(Part("weight", "constant", "modkit.losses.coefficients:Constant", "A number"), declared=name)
    (checklist,) = {check.checklist for check in make_battery([subject])}
    flaw = checklist.find_flaw("declaration")
    assert (flaw is None) == (said is None)
    assert said is None or said in str(flaw)


@pytest.mark.parametrize(
    ("part", "declared", "said"),
    [
        (find("weight", "constant"), {"earlier": {"value": 2.0}, "migrate": "math:sqrt"}, None),
        (find("weight", "constant"), {"earlier": {"nope": 1}}, r"got: weight.nope: got an unknown key 'nope'"),
        (find("weight", "constant"), {"earlier": {"value": "text"}}, r"got: weight.value: expected float, got 'text'"),
        (find("weight", "constant"), {"renamed": {"scale": "value"}}, None),
        (find("weight", "constant"), {"renamed": {"scale": "worth"}}, r"from other names, got scale: worth"),
        (find("weight", "constant"), {"renamed": {"value": "value"}}, r"from other names, got value: value"),
        (find("sampler", "ddim"), {"earlier": {"grid": {"use": "even"}}}, None),
        (find("sampler", "ddim"), {"earlier": {"grid": "evn"}}, r"got: sampler.grid: no grid is called 'evn'"),
        (find("weight", "constant"), {"migrate": "nowhere_:f"}, r"`migrate` to name a function, got: .* 'nowhere_'"),
        (find("weight", "constant"), {"migrate": "math:sqrd"}, r"module math has no 'sqrd'"),
    ],
)
def test_what_a_declaration_says_of_older_runs_can_be_used(part, declared, said):
    """The fault: such runs could not be loaded, once there was a next version, or at all."""
    (checklist,) = {check.checklist for check in make_battery([Subject(replace(part, **declared))])}
    flaw = checklist.find_flaw("declaration")
    assert flaw is None if said is None else re.search(said, str(flaw))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("self.project(x)", None),
        ("nn.init.zeros_(Tensor(*self.project(x).shape))", "values on meta, the device of its inputs, got cpu"),
        ("self.project(x) + nn.init.zeros_(Tensor(32, 1, 1))", "device"),
    ],
)
def test_a_part_works_on_another_device(broken, said, tmp_path, monkeypatch):
    """What the check `cuda` does on a GPU, on the meta device."""
    name = f"elsewhere_{len(broken)}"
    (tmp_path / f"{name}.py").write_text(read_source("encoder").replace("self.project(x)", broken))
    monkeypatch.syspath_prepend(tmp_path)
    bench = Bench(subject_of("encoder", "elsewhere", name))
    if said is None:
        check_device(bench, "meta")
        return
    with pytest.raises(Flaw, match=said):
        check_device(bench, "meta")


def test_dropout_is_no_hidden_draw(tmp_path, monkeypatch):
    """The trainer seeds torch's generator, from which it draws, for each turn."""
    built = "self.project = nn.Conv2d(x.shape[0], channels, patch, stride=patch)"
    dropping = f"{built}; self.register_forward_hook(lambda part, x, y: nn.functional.dropout(y, 0.5, part.training))"
    (tmp_path / "dropping.py").write_text(read_source("encoder").replace(built, dropping))
    monkeypatch.syspath_prepend(tmp_path)
    (checklist,) = {check.checklist for check in make_battery([subject_of("encoder", "dropping", "dropping")])}
    assert not torch.equal(*(next(checklist.bench.play_all(train=True))[1].values["h"] for _ in range(2)))
    assert [checklist.find_flaw(name) for name in ("global-draws", "deterministic")] == [None, None]


@pytest.mark.parametrize(("parts", "said"), MISDECLARED.values(), ids=MISDECLARED)
def test_what_doctor_calls_failed_fails_the_check_doctor(parts, said, site):
    make_plugin(site, "acme", make_source(parts))
    checks = {str(check): check for check in make_battery(find_subjects("acme"))}
    assert "weight acme/good: emits" in checks
    with pytest.raises(Flaw, match=f"^plug-in acme: expected `modkit doctor` to find nothing, got .*{said}"):
        checks["plug-in acme: doctor"]()
    assert next(iter(checks)) == "plug-in acme: doctor"


def test_a_requirement_that_is_not_met_fails_the_check_doctor_and_a_sound_plugin_passes_it(site):
    parts = make_source('[Part("weight", "good", "modkit.losses.coefficients:Constant", "A number")]')
    make_plugin(site, "old", parts, requires=["modkit-generative<0.0.1"])
    make_plugin(site, "acme", parts)
    found = {name: make_battery(find_subjects(name))[0] for name in ("old", "acme")}
    with pytest.raises(Flaw, match="requires modkit-generative<0.0.1"):
        found["old"]()
    found["acme"]()
    with pytest.raises(AssertionError, match="expected to fail"):
        make_battery(find_subjects("acme"), {"plug-in acme: doctor": "an odd one"})[0]()


@pytest.mark.parametrize(
    ("source", "points", "said"),
    [
        (make_source('[Part("bottelneck", "a", "m:A", "S")]'), "[modkit]", "did you mean 'bottleneck'"),
        (make_source("[]"), "[modkit_plugins]", r"write \[project.entry-points.modkit\]"),
        (make_source("[]"), "[modkit]FUNCTION", "got the function"),
        (make_source("[]"), "[modkit]", "ok and has none$"),
        ("raise RuntimeError('no luck')", "[modkit]", "RuntimeError: no luck"),
    ],
)
def test_a_plugin_without_a_part_is_no_battery_that_passes(source, points, said, site):
    module = make_plugin(site, "acme", source)
    group, named = points.removesuffix("FUNCTION"), ":modkit_parts" * points.endswith("FUNCTION")
    (site / "modkit_acme-1.0.dist-info" / "entry_points.txt").write_text(f"{group}\nacme = {module}{named}\n")
    with pytest.raises(ValueError, match=f"expected a plug-in with parts, got 'acme', which is .*{said}"):
        parametrize_parts("acme")


def test_a_plugin_has_its_own_battery(site):
    parts = '[Part("weight", name, "modkit.losses.coefficients:Constant", "A number") for name in ("one", "two")]'
    make_plugin(site, "acme", make_source(parts), distribution="second")
    found = find_subjects("acme", {"weight acme/one": {"value": 2.0}})
    assert [str(subject) for subject in found] == ["weight acme/one", "weight acme/two"]
    assert all(subject.declared and subject.plugin.distribution == "second" for subject in found)
    (emits,) = [check for check in make_battery(found) if str(check) == "weight acme/one: emits"]
    emits()


TURNED = """import torch


@torch.library.custom_op("faulty::turned", mutates_args=())
def turned(x: torch.Tensor) -> torch.Tensor:
    return x.mT.contiguous().mT


@turned.register_fake
def _(x):
    return torch.empty_like(x)


turned.register_autograd(lambda ctx, gradient: gradient)


class Gated("""


@pytest.mark.full
def test_what_only_machine_code_shows(tmp_path, monkeypatch):
    """An operation that says less than the truth of its strides: eager code does not mind."""
    sound, last = read_source("network"), "self.out(F.silu(self.hidden(x.flatten(1))) * gate)"
    (tmp_path / "turned_strides.py").write_text(sound.replace("class Gated(", TURNED).replace(last, f"turned({last})"))
    (tmp_path / "sound_strides.py").write_text(sound)
    monkeypatch.syspath_prepend(tmp_path)
    found = {}
    for name in ("turned", "sound"):
        (checklist,) = {check.checklist for check in make_battery([subject_of("network", name, f"{name}_strides")])}
        found[name] = [checklist.find_flaw(check) is not None for check in ("compiles", "inductor")]
    assert found == {"turned": [False, True], "sound": [False, False]}


def test_a_known_failure_must_fail_and_must_be_a_check():
    subject = Subject(Part("weight", "constant", "modkit.losses.coefficients:Constant", "A number"))
    (strict,) = [c for c in make_battery([subject], {"weight constant: emits": "it is odd"}) if c.name == "emits"]
    with pytest.raises(AssertionError, match=r"expected to fail \(it is odd\), but it passes"):
        strict()
    with pytest.raises(ValueError, match="weight constant: emit"):
        make_battery([subject], {"weight constant: emit": "a slip"})
