"""Each planted fault is found by the check that names it and by no other; the sound twin passes the whole battery."""

import importlib
import sys

import pytest

from modkit import Part
from modkit.cli.scaffold import STARTERS
from modkit.testing import Bench, Flaw, Subject, make_battery
from modkit.testing.checks import LONG, is_possible
from modkit.testing.modules import check_device
from tests.testing.faults import FAULTS, read_source

KINDS = list(dict.fromkeys(fault.kind for fault in FAULTS))


def subject_of(kind, name, module):
    return Subject(Part(kind, name, f"{module}:{STARTERS[kind].target}", "A part of a test"))


@pytest.fixture(scope="session")
def trials(tmp_path_factory):
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
    yield {check.trial.bench.subject.part.name: check.trial for check in make_battery(subjects)}
    sys.path.remove(str(folder))


def found(trial):
    """The checks that find a fault, of those that are not long and whose grounds hold."""
    names = trial.checks.keys() - LONG
    return {name for name in names if trial.find_missing_ground(name) is None and trial.find_flaw(name) is not None}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_by_the_check_that_names_it_alone(fault, trials):
    assert fault.source.count(fault.sound) == 1
    trial = trials[fault.name]
    assert found(trial) == {fault.check}
    assert trial.bench.subject.part.name in str(trial.find_flaw(fault.check))


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_twin_passes_the_whole_battery(kind, trials):
    trial = trials[f"sound {kind}"]
    assert found(trial) == set()
    assert "plays" in trial.checks


def test_there_are_faults_for_most_checks():
    assert len(FAULTS) >= 25
    every = {name for check in make_battery([Subject(Part("network", "x", "x:y", ""))]) for name in [check.name]}
    assert every - {fault.check for fault in FAULTS} == {
        name for name in ("declaration", "inductor", "cuda") if is_possible(name)
    }  # tested below


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
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    subject = Subject(Part("weight", "constant", "modkit.losses.coefficients:Constant", "A number"), declared=name)
    (trial,) = {check.trial for check in make_battery([subject])}
    flaw = trial.find_flaw("declaration")
    assert (flaw is None) == (said is None)
    assert said is None or said in str(flaw)


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
        (trial,) = {check.trial for check in make_battery([subject_of("network", name, f"{name}_strides")])}
        found[name] = [trial.find_flaw(check) is not None for check in ("compiles", "inductor")]
    assert found == {"turned": [False, True], "sound": [False, False]}


def test_a_known_failure_must_fail_and_must_be_a_check():
    subject = Subject(Part("weight", "constant", "modkit.losses.coefficients:Constant", "A number"))
    (strict,) = [c for c in make_battery([subject], {"weight constant: emits": "it is odd"}) if c.name == "emits"]
    with pytest.raises(AssertionError, match=r"expected to fail \(it is odd\), but it passes"):
        strict()
    with pytest.raises(ValueError, match="weight constant: emit"):
        make_battery([subject], {"weight constant: emit": "a slip"})
