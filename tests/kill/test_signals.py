"""Training that is asked to stop, wherever it is, saves what it has, and goes on as if it had never been asked."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from modkit.runs import checkpoint as store
from tests.kill.forks import Forks, Trained, ask_at

MOMENTS = {
    "first step": ("before backward of stage 0", "at step [12]"),
    "step": ("after step of stage 1", "at step [456]"),
    "writing": ("amid write checkpoints/.step-0000000[24]", "at step"),
    "prepare": ("within prepare of stage 1", "in the preparation of prior/denoiser"),
    "cache": ("after write .*-cache/.*view-0", "in the cache of stage 1"),
    "between stages": ("before copy_to_model of stage 0", "in the preparation of prior/denoiser"),
}
"""The instants of each moment, and where training stops."""
DEFAULT = [("writing", 2), ("prepare", 2), ("cache", 2)]
MORE = [(moment, num) for moment in MOMENTS for num in (1, 2) if (moment, num) not in DEFAULT]


@pytest.mark.wide(1)
@pytest.mark.parametrize(("moment", "num"), [*DEFAULT, *(pytest.param(*case, marks=pytest.mark.full) for case in MORE)])
def test_a_signal_at_any_moment_ends_in_a_checkpoint(
    moment: str,
    num: int,
    forks: Forks,
    unstopped: dict[str, Trained],
    together: dict[str, list[Trained]],
    tmp_path: Path,
):
    pattern, place = MOMENTS[moment]
    whole = together["ldm"] if num == 2 else [unstopped["ldm"]]
    rng = random.Random(f"{moment} {num}")
    asked = 0 if moment == "writing" else rng.randrange(num)  # only the first process writes
    found = [at for at, instant in enumerate(whole[asked].result["instants"]) if re.match(pattern, instant)]
    at = found[0] if moment == "first step" else rng.choice(found)
    fates = [ask_at(at) if rank == asked else {} for rank in range(num)]
    stopped = forks.train_together("ldm", tmp_path / "run", fates=fates)
    assert [one.status for one in stopped] == [0] * num, stopped[0].said
    (told,) = re.findall("modkit: stopped (.*); resume with: .* --resume", stopped[0].said)
    assert re.match(place, told) and not any("stopped" in one.said for one in stopped[1:])
    step = re.fullmatch(r"at step (\d+)", told)
    last = step[1] if step else "3"
    assert store.find_latest(tmp_path / "run" / "checkpoints").name == f"step-{last:>08}"
    resumed = forks.train_together("ldm", tmp_path / "run", "--resume", fates=[{}] * num)
    assert [one.status for one in resumed] == [0] * num, resumed[0].said
    earlier = "checkpoints/step-0000000[^6]"  # of which a run that is not asked keeps others
    assert not [name for name in resumed[0].differing(whole[0]) if not re.match(earlier, name)]


@pytest.mark.wide
@pytest.mark.parametrize("num", [1, pytest.param(2, marks=pytest.mark.full)])
def test_what_is_asked_to_stop_before_there_is_a_checkpoint_begins_again(
    num: int, forks: Forks, unstopped: dict[str, Trained], together: dict[str, list[Trained]], tmp_path: Path
):
    whole = together["ldm"] if num == 2 else [unstopped["ldm"]]
    at = whole[0].result["instants"].index("within prepare of stage 0")
    stopped = forks.train_together("ldm", tmp_path / "run", fates=[ask_at(at), *[{}] * (num - 1)])
    assert [one.status for one in stopped] == [0] * num, stopped[0].said
    assert "stopped in the preparation of autoencoder/" in stopped[0].said
    assert store.find_latest(tmp_path / "run" / "checkpoints") is None
    resumed = forks.train_together("ldm", tmp_path / "run", "--resume", fates=[{}] * num)
    assert [one.status for one in resumed] == [0] * num and not resumed[0].differing(whole[0])
