"""Processes of a study do not outlive it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from examples.studies.pool import make_pool

ROOT = Path(__file__).parents[2]
STUDY = """
import os, sys, time
from examples.studies.pool import make_pool

if __name__ == "__main__":
    with make_pool(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_a_pool_gives_results():
    with make_pool(2) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]


def test_a_process_ends_with_a_study_that_is_killed(tmp_path):
    (tmp_path / "study.py").write_text(STUDY)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    study = subprocess.Popen(
        [sys.executable, tmp_path / "study.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    with study:
        worker = int(study.stdout.readline())
        study.send_signal(signal.SIGKILL)
    for _ in range(600):
        if not _is_alive(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the process goes on")


def _is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")  # where nobody reaps it, it is a zombie
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
