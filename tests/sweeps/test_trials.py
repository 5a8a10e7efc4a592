"""What a sweep freezes: trials, the runs that they share, and every problem before anything is done."""

import pytest

from modkit import Spec, SpecError, check, load_spec, train, use
from modkit.specs.overrides import apply
from modkit.sweeps.trials import MAX_TRIALS, freeze
from tests.refusals import check_refusal
from tests.sweeps.forks import SPEC


@pytest.fixture
def spec():
    return Spec.from_yaml(SPEC, "tiny.yaml")


def runs(trials):
    return {trial.run: trial.spec for trial in trials}


def problems(spec, *axes):
    with pytest.raises(SpecError) as caught:
        freeze(spec, axes)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.wide
def test_the_product_of_the_axes_shares_what_is_trained(spec):
    trials = freeze(spec, ["model.sampler=ddim,dpm-solver++,heun", "seed=0,1"])
    assert [(trial.run, trial.sampling) for trial in trials] == [
        (f"train.seed={seed}", sampling)
        for sampling in (
            (),  # the spec's own
            ("model.sampler=dpm-solver++",),
            ("model.sampler=heun", "model.sampler.grid=continuous"),
        )
        for seed in (0, 1)
    ]
    for seed in (0, 1):
        frozen = Spec.from_yaml(runs(trials)[f"train.seed={seed}"])
        assert frozen == check(apply(spec, [f"train.seed={seed}"])[0]).plan.resolved
        assert check(frozen).plan.resolved == frozen


@pytest.mark.wide
def test_no_order_changes_a_trial_or_the_spec_of_its_run(spec):
    trials = freeze(spec, ["sampler=heun,ddim", "seed=1,0", "data.size=8"])
    assert set(trials) == set(freeze(spec, ["data.size=8", "train.seed=0,1", "model.sampler=ddim,heun"]))
    assert Spec.from_yaml(runs(trials)["data.size=8,train.seed=0"]).model["sampler"].use == "ddim"


@pytest.mark.wide(1)
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
        "evaluate={num: 16},{watch: {num: 32}}",
    ],
)
def test_what_only_sampling_and_measuring_use_trains_once(spec, axis):
    spec, _ = apply(spec, ["model.conditioner=label", "model.guidance=cfg"])
    trials = freeze(spec, [axis])
    assert list(runs(trials)) == ["tiny"]
    assert len({trial.sampling for trial in trials}) == 2


def test_a_parameter_that_only_sampling_reads_trains_once():
    model = use("gan", generator=use("stylegan2", channels=2, style=4), discriminator=use("dcgan", channels=4))
    trials = freeze(Spec(name="tiny", data=use("digits", size=8), model=model), ["model.generator.truncation=0.5,1.0"])
    assert list(runs(trials)) == ["tiny"]
    assert {trial.sampling for trial in trials} == {("model.generator.truncation=0.5",), ()}


@pytest.mark.wide(1)
@pytest.mark.parametrize("axis", ["data.size=8,16", "evaluate.watch.every=1,2", "model.schedule=linear,cosine"])
def test_everything_else_trains(spec, axis):
    trials = freeze(spec, [axis, "sampler=heun"])
    path, _, values = axis.partition("=")
    assert list(runs(trials)) == [f"{path}={value}" for value in values.split(",")]
    assert {trial.sampling[0] for trial in trials} == {"model.sampler=heun"}


BARE = Spec(name="bare", data=use("digits", size=8), model=use("diffusion", network=use("mlp", width=8, depth=1)))


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("axes", "sampling"),
    [
        (["sampler=ddim"], {()}),
        (["sampler=heun"], {("model.sampler=heun", "model.sampler.steps=18", "model.sampler.grid=continuous")}),
        (
            ["sampler=heun", "sampler.steps=50"],
            {("model.sampler=heun", "model.sampler.steps=50", "model.sampler.grid=continuous")},
        ),
        (
            ["sampler=ddim", "model.schedule=cosine,edm"],
            {(), ("model.sampler=ddim", "model.sampler.steps=50", "model.sampler.grid=auto")},
        ),
        (["evaluate.features=random-conv,pixels", "evaluate.num=8"], None),
    ],
)
def test_a_trial_is_the_system_that_its_label_names(axes, sampling):
    """The fault: what the run's spec wrote out of its own sampler's defaults was carried over to the swept one."""
    trials = freeze(BARE, axes)
    for trial in trials:
        evaluated = check(apply(Spec.from_yaml(trial.spec), trial.sampling)[0]).plan.resolved
        assert evaluated.tree == check(apply(BARE, trial.label.split(","))[0]).plan.resolved.tree
    assert sampling in (None, {trial.sampling for trial in trials})


def test_a_sampler_that_what_the_run_wrote_does_not_suit_is_evaluated_all_the_same():
    """The fault: the sweep was refused for a grid that its spec left to Heun's default."""
    pytest.importorskip("modkit_diffusers", reason="modkit-diffusers is not installed")
    (trial,) = freeze(BARE.with_value("model.sampler", "heun"), ["sampler=diffusers/ddim"])
    assert trial.run == "bare"
    assert trial.sampling[0].startswith("model.sampler={use: diffusers/ddim, steps: 50, ")


def test_a_sampler_in_a_piece_of_another_run_trains_once(tmp_path):
    train(BARE, tmp_path / "first", steps=0)
    piece = BARE.with_value("model", use("run", path=str(tmp_path / "first"), train=True))
    trials = freeze(check(piece).plan.resolved, ["sampler=ddim,heun"])
    assert [(trial.run, trial.sampling) for trial in trials] == [("bare", ()), ("bare", ("model.sampler=heun",))]


def test_a_sampler_that_training_refers_to_trains(spec):
    spec, _ = apply(spec, ["train.steps=${model.sampler.steps}"])
    trials = freeze(spec, ["sampler.steps=2,3"])
    assert list(runs(trials)) == ["tiny", "model.sampler.steps=3"]  # the first is as the spec says
    assert [trial.sampling for trial in trials] == [(), ()]  # one has what the run has, the other a run of its own


@pytest.mark.wide
def test_commas_in_brackets_and_quotes_are_part_of_a_value(spec):
    spec, _ = apply(spec, ["model.network={use: unet, blocks: 1}"])
    trials = freeze(spec, ["model.network.channels=[8, 16],[16,32]", "name='a,b', \"c,'d\" ,it's,o'clock"])
    assert [trial.label for trial in trials] == [
        f"model.network.channels={channels},name={name}"
        for channels in ("[8, 16]", "[16,32]")
        for name in ("'a,b'", '"c,\'d"', "it's", "o'clock")
    ]
    assert {Spec.from_yaml(text).name for text in runs(trials).values()} == {"a,b", "c,'d", "it's", "o'clock"}
    assert len(runs(trials)) == 8
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.=,+-") for name in runs(trials))


def test_a_run_keeps_its_name_when_trials_are_added(spec):
    spec, _ = apply(spec, ["model.network={use: unet, blocks: 1}"])
    few = freeze(spec, ["model.network.channels=[8]"])
    more = freeze(spec, ["model.network.channels=[8],[8, 8]"])
    assert set(few) < set(more)


@pytest.mark.wide
def test_every_problem_of_every_axis_and_trial_is_listed_at_once(spec):
    found = problems(spec, "sampler=ddmi,heun", "seed=0,-1", "data.size=8,foo", "model.network.width=8,0")
    assert len(found) == 4
    assert found[0].startswith("<axis 1>:1:1: model.sampler: no sampler is called 'ddmi'; did you mean 'ddim'?")
    assert "; in data.size=8,model.network.width=8,model.sampler=ddmi,train.seed=0; data.size=8" in found[0]
    assert found[0].endswith(" and 5 more")
    assert any(text.startswith("<axis 2>:1:1: train.seed: Settings expects seed to be in [0") for text in found)
    assert any(text.startswith("<axis 3>:1:1: data.size: expected int, got 'foo'") for text in found)
    assert any("expects width to be at least 1, got 0" in text for text in found)


def test_a_problem_of_the_spec_itself_is_listed_once(spec):
    found = problems(spec.with_value("train.batch_size", 0), "sampler=ddim,heun", "seed=0,1")
    assert found == ["tiny.yaml:8:8: train.batch_size: Settings expects batch_size to be in [1, 1048576], got 0"]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["sampler"], "<axis 1>:1:1: got 'sampler', expected path=value,value,…"),
        (["seed=0,,1"], "<axis 1>:1:1: train.seed: got an empty value in '0,,1'"),
        (["seed=0, 0"], "<axis 1>:1:1: train.seed: got 0 twice, expected each value once"),
        (["seed=0", "train.seed=1"], "<axis 2>:1:1: train.seed: got this axis twice: <axis 1> and <axis 2>"),
        (["smapler=ddim"], "<axis 1>:1:1: smapler: got 'smapler', expected a path that starts with one of .*sampler"),
        (["decoding=ddim"], "<axis 1>:1:1: decoding: the model has no such slot"),
        ("seed=0,1", "got the string 'seed=0,1', expected a list of axes: \\['seed=0,1'\\]"),
        (["a[=1"], "<axis 1>:1:1: got 'a\\[', expected a path"),
        ([f"seed={','.join(map(str, range(MAX_TRIALS + 1)))}"], "got 1001 trials, expected at most 1000"),
    ],
)
def test_a_wrong_axis_is_refused(spec, axes, message):
    check_refusal(message.replace("…", "."), freeze, spec, axes, error=SpecError)


def test_a_part_without_a_name_cannot_be_swept():
    class Local:
        pass

    local = Spec(model=use("diffusion", network=use(Local)), data=use("digits"))
    assert "cannot be loaded by name" in problems(local, "seed=0,1")[0]


def test_a_spec_without_data_cannot_be_swept_unless_an_axis_names_them():
    """The fault: every process was started, and failed."""
    typed = Spec(model=use("gan", z_dim=2), x={"shape": [2]})
    assert problems(typed, "seed=0,1") == ["data: missing, expected a data set: the runs of a sweep are trained"]
    assert [trial.label for trial in freeze(typed, ["data=ring,digits"])] == ["data=ring", "data=digits"]


def test_a_run_that_a_spec_starts_from_is_found_from_another_folder(tmp_path, spec):
    train(spec, tmp_path / "first", steps=0)
    file = tmp_path / "second.yaml"
    file.write_text("name: second\ndata: {use: digits, size: 8}\nmodel: {use: run, path: first, train: true}\n")
    frozen = Spec.from_yaml(freeze(load_spec(file), ["seed=3"])[0].spec)
    assert frozen.model["path"] == str(tmp_path / "first")
    check(frozen)


@pytest.mark.wide
def test_what_training_always_refuses_is_refused_before_anything_is_done(tmp_path, spec):
    """The fault: the sweep began, and failed job by job."""
    train(spec, tmp_path / "first", steps=0)
    piece = f"model.network={{use: run, path: {tmp_path / 'first'}, at: model.network}}"
    found = problems(spec, piece)[0]
    assert "model: training expects a model with something to train, got a frozen one" in found
    assert found.endswith("(mend it with model.network.train=true)")
    found = problems(spec, piece.replace("}", ", train: true}"), "data.size=8,16")[0]
    assert "stem.weight (8, 64) instead of (8, 256)" in found and found.count("; in ") == 1
