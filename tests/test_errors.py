import pickle

import pytest

from modkit.errors import Position, Problem, SpecError, join, split, suggest


def test_text_of_a_problem_has_place_path_message_and_hint():
    problem = Problem("model.prior", "got 3, expected a part", Position("a.yaml", 4, 7), "did you mean gan?")
    assert str(problem) == "a.yaml:4:7: model.prior: got 3, expected a part (did you mean gan?)"
    assert str(Problem("", "cannot read a.yaml")) == "cannot read a.yaml"
    assert str(Problem("data", "missing")) == "data: missing"


def test_error_lists_every_problem_and_survives_pickling():
    error = SpecError([Problem("a", "got 1"), Problem("b", "got 2", Position("f", 1, 2))])
    assert isinstance(error, ValueError)
    assert str(error) == "a: got 1\nf:1:2: b: got 2"
    assert pickle.loads(pickle.dumps(error)).problems == error.problems
    assert SpecError(Problem("a", "got 1")).problems == (Problem("a", "got 1"),)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("dimm", "did you mean 'ddim'?"),
        ("lr-schedule", "did you mean 'lr_schedule'?"),
        ("Channels", "did you mean 'channels'?"),
        ("zzz", ""),
        ("x" * 100_000, ""),
    ],
)
def test_suggest(name, expected):
    assert suggest(name, ["ddim", "euler", "lr_schedule", "channels"]) == expected


@pytest.mark.parametrize(
    "path, parts",
    [
        ("model", ("model",)),
        ("model.prior.network.channels[0]", ("model", "prior", "network", "channels", 0)),
        ("train.stages[1].players[0]", ("train", "stages", 1, "players", 0)),
        ("train.players.*critic.every", ("train", "players", "*critic", "every")),
        ('train.players["a.b"].every', ("train", "players", "a.b", "every")),
        (r'["a\"b"]', ('a"b',)),
        ('model[""]', ("model", "")),
    ],
)
def test_paths_split_and_join(path, parts):
    assert split(path) == parts
    assert join(parts) == path


@pytest.mark.parametrize(
    "path", ["", ".", "a.", ".a", "a..b", "a b", "a[", "a[x]", "a[-1]", 'a["b]', r'a["\x"]', "a[0]b", "a]", "a=b"]
)
def test_what_is_no_path_is_refused(path):
    with pytest.raises(SpecError, match="expected a path such as"):
        split(path)
