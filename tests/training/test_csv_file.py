import csv
from dataclasses import replace

import pytest

from modkit import Run, train, use
from modkit.training.csv_file import CSVFile
from tests.play import MLP, spec

VAE = use("autoencoder", **MLP)


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", spec(VAE), {}) as run:
        yield run


def feed(run, logger, rows):
    """Logs rows as the trainer does: first in the run, then with the logger."""
    for row in rows:
        run.log(row)
        if "losses" in row:
            logger.step_done(
                run=run, stage=row["stage"], step=row["step"], losses=row["losses"], measures=row["measures"]
            )
        else:
            logger.scores_ready(run=run, step=row["step"], scores=row["scores"])


ROWS = (
    {"stage": 0, "step": 1, "losses": {"vae/nll": 0.1, "vae/kl": 1e-30}, "measures": {}},
    {"stage": 0, "step": 2, "losses": {"vae/nll": 2.0}, "measures": {"gradient_norm/vae": 3.5}},
    {"stage": 0, "step": 2, "scores": {"fd": 41.5}},
    {"stage": 1, "step": 3, "scores": {"fd": 40.5}},
    {"stage": 1, "step": 4, "losses": {"prior/denoising": 1 / 3}, "measures": {}},
    {"stage": 1, "step": 4, "scores": {"fd": 39.0}},
)
TABLE = """\
stage,step,vae/nll,vae/kl,gradient_norm/vae,scores/fd,prior/denoising
0,1,0.1,1e-30,,,
0,2,2.0,,3.5,41.5,
1,3,,,,40.5,
1,4,,,,39.0,0.3333333333333333
"""


def test_a_row_is_a_step_and_columns_grow(run):
    logger = CSVFile()
    logger.run_started(run)
    assert (run.path / "metrics.csv").read_text() == "stage,step\n"
    feed(run, logger, ROWS)
    assert (run.path / "metrics.csv").read_text() == TABLE


@pytest.mark.parametrize("num", range(len(ROWS) + 1))
def test_a_run_resumed_after_any_row_has_the_same_table(run, num):
    lost = CSVFile()
    lost.run_started(run)
    feed(run, lost, ROWS[:num])
    mark = run.mark()
    feed(run, lost, ROWS[num:])
    run.cut(mark)
    logger = CSVFile()
    logger.run_started(run)
    feed(run, logger, ROWS[num:])
    assert (run.path / "metrics.csv").read_text() == TABLE


@pytest.mark.parametrize("resumed", [False, True])
def test_losses_are_thinned_and_scores_are_not(run, resumed):
    logger = CSVFile(file="few.csv", every=4)
    logger.run_started(run)
    feed(run, logger, ROWS)
    if resumed:
        CSVFile(file="few.csv", every=4).run_started(run)
    rows = "0,2,41.5,\n1,3,40.5,\n1,4,39.0,0.3333333333333333\n"
    assert (run.path / "few.csv").read_text() == f"stage,step,scores/fd,prior/denoising\n{rows}"


@pytest.mark.wide
def test_an_interrupted_run_has_the_same_table_as_a_whole_one(tmp_path, monkeypatch):
    settings = {"steps": 5, "loggers": [use("csv")], "checkpoints": {"every": 2}}
    watch = {"every": 3, "num": 8, "metrics": ["sliced-wasserstein"]}
    given = replace(spec(VAE, **settings), evaluate={"features": "pixels", "watch": watch})
    whole = train(given, tmp_path / "whole", evaluate=False)
    table = (whole.path / "metrics.csv").read_bytes()
    rows = list(csv.DictReader(table.decode().splitlines()))
    metrics = [(row["step"], row["losses"]["autoencoder/nll"]) for row in whole.read_metrics() if "losses" in row]
    assert [(int(row["step"]), float(row["autoencoder/nll"])) for row in rows] == metrics and len(rows) == 5
    assert [row["step"] for row in rows if row["scores/sliced W1 (pixels)"]] == ["3", "5"]

    step_done = CSVFile.step_done

    def interrupt(self, run, stage, step, losses, measures):
        step_done(self, run, stage, step, losses, measures)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(CSVFile, "step_done", interrupt)
        train(given, tmp_path / "killed", evaluate=False)
    assert (tmp_path / "killed" / "metrics.csv").read_text().splitlines()[-1].startswith("0,4,")
    train(given, tmp_path / "killed", resume=True, evaluate=False)
    assert (tmp_path / "killed" / "metrics.csv").read_bytes() == table


def test_nothing_is_written_through_a_link(run, tmp_path):
    logger = CSVFile()
    logger.run_started(run)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (run.path / "metrics.csv").unlink()
    (run.path / "metrics.csv").symlink_to(elsewhere)
    for row in ({"vae/nll": 1.0}, {}):
        with pytest.raises(ValueError, match="metrics.csv is a link, through which nothing is written"):
            logger.step_done(run, 0, 1, row, {})
    with pytest.raises(ValueError, match="metrics.csv is a link, through which nothing is written"):
        CSVFile().run_started(run)
    assert elsewhere.read_text() == "mine"


@pytest.mark.parametrize("file", ["metrics.jsonl", "a/b.csv", "../b.csv", ".csv"])
def test_a_file_that_is_not_its_own_is_refused(file):
    with pytest.raises(ValueError, match="CSVFile expects a plain file name that ends in .csv, got"):
        CSVFile(file=file)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="CSVFile expects every to be at least 1, got 0"):
        CSVFile(every=0)
