from dataclasses import replace
from pathlib import Path

import pytest

from modkit import Spec, train, use
from modkit.evaluation.report import Report, find_report, locate_report, read_reports
from modkit.runs.files import hash_data
from modkit.types import Score
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
    assert max(len(path.name) for path in paths) < 255


def test_what_is_saved_is_read_back_in_order(tmp_path):
    changed = Report(REPORT.scores, REPORT.counts, 1, overrides=("model.sampler=ddim",))
    for report in (changed, REPORT):
        report.save(tmp_path)
    assert read_reports(tmp_path) == [REPORT, changed]
    (tmp_path / "evaluation.json").write_text("{")
    check_refusal("evaluation.json: Report.from_json expects", read_reports, tmp_path)
    assert read_reports(Path(tmp_path / "nothing")) == []


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
    for checkpoint, of, there in [(last, spec, True), (last, None, True), (last, "0", False), (before, spec, False)]:
        save(checkpoint, of)
        assert (find_report(run) is not None) == there
    assert find_report(run, checkpoint=before).checkpoint == before
    locate_report(run.path).write_text("{")
    check_refusal("evaluation.json: Report.from_json expects", find_report, run)
