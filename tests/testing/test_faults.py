"""Each planted fault is found by the check that names it and by no other; the sound twin passes the whole battery."""

import importlib
import sys

import pytest

from modkit import Part
from modkit.testing import Subject, battery
from tests.testing.faults import FAULTS

SOUND = list(dict.fromkeys((fault.kind, fault.source) for fault in FAULTS))


@pytest.fixture(scope="session")
def trials(tmp_path_factory):
    """What each check says of each part, made when it is asked for: by the part's name."""
    folder = tmp_path_factory.mktemp("faults")
    sources = {fault.name: (fault.kind, fault.source.replace(fault.sound, fault.broken)) for fault in FAULTS}
    sources |= {f"sound {kind}": (kind, source) for kind, source in SOUND}
    subjects = []
    for number, (name, (kind, source)) in enumerate(sources.items()):
        (folder / f"faulty_{number}.py").write_text(source)
        subjects.append(Subject(Part(kind, name, f"faulty_{number}:Part", "A part of a test")))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield {check.trial.bench.subject.part.name: check.trial for check in battery(subjects)}
    sys.path.remove(str(folder))


def found(trial):
    """The checks that find a fault, of those whose grounds hold."""
    return {name for name in trial.checks if trial.missing_ground(name) is None and trial.flaw(name) is not None}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_by_the_check_that_names_it_alone(fault, trials):
    assert fault.source.count(fault.sound) == 1
    assert len(fault.broken) - len(fault.sound) < 80
    trial = trials[fault.name]
    assert found(trial) == {fault.check}
    assert trial.bench.subject.part.name in str(trial.flaw(fault.check))


@pytest.mark.parametrize("kind", [kind for kind, _ in SOUND])
def test_the_sound_twin_passes_the_whole_battery(kind, trials):
    trial = trials[f"sound {kind}"]
    assert found(trial) == set()
    assert "plays" in trial.checks


def test_there_are_faults_for_most_checks():
    assert len(FAULTS) >= 25
    every = {name for check in battery([Subject(Part("network", "x", "x:y", ""))]) for name in [check.name]}
    assert every - {fault.check for fault in FAULTS} == {"declaration"}  # tested below


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
    subject = Subject(Part("weight", "constant", "modkit.weights:Constant", "A number"), declared=name)
    (trial,) = {check.trial for check in battery([subject])}
    flaw = trial.flaw("declaration")
    assert (flaw is None) == (said is None)
    assert said is None or said in str(flaw)


def test_a_known_failure_must_fail_and_must_be_a_check():
    subject = Subject(Part("weight", "constant", "modkit.weights:Constant", "A number"))
    (strict,) = [c for c in battery([subject], {"weight constant: emits": "it is odd"}) if c.name == "emits"]
    with pytest.raises(AssertionError, match=r"expected to fail \(it is odd\), got none"):
        strict()
    with pytest.raises(ValueError, match="weight constant: emit"):
        battery([subject], {"weight constant: emit": "a slip"})
