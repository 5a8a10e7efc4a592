"""What the logger writes."""

import csv
from pathlib import Path

from modkit import Run, Spec, use
from modkit.starters.logger import Table


def test_every_second_step_is_in_the_table(tmp_path: Path) -> None:
    """Under its header, which stands there once though the run is resumed."""
    run = Run.create(tmp_path / "run", Spec(name="tiny", model=use("gan")), {})
    table = Table(every=2)
    for steps in ((0, 1), (2,)):
        table.run_started(run)
        for step in steps:
            table.step_done(run, 0, step, {"player/nll": step / 4})
    with (run.path / "losses.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["stage", "step", "loss", "value"],
        ["0", "0", "player/nll", "0.0"],
        ["0", "2", "player/nll", "0.5"],
    ]
