from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from modkit import Spec, train, use
from modkit.evaluation.report import Report, find_report, locate_report, read_reports
from modkit.runs.files import hash_data
from modkit.types import Score
from tests.forks import act_at_once
from tests.refusals import check_refusal

REPORT = Report({"FD (pixels)": Score(1.5, 0.1, "lower", {"real": 9, "fake": 9})}, {"real": 9, "fake": 9}, 0)


def test_every_choice_of_overrides_has_a_file_of_its_own(tmp_path):
    choices = [
        (),
        ("model.sampler=ddim",),
        ("model.guidance.scale=+2.0",),
        ("model.guidance.scale=-2.0",),
        ("a=[1]",),
        ("a={1}",),
        ("model.sampler=" + 300 * "a",),
        ("model.sampler=" + 300 * "a" + "b",),
    ]
    paths = [locate_report(tmp_path, choice) for choice in choices]
    assert len(set(paths)) == len(choices) and paths[0] == tmp_path / "evaluation.json"
    assert paths[1] == tmp_path / "evaluations" / "model.sampler=ddim.json"
    named = [locate_report(tmp_path, precision="bf16"), locate_report(tmp_path, checkpoint="step-2")]
    both = locate_report(tmp_path, ["a=1"], checkpoint="step-2", precision="bf16")
    assert [path.name for path in (*named, both)] == [
        "precision=bf16.json", "checkpoint=step-2.json", "a=1,checkpoint=step-2,precision=bf16.json"
    ]  # fmt: skip
    assert max(len(path.name) for path in paths) < 255


def test_the_order_of_overrides_and_what_a_later_one_replaces_make_no_difference(tmp_path):
    """The fault: the same overrides in another order had another file, so that `compare` showed one model twice."""
    orders = [("b.steps=2", "a.scale=1"), ("a.scale=1", "b.steps=2"), ("a.scale=3", "b.steps=2", "a.scale=1")]
    paths = {locate_report(tmp_path, order) for order in orders}
    assert [path.name for path in paths] == ["a.scale=1,b.steps=2.json"]


def test_what_is_saved_is_read_back_in_order(tmp_path):
    changed = Report(REPORT.scores, REPORT.counts, 1, overrides=("model.sampler=ddim",))
    for report in (changed, REPORT):
        report.save(tmp_path)
    assert read_reports(tmp_path) == [REPORT, changed]
    (tmp_path / "evaluation.json").write_text("{")
    check_refusal("evaluation.json: Report.from_json expects", read_reports, tmp_path)
    assert read_reports(Path(tmp_path / "nothing")) == []


def test_scores_of_other_metrics_of_the_same_model_are_kept(tmp_path, caplog):
    """The fault: an evaluation by one metric silently replaced the scores of all others."""
    kd = {"KD (pixels)": Score(0.5, None, "lower")}
    first = replace(REPORT, floor={"FD (pixels)": Score(0.1)}, notes=("few",), checkpoint="step-2", spec="a")
    second = replace(first, scores=kd, floor={}, notes=("far",), counts={"fake": 9}, settings={"metrics": ["kd"]})
    for report in (first, second):
        path = report.save(tmp_path)
    found = Report.read(path)
    assert list(found.scores.items()) == [*first.scores.items(), *kd.items()] and found.floor == first.floor
    assert found.counts == first.counts and found.settings == second.settings
    assert found.notes == ("few", "far", "measured earlier, in the same way: FD (pixels)")
    first.save(tmp_path)
    found = Report.read(path)
    assert found.notes == ("few", "far", "measured earlier, in the same way: KD (pixels)") and len(found.scores) == 2
    assert not caplog.records and list(tmp_path.iterdir()) == [path]


def test_processes_that_save_reports_at_once_lose_no_score(tmp_path):
    def save(number):
        for turn in range(5):
            replace(REPORT, scores={f"score {number}.{turn}": Score(1.0, None, "lower")}).save(tmp_path)

    act_at_once([partial(save, number) for number in range(4)])
    (report,) = read_reports(tmp_path)
    assert len(report.scores) == 20


def test_scores_are_kept_by_what_was_measured_not_by_how_it_was_asked_for(tmp_path, caplog):
    """The fault: `-n 360`, where 360 is the default, features, k or scores per class deleted all other scores."""
    asked = {
        "KD (pixels)": {"num": 9},
        "IS (classifier:digits)": {"features": "classifier:digits"},
        "FD (pixels), class 1": {"per_class": True},
        "precision (pixels)": {"k": 3},
    }
    counts = {"fake": 9, "of classes": 7}  # of other sets than before
    REPORT.save(tmp_path)
    for name, settings in asked.items():
        path = replace(REPORT, scores={name: Score(1.0)}, counts=counts, settings=settings).save(tmp_path)
    again = {"precision (pixels)": Score(2.0, settings={"k": 5})}
    replace(REPORT, scores=again).save(tmp_path)
    found = Report.read(path)
    assert set(found.scores) == {*REPORT.scores, *asked} and not caplog.records
    assert found.scores["precision (pixels)"] == again["precision (pixels)"] and found.counts["of classes"] == 7


@pytest.mark.parametrize(
    ("change", "other"),
    [
        ({"checkpoint": "step-3"}, "checkpoint"),
        ({"spec": "b"}, "spec"),
        ({"data": "d"}, "data"),
        ({"seed": 1, "settings": {"seed": 1}}, "seed"),
        ({"counts": {"real": 4, "fake": 4}, "settings": {"num": 4, "metrics": ["kd"]}}, "counts"),
        ({"settings": {"raw": True, "metrics": ["kd"]}}, "options"),
    ],
)
def test_what_another_evaluation_replaces_is_named(tmp_path, caplog, change, other):
    first = replace(REPORT, checkpoint="step-2", spec="a")
    first.save(tmp_path)
    second = replace(first, scores={"KD (pixels)": Score(0.5)}, **change)
    path = second.save(tmp_path)
    assert Report.read(path) == second
    said = f"{path} was the report of step-2, seed 0: FD (pixels); it is replaced by one with other {other}"
    assert caplog.messages == [said]


def test_another_checkpoint_and_precision_have_files_of_their_own(tmp_path):
    asked = [{}, {"checkpoint": "best"}, {"precision": "bf16"}, {"precision": "bf16", "checkpoint": "step-1"}]
    for settings in asked:
        checkpoint = "step-1" if "checkpoint" in settings else "step-2"
        replace(REPORT, checkpoint=checkpoint, settings=settings).save(tmp_path)
    assert [report.settings for report in read_reports(tmp_path)] == [asked[0], asked[3], asked[1], asked[2]]


@pytest.mark.parametrize(
    "old, new",
    [
        ('"value": 1.5', '"value": NaN'),
        ('"error": 0.1', '"error": "much"'),
        ('"better": "lower"', '"better": "red"'),
        ('"format": 1', '"format": 2'),
    ],
)
def test_a_score_that_is_none_is_refused(old, new):
    text = REPORT.to_json()
    assert old in text
    check_refusal("Report.from_json expects what Report.to_json wrote", Report.from_json, text.replace(old, new))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "scores": 3}'])
def test_what_is_no_report_is_refused(text):
    check_refusal("Report.from_json expects what Report.to_json wrote", Report.from_json, text)


def test_the_report_that_is_found_is_that_of_the_last_checkpoint_by_the_present_spec(tmp_path):
    settings = {"steps": 2, "batch_size": 4, "device": "cpu", "checkpoints": {"every": 1, "keep": 2}}
    run = train(Spec(model=use("gan", z_dim=2), data=use("ring", num=8, num_test=8), train=settings), tmp_path / "run")
    *_, before, last = run.kept
    assert find_report(run) is None

    def save(checkpoint, spec, *overrides):
        replace(REPORT, checkpoint=checkpoint, spec=spec, overrides=overrides).save(run.path)

    spec = hash_data(run.spec_text)
    save(last, spec, "model.x=1")
    assert find_report(run) is None
    assert find_report(run, ["model.x=1"]).overrides == ("model.x=1",)
    save(last, spec, "model.a=1", "model.b=1")
    path = locate_report(run.path, ["model.b=1", "model.a=1"])
    path.rename(path.with_name("model.b=1,model.a=1.json"))  # by an earlier version, which kept the order
    assert find_report(run, ["model.b=1", "model.a=1"]).overrides == ("model.a=1", "model.b=1")
    for checkpoint, of, there in [(last, spec, True), (last, None, True), (last, "0", False), (before, spec, False)]:
        save(checkpoint, of)
        assert (find_report(run) is not None) == there
    assert find_report(run, checkpoint=before).checkpoint == before
    replace(REPORT, checkpoint=last, spec=spec, settings={"checkpoint": "best"}, seed=7).save(run.path)
    assert find_report(run).seed == 7  # the checkpoint that was asked for is the last
    locate_report(run.path).write_text("{")
    check_refusal("evaluation.json: Report.from_json expects", find_report, run)
