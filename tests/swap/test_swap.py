"""The library's promise: any part that fits a slot trains, samples and comes back; any other is refused in words."""

import random
import re

import numpy as np
import pytest
import torch
from PIL import Image

import modkit
from modkit import SpecError
from modkit.plan import plan
from modkit.registry import registry
from tests.swap.hosts import HOSTS
from tests.swap.matrix import Case, cases, pairs, swaps
from tests.swap.play import outputs, play
from tests.swap.refusals import REFUSALS, SAME, UNFIT, UNMOVED

_PAIRS = 12


def pytest_generate_tests(metafunc):
    if "running" in metafunc.fixturenames:
        metafunc.parametrize("running", [case for case in cases()[0] if str(case) not in REFUSALS], ids=str)
    if "refused" in metafunc.fixturenames:
        metafunc.parametrize("refused", [case for case in cases()[0] if str(case) in REFUSALS], ids=str)
    if "pair" in metafunc.fixturenames:
        every = [case for host in HOSTS for case in pairs(host, _fitting(host))]
        chosen = every if metafunc.config.getoption("full") else random.Random(0).sample(every, _PAIRS)
        metafunc.parametrize("pair", chosen, ids=str)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with a data set for each part that reads files."""
    folder = tmp_path_factory.mktemp("data")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    (folder / "fashion-mnist").mkdir()
    for split in ("train", "t10k"):
        for name, array in (("images-idx3", pixels), ("labels-idx1", pixels[:, 0, 0] % 10)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / "fashion-mnist" / f"{split}-{name}-ubyte").write_bytes(header + array.tobytes())
    for index, picture in enumerate(pixels):
        path = folder / "image-folder" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


@pytest.fixture
def place(files, tmp_path, monkeypatch):
    """Where a case is played: beside the files that its data set may read."""
    monkeypatch.chdir(files)
    monkeypatch.setattr("os.fsync", lambda file: None)  # whether a run survives a kill is tested elsewhere
    return tmp_path / "run"


@pytest.fixture(scope="session")
def hosted(files, tmp_path_factory):
    """What each host makes, by its name; played once."""
    made = {}

    def of(host):
        if host.name not in made:
            with pytest.MonkeyPatch.context() as monkeypatch:
                monkeypatch.chdir(files)
                made[host.name] = outputs(play(Case(host).spec, tmp_path_factory.mktemp("host") / "run").model, host)
        return made[host.name]

    return of


def test_case_trains_samples_and_comes_back(running, place, hosted, record_property):
    played = _checked(running, place)
    if running.swaps:
        same = torch.equal(played, hosted(running.host)) if played.shape == hosted(running.host).shape else False
        assert same == any(re.search(pattern, str(running)) for pattern in SAME)
    record_property("swap", "ran")


def test_pair_trains_samples_and_comes_back_or_is_refused(pair, place, record_property):
    try:
        _checked(pair, place)
    except SpecError:
        assert not place.exists()
        record_property("swap", "refused")
    else:
        record_property("swap", "ran")


def test_case_is_refused_in_words_before_weights(refused, place, record_property):
    with pytest.raises(SpecError, match=REFUSALS[str(refused)]):
        modkit.train(refused.spec, place)
    assert not place.exists()
    record_property("swap", "refused")


def test_every_exception_on_the_list_is_a_case():
    every = [str(case) for case in cases()[0]]
    registered = {entry.part.name for entry in registry().parts()}
    listed = [case for case in REFUSALS if "/" not in case or case.partition("=")[2] in registered]
    assert set(listed) <= set(every)
    for pattern in (*SAME, *UNMOVED):
        assert pattern.startswith(" train") or any(re.search(pattern, case) for case in every), pattern


def test_every_part_runs_in_every_family_with_a_slot_of_its_kind(record_property):
    every, skipped = cases()
    runs = [case for case in every if str(case) not in REFUSALS]
    assert len(runs) >= 150
    ran, slots = set(), set()
    for host in HOSTS:
        family = host.model.use
        calls = plan(host).calls.values()
        slots |= {(family, kind) for kind in ("logger", *(call.part.kind for call in calls))}
        ran |= {(family, call.part.kind, call.part.name) for call in calls}
    ran |= {(case.host.model.use, swap.kind, swap.part) for case in runs for swap in case.swaps}
    wanted = {(*slot, entry.part.name) for slot in slots for entry in registry().parts(slot[1])}
    assert wanted - ran == set(UNFIT)
    record_property("swap", f"{skipped} skipped")


def _checked(case, place):
    """Plays a case and looks at its gradients and at what a reload makes; gives what it makes."""
    played = play(case.spec, place)
    assert not played.names(played.broken)
    allowed = [names for pattern, names in UNMOVED.items() if re.search(pattern, str(case))]
    unmoved = [name for name in played.names(played.unmoved) if not any(re.fullmatch(one, name) for one in allowed)]
    assert not unmoved
    made = outputs(played.model, case.spec)
    assert torch.equal(outputs(modkit.load(played.run), case.spec), made)
    return made


def _fitting(host):
    """The swaps of a host that are not refused."""
    return [swap for swap in swaps(host)[0] if str(Case(host, (swap,))) not in REFUSALS]
