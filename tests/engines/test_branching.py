"""A branch in two processes is what one makes of it."""

from pathlib import Path

import pytest

from modkit import Run, branch, train
from tests.engines import branching
from tests.engines.systems import launch, read_rows
from tests.training.test_branch import SPEC


def test_processes_begin_together_at_the_checkpoint_that_the_first_writes(tmp_path: Path) -> None:
    run = train(SPEC, tmp_path / "run")
    alone = branch(run, tmp_path / "alone", step=2)
    told = launch(tmp_path, [str(run.path)], 2, timeout=120, module=branching.__name__)
    assert all(text.endswith("status 0") for text in told), told
    made = Run.open(tmp_path / "branch")
    assert made.finished and made.kept == alone.kept == ["step-00000002", "step-00000004"]
    assert [row["step"] for row in made.read_metrics()] == [3, 4]
    for one, other in zip(read_rows(made.path), read_rows(alone.path), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
