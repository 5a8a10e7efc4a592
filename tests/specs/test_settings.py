import re

import pytest

from modkit import Spec, check
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.kinds import Default
from modkit.parts.signature import MISSING, read_signature
from modkit.specs.settings import Checkpoints, Compilation, Every, PlayerSettings, Samples, Settings, Stage, Term
from tests.refusals import list_problems

RECORDS = (Settings, Compilation, PlayerSettings, Term, Stage, Every, Samples, Checkpoints)
HEAD = "data: {use: ring, num: 8, num_test: 8}\nmodel: {use: gan, generator: {use: mlp, width: 4}}\n"


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_key_is_explained_and_has_a_default(record):
    for parameter in read_signature(record, (), record.__name__).values():
        assert parameter.help.endswith(".") and parameter.help[0].isupper() or "`" in parameter.help[:2], parameter.name
        assert parameter.default is not MISSING or (record, parameter.name) == (Stage, "players")


def test_slots_and_records_are_read_as_those_of_parts():
    declared = read_signature(Settings, (), "train")
    assert declared["optimizer"].slot.kind == "optimizer" and declared["optimizer"].default == Default("adamw")
    assert (declared["loggers"].slot.kind, declared["loggers"].slot.container) == ("logger", "list")
    assert (declared["players"].record.type, declared["players"].record.container) == (PlayerSettings, "dict")
    assert (declared["stages"].record.type, declared["stages"].record.container) == (Stage, "list")
    assert declared["checkpoints"].record.type is Checkpoints and declared["checkpoints"].record.container is None
    assert declared["seed"].slot is None and declared["seed"].record is None


def test_the_defaults_of_a_spec_without_train_are_written_out():
    settings = plan(Spec.from_yaml(HEAD)).resolved.train
    assert settings["optimizer"].use == "adamw" and settings["batch_size"] == 128 and settings["stages"] == ()
    assert settings["checkpoints"] == {"every": 500, "keep": 2} and settings["samples"] == {"every": 500, "num": 64}
    assert set(settings) == {name for name in read_signature(Settings, (), "train") if name not in ("clip", "overfit")}


@pytest.mark.parametrize(
    "train, column, path, message",
    [
        ("{batch_size: 0}", 21, "train.batch_size", r"expects \w+ to be in \[1, 1048576\], got 0"),
        ("{batch_size: 1048577}", 21, "train.batch_size", "got 1048577"),
        ("{accumulate: 0}", 21, "train.accumulate", r"expects \w+ to be in \[1, 1048576\], got 0"),
        ("{seed: -1}", 15, "train.seed", r"expects \w+ to be in \[0, 2147483647\], got -1"),
        ("{workers: -1}", 18, "train.workers", r"expects \w+ to be in \[0, 1024\], got -1"),
        ("{steps: -1}", 16, "train.steps", "got -1"),
        ("{overfit: 0}", 18, "train.overfit", "expects overfit to be at least 1, got 0"),
        ("{batch_size: 9, accumulate: 2}", 21, "train.batch_size", "expects a multiple of accumulate, got 9 and 2"),
        ("{log: {every: 0}}", 22, "train.log.every", "expects every to be at least 1, got 0"),
        ("{samples: {every: 0}}", 26, "train.samples.every", "expects every to be at least 1, got 0"),
        ("{samples: {num: 65537}}", 24, "train.samples.num", r"expects \w+ to be in \[1, 65536\], got 65537"),
        ("{checkpoints: {every: 0}}", 30, "train.checkpoints.every", "expects every to be at least 1, got 0"),
        ("{checkpoints: {keep: 0}}", 29, "train.checkpoints.keep", "expects keep to be at least 1, got 0"),
        ("{ema: 1}", 14, "train.ema", r"expects ema to be in \[0, 1\), got 1"),
        (
            "{stages: [{players: ['*'], ema: -0.5}]}",
            40,
            "train.stages[0].ema",
            r"expects ema to be in \[0, 1\), got -0.5",
        ),
        ("{ema: slow}", 14, "train.ema", r"got 'slow', expected float or a mapping"),
        ("{ema: {width: 1}}", 15, "train.ema.width", "got an unknown key 'width', expected one of: std, every, kept"),
        ("{ema: {std: .3}}", 20, "train.ema.std", r"expects std to be in \(0, 0.2887\), got 0.3"),
        ("{ema: {kept: [.1]}}", 14, "train.ema", r"expects the std of two averages to keep, or more, got \[0.1\]"),
        ("{ema: {every: 0}}", 22, "train.ema.every", "expects every to be at least 1, got 0"),
        (
            "{stages: [{players: ['*'], ema: {std: 0}}]}",
            46,
            "train.stages[0].ema.std",
            r"expects std to be in \(0, 0.2887\), got 0",
        ),
        (
            "{stages: [{players: ['*'], steps: -2}]}",
            42,
            "train.stages[0].steps",
            "expects steps to be at least 0, got -2",
        ),
        ("{stages: [{players: []}]}", 28, "train.stages[0].players", r"expects patterns of players, got none"),
        ("{clip: 0}", 15, "train.clip", r"expects clip to be above 0 \(leave it out for no limit\), got 0"),
        ("{clip: -1}", 15, "train.clip", r"expects clip to be above 0 \(leave it out for no limit\), got -1"),
        (
            "{players: {'*': {clip: 0}}}",
            31,
            "train.players.*.clip",
            r"expects clip to be above 0 \(leave it out for no limit\), got 0",
        ),
        (
            "{terms: {adversarial: {every: 0}}}",
            38,
            "train.terms.adversarial.every",
            "expects every to be at least 1, got 0",
        ),
        ("{players: {'*': {every: 0}}}", 32, "train.players.*.every", "expects every to be at least 1, got 0"),
        (
            "{terms: {adversarial: {start: -1}}}",
            38,
            "train.terms.adversarial.start",
            "start to be at least 0, got -1",
        ),
        ("{players: {'*': {start: -3}}}", 32, "train.players.*.start", "expects start to be at least 0, got -3"),
        ("{precision: half}", 20, "train.precision", r"expected 'float32' \| 'tf32' \| 'bf16' \| 'fp16', got 'half'"),
        ("{stages: [{steps: 2}]}", 18, "train.stages[0]", "got no 'players'"),
        ("{stages: {players: ['*']}}", 17, "train.stages", "got a mapping, expected a list"),
        ("{players: [1]}", 18, "train.players", "got a list, expected a mapping"),
        ("{log: 5}", 14, "train.log", "got 5, expected a mapping"),
        ("{setps: 3}", 9, "train.setps", r"got an unknown key 'setps', .* \(did you mean 'steps'\?\)"),
        ("{optimizer: {use: adam, lr: fast}}", 36, "train.optimizer.lr", "expected float, got 'fast'"),
        ("{optimizer: {use: adam, parameters: 3}}", 32, "train.optimizer.parameters", "which the slot of .* provides"),
    ],
)
def test_a_wrong_setting_is_refused_at_its_place(train, column, path, message):
    (problem,) = list_problems(check, Spec.from_yaml(f"{HEAD}train: {train}", "spec.yaml"))
    assert re.match(rf"spec.yaml:3:{column}: {re.escape(path)}: .*{message}", problem)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("false", False),
        ("true", Compilation()),
        ("{}", Compilation()),
        ("{mode: max-autotune, dynamic: true}", Compilation(mode="max-autotune", dynamic=True)),
    ],
)
def test_how_networks_are_compiled_has_one_form(written, expected):
    spec = Spec.from_yaml(f"{HEAD}train: {{compile: {written}}}\n")
    planned = plan(spec)
    assert Site(planned, meta=True).settings.compile == expected
    assert Site(plan(planned.resolved), meta=True).settings.compile == expected


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("fast", "train.compile: got 'fast', expected bool or a mapping"),
        ("{mode: fast}", "train.compile.mode: expected 'default' | 'reduce-overhead' | "),
        ("{level: 3}", "train.compile.level: got an unknown key 'level', expected one of: backend, mode, dynamic"),
        ("{backend: eager, mode: max-autotune}", "compile expects a mode of inductor alone, got max-autotune of eager"),
    ],
)
def test_what_is_no_way_to_compile_is_refused(written, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        check(Spec.from_yaml(f"{HEAD}train: {{compile: {written}}}\n"))
