import pytest

from modkit import Spec, SpecError
from modkit.building.difference import Difference, compare_pair, find_differences
from modkit.specs.node import Node

TINY = """
name: tiny
data: {use: digits, size: 8}
model: {use: diffusion, network: {use: mlp, width: 8}, sampler: {use: ddim, steps: 4}}
train: {stages: [{players: ["*"], steps: 3}]}
"""


def against(old, new):
    assert old in TINY
    return find_differences(Spec.from_yaml(TINY), Spec.from_yaml(TINY.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("use: diffusion,", "use: diffusion, guidance: none, conditioner: {use: none},"),
        ("{use: ddim, steps: 4}", "{steps: 4, eta: 0.0, use: ddim}"),
        ("{use: mlp, width: 8}", "{use: mlp, width: 8, depth: 3}"),
        ("train: {", "train: {seed: 0, "),
    ],
)
def test_short_forms_order_and_written_defaults_mean_the_same(old, new):
    assert against(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "path", "a", "b"),
    [
        ("steps: 4", "steps: 5", "model.sampler.steps", "4", "5"),
        (": eps", ": v", "model.parametrization", "eps", "v"),
        ("name: tiny", "name: big", "name", "tiny", "big"),
        ("steps: 3", "steps: 4", "train.stages[0].steps", "3", "4"),
        ('["*"]', "[denoiser]", "train.stages[0].players", "[*]", "[denoiser]"),
        ("size: 8", "size: 16", "data.size", "8", "16"),
    ],
)
def test_a_value_is_told_at_its_path(old, new, path, a, b):
    text = TINY.replace("use: diffusion,", "use: diffusion, parametrization: eps, loss_weight: simple,")
    spec, other = Spec.from_yaml(text), Spec.from_yaml(text.replace(old, new))
    assert find_differences(spec, other) == [Difference(path, a, b)]
    assert find_differences(other, spec) == [Difference(path, b, a)]


def test_another_part_is_one_difference_with_its_parameters():
    (found,) = against("{use: ddim, steps: 4}", "{use: euler, steps: 9}")
    assert found.path == "model.sampler"
    assert found.a.startswith("ddim(steps=4, ") and found.b.startswith("euler(steps=9")


def test_what_one_spec_lacks_is_absent():
    assert against("train: {", "evaluate: {metrics: []}\ntrain: {")[0].a == "absent"
    (found,) = against('[{players: ["*"], steps: 3}]', '[{players: ["*"], steps: 3}, {players: ["*"], steps: 1}]')
    assert found.path == "train.stages"


def test_null_is_not_absent():
    (found,) = compare_pair(Node({"data": {"use": "digits", "limit": None}}), Node({"data": {"use": "digits"}}))
    assert found == Difference("data.limit", "null", "absent")


def test_numbers_are_told_apart_by_type():
    (found,) = against("{use: ddim, steps: 4}", "{use: ddim, steps: 4, eta: 0}")
    assert found.path == "model.sampler.eta"


def test_a_wrong_spec_is_refused():
    with pytest.raises(SpecError, match="widht"):
        against("width", "widht")
