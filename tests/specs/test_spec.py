import copy
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modkit import build, check, train
from modkit.errors import Position, SpecError
from modkit.specs.load import load_spec
from modkit.specs.references import resolve
from modkit.specs.spec import Node, Spec, use
from modkit.specs.yaml import MAX_BYTES, MAX_DEPTH
from tests.processes import run_python
from tests.refusals import refusals
from tests.specs.trees import KEYS, TREES

SAMPLE = """\
name: ldm-shape-only
data: {use: digits, size: 16}
model:
  use: latent
  autoencoder:
    encoder: {use: conv, channels: [32, 64]}
    weights: {kl: 1e-3}
  prior:
    use: diffusion
    schedule: cosine
train:
  seed: 0
"""


MODULE = nn.Linear(2, 3)
SLOT = {"model": {"use": "autoencoder", "encoder": MODULE}}


class Local:
    """A part that nobody registered."""


def test_nodes_hold_frozen_plain_data():
    node = Node({"use": "conv", "channels": [32, [64]], "nested": {"a": None}})
    assert node["channels"] == (32, (64,))
    assert isinstance(node["nested"], Node)
    assert node.use == "conv"
    assert node.params == {"channels": (32, (64,)), "nested": Node({"a": None})}
    assert repr(use("conv", channels=[32, 64])) == "use('conv', channels=(32, 64))"
    assert repr(use("x", **{"*c": 1, "d": 2})) == "use('x', d=2, **{'*c': 1})"
    assert repr(Node({"shape": [1]})) == "{'shape': (1,)}"
    with pytest.raises(AttributeError, match="Node is frozen"):
        node.use = "x"
    with pytest.raises(TypeError):
        node["use"] = "x"


def test_nodes_compare_by_content_and_type():
    assert use("a", x=1, y=[2]) == use("a", y=(2,), x=1) == {"use": "a", "x": 1, "y": [2]}
    assert hash(use("a", x=1, y=2)) == hash(use("a", y=2, x=1))
    assert len({use("a", x=1), use("a", x=1.0), use("a", x=True)}) == 3
    assert use("a", x=[1]) != use("a", x=[1.0])
    assert use("a") != {"use": object()}
    assert use("a") != "a"


def test_nodes_are_copied_and_pickled():
    node = use("a", x={"y": [1, {"z": "é"}]})
    assert copy.deepcopy(node) is node
    assert copy.copy(node) is node
    assert pickle.loads(pickle.dumps(node)) == node
    spec = Spec(model=node, train={"seed": 1})
    assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)
    assert hash(spec) == hash(copy.deepcopy(spec))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: use("latent", prior=nn.Linear(2, 3)), r"prior: got Linear\(in_features=2.*, expected plain data"),
        (lambda: use("latent", priors=[nn.ReLU()]), r"priors\[0\]: got ReLU\(\), expected plain data"),
        (lambda: use("latent", prior=partial(Local, 1)), "prior: got functools.partial.*, expected plain data"),
        (lambda: use(nn.Linear(2, 3)), "use: got Linear.*, expected a part's name, class or function"),
        (lambda: use(partial(Local)), "use: got functools.partial.*, expected a part's name, class or function"),
        (lambda: Spec(model=MODULE), r"model: got Linear\(.*, expected a mapping or a part's name"),
        (lambda: Spec(model={"use": MODULE}), r"model.use: got Linear\(.*, expected a part's name, class or function"),
        (
            lambda: Spec(model={"use": "gan", "generator": MODULE}),
            r"model.generator: got Linear\(.*, expected plain data",
        ),
        (lambda: Spec(SLOT), r"model.model.encoder: got Linear\(.*, expected plain data"),
        (lambda: Spec(model="gan").with_value("model.generator", MODULE), r"model.generator: got Linear\("),
        (lambda: load_spec(SLOT), r"model.encoder: got Linear\(.*, expected plain data"),
        (lambda: load_spec(MODULE), r"load_spec expects a file, got Linear\("),
        (lambda: check(MODULE), r"check expects a Spec, got Linear\("),
        (lambda: build(MODULE), r"build expects a Spec, got Linear\("),
        (lambda: train(MODULE), r"train expects a Spec, got Linear\("),
    ],
)
def test_where_a_built_object_goes_is_told(make, message):
    with pytest.raises(SpecError, match=message) as caught:
        make()
    (problem,) = caught.value.problems
    assert "call the Model's class, as in modkit.models.Latent(x, prior=module)" in problem.hint
    assert "docs/tutorials/compose-in-python.md" in problem.hint


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Spec(model="gan", data=torch.zeros(3, 2)), r"data: got tensor.*modkit.fit\(model, data\) trains"),
        (lambda: Spec({"model": "gan", "data": "ring"}), r"model: got the keys of a whole spec.*Spec\(\*\*mapping\)"),
        (lambda: Spec(model=Local), r"model: got <class .*describe it by use\(Local, …\)"),
        (lambda: load_spec({"model": "gan"}), r"load_spec expects a file, got a mapping.*Spec\(\*\*mapping\)"),
        (lambda: train({"model": "gan"}), r"train expects a Spec, got a mapping.*Spec\(model=use\(…\)"),
    ],
)
def test_what_is_made_a_spec_otherwise_is_told(make, message):
    with pytest.raises(SpecError, match=message):
        make()


test_use_refuses_what_is_not_plain_data = refusals(
    ({"x": object()}, r"x: got <object .*, expected plain data"),
    ({"x": [1, {"y": {1, 2}}]}, r"x\[1\]\.y: got \{1, 2\}, expected plain data"),
    ({"x": Local}, r"x: got <class .*Local'>, expected plain data .*describe it by use\(Local, …\)"),
    ({"x": float("nan")}, "x: got nan, expected a finite number"),
    ({"x": 2**63}, r"x: got a whole number of 2\^63 or more"),
    ({"x": "\ud800"}, "x: got half of a surrogate pair"),
    ({"x": {1: 2}}, "x: got the key 1, expected a string"),
    ({"x": {"k" * 101: 2}}, "expected a string of at most 100 characters"),
    ({"use": "b"}, "use: got 'b' as a parameter, expected the part as first argument"),
    of=lambda params: use("a", **params),
    error=SpecError,
)


def test_use_refuses_what_is_no_part():
    with pytest.raises(SpecError, match="use: got 3, expected a part's name, class or function"):
        use(3)


def test_endless_data_are_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(SpecError, match=f"more than {MAX_DEPTH} levels"):
        use("a", x=endless)
    deep = use("a")
    for _ in range(MAX_DEPTH):
        deep = use("a", x=deep)
    with pytest.raises(SpecError, match=f"more than {MAX_DEPTH} levels"):
        Spec(model=deep)
    wide = use("a", x=["y" * 100_000] * 200)
    with pytest.raises(SpecError, match="more than 10000 nodes"):
        Spec(model=wide)


def test_a_registered_class_is_recorded_by_name_and_a_local_one_is_not_reloadable():
    from modkit.parts.registry import get_registry

    part = get_registry().find("sampler", "ddim")
    assert use(part.load(), steps=5) == use("ddim", steps=5)
    node = use(Local, size=1)
    assert node.use is Local
    assert pickle.loads(pickle.dumps(node)) == node
    with pytest.raises(SpecError, match=r"model\.encoder\.use: got the local .*:Local, which cannot be loaded by name"):
        Spec(model=use("autoencoder", encoder=node)).to_yaml()


@pytest.mark.smoke
def test_yaml_and_python_build_the_same_spec():
    autoencoder = {"encoder": use("conv", channels=[32, 64]), "weights": {"kl": 1e-3}}
    model = use("latent", autoencoder=autoencoder, prior=use("diffusion", schedule="cosine"))
    spec = Spec(name="ldm-shape-only", data=use("digits", size=16), model=model, train={"seed": 0})
    assert Spec.from_yaml(SAMPLE) == spec
    text = SAMPLE.replace("1e-3", "0.001").replace("train:\n  seed: 0\n", "train: {seed: 0}\n")
    block, flow = "prior:\n    use: diffusion\n    schedule: cosine", "prior: {use: diffusion, schedule: cosine}"
    assert spec.to_yaml() == text.replace(block, flow)


nodes = st.dictionaries(KEYS.filter(lambda key: key != "use"), TREES, max_size=4)


@settings(deadline=None)
@given(nodes, st.none() | nodes, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9))
def test_round_trip_of_random_trees(model, train, name):
    spec = Spec(model=model, train=train, name=name)
    again = Spec.from_yaml(spec.to_yaml())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.to_yaml() == spec.to_yaml()


def test_bare_names_stand_for_model_and_data():
    spec = Spec.from_yaml("model: gan\ndata: digits\n")
    assert spec == Spec(model=use("gan"), data=use("digits"), name="model")
    assert spec.find_position("model.use") == Position("<string>", 1, 8)


test_wrong_top_levels_are_refused = refusals(
    ("modle: gan", r"f:1:1: modle: got an unknown key, expected one of name, .* \(did you mean 'model'\?\)"),
    ("data: x", r"f:1:1: model: missing, expected a part"),
    ("[a]", r"f:1:1: got a list, expected a mapping with the keys name, data, model, train, evaluate, x"),
    ("", r"f:1:1: got null, expected a mapping"),
    ("model: gan\nname: 3", r"f:2:7: name: got 3, expected a name"),
    ("model: gan\nname: ''", r"f:2:7: name: got '', expected a name"),
    ("model:", r"f:1:7: model: got null, expected a mapping or a part's name"),
    ("model: [1]", r"f:1:8: model: got a list, expected a mapping or a part's name"),
    ("model: gan\ntrain: fast", r"f:2:8: train: got 'fast', expected a mapping$"),
    ("model: gan\nx: 3", r"f:2:4: x: got 3, expected a mapping$"),
    of=lambda text: Spec.from_yaml(text, "f"),
    error=SpecError,
)


def test_all_wrong_top_levels_are_told_at_once():
    with pytest.raises(SpecError) as caught:
        Spec.from_yaml("foo: 1\ndata: 3\ntrian: {}\nmodel: gan\nx: 1")
    assert [problem.path for problem in caught.value.problems] == ["foo", "trian", "data", "x"]
    assert [problem.position.line for problem in caught.value.problems] == [1, 3, 2, 5]


def test_values_and_positions_are_found_by_path():
    spec = Spec.from_yaml(SAMPLE, "f")
    assert spec.at("model.autoencoder.encoder.channels[1]") == 64
    assert spec.at("name") == "ldm-shape-only"
    assert spec.at("x") is None
    assert spec.find_position("model.autoencoder.encoder.channels[1]") == Position("f", 6, 41)
    assert spec.find_position("model.prior.schedule") == Position("f", 10, 15)
    assert spec.find_position("model.prior.schedule", key=True) == Position("f", 10, 5)
    assert spec.find_position("model.prior.schedule.num") == Position("f", 10, 15)
    assert spec.find_position("model.prior.sampler.steps", key=True) == Position("f", 9, 5)
    assert Spec(model=use("gan")).find_position("model") is None
    with pytest.raises(SpecError, match=r"model\.pior: got a path that does not exist, .*\(did you mean 'prior'\?\)"):
        spec.at("model.pior.schedule")
    with pytest.raises(SpecError, match=r"channels\[2\]: got a path that does not exist, expected one of \[0\], \[1\]"):
        spec.at("model.autoencoder.encoder.channels[2]")


def test_with_value_changes_a_copy():
    spec = Spec.from_yaml(SAMPLE, "f")
    where = Position("<override 1>", 1, 9)
    changed = spec.with_value("model.prior.schedule.num", 100, where)
    assert changed.at("model.prior.schedule") == use("cosine", num=100)
    assert changed.find_position("model.prior.schedule.num") == where
    assert changed.find_position("model.prior.schedule") == Position("f", 10, 15)
    assert spec.at("model.prior.schedule") == "cosine"
    narrow = spec.with_value("model.autoencoder.encoder.channels[0]", 8)
    assert narrow.at("model.autoencoder.encoder.channels") == (8, 64)
    assert spec.with_value("x.shape", [1, 4, 4]).x == {"shape": [1, 4, 4]}
    assert Spec(model=use("gan")).with_value("train.stages", [{"steps": 1}]).train == {"stages": [{"steps": 1}]}
    assert spec.with_value("name", "n").name == "n"


test_with_value_refuses_impossible_paths = refusals(
    ("modle.x", r"w:1:1: modle: got a path that does not exist, .*did you mean 'model'\?"),
    ("train.seed.x", r"w:1:1: train\.seed: got 0, expected a mapping to hold 'x'"),
    ("model.autoencoder.encoder.channels[2]", r"channels\[2\]: got an index into a list of 2"),
    ("model.prior[0]", r"model\.prior\[0\]: got an index into a mapping that uses diffusion"),
    ("name.x", r"name: got \{.*|name: got a mapping"),
    of=lambda path: Spec.from_yaml(SAMPLE).with_value(path, 1, Position("w", 1, 1)),
    error=SpecError,
)


def test_scalars_are_resolved_through_others():
    spec = Spec.from_yaml('model: {use: gan, a: "${train.lr}", b: ["${model.a}", "${ name }"]}\ntrain: {lr: 1e-4}', "f")
    resolved = resolve(spec)
    assert resolved.model == use("gan", a=1e-4, b=[1e-4, "model"])
    assert resolved.find_position("model.a") == spec.find_position("model.a")
    assert spec.at("model.a") == "${train.lr}"


test_wrong_references_are_refused = refusals(
    ('{a: "${model.b}", b: "${model.c}", c: "${model.a}"}', r"a cycle model\.a → model\.b → model\.c → model\.a"),
    ('{a: "${model.a}"}', r"f:1:12: model\.a: got a cycle model\.a → model\.a, expected references without cycles"),
    (
        '{a: "${model.chanels}", channels: 1}',
        r"model\.a: got model\.chanels, which does not exist, .*did you mean 'channels'\?",
    ),
    ('{a: "x${model.b}", b: 1}', r"f:1:12: model\.a: got 'x\$\{model\.b\}', expected \$\{path\} as the whole value"),
    ('{a: "${}"}', r"f:1:12: model\.a: got '', expected a path such as"),
    ('{a: "${model.b}", b: {c: 1}}', r"model\.a: got \$\{model\.b\}, a mapping, expected a scalar \(to share a part"),
    ('{a: "${model.b}", b: [1]}', r"model\.a: got \$\{model\.b\}, a list, expected a scalar"),
    ("{a: {ref: model.b}, b: {ref: model.a}}", r"f:1:18: model\.a: got a cycle model\.a → model\.b → model\.a"),
    ("{a: {b: {ref: model}}}", r"a cycle (model → model\.a\.b → model|model\.a\.b → model → model\.a\.b)"),
    (
        "{a: {x: {ref: model.b}}, b: {y: {ref: model.a}}}",
        r"model\.a\.x → model\.b → model\.b\.y → model\.a → model\.a\.x",
    ),
    ("{a: {ref: model.encodr}, encoder: {}}", r"f:1:18: model\.a: got model\.encodr, .*did you mean 'encoder'\?"),
    ("{a: {ref: 3}}", r"f:1:18: model\.a: got ref: 3, expected a path"),
    ("{a: {ref: 'b['}}", r"f:1:18: model\.a: got 'b\[', expected a path such as"),
    ("{a: {ref: model.b}, b: 3}", r"model\.a: got ref: model\.b, 3, expected a part"),
    of=lambda model: resolve(Spec.from_yaml(f"model: {model}", "f")),
    error=SpecError,
)


def test_good_refs_are_left():
    model = "{a: {x: 1}, b: {ref: model.a}, c: {ref: model.b}, d: {y: {ref: model.a}, e: conv}, f: {ref: model.d.e}}"
    spec = Spec.from_yaml(f"model: {model}")
    assert resolve(spec) == spec
    assert spec.at("model.b").ref == "model.a"
    assert spec.at("model.d").ref is None


@pytest.mark.wide
def test_long_chains_of_references_are_followed():
    size = 3000
    entries = ", ".join(f'a{i}: "${{model.a{i + 1}}}"' for i in range(size))
    resolved = resolve(Spec.from_yaml(f"model: {{{entries}, a{size}: 7}}"))
    assert set(resolved.model.values()) == {7}
    refs = ", ".join(f"a{i}: {{ref: model.a{(i + 1) % size}}}" for i in range(size))
    with pytest.raises(SpecError, match=r"model\.a0 → model\.a1 → .* → … → model\.a0"):
        resolve(Spec.from_yaml(f"model: {{{refs}}}"))


def test_load_spec_reads_a_file_applies_overrides_and_logs_what_a_swap_drops(tmp_path, caplog):
    path = tmp_path / "ldm.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SAMPLE.encode())
    spec = load_spec(path, ["train.seed=3"])
    assert spec.train == {"seed": 3}
    assert spec.find_position("model.use") == Position(str(path), 4, 8)
    assert spec.find_position("train.seed") == Position("<override 1>", 1, 12)
    assert not caplog.records
    path.write_text("model: {use: diffusion, sampler: {use: ddim, eta: 0.5}}")
    load_spec(path, ["model.sampler=euler"])
    assert [record.getMessage() for record in caplog.records] == ["swap model.sampler: dropped eta (unknown to euler)"]


def test_load_spec_refuses_bad_files(tmp_path):
    path = tmp_path / "bad.yaml"
    for content, match in (
        (b"a: \xff", r"bad\.yaml:1:4: got bytes that are not UTF-8"),
        ("a: é\n".encode() + b"b: \xc3\x28", r"bad\.yaml:2:4: got bytes that are not UTF-8"),
        (b"#" * (MAX_BYTES + 1), rf"bad\.yaml:1:1: got more than {MAX_BYTES} bytes"),
        (b"model: [", r"bad\.yaml:1:9: invalid YAML"),
    ):
        path.write_bytes(content)
        with pytest.raises(SpecError, match=match):
            load_spec(path)
    for file, match in (
        (tmp_path / "none.yaml", r"cannot read .*none\.yaml: No such file or directory"),
        (tmp_path, "cannot read .*: Is a directory"),
        ("a\0b", "cannot read a\0b: .*null"),
    ):
        with pytest.raises(SpecError, match=match):
            load_spec(file)


def test_importing_specs_imports_no_torch():
    code = "import sys, modkit; from modkit.specs import overrides; modkit.use('gan'); sys.exit('torch' in sys.modules)"
    run_python("-c", code)
