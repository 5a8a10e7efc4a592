"""The library's promise: any part that fits a slot trains, samples and comes back; any other is refused in words."""

import random
import re
from functools import cache

import pytest
import torch

from modkit import SpecError
from modkit.parts.registry import get_registry
from tests.swap.exceptions import SAME, UNFIT, UNMOVED
from tests.swap.files import write_files
from tests.swap.matrix import Case, cases, pairs, thin
from tests.swap.play import play
from tests.swap.refusals import REFUSALS

_PAIRS = 12


def pytest_generate_tests(metafunc):
    chosen = [case for case, first in cases().items() if case == first]
    runs = [case for case in chosen if str(case) not in REFUSALS]
    refused = [case for case in chosen if str(case) in REFUSALS]
    full = metafunc.config.getoption("--full")
    if "running" in metafunc.fixturenames:
        metafunc.parametrize("running", runs if full else thin(runs), ids=str)
    if "refused" in metafunc.fixturenames:
        metafunc.parametrize("refused", refused if full else thin(refused), ids=str)
    if "pair" in metafunc.fixturenames:
        every = list(pairs(case for case in runs if case.swaps))
        metafunc.parametrize("pair", every if full else random.Random(0).sample(every, _PAIRS), ids=str)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with a data set for each part that reads files."""
    folder = tmp_path_factory.mktemp("data")
    write_files(folder)
    return folder


@pytest.fixture(scope="session")
def play_case(files, device, dtype):
    """Plays a case beside the files that its data set may read."""

    def of(case, out):
        spec = case.spec.with_value("train.device", device).with_value("train.precision", dtype)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(files)
            return play(spec, out)

    return of


@pytest.fixture(scope="session")
def play_host(play_case, tmp_path_factory):
    """Plays a host, once."""
    return cache(lambda host: play_case(Case(host), tmp_path_factory.mktemp("host") / "run"))


def test_case_trains_samples_and_comes_back(running, play_case, play_host, tmp_path, record_property):
    host = play_host(running.host)
    made = _looked_at(running, play_case(running, tmp_path / "run") if running.swaps else host)
    if running.swaps:
        same = made.shape == host.made.shape and torch.equal(made, host.made)
        assert same == any(re.search(pattern, str(running)) for pattern in SAME)
    record_property("swap", ("ran", 1))


def test_pair_trains_samples_and_comes_back_or_is_refused(pair, play_case, tmp_path, record_property):
    try:
        played = play_case(pair, tmp_path / "run")
    except SpecError:
        assert not (tmp_path / "run").exists()
        record_property("swap", ("refused", 1))
    else:
        _looked_at(pair, played)
        record_property("swap", ("ran", 1))


def test_case_is_refused_in_words_before_weights(refused, no_candidates, play_case, tmp_path, record_property):
    with pytest.raises(SpecError, match=REFUSALS[str(refused)]):
        play_case(refused, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    record_property("swap", ("refused", 1))


def test_every_exception_on_the_list_is_a_case():
    every = [str(case) for case, first in cases().items() if case == first]
    registered = {entry.part.name for entry in get_registry().list_parts()}
    absent = {case for case in REFUSALS if "/" in case and case.partition("=")[2] not in registered}
    assert set(REFUSALS) - absent <= set(every)
    assert [pattern for pattern in (*SAME, *UNMOVED) if not any(re.search(pattern, case) for case in every)] == []


def test_every_part_runs_in_every_family_with_a_slot_of_its_kind(record_property):
    runs = {case: first for case, first in cases().items() if str(first) not in REFUSALS}
    assert len(set(runs.values())) >= 150
    assert _parts(cases()) - _parts(runs) == set(UNFIT)
    measures = {"metric"}  # these look at a model from outside: no slot of one takes them
    assert {kind for _, kind, _ in _parts(cases())} == {
        entry.part.kind for entry in get_registry().list_parts()
    } - measures
    record_property("swap", ("skipped", sum(case != first for case, first in cases().items())))


def _looked_at(case, played):
    """What a case makes, its gradients and its reload being in order."""
    assert played.broken == []
    allowed = [names for pattern, names in UNMOVED.items() if re.search(pattern, str(case))]
    assert [name for name in played.unmoved if not any(re.fullmatch(names, name) for names in allowed)] == []
    assert torch.equal(played.reloaded, played.made)
    return played.made


def _parts(chosen):
    """Every family with the kind and the part that the cases swap in."""
    return {(case.host.model.use, swap.kind, swap.part) for case in chosen for swap in case.swaps}
