"""What a sweep freezes: cells, runs, and every problem before anything is done."""

import pytest

from modkit import Spec, SpecError, check, load_spec, use
from modkit.specs.overrides import apply
from modkit.sweeps.trials import MAX_CELLS, freeze

SPEC = """
name: tiny
data: {use: digits, size: 8}
model:
  use: diffusion
  network: {use: mlp, width: 8, depth: 1}
  sampler: {use: ddim, steps: 2}
train: {batch_size: 64, steps: 2, samples: {num: 4}}
"""


@pytest.fixture
def spec():
    return Spec.from_yaml(SPEC, "tiny.yaml")


def problems(spec, *axes):
    with pytest.raises(SpecError) as caught:
        freeze(spec, axes)
    return [str(problem) for problem in caught.value.problems]


def test_the_product_of_the_axes_shares_what_is_trained(spec):
    grid = freeze(spec, ["model.sampler=ddim,dpm-solver++,heun", "seed=0,1"])
    assert list(grid.specs) == ["train.seed=0", "train.seed=1"]
    assert [(cell.run, cell.sampling) for cell in grid.cells] == [
        (f"train.seed={seed}", () if sampler == "ddim" else (f"model.sampler={sampler}",))  # ddim is the spec's own
        for sampler in ("ddim", "dpm-solver++", "heun")
        for seed in (0, 1)
    ]
    assert all(cell.training == (cell.run,) for cell in grid.cells)
    for seed in (0, 1):
        frozen = Spec.from_yaml(grid.specs[f"train.seed={seed}"])
        assert frozen == check(apply(spec, [f"train.seed={seed}"])[0]).plan.resolved
        assert check(frozen).plan.resolved == frozen


def test_no_order_changes_a_cell_or_the_spec_of_its_run(spec):
    grid = freeze(spec, ["sampler=heun,ddim", "seed=1,0", "data.size=8"])
    other = freeze(spec, ["data.size=8", "train.seed=0,1", "model.sampler=ddim,heun"])
    assert set(grid.cells) == set(other.cells)
    assert grid.specs == other.specs
    assert Spec.from_yaml(grid.specs["data.size=8,train.seed=0"]).model["sampler"].use == "ddim"


@pytest.mark.parametrize(
    "axis",
    [
        "sampler.steps=2,3",
        "model.sampler.use=heun,ddim",
        "sampler={use: ddim, steps: 2},{use: heun, steps: 2}",
        "guidance=none,cfg",
        "guidance.scale=1.0,3.0",
        "evaluate.num=16,32",
        "evaluate.features=pixels,random-conv",
    ],
)
def test_what_only_sampling_and_measuring_use_trains_once(spec, axis):
    spec, _ = apply(spec, ["model.guidance=cfg"])
    grid = freeze(spec, [axis])
    assert list(grid.specs) == ["tiny"]
    assert len({cell.sampling for cell in grid.cells}) == 2
    assert all(cell.training == () for cell in grid.cells)


@pytest.mark.parametrize("axis", ["data.size=8,16", "evaluate.watch.every=1,2", "model.schedule=linear,cosine"])
def test_everything_else_trains(spec, axis):
    grid = freeze(spec, [axis, "sampler=heun"])
    assert list(grid.specs) == [f"{axis.partition('=')[0]}={value}" for value in axis.partition("=")[2].split(",")]
    assert {cell.sampling for cell in grid.cells} == {("model.sampler=heun",)}


def test_a_sampler_that_training_refers_to_trains(spec):
    spec, _ = apply(spec, ["train.steps=${model.sampler.steps}"])
    grid = freeze(spec, ["sampler.steps=2,3"])
    assert list(grid.specs) == ["tiny", "model.sampler.steps=3"]  # the first is as the spec says
    assert [cell.sampling for cell in grid.cells] == [(), ()]  # one has what the run has, the other a run of its own


def test_commas_in_brackets_and_quotes_are_part_of_a_value(spec):
    spec, _ = apply(spec, ["model.network={use: unet, blocks: 1}"])
    grid = freeze(spec, ["model.network.channels=[8, 16],[16,32]", "name='a,b',\"c,'d\",it's,o'clock"])
    assert [cell.training for cell in grid.cells] == [
        (f"model.network.channels={channels}", f"name={name}")
        for channels in ("[8, 16]", "[16,32]")
        for name in ("'a,b'", '"c,\'d"', "it's", "o'clock")
    ]
    assert {Spec.from_yaml(text).name for text in grid.specs.values()} == {"a,b", "c,'d", "it's", "o'clock"}
    assert len(grid.specs) == 8
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.=,+-") for name in grid.specs)


def test_a_run_keeps_its_name_when_cells_come(spec):
    spec, _ = apply(spec, ["model.network={use: unet, blocks: 1}"])
    few = freeze(spec, ["model.network.channels=[8]"])
    more = freeze(spec, ["model.network.channels=[8],[8, 8],8-8"[:-4]])
    assert set(few.specs.items()) < set(more.specs.items())


def test_every_problem_of_every_axis_and_cell_is_told_at_once(spec):
    told = problems(spec, "sampler=ddmi,heun", "seed=0,-1", "data.size=8,foo", "model.network.width=8,0")
    assert len(told) == 4
    assert told[0].startswith("<axis 1>:1:1: model.sampler: no sampler is called 'ddmi'; did you mean 'ddim'?")
    assert "; in data.size=8,model.network.width=8,model.sampler=ddmi,train.seed=0; data.size=8" in told[0]
    assert told[0].endswith(" and 5 more")
    assert any(text.startswith("<axis 2>:1:1: train.seed: expects a number in [0") for text in told)
    assert any(text.startswith("<axis 3>:1:1: data.size: expected int, got 'foo'") for text in told)
    assert any("MLPNetwork expects width >= 1, got 0" in text for text in told)


def test_a_problem_of_the_spec_itself_is_told_once(spec):
    told = problems(spec.with_value("train.batch_size", 0), "sampler=ddim,heun", "seed=0,1")
    assert told == ["tiny.yaml:8:8: train.batch_size: expects a number in [1, 1048576], got 0"]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["sampler"], "<axis 1>:1:1: got 'sampler', expected path=value,value,…"),
        (["seed=0,,1"], "<axis 1>:1:1: train.seed: got an empty value in '0,,1'"),
        (["seed=0, 0"], "<axis 1>:1:1: train.seed: got 0 twice, expected each value once"),
        (["seed=0", "train.seed=1"], "<axis 2>:1:1: train.seed: got this axis twice: <axis 1> and <axis 2>"),
        (["smapler=ddim"], "<axis 1>:1:1: smapler: got 'smapler', expected a path that starts with one of .*sampler"),
        (["decoding=ddim"], "<axis 1>:1:1: decoding: got a slot that the model has not"),
        (["a[=1"], "<axis 1>:1:1: got 'a\\[', expected a path"),
        ([f"seed={','.join(map(str, range(MAX_CELLS + 1)))}"], "got 1001 cells, expected at most 1000"),
    ],
)
def test_a_wrong_axis_is_refused(spec, axes, message):
    with pytest.raises(SpecError, match=message.replace("…", ".")):
        freeze(spec, axes)


def test_a_part_without_a_name_cannot_be_swept(spec):
    class Local:
        pass

    local = Spec(model=use("diffusion", network=use(Local)), data=use("digits"))
    assert "not reloadable by name" in problems(local, "seed=0,1")[0]


def test_a_run_that_a_spec_starts_from_is_found_from_another_folder(tmp_path, spec):
    from modkit import train

    train(spec, tmp_path / "first", steps=0)
    file = tmp_path / "second.yaml"
    text = "name: second\ndata: {use: digits, size: 8}\nmodel: {use: run, path: first, train: true}\n"
    file.write_text(text)
    frozen = Spec.from_yaml(freeze(load_spec(file), ["seed=3"]).specs["train.seed=3"])
    assert frozen.model["path"] == str(tmp_path / "first")
    check(frozen)
