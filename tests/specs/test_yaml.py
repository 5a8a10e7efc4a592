import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modkit.errors import Position, SpecError
from modkit.specs.yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, Source, dump, parse
from tests.refusals import refusals
from tests.specs.trees import KEYS, TREES

SAMPLE = """\
name: ldm
model:
  use: latent   # a comment
  channels: [32, 64]
  "quoted": 'yes'
  stages:
    - {players: [a/*], steps: 600}
    - steps: 1
  shared: &s {kl: 1e-3}
  again: *s
"""


def test_positions_of_keys_values_and_items_are_exact():
    _, source = parse(SAMPLE, "f.yaml")
    expected = {  # path: (value, key)
        ("name",): ((1, 7), (1, 1)),
        ("model",): ((3, 3), (2, 1)),
        ("model", "use"): ((3, 8), (3, 3)),
        ("model", "channels"): ((4, 13), (4, 3)),
        ("model", "channels", 0): ((4, 14), None),
        ("model", "channels", 1): ((4, 18), None),
        ("model", "quoted"): ((5, 13), (5, 3)),
        ("model", "stages", 0): ((7, 7), None),
        ("model", "stages", 0, "players", 0): ((7, 18), None),
        ("model", "stages", 0, "steps"): ((7, 31), (7, 24)),
        ("model", "stages", 1): ((8, 7), None),
        ("model", "stages", 1, "steps"): ((8, 14), (8, 7)),
        ("model", "shared", "kl"): ((9, 19), (9, 15)),
        ("model", "again"): ((10, 10), (10, 3)),
        ("model", "again", "kl"): ((9, 19), (9, 15)),
    }
    for path, (value, key) in expected.items():
        found = source.at(path)
        assert found.position == Position("f.yaml", *value), path
        assert found.key == (key and Position("f.yaml", *key)), path
    assert source.at(("model", "channels", 7, "x")) is source.at(("model", "channels"))


def test_placed_changes_one_place_only():
    _, source = parse(SAMPLE)
    new = Source(Position("<override 1>", 1, 5))
    changed = source.with_child(("model", "channels", 1), new)
    assert changed.at(("model", "channels", 1)) is new
    assert changed.at(("model", "use")) is source.at(("model", "use"))
    assert source.at(("model", "channels", 1)).position == Position("<string>", 4, 18)


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.25e+2", -25.0),
        ("3", 3),
        ("-3", -3),
        ("0o17", 15),
        ("0x1F", 31),
        ("9223372036854775807", 2**63 - 1),
        ("true", True),
        ("False", False),
        *((text, None) for text in ("", "~", "null")),
        *((text, text) for text in ("no", "yes", "on", "1_000", "12:30", "2024-01-01", "=", "10**10**9")),
        ("'1e-3'", "1e-3"),
        ('"null"', "null"),
        ('"\\u00e9"', "é"),
        ("[1, [2, {a: b}]]", [1, [2, {"a": "b"}]]),
        ("\ufeffa: 1", {"a": 1}),
        ("a: 1\r\nb: |\r\n  x\r\n  y\r\n", {"a": 1, "b": "x\ny\n"}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    parsed, _ = parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


test_what_is_not_plain_data_is_refused_where_it_stands = refusals(
    ("a: !!python/object/apply:os.system [ls]", r"f:1:4: .*got a tag"),
    ("a: !foo 1", r"f:1:4: .*got a tag"),
    ("!!set {a}", r"f:1:1: .*got a tag"),
    ("a: !<tag:yaml.org,2002:str> x", r"f:1:4: .*got a tag"),
    ("a: 1\nb: 2\na: 3", r"f:3:1: a: got the key 'a' twice in one mapping, first at f:1:1"),
    ("m: {b: 1, 'b': 2}", r"f:1:11: m\.b: got the key 'b' twice"),
    ("x: &x {a: 1}\ny: {<<: *x}", r"f:2:5: y: got a merge key <<"),
    ("a: 1\n---\nb: 2", r"f:2:1: got a second document"),
    ("%YAML 1.1\n---\na: no", r"f:1:1: invalid YAML: got a directive"),
    ("%TAG ! x\n---\na: no", r"f:1:1: invalid YAML: got a directive"),
    ("1: a", r"f:1:1: got the key 1, expected a string; quote it"),
    ("m:\n  true: a", r"f:2:3: m: got the key true"),
    ("~: a", r"f:1:1: got the key ~"),
    (": a", r"f:1:1: got the key null"),
    ("[a]: 1", r"f:1:1: got a list or mapping as a key"),
    ("? {a: 1}\n: 1", r"f:1:3: got a list or mapping as a key"),
    ("a: &x b\n*x : 1", r"f:2:1: got an alias as a key"),
    ("&x a: 1", r"f:1:1: a: got an anchor on a key"),
    ("k" * 101 + ": 1", r"f:1:1: got a key of 101 characters"),
    ("a: .inf", r"f:1:4: a: got \.inf, expected a finite number"),
    ("a: [-.INF]", r"f:1:5: a\[0\]: got -\.INF, expected a finite"),
    ("a: .NaN", r"f:1:4: a: got \.NaN, expected a finite"),
    ("a: 1e999", r"f:1:4: a: got 1e999, expected a finite"),
    ("a: 9223372036854775808", r"f:1:4: a: got 9223372036854775808, expected a whole number below 2\^63"),
    ("a: " + "9" * 100_000, r"a: got 9{50}… \(100000 characters\), expected a whole number"),
    ("a: 0x" + "f" * 100_000, r"a: got 0xf+… \(100002 characters\)"),
    ("a: *nope", r"f:1:4: a: got the alias \*nope, expected an anchor before it"),
    ("a: &anchor 1\nb: *anchr", r"did you mean 'anchor'\?"),
    ("a: &x\n  b: [*x]", r"f:2:7: a\.b\[0\]: got the alias \*x inside what it names: a cycle a → a\.b\[0\] → a"),
    ("&x [*x]", r"f:1:5: \[0\]: .*a cycle the whole → \[0\] → the whole"),
    ('a: "\\ud800"', r"f:1:4: a: got half of a surrogate pair"),
    ('a: "\\UFFFFFFFF"', r"f:1:4: invalid YAML"),
    ('a: "\\U00110000"', r"f:1:4: invalid YAML"),
    ("a: b\n\x07c", r"f:2:1: invalid YAML: got the character U\+0007"),
    ("a: [1, 2", r"f:1:9: invalid YAML"),
    ("a: b: c", r"f:1:5: invalid YAML: mapping values are not allowed"),
    ("a: 1\n\tb: 2", r"f:2:1: invalid YAML"),
    of=lambda text: parse(text, "f"),
    error=SpecError,
)


def _bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    "text, match",
    [
        (_bomb(10, 9), f"more than {MAX_NODES} nodes with aliases expanded"),
        (_bomb(60, 2), f"more than {MAX_NODES} nodes with aliases expanded"),
        (f"a: &a {'x' * 900_000}\nb: [{', '.join(['*a'] * 20)}]", f"more than {MAX_NODES} nodes"),
        (_bomb(70, 1), f"more than {MAX_DEPTH} levels"),
        ("[" * 900_000, "more than 64 levels"),
        ("{a: " * 200_000, "more than 64 levels"),
        ("- " * 400_000, "more than 64 levels"),
        ("\n".join(" " * i + "a:" for i in range(1000)), "more than 64 levels"),
        ("!" * 900_000, "got a tag"),
        ("? " * 400_000, "as a key"),
        ("x" * (MAX_BYTES + 1), f"expected at most {MAX_BYTES}"),
    ],
    ids=lambda text: text[:12],
)
def test_hostile_sizes_are_refused(text, match):
    with pytest.raises(SpecError, match=match) as caught:
        parse(text)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("text", ["- a\n" * 1000, "[" + "1," * 1000 + "]", "\n".join(f"a{i}: 1" for i in range(1000))])
def test_nodes_are_counted(text, monkeypatch):
    monkeypatch.setattr("modkit.specs.yaml.MAX_NODES", 1000)
    with pytest.raises(SpecError, match="more than 1000 nodes"):
        parse(text)
    monkeypatch.setattr("modkit.specs.yaml.MAX_NODES", 1001)
    assert len(parse(text)[0]) == 1000


def test_limits_themselves_are_legal():
    nested, _ = parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH - 1):
        (nested,) = nested
    assert nested == []
    aliases, _ = parse("a: &a [1, 2]\nb: [*a, *a]")
    assert aliases == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


@pytest.mark.wide
@settings(deadline=None)
@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=5))
def test_dump_and_parse_are_inverse(tree):
    parsed, _ = parse(dump(tree))
    assert repr(parsed) == repr(tree)  # types and signs of zero as well


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("[]{}:,-?&*!|>'\"%@`# \n\tab01.~<", max_size=40))
def test_any_text_is_data_or_a_spec_error(text):
    try:
        value, source = parse(text)
    except SpecError as error:
        assert all(problem.position is not None for problem in error.problems)
    else:
        assert source.position is not None
        assert not isinstance(value, float) or math.isfinite(value)


LAYOUT = """\
name: "a b"
model:
  use: x
  channels: [1, 2]
  inner:
    use: net
    p: {}
  none: null
  empty: []
stages:
  - {players: [a/*], steps: 1}
  - deep: {er: 1.0}
    "on": true
long:"""


def test_layout_of_a_dump():
    tree = {
        "name": "a b",
        "model": {"use": "x", "channels": (1, 2), "inner": {"use": "net", "p": {}}, "none": None, "empty": ()},
        "stages": ({"players": ("a/*",), "steps": 1}, {"deep": {"er": 1.0}, "on": True}),
        "long": tuple(range(10**8, 10**8 + 12)),
    }
    lines = dump(tree).splitlines()
    assert "\n".join(lines[:14]) == LAYOUT
    assert lines[14] == "  - 100000000"
