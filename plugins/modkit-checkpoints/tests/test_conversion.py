"""Keys go where their rules say, each key by one rule, each tensor under one key."""

import pytest
import torch
from modkit_checkpoints.conversion import Rule, aside, linear, rename, tensors_of
from modkit_checkpoints.formats import FORMATS, find_converter

ROWS = torch.arange(12.0).reshape(6, 2)


def test_keys_are_renamed_changed_and_set_aside():
    rules = [Rule(r"a\.(\d)", r"b.\1", change=lambda tensor: 2 * tensor), aside(r"loss\..*")]
    weights, left = rename({"a.1": ROWS, "loss.x": ROWS, "a.2": ROWS}, rules)
    assert list(weights) == ["b.1", "b.2"] and left == ("loss.x",)
    assert torch.equal(weights["b.1"], 2 * ROWS)


def test_a_tensor_is_split_in_proportion():
    weights, _ = rename({"qkv": ROWS}, [Rule("qkv", ("q", "kv"), sizes=(1, 2))])
    assert torch.equal(weights["q"], ROWS[:2]) and torch.equal(weights["kv"], ROWS[2:])
    weights, _ = rename({"qkv": ROWS}, [Rule("qkv", ("q", "k", "v"))])
    assert torch.equal(weights["k"], ROWS[2:4])


def test_tensors_are_joined_in_the_order_of_their_parts():
    rules = [Rule("v", "kv", part=1), Rule("k", "kv", part=0)]
    weights, _ = rename({"v": ROWS, "k": -ROWS}, rules)
    assert torch.equal(weights["kv"], torch.cat([-ROWS, ROWS]))


@pytest.mark.parametrize(
    ("tensors", "rules", "message"),
    [
        ({"a": ROWS, "b": ROWS}, [Rule("a", "c")], "unknown keys: b"),
        ({"ab": ROWS}, [Rule("a", "c")], "unknown keys: ab"),
        ({"a": ROWS}, [Rule("a", "b"), Rule(".", "c")], r"the key 'a' matches 2 rules: \['a', '.'\]"),
        ({"a": ROWS, "b": ROWS}, [Rule("a|b", "c")], "the key 'b' and another both become 'c'"),
        ({"a": ROWS, "b": ROWS}, [Rule("a", "c", part=0), Rule("b", "c")], "the key 'b' and another both become 'c'"),
        ({"a": ROWS, "b": ROWS}, [Rule("a", "c"), Rule("b", "c", part=0)], "the key 'b' and another both become 'c'"),
        ({"a": ROWS}, [Rule("a", "c", part=1)], r"missing a part of 'c': got parts \[1\]"),
        ({"a": ROWS, "b": ROWS.T}, [Rule("a", "c", part=0), Rule("b", "c", part=1)], "the parts of 'c' do not join"),
        ({"a": ROWS}, [Rule("a", ("b",) * 4)], r"the key 'a' expects a first size that 4 divides, got \(6, 2\)"),
        ({"a": ROWS[..., None] + torch.zeros(3)}, [Rule("a", "b", change=linear)], "the key 'a': expected a 1x1"),
    ],
)
def test_what_does_not_fit_is_refused(tensors, rules, message):
    with pytest.raises(ValueError, match=message):
        rename(tensors, rules)


def test_sizes_are_one_for_each_new_key():
    with pytest.raises(ValueError, match="expects a size for each new key"):
        Rule("a", ("b", "c"), sizes=(1,))


def test_a_1x1_convolution_is_a_matrix():
    assert torch.equal(linear(ROWS[:, :, None, None]), ROWS)


@pytest.mark.parametrize("state", [None, {}, [ROWS], {"a": 1}, {1: ROWS}])
def test_a_state_dict_holds_tensors_by_name(state):
    with pytest.raises(ValueError, match="expected state_dict to"):
        tensors_of(state, "state_dict")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_there(name):
    assert callable(find_converter(name))


def test_an_unknown_format():
    with pytest.raises(ValueError, match="--format expects one of taming-vqgan, .*, got 'vqgan'"):
        find_converter("vqgan")
