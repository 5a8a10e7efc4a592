import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from textwrap import dedent
from types import ModuleType

import pytest
import torch

from modkit import Part, Spec, SpecError, build, evaluate_run, hookimpl, load, resume, spec_of, train, use
from modkit.building.migration import Migration, find_due, find_prefixes, load_current_spec, read_spec
from modkit.building.plan import plan
from modkit.comparison.entries import collect
from modkit.evaluation.report import Report
from modkit.grids import space_noise_levels
from modkit.parts.entry import Entry
from modkit.parts.registry import Registry, get_registry
from modkit.publishing.export import export
from modkit.runs.files import hash_data
from modkit.runs.run import Run
from modkit.specs.node import Node
from modkit.specs.overrides import apply
from modkit.training.branch import branch
from modkit.types import Score
from tests.command import run as run_command
from tests.play import MLP, VAE, spec
from tests.plugin_factory import make_plugin
from tests.run_folders import contents

THIN = """
    from torch import Tensor, nn

    from modkit import TensorType


    class Thin(nn.Module):
        def __init__(self, x: TensorType, *, {width}: int = 4{more}) -> None:
            super().__init__()
            self.h = TensorType(({width},))
            self.{layer} = nn.Linear(x.numel, {width})

        def forward(self, x: Tensor) -> Tensor:
            return self.{layer}(x.flatten(1))
"""
MIGRATE = """
    def thin(params, state, version):
        assert version == "1.0" and set(state) == {"inner.weight", "inner.bias"}, (version, set(state))
        params["features"] = params.pop("wide")
        return params, {key.replace("inner", "net"): value for key, value in state.items()}

    def renamed(params, state, version):
        params["features"] = params.pop("wide")
        return params, state

    def same(params, state, version):
        return params, state

    def scaled(params, state, version):
        return params, {key: value.div_(5) for key, value in state.items()}

    def failing(params, state, version):
        raise RuntimeError("no way")

    def rubbish(params, state, version):
        return params

    def objects(params, state, version):
        return {"features": object()}, state

    def misfit(params, state, version):
        return {"fetures": 3}, thin(params, state, version)[1]

    def lost(params, state, version):
        return thin(params, state, version)[0], {}
"""
OLD, NEW = {"width": "wide", "layer": "inner"}, {"width": "features", "layer": "net"}
SCALED = OLD | {"more": ", scale: float | None = None"}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """Makes a version of the plug-in acme, whose encoder `thin` is as told; gives the folder to put on the path."""
    root, made = tmp_path_factory.mktemp("site"), []

    def make(version, shape, name="thin", **declared):
        folder, code = root / str(len(made)), f"acme_{len(made)}_code"
        made.append(folder)
        if migrate := declared.pop("migrate", None):
            declared["migrate"] = f"{code}_old:{migrate}"
        more = "".join(f", {key}={value!r}" for key, value in declared.items())
        source = f"""
            from modkit.part import Part, hookimpl

            @hookimpl
            def modkit_parts():
                return [Part("encoder", {name!r}, "{code}:Thin", "A linear map"{more})]
        """
        make_plugin(folder, "acme", source, version=version)
        (folder / f"{code}.py").write_text(dedent(THIN.format(**{"more": ""} | shape)))
        (folder / f"{code}_old.py").write_text(dedent(MIGRATE))
        return folder

    return make


@contextmanager
def installed(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        get_registry.cache_clear()
        yield
    get_registry.cache_clear()


THIN_VAE = use("autoencoder", encoder=use("acme/thin", wide=3), decoder=MLP["decoder"])


@pytest.fixture(scope="module")
def second(plugin):
    return plugin("2.0", NEW, migrate="thin")


@pytest.fixture(scope="module")
def first(plugin):
    return plugin("1.0", OLD)


@pytest.fixture(scope="module")
def made(first, tmp_path_factory):
    """A run made under version 1, with averages, and what it samples there at each checkpoint."""
    path = tmp_path_factory.mktemp("made") / "run"
    with installed(first):
        run = train(spec(THIN_VAE, steps=2, ema=0.5, checkpoints={"every": 1, "keep": 2}), path)
        return run, {name: load(run, checkpoint=name).sample(3, seed=0) for name in run.kept}


def reconstructed(model):
    return model.reconstruct(torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8))


@pytest.mark.wide
def test_a_run_of_version_1_loads_under_version_2_with_its_averages(made, first, second, caplog):
    run, samples = made
    with installed(first):
        before = [reconstructed(load(run, checkpoint=name)) for name in run.kept]
        assert not torch.equal(*before) and caplog.text == ""
    with installed(second):
        assert [str(one) for one in find_due(run)] == [
            f"the migration {get_registry().find('encoder', 'acme/thin').migrate} of encoder acme/thin at "
            "model.encoder, from 1.0 to 2.0"
        ]
        for name, x in zip(run.kept, before, strict=True):
            model = load(run, checkpoint=name)
            assert torch.equal(reconstructed(model), x) and torch.equal(model.sample(3, seed=0), samples[name])
        assert model.encoder.net.weight.shape == (3, 64)
        assert load_current_spec(run).model["encoder"] == use("acme/thin", features=3)
        assert load(run, ["model.encoder.features=3"]).encoder.h.shape == (3,)
    assert len(caplog.records) == 3, "a warning each time that it is loaded"
    assert "modkit-acme was 1.0, now 2.0" in caplog.text and "encoder acme/thin: its source file" in caplog.text


def test_a_locked_load_refuses_before_anything_is_written(made, second, tmp_path, monkeypatch):
    run, _ = made
    message = (
        r"is locked to the parts that it was made with:\n  modkit-acme was 1.0, now 2.0\n"
        r"  encoder acme/thin: its source file has"
    )
    with installed(second):
        with pytest.raises(ValueError, match=message):
            load(run, locked=True)
        with pytest.raises(ValueError, match=message):
            resume(run, locked=True)
        sample = ("sample", run.path, "-n", 1, "--out", tmp_path / "x.png")
        for command in (sample, ("evaluate", run.path)):
            assert "modkit-acme was 1.0, now 2.0" in run_command(*command, "--locked", status=2)[1]
        assert not (tmp_path / "x.png").exists() and not (run.path / "evaluation.json").exists()
        run_command(*sample)


def test_a_locked_load_is_held_to_torch_and_takes_what_is_the_same(made, first, monkeypatch):
    run, samples = made
    with installed(first):
        assert torch.equal(load(run, locked=True).sample(3, seed=0), samples[run.kept[-1]])
        monkeypatch.setattr(run, "lock", run.lock | {"torch": "1.0", "python": "3.0"})
        assert load(run)
        message = rf"made with:\n  torch was 1.0, now {torch.__version__.replace('+', '.')}$"
        with pytest.raises(ValueError, match=message):
            load(run, locked=True)


def test_without_the_plugin_one_is_told_what_to_install(made, tmp_path):
    run, _ = made
    message = (
        r"needs parts that are not installed:\n  encoder acme/thin is missing: it came with modkit-acme 1.0, it is not "
        r"installed; install it with: pip install modkit-acme==1.0$"
    )
    get_registry.cache_clear()
    for attempt in (lambda: load(run), lambda: export(run, tmp_path / "out"), lambda: resume(run)):
        with pytest.raises(ValueError, match=message):
            attempt()
    with pytest.raises(ValueError, match=message):  # the fault: it named no command
        branch(run, tmp_path / "out")
    assert re.search(message, run_command("diff", run.path, run.path, status=2)[1].strip())
    with pytest.raises(ValueError, match=r"made with:\n  encoder acme/thin is missing"):
        load(run, locked=True)
    piece = spec(use("autoencoder", encoder=use("run", path=str(run.path), at="model.encoder"), decoder=MLP["decoder"]))
    with pytest.raises(ValueError, match="model.encoder: the run cannot be used: .*pip install modkit-acme==1.0$"):
        build(piece)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="encoder acme/thin is missing: .*pip install modkit-acme==1.0"):
        resume(run, ["train.stepps=1"])
    said = run_command("evaluate", run.path, "model.encoder.wide=3", status=2)[1]
    assert "pip install modkit-acme==1.0" in said


AROUND = """
    from modkit.part import Part, hookimpl

    @hookimpl
    def modkit_parts():
        return [
            Part("data", "figures", "modkit.data:Digits", "Digits"{more}),
            Part("metric", "gap", "modkit.metrics.frechet:FrechetDistance", "A distance"),
            Part("logger", "table", "modkit.training.csv_file:CSVFile", "A table"),
        ]
"""


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """A run whose data, metric and logger are a plug-in's, which is not installed, and what it samples."""
    site = tmp_path_factory.mktemp("around")
    make_plugin(site, "acme", AROUND.replace("{more}", ""))
    measured = {"metrics": ["acme/gap"], "features": "pixels", "num": 8}
    written = spec(VAE, use("acme/figures", size=8), steps=2, loggers=["acme/table"])
    with installed(site):
        run = train(replace(written, evaluate=Node(measured)), tmp_path_factory.mktemp("observed") / "run")
        return run, site, load(run).sample(3, seed=0)


@pytest.mark.wide
def test_a_model_needs_no_plugin_that_only_trained_or_measured_it(observed, tmp_path, caplog):
    """The fault: a run could not be sampled or exported without the plug-in of a logger that it was trained with."""
    run, site, samples = observed
    out = export(run, tmp_path / "out")
    assert "`acme/figures`: size 8" in (out / "README.md").read_text()
    assert Spec.from_yaml((out / "spec.yaml").read_text()).train == load_current_spec(run).train
    for one in (run.path, out):
        model = load(one)
        assert torch.equal(model.sample(3, seed=0), samples) and spec_of(model).data.use == "acme/figures"
        run_command("sample", one, "-n", 1, "--out", tmp_path / "x.png")
        with pytest.raises(ValueError, match=r"locked to.*:\n(.*\n)*  logger acme/table is missing"):
            load(one, locked=True)
    assert caplog.text == ""
    missing = r"needs parts that are not installed:\n  data acme/figures is missing.*pip install modkit-acme==1.0"
    with pytest.raises(ValueError, match=missing):
        evaluate_run(run)
    assert re.search(missing, run_command("latent", run.path, "--reconstruct", status=2)[1])
    with installed(site):
        assert run_command("latent", run.path, "--reconstruct", "-n", 2, "--out", tmp_path / "pairs.png")


@pytest.mark.wide
def test_a_run_goes_on_without_the_plugins_that_watched_it(observed, tmp_path):
    """The fault: it was refused for the logger that it was trained with, though loggers may change."""
    _, site, _ = observed
    with installed(site):
        watched = replace(spec(VAE, steps=2, loggers=["acme/table"]), evaluate=Node({"metrics": ["acme/gap"]}))
        run = train(watched, tmp_path / "run", steps=1, evaluate=False)
    changes = ["train.loggers=[]", "evaluate=null"]
    assert branch(run, tmp_path / "branch", changes, evaluate=False).finished
    resumed = resume(run, changes)
    ((one, other),) = [revision["changes"] for revision in resumed.revisions]
    assert (one["path"], one["now"], other["path"], other["now"]) == ("train.loggers", "[]", "evaluate", "absent")
    assert resumed.finished and load_current_spec(resumed).evaluate is None


def test_a_plugin_that_does_not_load_is_no_matter_of_installing(made, tmp_path):
    make_plugin(tmp_path, "acme", "raise RuntimeError('broken')", version="1.0")
    with installed(tmp_path), pytest.raises(ValueError, match="1.0 is installed; run `modkit doctor`"):
        load(made[0])


def test_a_renamed_part_loads(made, plugin):
    run, samples = made
    with installed(plugin("1.0", OLD, name="slim", aliases=("thin",))):
        assert torch.equal(load(run).sample(3, seed=0), samples[run.kept[-1]])
        resumed = resume(run, locked=False)
        assert len(resumed.read_metrics()) == 2


def test_another_version_with_nothing_changed_is_a_warning(made, plugin, caplog):
    run, samples = made
    folder = plugin("1.1", OLD, migrate="same")
    with installed(folder):
        assert torch.equal(load(run).sample(3, seed=0), samples[run.kept[-1]])
        assert resume(run, evaluate=False).finished
    assert "modkit-acme was 1.0, now 1.1" in caplog.text and "source file" not in caplog.text


def test_a_source_that_has_changed_under_one_version(made, plugin, caplog):
    run, samples = made
    with installed(plugin("1.0", {**OLD, "layer": "inner"})) as _, caplog.at_level("WARNING"):
        assert load(run) and caplog.text == ""
    with installed(plugin("1.0", {"width": "wide", "layer": "other"})):
        message = r"(?s)expects parts that take its weights.*without a new version: release a new one"
        with pytest.raises(ValueError, match=message):
            load(run)
    assert "encoder acme/thin: its source file has changed" in caplog.text
    assert " was " not in caplog.text.split("\n", 1)[1]


@pytest.mark.parametrize("shape", [NEW, {**OLD, "layer": "net"}], ids=["parameters", "keys"])
def test_what_has_changed_without_migrate_says_what_to_do(made, plugin, shape, tmp_path):
    with installed(plugin("2.0", shape)):
        message = (
            r"(?s)(unknown key 'wide'|net.weight).*encoder acme/thin came with modkit-acme 1.0, 2.0 is installed, "
            r"which declares no `migrate` for it: pip install modkit-acme==1.0, or ask the author of modkit-acme"
        )
        with pytest.raises(ValueError, match=message):
            load(made[0])
        if shape is NEW:  # the fault: both told of an unknown key alone
            with pytest.raises(ValueError, match=message):
                branch(made[0], tmp_path / "branch")
            assert re.search(message, run_command("diff", made[0].path, made[0].path, status=2)[1])
        with pytest.raises(ValueError, match=r"(?s)pip install modkit-acme==1.0|got an unknown key 'wide'"):
            resume(made[0])


@pytest.mark.parametrize(
    "migrate, message",
    [
        ("failing", "at model.encoder, from 1.0 to 2.0 failed: RuntimeError: no way"),
        ("rubbish", r"expects to return \(params, state\), a dict and a dict of tensors, got \{'wide': 3\}"),
        ("objects", r"from 1.0 to 2.0 returned parameters that a spec cannot hold: .*features"),
        ("misfit", r"(?s)unknown key 'fetures'.*the migration .*misfit of encoder acme/thin .*what does not fit"),
        ("lost", r"(?s)Missing key.*encoder.net.weight.*the migration .*:lost of encoder acme/thin .*does not fit"),
    ],
)  # fmt: skip
def test_a_migration_that_goes_wrong_is_named(made, plugin, migrate, message):
    with installed(plugin("2.0", NEW, migrate=migrate)), pytest.raises(ValueError, match=message):
        load(made[0])


def test_a_wrong_override_is_no_matter_of_a_migration(made, second):
    """The fault: a typo in an override was said to be what the migration of the part there returned."""
    with installed(second):
        for override, message in {
            "model.encoder=acme/thinn": "no encoder is called 'acme/thinn'",
            "model.encoder.features=many": "expected int, got 'many'",
        }.items():
            with pytest.raises(SpecError, match="^<override 1>:1:.*") as error:
                load(made[0], [override])
            assert message in str(error.value) and "migration" not in str(error.value)


def test_diff_and_compare_migrate(made, second, plugin, tmp_path):
    """The fault: they refused runs of an older version for the parameters that `migrate` renames."""
    run = Run.open(shutil.copytree(made[0].path, tmp_path / "run"))
    Report({"FD (pixels)": Score(1.0)}, {"fake": 2}, 0).save(run.path)
    with installed(second):
        assert [entry.spec.at("model.encoder.features") for entry in collect([run])] == [3]
        (tmp_path / "now.yaml").write_text(str(load_current_spec(run)))
        assert run_command("diff", run.path, tmp_path / "now.yaml")[0] == "no difference\n"


def test_after_a_migration_of_parameters_alone_a_branch_goes_on(made, plugin, tmp_path):
    """The fault: the refusal to resume told of states that cannot be migrated, and not of a branch."""
    run, _ = made
    with installed(plugin("2.0", {**OLD, "width": "features"}, migrate="renamed")):
        with pytest.raises(ValueError, match=f"not its weights; go on .* in a new run: modkit branch {run.path} --out"):
            resume(run)
        made = branch(run, tmp_path / "branch", step=1)
        assert made.finished and load_current_spec(made).model["encoder"] == use("acme/thin", features=3)


def test_a_former_name_in_a_spec_is_answered_by_the_present_one(plugin):
    """The fault: the closest name was suggested, of another parameter."""
    with installed(plugin("2.0", {"width": "features", "layer": "net", "more": ", wider: int = 1"}, migrate="renamed")):
        with pytest.raises(SpecError, match=r"unknown key 'wide'.*\(encoder acme/thin has 'features' in its place\)"):
            plan(spec(THIN_VAE))


def test_training_cannot_go_on_after_a_migration(made, second):
    run, _ = made
    before = contents(run.path)
    message = "cannot be resumed: the migration .*optimizer states cannot"
    with installed(second), pytest.raises(ValueError, match=message):
        train(load_current_spec(run), run.path, resume=True)
    assert before == contents(run.path)


def test_a_branch_of_weights_that_are_migrated_is_refused(made, plugin, second, tmp_path):
    """The fault: it began with the spec as it is now and the weights as they were, where these have the same shapes."""
    run, _ = made
    message = r"step-00000001 cannot be branched: the migration .*optimizer states cannot"
    for migrated in (second, plugin("2.0", OLD, migrate="scaled")):
        with installed(migrated), pytest.raises(ValueError, match=message):
            branch(run, tmp_path / "branch", step=1)
    assert not (tmp_path / "branch").exists()
    with installed(plugin("2.0", OLD, migrate="same")):
        branch(run, tmp_path / "branch", step=1)


def test_a_model_that_is_given_receives_migrated_weights(made, plugin, caplog):
    """The fault: it received those of the checkpoint as they are, where the shapes are the same."""
    run, _ = made
    with installed(plugin("2.0", OLD, migrate="scaled")):
        model = build(spec(THIN_VAE))
        weight = run.load_weights("step-00000001")["encoder.inner.weight"]
        assert torch.equal(load(run, model=model, checkpoint="step-00000001").encoder.inner.weight, weight / 5)
        assert "modkit-acme was 1.0, now 2.0" in caplog.text
        with pytest.raises(ValueError, match="is locked to the parts that it was made with"):
            load(run, model=model, locked=True)


@pytest.mark.wide
def test_a_piece_of_an_older_run_is_migrated(made, first, second, tmp_path):
    run, _ = made
    prior = use("diffusion", network=use("mlp", width=4))
    piece = use("latent", autoencoder=use("run", path=str(run.path)), prior=prior)
    with installed(first):
        x = reconstructed(load(run))
        older = train(spec(piece, steps=1), tmp_path / "older")
    with installed(second):
        assert torch.equal(reconstructed(build(spec(piece)).autoencoder), x)
        model = load(older)
        assert torch.equal(reconstructed(model.autoencoder), x)
        assert "autoencoder.encoder.net.weight" in model.state_dict()
        written = load_current_spec(older).model["autoencoder"]
        assert written.use == "run" and written["part"]["encoder"] == use("acme/thin", features=3)
        again = train(spec(piece, steps=1), tmp_path / "again")
        assert [row["version"] for row in again.lock["parts"] if row["name"] == "acme/thin"] == ["2.0"]


def test_what_was_migrated_is_exported_as_it_is_now(made, second, tmp_path):
    run, samples = made
    with installed(second):
        export(run, tmp_path / "out")
        there = Run.open(tmp_path / "out")
        assert torch.equal(load(there, locked=True).sample(3, seed=0), samples[run.kept[-1]]) and find_due(there) == ()
        assert all(there.lock[key] == run.lock[key] for key in ("seed", "commit"))
        assert {row["name"] for row in there.lock["parts"]} == {row["name"] for row in run.lock["parts"]}


MOVED = ', migrate="acme_figures:shrink"'


def test_parts_around_an_exported_model_are_locked_as_they_were_migrated(observed, tmp_path):
    make_plugin(tmp_path, "acme", AROUND.replace('"table"', '"list"').replace("{more}", MOVED), version="2.0")
    (tmp_path / "acme_figures.py").write_text("def shrink(params, state, version):\n    return {'size': 7}, state\n")
    with installed(tmp_path):
        there = Run.open(export(observed[0], tmp_path / "out"))
        rows = {row["name"]: (row["version"], row["at"]) for row in there.lock["parts"] if "acme" in row["name"]}
        assert rows == {
            "acme/figures": ("2.0", ["data"]),
            "acme/gap": ("2.0", ["evaluate.metrics[0]"]),
            "acme/table": ("1.0", ["train.loggers[0]"]),  # which is gone
        }
        assert find_due(there) == () and load_current_spec(there).data == use("acme/figures", size=7)


def test_a_lock_of_format_1_loads_and_says_what_to_do(made, first, second, tmp_path):
    file = shutil.copytree(made[0].path, tmp_path / "run") / "modkit.lock"
    lock = json.loads(file.read_text())
    new = ("packages", "commit", "state", "sha256")
    old = {key: value for key, value in lock.items() if key not in new} | {"format": 1}
    old["parts"] = [{key: value for key, value in row.items() if key not in ("at", "commit")} for row in old["parts"]]
    file.write_text(json.dumps(old))
    with installed(first):
        assert torch.equal(load(tmp_path / "run", locked=True).sample(3, seed=0), made[1]["step-00000002"])
        export(tmp_path / "run", tmp_path / "out")
        assert torch.equal(load(tmp_path / "out").sample(3, seed=0), made[1]["step-00000002"])
    with installed(second), pytest.raises(ValueError, match=r"(?s)unknown key 'wide'.*pip install modkit-acme==1.0"):
        load(tmp_path / "run")
    file.write_text(json.dumps(old | {"format": 3}))
    with pytest.raises(ValueError, match="run/modkit.lock: expected a lock of format 1 or 2, got format 3"):
        load(tmp_path / "run")


def test_a_run_that_lacks_a_parameter_is_told_from_one_with_nothing_in_it(made, plugin, tmp_path):
    """The fault: a run whose new parameter was None, its default, was loaded with the value of old runs.

    `diff` and `compare` took old runs to have the default.
    """
    with installed(plugin("1.1", SCALED, earlier={"scale": 5.0})):
        runs = (made[0], train(spec(THIN_VAE, steps=1), tmp_path / "run"))
        nodes = [load_current_spec(run).model["encoder"] for run in runs]
        assert nodes == [use("acme/thin", scale=5.0, wide=3), use("acme/thin", wide=3, scale=None)]
        assert plan(load_current_spec(runs[1])).resolved == load_current_spec(runs[1])
        found = json.loads(run_command("diff", *(run.path for run in runs), "--json")[0])["spec"]
        assert {"path": "model.encoder.scale", "a": "5.0", "b": "null"} in found
        older = Run.open(shutil.copytree(made[0].path, tmp_path / "older"))
        Report({"FD (pixels)": Score(1.0)}, {"fake": 2}, 0).save(older.path)
        assert [entry.spec.at("model.encoder.scale") for entry in collect([older])] == [5.0]


OUTER = """
    from torch import Tensor, nn

    from modkit import Slot, TensorType, default
    from modkit.kinds import Encoder


    class Thin(nn.Module):
        def __init__(
            self, x: TensorType, *, {first}: Slot[Encoder] = default("mlp"), other: Slot[Encoder] = default("mlp")
        ) -> None:
            super().__init__()
            self.{first}, self.other = {first}(x=x), other(x=x)
            self.h = self.{first}.h

        def forward(self, x: Tensor) -> Tensor:
            return self.{first}(x) + self.other(x)
"""


@pytest.fixture
def wide(plugin):
    return plugin("1.1", OLD | {"width": "features"}, renamed={"wide": "features"})


def test_a_renamed_parameter_is_read_under_both_names_everywhere(made, wide):
    run, samples = made
    tree = {"model": {"use": "autoencoder", "encoder": {"use": "acme/thin", "wide": 3}, "decoder": "mlp"}}
    written = Spec.from_yaml(json.dumps({**tree, "x": {"shape": [2]}}))
    with installed(wide):
        for former in (written, apply(written, ["model.encoder.wide=3"])[0]):
            assert plan(former).resolved.model["encoder"] == use("acme/thin", features=3)
        for name in ("wide", "features"):
            assert plan(apply(written, [f"model.encoder.{name}=5"])[0]).resolved.at("model.encoder.features") == 5
            swapped, notices = apply(written, [f"model.encoder={{use: acme/thin, {name}: 6}}"])
            assert notices == [] and plan(swapped).resolved.at("model.encoder.features") == 6
        both = apply(written, ["model.encoder={use: acme/thin, wide: 3, features: 3}"])[0]
        with pytest.raises(SpecError, match="expected one of 'features' and 'wide', its former name, got both"):
            plan(both)
        assert torch.equal(load(run).sample(3, seed=0), samples[run.kept[-1]])
        assert load(run, ["model.encoder.wide=3"]).encoder.h.shape == (3,)
        with pytest.raises(SpecError, match="got 4 in a run that has trained with 3"):
            load(run, ["model.encoder.wide=4"])


def test_a_run_goes_on_and_is_branched_by_a_renamed_parameter(made, wide, tmp_path):
    run = Run.open(shutil.copytree(made[0].path, tmp_path / "run"))
    with installed(wide):
        assert find_due(run) and resume(run, ["train.steps=3"]).kept[-1] == "step-00000003"
        assert plan(load_current_spec(run)).resolved.at("model.encoder") == use("acme/thin", features=3)
        assert branch(made[0], tmp_path / "branch").path.exists()


def test_weights_and_references_follow_a_renamed_slot(tmp_path, monkeypatch):
    for folder, first in (("old", "critic"), ("new", "judge")):
        declared = ", renamed={'critic': 'judge'}" if folder == "new" else ""
        source = f"""
            from modkit.part import Part, hookimpl

            @hookimpl
            def modkit_parts():
                return [Part("encoder", "outer", "acme_{folder}:Thin", "Two of a kind"{declared})]
        """
        make_plugin(tmp_path / folder, "acme", source)
        (tmp_path / folder / f"acme_{folder}.py").write_text(dedent(OUTER.format(first=first)))
    mlp, again = MLP["encoder"], {"ref": "model.encoder.critic"}
    shared = use("autoencoder", encoder=use("acme/outer", critic=mlp, other=again), decoder=MLP["decoder"])
    with installed(tmp_path / "old"):
        run = train(spec(shared, steps=2), tmp_path / "run")
        before = load(run).reconstruct(torch.zeros(1, 1, 8, 8))
    with installed(tmp_path / "new"):
        model = load(run)
        assert torch.equal(model.reconstruct(torch.zeros(1, 1, 8, 8)), before)
        assert model.encoder.judge is model.encoder.other
        assert spec_of(model).at("model.encoder.other") == Node({"ref": "model.encoder.judge"})
        with pytest.raises(ValueError, match="cannot be resumed: .* at model.encoder, which renames critic to judge, "):
            resume(run, ["train.steps=3"])


def test_a_declaration_names_a_function():
    plugin = ModuleType("acme")
    plugin.modkit_parts = hookimpl(lambda: [Part("encoder", "thin", "x:y", "", migrate="thin")])
    with pytest.raises(ValueError, match="part encoder thin expects migrate 'module.path:Name', got 'thin'"):
        Registry().add("acme", plugin)


def test_prefixes_are_those_of_every_part_that_a_node_was_built_into():
    keys = dict.fromkeys(["level[0].net.a", "level[1].net.a", "level[1].nets.a", "levels[0].net.a", "b", "x.level.c"])
    assert find_prefixes("model.level.net", keys) == ["level[0].net.", "level[1].net."]
    assert find_prefixes("model.levels[0].net", keys) == ["levels[0].net."]
    assert find_prefixes("model.levels[1]", keys) == []
    assert find_prefixes("model", keys) == [""] and find_prefixes("train.optimizer", keys) == []


TREE = Node(
    {
        "model": {
            "use": "m",
            "levels": [{"use": "acme/net", "wide": 1, "inside": {"use": "acme/in"}}],
            "shared": {"ref": "model.levels[0]"},
            "piece": {"use": "run", "path": "p", "part": {"use": "acme/net", "wide": 2}},
            "each": {"use": "acme/net", "wide": 3},
        }
    }
)


def growing(params, state, version):
    return {**params, "wide": params["wide"] + 10, "had": sorted(state)}, {f"new.{k}": v + 1 for k, v in state.items()}


def by_value(params, state, version):
    return {"sum": float(sum(state.values()))}, state


@pytest.mark.parametrize("place", ["levels[0]", "piece", "each"])
def test_lists_trained_pieces_shared_parts_and_parts_made_several_times(place):
    part = Part("encoder", "acme/net", "x:y", "", migrate=f"{__name__}:growing")
    migration = Migration(Entry(part, "acme", "2"), "1", f"model.{place}")
    state = {"levels[0].a": 1, "levels[0].inside.b": 2, "shared.a": 1, "shared.inside.b": 2, "piece.a": 3, "q": 0}
    state |= {"each[0].a": 4, "each[1].a": 5}
    tree, after = migration(TREE, {key: torch.tensor(float(value)) for key, value in state.items()})
    mine = {"levels[0]": ("levels[0].", "shared."), "piece": ("piece.",), "each": ("each[0].", "each[1].")}[place]
    want = {}
    for key, value in state.items():
        prefix = next((prefix for prefix in mine if key.startswith(prefix)), None)
        want |= {key: value} if prefix is None else {f"{prefix}new.{key.removeprefix(prefix)}": value + 1}
    assert {key: float(value) for key, value in after.items()} == want
    model = tree["model"]
    nodes = {"levels[0]": model["levels"][0], "piece": model["piece"]["part"], "each": model["each"]}
    for name, wide in {"levels[0]": 1, "piece": 2, "each": 3}.items():
        assert nodes[name]["wide"] == wide + (10 if name == place else 0)
    assert nodes[place]["had"] == (("a", "inside.b") if place == "levels[0]" else ("a",))
    assert model["shared"] == {"ref": "model.levels[0]"} and nodes["levels[0]"]["inside"] == {"use": "acme/in"}


def test_a_part_in_an_attribute_of_another_name_is_migrated_there():
    """The fault: the tensors of what was in the attribute of the slot's name were migrated, another part's."""
    tree = Node({"model": {"use": "m", "each": {"use": "acme/net", "wide": 3}, "one": {"ref": "model.each"}}})
    part = Part("encoder", "acme/net", "x:y", "", migrate=f"{__name__}:growing")
    modules = {"model.each[0]": ["parts.0"], "model.each[1]": ["parts.1", "second"]}
    state = {key: torch.tensor(0.0) for key in ("parts.0.a", "parts.1.a", "second.a", "each[0].a", "each.a")}
    _, after = Migration(Entry(part, "acme", "2"), "1", "model.each", modules)(tree, state)
    moved = ("parts.0.new.a", "parts.1.new.a", "second.new.a")
    assert {key: float(value) for key, value in after.items()} == {
        "each[0].a": 0,
        "each.a": 0,
        **dict.fromkeys(moved, 1),
    }


def test_inner_parts_go_first(made, monkeypatch):
    part = Part("model", "acme/m", "x:y", "", migrate=f"{__name__}:growing")
    monkeypatch.setattr("modkit.building.migration.find_known", lambda row: Entry(part, "acme", "2"))
    monkeypatch.setattr("modkit.building.migration._is_former", lambda tree, path, part: False)
    row = {"kind": "model", "name": "acme/m", "distribution": "acme", "version": "1", "sha256": None}
    rows = [row | {"at": ["model", "model.a[0].b"]}, row | {"at": ["model.a[0]"]}, row | {"version": "2", "at": ["x"]}]
    run = Run(made[0].path, "model: acme/m\n", {"format": 2, "parts": rows})
    assert [one.path for one in find_due(run)] == ["model.a[0].b", "model.a[0]", "model"]


def test_parts_of_one_node_must_agree():
    part = Part("encoder", "acme/net", "x:y", "", migrate=f"{__name__}:by_value")
    migration = Migration(Entry(part, "acme", "2"), "1", "model.each")
    with pytest.raises(ValueError, match="the same parameters for each part of one node"):
        migration(TREE, {"each[0].a": torch.tensor(4.0), "each[1].a": torch.tensor(5.0)})


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("heun", {"rho": 7.0}),
        ("euler", {"rho": 7.0}),
        ("dpm-solver++", {"order": 2}),
        ("ancestral", {}),
        ("heun", {"spacing": "trailing", "rho": 7.0, "sigma_min": "auto", "sigma_max": "auto", "clip": True}),
        ("ddim", {"spacing": "trailing", "clip": True}),
    ],
)
def test_a_run_made_before_grids_were_parts_does_what_it_did(name, before, tmp_path):
    """The first four were made before samplers had a `spacing` that left the lowest level out in few steps."""
    prior = use("diffusion", network=use("mlp", width=8, depth=1), schedule="vp", sampler=use(name, steps=5))
    run = train(spec(prior, steps=1), tmp_path / "run")
    assert read_spec(run) == Spec.from_yaml(run.spec_text) and read_spec(run).model["sampler"]["grid"].use in (
        "auto",
        "continuous",
    )

    text = read_spec(run).with_value("model.sampler", use(name, steps=5, **before)).to_yaml()
    (run.path / "spec.yaml").write_text(text)
    (run.path / "modkit.lock").write_text(json.dumps({**run.lock, "spec": hash_data(text)}))
    run = Run.open(run.path)
    assert load_current_spec(run) == read_spec(run)
    model = load(run)
    published = space_noise_levels(None, model.schedule, 5)
    assert torch.equal(model.sampler.times(), published)
    assert not torch.equal(build(spec(prior)).sampler.times(), published)
    changed, _ = apply(read_spec(run), ["model.sampler.grid={use: karras, rho: 1, sigma_min: 0.1, sigma_max: 20}"])
    wanted = space_noise_levels(None, model.schedule, 5, rho=1.0, sigma_min=0.1, sigma_max=20.0)
    assert torch.equal(build(changed).sampler.times(), wanted)
