"""What later calls of a run write, where overrides repeat, edits are undone, or a swap has dropped a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modkit import Run, Spec, SpecError, train
from modkit.runs.layout import LOCK
from modkit.runs.lock import encode

TEXT = """\
name: tiny
data: {use: ring, num: 64, num_test: 16}
model:
  use: diffusion
  network: {use: mlp, width: 8, depth: 1}
  sampler: {use: heun, steps: 3}
train: {steps: 2, batch_size: 16, device: cpu, log: {every: 1}, samples: {every: 9}}
"""
SHORT = TEXT.replace("  sampler: {use: heun, steps: 3}\n", "")
STAGED = """\
name: staged
data: {use: ring, num: 64, num_test: 16}
model:
  use: latent
  autoencoder:
    encoder: {use: mlp, width: 8, depth: 1}
    decoder: {use: mlp, width: 8, depth: 1}
    bottleneck: {use: gaussian, channels: 2}
  prior: {use: diffusion, network: {use: mlp, width: 8, depth: 1}}
train:
  batch_size: 16
  device: cpu
  samples: {every: 99}
  stages:
    - {players: [autoencoder/*], steps: 1}
    - {players: [prior/denoiser], steps: 1}
    - {players: [prior/*], steps: 4, ema: 0.9}
    - {players: [prior/*], steps: 2, ema: 0.99}
"""
SWAP = "model.prior={use: gan, generator: {use: mlp, width: 8}, discriminator: {use: mlp, width: 8}}"
LONGER = STAGED.replace("steps: 2,", "steps: 3,")


def trained(folder: Path, text: str, *overrides: str, **options: Any) -> Run:
    return train(Spec.from_yaml(text), folder, overrides=overrides, evaluate=False, **options)


def resumed(run: Run, text: str, *overrides: str) -> Spec:
    """The spec of the run after it was resumed."""
    return Spec.from_yaml(trained(run.path, text, *overrides, resume=True).spec_text)


def list_steps(spec: Spec) -> list[Any]:
    stages: Any = spec.at("train.stages")
    return [stage["steps"] for stage in stages]


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (LONGER, ()),
        (LONGER, (SWAP,)),
        (STAGED, ("train.stages[3].steps=3",)),
        (STAGED, (SWAP, "train.stages[3].steps=3")),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_indices_count_in_the_spec_where_a_swap_has_dropped_a_stage(
    kept: bool, text: str, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """The faults: another stage was lengthened, and of the last one it was said that there is none."""
    run = trained(tmp_path / "run", STAGED, SWAP)
    if not kept:  # by an earlier version
        del run.lock["written"]["dropped"]
        (run.path / LOCK).write_bytes(encode(run.lock))
    spec = resumed(run, text, *overrides)
    assert list_steps(spec) == [1, 4, 3]
    assert list_steps(resumed(run, text, *overrides)) == [1, 4, 3]


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("text", "overrides"),
    [(STAGED.replace("steps: 4", "steps: 9"), ()), (STAGED, ("train.stages[2].steps=9",))],
)
def test_a_stage_that_has_ended_is_refused_by_its_index_in_the_spec(
    text: str, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    run = trained(tmp_path / "run", STAGED, SWAP)
    with pytest.raises(SpecError, match=r"stages\[1\]\.steps: got 9 in a run that has trained with 4") as error:
        resumed(run, text, *overrides)
    assert (error.value.problems[0].position or "") and (overrides or error.value.problems[0].position.line == 17)


@pytest.mark.wide
def test_indices_count_in_the_runs_own_spec_where_that_is_given(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", STAGED, SWAP)
    assert list_steps(resumed(run, run.spec_text, "train.stages[2].steps=3")) == [1, 4, 3]
    assert list_steps(resumed(run, STAGED, "train.stages[3].steps=4")) == [1, 4, 4]


@pytest.mark.wide
def test_what_a_swap_has_dropped_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = trained(tmp_path / "run", STAGED, SWAP)
    caplog.clear()
    text = STAGED.replace("[prior/denoiser], steps: 1", "[prior/denoiser], steps: 7")
    assert list_steps(resumed(run, text, "train.stages[1].ema=0.5")) == [1, 4, 2]
    told = "changes nothing, since a swap dropped it when the run was made"
    assert caplog.messages == [f"{run.path}: train.stages[1].{name} {told}" for name in ("steps", "ema")]


def test_what_is_told_a_part_that_was_swapped_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The fault: it was refused as an unknown key of the part that took its place."""
    text = TEXT.replace("{use: heun, steps: 3}", "{use: ddim, steps: 3, eta: 0.5}")
    run = trained(tmp_path / "run", text, "model.sampler=heun")
    caplog.clear()
    spec = resumed(run, text.replace("3, eta: 0.5", "4, eta: 0.7"))
    assert (spec.at("model.sampler.use"), spec.at("model.sampler.steps")) == ("heun", 4)
    told = "changes nothing, since an override of an earlier call made model.sampler heun, which has no eta"
    assert caplog.messages == [f"{run.path}: model.sampler.eta {told}"]


@pytest.mark.wide
def test_an_edit_of_the_spec_can_be_undone(tmp_path: Path) -> None:
    """The fault: what was edited was compared with the first call, so that nothing seemed to have changed."""
    run = trained(tmp_path / "run", TEXT)
    assert resumed(run, TEXT.replace("heun, steps: 3", "ddim, steps: 4")).at("model.sampler.use") == "ddim"
    assert resumed(run, TEXT).at("model.sampler.steps") == 3
    assert len(Run.open(run.path).revisions) == 2
    with pytest.raises(SpecError, match=r"train\.steps: got 2 in a run that has trained with 3, expected at least"):
        resumed(run, TEXT.replace("steps: 2", "steps: 3"))
        resumed(run, TEXT)


@pytest.mark.wide
def test_what_is_taken_out_of_the_spec_has_its_default_again(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", SHORT, "train.log.every=5")
    before = Spec.from_yaml(run.spec_text).at("model.sampler")
    assert resumed(run, TEXT, "train.steps=3").at("model.sampler.steps") == 3
    spec = resumed(run, SHORT)
    assert spec.at("model.sampler") == before and spec.at("train.steps") == 3
    assert resumed(run, SHORT.replace("log: {every: 1}, ", "")).at("train.log.every") == 5  # that of the first call


def test_a_part_that_is_taken_out_of_the_spec_stays_where_its_parameters_were_overridden(tmp_path: Path) -> None:
    """The fault: the default part, which had no such parameter, got it."""
    run = trained(tmp_path / "run", TEXT, "model.sampler.churn=0.5")
    spec = resumed(run, SHORT)
    assert (spec.at("model.sampler.use"), spec.at("model.sampler.churn")) == ("heun", 0.5)


@pytest.mark.wide
def test_an_edit_that_adds_a_mapping_keeps_what_was_overridden_in_it(tmp_path: Path) -> None:
    """The fault: the mapping took the place of the run's, and all but the last checkpoints were deleted."""
    run = trained(tmp_path / "run", TEXT, "train.checkpoints.keep=9", "train.checkpoints.every=1")
    spec = resumed(run, TEXT.replace("steps: 2, ", "steps: 4, checkpoints: {every: 2}, "))
    assert [spec.at(f"train.checkpoints.{key}") for key in ("every", "keep")] == [2, 9]
    kept = sorted(path.name[-1] for path in (run.path / "checkpoints").glob("step-*"))
    assert kept == ["0", "1", "2", "4"]
    spec = resumed(run, TEXT.replace("steps: 2, ", "steps: 4, "))
    assert [spec.at(f"train.checkpoints.{key}") for key in ("every", "keep")] == [1, 9]


LINKED = TEXT.replace("log: {every: 1}", "log: {every: 1}, checkpoints: {every: '${train.log.every}'}")


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("text", "overrides"), [(LINKED.replace("{every: 1}", "{every: 3}"), ()), (LINKED, ("train.log.every=3",))]
)
def test_a_reference_follows_what_an_edit_or_override_changes(
    text: str, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """The fault: the run's spec kept the value that the reference had at first."""
    run = trained(tmp_path / "run", LINKED)
    assert [resumed(run, text, *overrides).at(f"train.{key}.every") for key in ("log", "checkpoints")] == [3, 3]


@pytest.mark.wide
def test_a_reference_to_the_steps_follows_them_and_what_may_not_change_is_refused(tmp_path: Path) -> None:
    stages = "stages: [{players: ['*'], steps: '${train.steps}'}]"
    text = TEXT.replace("batch_size: 16", f"{stages}, batch_size: '${{train.samples.num}}'")
    text = text.replace("samples: {every: 9}", "samples: {every: 9, num: 16}")
    run = trained(tmp_path / "run", text)
    assert list_steps(resumed(run, text.replace("steps: 2,", "steps: 4,"))) == [4]
    assert Run.open(run.path).read_metrics()[-1]["step"] == 4
    with pytest.raises(SpecError, match=r"train\.batch_size: got 32 in a run that has trained with 16"):
        resumed(run, text.replace("num: 16}", "num: 32}"))
    assert list_steps(resumed(run, text, "train.stages[0].steps=5", "train.steps=6")) == [5]


@pytest.mark.wide
def test_a_job_may_repeat_its_command_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The fault: after another call had lengthened the run, the first one was refused."""
    job = ("train.steps=1", "model.sampler.steps=2")
    run = trained(tmp_path / "run", TEXT, *job)
    resumed(run, TEXT, "train.steps=3", "model.sampler=ddim")
    caplog.clear()
    spec = resumed(run, TEXT, *job)
    assert spec.at("train.steps") == 3 and spec.at("model.sampler.use") == "ddim"
    assert caplog.messages == [
        f"{run.path}: train.steps stays 3, set by a later call; this one repeats the overrides of the first one, where "
        "it was 1"
    ]
    spec = resumed(run, TEXT.replace("steps: 3", "steps: 9"), *job, "train.log.every=2")
    assert spec.at("model.sampler.steps") == 2 and spec.at("train.log.every") == 2  # what a job overrides is no edit
    assert resumed(run, TEXT, job[1], "train.steps=4").at("train.steps") == 4


@pytest.mark.wide
def test_what_a_later_call_has_overridden_can_be_set_back(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", TEXT, "train.workers=0", "model.sampler.steps=2")
    for steps in (5, 2):
        assert resumed(run, TEXT, f"model.sampler.steps={steps}").at("model.sampler.steps") == steps


@pytest.mark.wide(1)
@pytest.mark.parametrize("value", [7, {"spec": 7, "overrides": []}, {"spec": "", "overrides": [], "dropped": [7]}])
def test_what_no_call_has_written_is_refused(value: Any, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", TEXT)
    resumed(run, TEXT, "train.steps=3")
    lock = Run.open(run.path).lock
    lock["revisions"][0]["written"] = value
    (run.path / LOCK).write_bytes(encode(lock))
    with pytest.raises(ValueError, match="expected `written` to hold a spec and its overrides, got"):
        resumed(run, TEXT)
