"""The library's promise: any part that fits a slot trains, samples and comes back; any other is refused in words."""

import re
from functools import cache

import pytest
import torch

from modkit import SpecError
from modkit.parts.registry import get_registry
from tests.covering import draw, shuffle
from tests.swap.exceptions import SAME, UNFIT, UNMOVED
from tests.swap.files import write_files
from tests.swap.hosts import HOSTS
from tests.swap.matrix import Case, cases, pairs, swapped, swaps, thin
from tests.swap.play import play
from tests.swap.refusals import REFUSALS

_PAIRS = 12
_REFUSED = 12
MEASURES = {"metric"}  # these look at a model from outside: no slot of one takes them

STANDING = {"decoding", "engine", "prior-network"}  # a host has the only part that is swapped


def pytest_generate_tests(metafunc):
    """By default a part of each kind is drawn as its test begins: the specs of all cases take seconds."""
    if metafunc.config.getoption("--wide"):
        spread(metafunc, full=metafunc.config.getoption("--full"))
    elif "running" in metafunc.fixturenames:
        metafunc.parametrize("running", sorted(kinds() - STANDING), indirect=True)
    elif "refused" in metafunc.fixturenames:
        metafunc.parametrize("refused", draw(sorted(REFUSALS.keys() - absent()), _REFUSED), indirect=True)
    elif "pair" in metafunc.fixturenames:
        metafunc.parametrize("pair", [])


def spread(metafunc, full):
    chosen = [case for case, first in cases().items() if case == first]
    runs = [case for case in chosen if str(case) not in REFUSALS]
    refused = [case for case in chosen if str(case) in REFUSALS]
    if "running" in metafunc.fixturenames:
        metafunc.parametrize("running", runs if full else thin(runs), ids=str, indirect=True)
    if "refused" in metafunc.fixturenames:
        metafunc.parametrize("refused", refused if full else thin(refused), ids=str, indirect=True)
    if "pair" in metafunc.fixturenames:
        every = list(pairs(case for case in runs if case.swaps))
        metafunc.parametrize("pair", every if full else draw(every, _PAIRS), ids=str)


def kinds():
    """The kinds that a slot of a host has."""
    return {entry.part.kind for entry in get_registry().list_parts()} - MEASURES


def absent():
    """The refusals of parts of plug-ins that are not installed."""
    registered = {entry.part.name for entry in get_registry().list_parts()}
    return {case for case in REFUSALS if "/" in case and case.partition("=")[2] not in registered}


@pytest.fixture
def running(request):
    """A case or, of a kind, one in the first host that has any; all kinds look at the hosts in one order."""
    if isinstance(request.param, Case):
        return request.param
    found = (swapped(host, request.param, REFUSALS) for host in shuffle(HOSTS))
    return draw(next(filter(None, found)), 1)[0]


@pytest.fixture
def refused(request):
    """A case, or the one of a name."""
    if isinstance(request.param, Case):
        return request.param
    name, swap = request.param.split()
    (host,) = (host for host in HOSTS if host.name == name)
    return Case(host, tuple(one for one in swaps(host) if str(one) == swap))


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


@pytest.mark.wide
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


@pytest.mark.wide
def test_no_case_that_may_be_drawn_by_its_kind_is_refused():
    drawn = [case for host in HOSTS for kind in kinds() for case in swapped(host, kind, REFUSALS)]
    assert {case.swaps[0].kind for case in drawn} == kinds() - STANDING
    assert [str(case) for case in drawn if str(cases()[case]) in REFUSALS] == []


@pytest.mark.wide
def test_every_exception_on_the_list_is_a_case():
    every = [str(case) for case, first in cases().items() if case == first]
    assert set(REFUSALS) - absent() <= set(every)
    assert [pattern for pattern in (*SAME, *UNMOVED) if not any(re.search(pattern, case) for case in every)] == []


@pytest.mark.wide
def test_every_part_runs_in_every_family_with_a_slot_of_its_kind(record_property):
    runs = {case: first for case, first in cases().items() if str(first) not in REFUSALS}
    assert len(set(runs.values())) >= 150
    assert _parts(cases()) - _parts(runs) == set(UNFIT)
    assert {kind for _, kind, _ in _parts(cases())} == kinds()
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
