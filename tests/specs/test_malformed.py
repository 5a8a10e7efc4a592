"""Malformed specs and overrides, made by seeded mutations of valid ones: each ends in `SpecError` at its place.

A mutation is wrong by construction, so that one which passes is a finding. Positions, exit status, files and CPU time
are looked at for each; peak memory for the absurd sizes, in a process of their own.
"""

import copy
import functools
import json
import os
import random
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import modkit
from modkit import SpecError
from modkit.cli.app import app
from modkit.parts.registry import get_registry
from modkit.parts.signature import read_parameters, read_signature
from modkit.specs.load import load_spec
from modkit.specs.settings import Checkpoints, Every, PlayerSettings, Samples, Settings, Stage, Term
from modkit.specs.yaml import parse
from tests.forks import fork_python
from tests.processes import READ_PEAK

EXAMPLES = Path(modkit.__file__).parents[1] / "examples"
RECORDS = (Settings, PlayerSettings, Term, Stage, Every, Samples, Checkpoints)
KEYS = {"name", "data", "model", "train", "x", "use", "ref", "path", "at", "part", "shape", "range", "classes"}
FREE = ("weights", "players", "terms", "regularizers")  # mappings whose keys are the user's
SECONDS = 5.0  # of CPU time, without what a first check imports
SMALL = [
    """
name: small-vae
data: {use: digits, size: 8}
model:
  use: autoencoder
  encoder: {use: mlp, width: 8, depth: 1}
  bottleneck: {use: gaussian, channels: 3}
  decoder: {use: mlp, width: 8, depth: 1}
  weights: {kl: 0.5}
train: {seed: 1, batch_size: 8, steps: 4, optimizer: {use: adam, lr: 0.002, betas: [0.9, 0.99]}, log: {every: 2}}
""",
    """
name: small-gan
data: {use: ring, modes: 3, num: 64, num_test: 64}
model:
  use: gan
  generator: {use: mlp, width: 8, depth: 1}
  discriminator: {use: mlp, width: 8, depth: 1, spectral_norm: true}
  regularizers: {r1: {use: r1, gamma: 0.5}}
  z_dim: 4
train: {device: cpu, players: {"disc*": {optimizer: {use: sgd, lr: 0.1}, every: 2}}, terms: {r1: {every: 2}}}
""",
    """
name: small-ldm
data: {use: digits, size: 8}
model:
  use: latent
  autoencoder:
    encoder: {use: conv, channels: [8, 8], blocks: 1}
    bottleneck: {use: vq, num_codes: 8, channels: 2}
    decoder: {use: conv, channels: [8, 8], blocks: 1}
  prior:
    use: diffusion
    network: {use: mlp, width: 8, depth: 1}
    schedule: {use: linear, num: 20}
    sampler: {use: ddim, steps: 4}
    guidance: {use: cfg, scale: 2.0}
    conditioner: {use: label, width: 4, drop: 0.2}
train: {stages: [{players: [autoencoder/*], steps: 2, ema: 0.9}, {players: [prior/*], steps: 2}], samples: {num: 4}}
""",
]


class Raw(str):
    """YAML that stands in a text as it is."""


def written(value, pad=""):
    """A tree as flow YAML, a value a line."""
    if isinstance(value, Raw):
        return str(value)
    inner = pad + " "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(key)}: {written(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{pad}}}" if items else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(written(item, inner) for item in value) + "]"
    return json.dumps(value)


def trees():
    return [parse(text)[0] for text in [*SMALL, *(path.read_text() for path in sorted(EXAMPLES.glob("*.yaml")))]]


@functools.cache
def declared():
    """Every key that a part or a record declares anywhere."""
    parts = (read_parameters(entry.part) for entry in get_registry().list_parts())
    return KEYS.union(*parts, *(read_signature(record, (), record.__name__) for record in RECORDS))


def places(tree, path=()):
    """Every place in a tree: its holder, its key and its path."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key, (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def dotted(path):
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def mappings(tree):
    """Mappings whose keys are declared, with their paths."""
    inner = [(holder[key], path, key) for holder, key, path in places(tree)]
    return [(tree, ()), *((value, path) for value, path, key in inner if isinstance(value, dict) and key not in FREE)]


def put(tree, path, value):
    """Puts a value at a path, whose holders are made where they are missing."""
    *above, last = path.split(".")
    for part in above:
        tree = tree.setdefault(part, {})
    tree[last] = value


def number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers(tree):
    return [place for place in places(tree) if number(place[0][place[1]])]


def misspelt(rng, word):
    at = rng.randrange(len(word))
    return rng.choice([word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], word[at:] + word[:at], word + "s"])


def unknown_key(rng, tree):
    holder, _ = rng.choice(mappings(tree))
    holder[rng.choice(["__class__", "nonsense", "Use", "model_", "0", "é", "a b"]) + str(rng.randrange(999))] = 1


def misspelt_key(rng, tree):
    holder, _ = rng.choice([found for found in mappings(tree) if found[0]])
    key = rng.choice(list(holder))
    wrong = misspelt(rng, key)
    while wrong in declared() or wrong in ("", key):
        wrong = misspelt(rng, key) + str(rng.randrange(9))
    for name in list(holder):  # in their order
        holder[wrong if name == key else name] = holder.pop(name)


def misspelt_part(rng, tree):
    holder, key, _ = rng.choice([place for place in places(tree) if place[1] == "use"])
    holder[key] = misspelt(rng, holder[key]) + rng.choice(["", "!", "é", "/x", "//", "../", "\n", "local:"]) + "q"


def wrong_type(rng, tree):
    holder, key, path = rng.choice(list(places(tree)))
    value = holder[key]
    if path[-2:-1] == ("weights",):  # a weight may be a number, or a part's name
        wrong = ["nonsense", [], [1], [[1]], True]
    elif isinstance(value, bool):
        wrong = [1, 0, "yes", [], {}, None, "true"]
    elif number(value):
        wrong = ["nonsense", "1_0", "0b1", "", [], [[1]], {}, {"a": 1}, True, "12e", "--1"]
    elif isinstance(value, str):
        wrong = [7, -1.5, True, [], ["a"], {"a": [1]}]
    elif isinstance(value, list):
        wrong = [7, "nonsense", {"a": 1}, True, [[[1]]], [{"a": 2}]]
    else:
        wrong = [7, "nonsense", [], [1], False, -0.5]
    holder[key] = rng.choice(wrong)
    if isinstance(value, dict | str) and number(holder[key]) and rng.random() < 0.7:
        holder[key] += rng.randrange(2, 9999)


def huge_number(rng, tree):
    holder, key, _ = rng.choice(numbers(tree))
    digits = rng.choice([11, 12, 19, 20, 40, 99, 101, 300, 4000])
    large = "".join(rng.choices("123456789", k=digits))
    holder[key] = Raw(rng.choice([large, "-" + large, f"1e{digits + 300}", f"-{large}e{digits + 300}", ".inf", ".nan"]))


def cycle(rng, tree):
    kind = rng.randrange(4)
    (a, one, path), (b, two, other) = rng.sample(numbers(tree), 2)
    if kind == 0:
        a[one], b[two] = f"${{{dotted(other)}}}", f"${{{dotted(path)}}}"
    elif kind == 1:
        a[one] = f"${{{dotted(rng.choice([path, path[:1], (*path, 'x'), ('model', 'nothing')]))}}}"
    else:
        parts = [p for p in places(tree["model"], ("model",)) if isinstance(p[0][p[1]], dict) and p[1] not in FREE]
        holder, key, place = rng.choice(parts)
        goal = rng.choice([place, place[:1], ("model", "nothing"), ("train", "seed"), ("data", "size"), (*place, "q")])
        holder[key] = {"ref": dotted(goal) + rng.choice(["", "", ".a", "[", "..b", " x"]) * (kind - 2)}


def hostile_tag(rng, tree):
    holder, key, _ = rng.choice(list(places(tree)))
    touch = "'touch hostile'"
    tags = [
        f"!!python/object/apply:os.system [{touch}]",
        f"!!python/object/new:os.system [{touch}]",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/tuple [1, 2]",
        f"!<tag:yaml.org,2002:python/object/apply:subprocess.run> [[{touch}]]",
        "!!int '3'",
        "!!binary aGVsbG8=",
        "!!set {a, b}",
        "!modkit x",
        "!" + "t" * rng.randrange(1, 20_000) + " x",
        "&a !!map {}",
        "! x",
    ]
    holder[key] = Raw(rng.choice(tags))


def bomb(rng, tree):
    holder, key, _ = rng.choice(list(places(tree)))
    fan, depth = rng.choice([(10, 5), (22, 3), (3, 10), (9999, 2), (120, 2)])
    lists = ["&a0 [" + ", ".join(["x"] * fan) + "]"]
    lists += [f"&a{level} [" + ", ".join([f"*a{level - 1}"] * fan) + "]" for level in range(1, depth)]
    deep = rng.randrange(70, 3000)
    text = "y" * rng.randrange(170_000, 180_000)
    bombs = [
        "[" + ", ".join(lists) + "]",
        "[" * deep + "]" * deep,
        "{a: " * deep + "1" + "}" * deep,
        "&a [*a]",
        "&a {b: [1, {c: *a}]}",
        f"[&t {text}, *t, *t, *t, *t, *t]",
        "[" + ", ".join(["1"] * rng.randrange(10_001, 10_100)) + "]",
        "{" + ", ".join(f"k{index}: 1" for index in range(rng.randrange(10_001, 10_100))) + "}",
        f"{{{'k' * rng.randrange(101, 9999)}: 1}}",
        "*nowhere",
        "{<<: {a: 1}}",
        "{? [a, b] : 1}",
        "{1: 2}",
    ]
    holder[key] = Raw(rng.choice(bombs))


def broken_syntax(rng, tree):
    text = written(tree)
    at = rng.randrange(1, text.rindex("}"))
    broken = [
        text[:at],
        text + rng.choice(["}", "]", "\n---\na: 1\n", ", x", "\n- b", "\n%YAML 1.1"]),
        text[:at] + rng.choice("\0\1\7\x1b\x7f\ufffe") + text[at:],
        text.replace('": ', '": "\\ud800', 1) if '": "' in text else text[:at],
        text.replace('": "', '": "\\q', 1 + rng.randrange(3)),
        "%TAG ! tag:x,2000:\n" + text,
        '"' + text.replace('"', "'")[:at],
    ]
    return rng.choice(broken)


def duplicate_key(rng, tree):
    lines = written(tree).split("\n")
    at = rng.choice([index for index, line in enumerate(lines) if re.fullmatch(r' *"[^"]+": [^{]*,', line)])
    return "\n".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])


def override(rng, tree):
    path = dotted(rng.choice(numbers(tree))[2])
    _, inside = rng.choice(mappings(tree))
    place, num = dotted(inside) or "model", rng.randrange(1000)
    wrong = [
        path,
        f"={num}",
        f"..{path}={num}",
        f"{path}=nonsense{num}",
        f"{path}=[{num}",
        f"{path}=!!python/object/apply:os.system ['touch hostile']",
        f"{path}={{a: {num}, a: 1}}",
        f"{path}={10**12 + num}",
        f"{path}.deeper{num}=1",
        f"{path}=${{{path}}}",
        f"{place}.nonsense{num}={num}",
        f"{place}[{num}]=1",
        f"modle.{place}={num}",
        f"model.use=nonsense{num}",
        f"data=nonsense{num}",
        f"train.stages[{90 + num}].steps=1",
        f"train.optimizer=nonsense{num}",
        f"name=[{num}]",
        f"train.steps={{use: {num}}}",
        f"model=&a [*a, {num}]",
        f"{place}={num}",
    ]
    right = rng.choices(["train.compile=false", "train.precision=float32"], k=rng.randrange(3))
    return rng.sample([rng.choice(wrong), *right], 1 + len(right))


def below_1(*paths):
    return [(path, lambda n: 1 - n) for path in paths]


def negative(*paths):
    return [(path, lambda n: -n) for path in paths]


MISFITS = [
    [
        *below_1("model.encoder.width", "model.decoder.width", "model.bottleneck.channels", "train.log.every"),
        *below_1("train.batch_size"),
        *negative("data.size", "model.encoder.depth", "train.steps"),
        ("data.size", lambda n: 256 + n),
        ("model.encoder", lambda n: {"use": "conv", "channels": [8, 1 - n]}),
        ("model.encoder", lambda n: {"use": "conv", "blocks": 1 - n}),
        ("model.decoder", lambda n: {"use": "conv", "channels": [8, 7 + n]}),  # on a latent that is a vector
        ("model.critic", lambda n: {"use": "patch", "layers": n + 1}),
        ("model.critic", lambda n: {"use": "mlp", "width": 1 - n}),
        ("model.likelihood", lambda n: {"use": "gaussian", "nonsense": n}),
        ("model.weights", lambda n: {f"loss{n}": 1.0}),
        ("train.batch_size", lambda n: 2**20 + n),
        ("train.accumulate", lambda n: 8 + n),
        ("train.ema", lambda n: 0.99 + n),
        ("train.samples", lambda n: {"num": 2**16 + n}),
        ("train.checkpoints", lambda n: {"best": f"autoencoder/loss{n}"}),
        ("train.checkpoints", lambda n: {"keep": 1 - n}),
        ("train.optimizer", lambda n: {"use": "adam", "lr": -0.1 * n}),
        ("train.optimizer", lambda n: {"use": "adam", "betas": [0.5] * (n + 2)}),
        ("train.lr_schedule", lambda n: {"use": "constant", "warmup": -n}),
        ("train.stages", lambda n: [{"players": [f"nobody{n}/*"]}]),
        ("train.players", lambda n: {f"nobody{n}": {"every": 1}}),
        ("train.terms", lambda n: {f"loss{n}": {"every": 1}}),
    ],
    [
        *below_1("data.modes", "model.z_dim"),
        *negative("model.regularizers.r1.gamma"),
        ("data.num", lambda n: 10_000_000 + n),
        ("data.std", lambda n: -0.1 * n),
        ("model.generator", lambda n: {"use": "dcgan", "channels": n}),  # on pairs
        ("model.discriminator", lambda n: {"use": "patch", "channels": n}),
        ("model.conditioner", lambda n: {"use": "label", "field": f"field{n}"}),
        ("train.players", lambda n: {"disc*": {"every": 1 - n}}),
    ],
    [
        *below_1("model.autoencoder.bottleneck.num_codes", "model.prior.schedule.num", "model.prior.sampler.steps"),
        ("model.at", lambda n: f"latent{n}"),
        ("model.scale", lambda n: -0.5 * n),
        ("model.autoencoder.encoder.channels", lambda n: [8] * (n + 4)),
        ("model.autoencoder.encoder.channels", lambda n: []),
        ("model.autoencoder.decoder.channels", lambda n: [8, 8, 7 + n]),
        ("model.prior.network", lambda n: {"use": "mlp", "depth": 1 - n}),
        ("model.prior.network", lambda n: {"use": "unet", "channels": [8], "attention": [64 + n]}),
        ("model.prior.network", lambda n: {"use": "mlp", "dropout": 1.5 + n}),
        ("model.prior.schedule.num", lambda n: 100_000 + n),
        ("model.prior.schedule.beta_end", lambda n: 1.0 + n),
        ("model.prior.sampler.steps", lambda n: 20 + n),
        ("model.prior.sampler", lambda n: {"use": "heun", "steps": 100_000 + n}),
        ("model.prior.conditioner.drop", lambda n: 1.0 + n),
        ("model.prior", lambda n: {"use": "latent", "autoencoder": {"use": "gan", "z_dim": n}}),
    ],
]


def impossible_shape(rng, tree):
    index = rng.randrange(len(SMALL))
    tree = parse(SMALL[index])[0]
    path, make = rng.choice(MISFITS[index])
    put(tree, path, make(rng.randrange(1, 99)))
    return written(tree)


KINDS = {
    **dict.fromkeys((unknown_key, misspelt_key, misspelt_part, huge_number, cycle, impossible_shape), 200),
    **{wrong_type: 300, hostile_tag: 150, bomb: 70, broken_syntax: 230, duplicate_key: 100, override: 300},
}
assert sum(KINDS.values()) >= 2000


def mutations(make, num):
    """So many distinct mutations of a kind: a text and overrides."""
    rng, bases, found = random.Random(make.__name__), trees(), {}
    while len(found) < num:
        tree = copy.deepcopy(rng.choice(bases))
        made = make(rng, tree)  # the text, or overrides, or nothing where the tree has changed
        found[made if isinstance(made, str) else written(tree), tuple(made) if isinstance(made, list) else ()] = None
    return list(found)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", SMALL)
def test_what_is_mutated_is_valid(text):
    Path("spec.yaml").write_text(written(parse(text)[0]))
    assert modkit.check(load_spec("spec.yaml", ["train.seed=3"])).terms


@pytest.mark.wide(1)
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_malformed_specs_end_in_an_error_at_its_place(make, pytestconfig):
    num = KINDS[make] if pytestconfig.getoption("--full") else KINDS[make] // 4
    for index, (text, overrides) in enumerate(mutations(make, num)):
        Path("spec.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        started = time.process_time()
        with pytest.raises(SpecError) as caught:
            modkit.train(load_spec("spec.yaml", overrides), "out")
            pytest.fail(f"passed: {overrides}\n{text}")
        assert time.process_time() - started < SECONDS, (overrides, text)
        for problem in caught.value.problems:
            assert problem.position is not None, (str(problem), overrides, text)
            assert problem.position.file == "spec.yaml" or problem.position.file.startswith("<override ")
            assert problem.position.line >= 1 and problem.position.column >= 1
        assert os.listdir() == ["spec.yaml"]
        if index % 10 == 0:
            result = CliRunner().invoke(app, ["train", "spec.yaml", "--out", "out", "--", *overrides])
            assert result.exit_code == 2, (result.output, result.exception, overrides, text)
            assert re.match(r"modkit: (spec\.yaml|<override \d+>):\d+:\d+: ", result.stderr), result.stderr
            assert os.listdir() == ["spec.yaml"]


ABSURD = [
    *((f"model.{path}", 2**31 - 1) for path in ("encoder.width", "decoder.depth", "bottleneck.channels")),
    *((path, 2**31 - 1) for path in ("data.size", "train.batch_size", "train.workers")),
    ("model.encoder.depth", 2_000_000_000),
    ("model.encoder", {"use": "conv", "channels": [100_000_000]}),
    ("model.encoder", {"use": "conv", "channels": [8, 8], "blocks": 1_000_000_000}),
    ("model.encoder", {"use": "conv", "channels": [8] * 9000}),
    ("model.bottleneck", {"use": "vq", "num_codes": 2**31 - 1}),
    ("model.critic", {"use": "patch", "layers": 2**31 - 1}),
    ("model.critic", {"use": "mlp", "depth": 2**31 - 1}),
    ("data", {"use": "ring", "num": 2**31 - 1}),
    ("data", {"use": "ring", "modes": 2**31 - 1}),
    ("data", {"use": "grid", "side": 2**31 - 1}),
    ("train.samples", {"num": 2**31 - 1}),
    ("model", {"use": "diffusion", "network": "mlp", "schedule": {"use": "cosine", "num": 2**31 - 1}}),
    ("model", {"use": "diffusion", "network": "mlp", "schedule": "edm", "sampler": {"use": "ddim", "steps": 10**9}}),
    ("model", {"use": "diffusion", "network": {"use": "unet", "blocks": 10**9}}),
    ("model", {"use": "diffusion", "network": {"use": "mlp", "depth": 10**9}}),
    ("model", {"use": "gan", "z_dim": 2**31 - 1}),
    ("model", {"use": "gan", "regularizers": {f"r{index}": "r1" for index in range(4900)}}),
    ("name", "n" * 900_000),
]
ABSURD_RUN = f"""
import json, re, sys, time
import modkit
modkit.check(modkit.load_spec(sys.argv[1]))
for path in sys.argv[2:]:
    started = time.process_time()
    try:
        modkit.train(modkit.load_spec(path), "out")
        outcome = "passed"
    except ValueError as error:
        outcome = f"{{type(error).__name__}}: {{str(error)[:200]}}"
    print(json.dumps([path, time.process_time() - started, outcome]))
print(json.dumps(["peak", {READ_PEAK}, ""]))
"""


@pytest.mark.wide
def test_absurd_sizes_are_refused_in_bounded_time_and_memory(tmp_path_factory):
    for index, (path, value) in enumerate(ABSURD):
        tree = parse(SMALL[0])[0]
        put(tree, path, value)
        Path(f"{index}.yaml").write_text(written(tree))
    files = sorted(os.listdir())
    sound = tmp_path_factory.mktemp("sound") / "spec.yaml"
    sound.write_text(SMALL[0])
    done = fork_python("-c", ABSURD_RUN, sound, *files, cwd=Path.cwd())
    *rows, (_, peak, _) = map(json.loads, done.stdout.splitlines())
    print(f"slowest {max(seconds for _, seconds, _ in rows):.2f} s of CPU, peak {peak / 2**10:.0f} MB")
    for file, seconds, outcome in rows:
        path, _ = ABSURD[int(file.removesuffix(".yaml"))]
        refused = outcome.startswith(("SpecError: ", "ValueError: training expects weights and a batch to fit"))
        assert refused and seconds < SECONDS, (path, seconds, outcome)
    assert peak < 1.5 * 2**20
    assert sorted(os.listdir()) == files
