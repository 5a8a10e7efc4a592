"""Kernels under Triton's interpreter: one process for all, since it interprets for a whole process."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

MISSING = importlib.util.find_spec("triton") is None


@pytest.mark.wide
@pytest.mark.skipif(MISSING and "CI" not in os.environ, reason="Triton is not installed")
def test_kernels_compute_what_their_references_do(request):
    environment = os.environ | {"TRITON_INTERPRET": "1", "MODKIT_OPS": "triton"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.ops.interpreted"]
    command += ["--full"] * request.config.getoption("--full")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    failures = json.loads(done.stdout)["failures"]
    assert not failures, "\n".join(f"{name}: {said}" for name, said in failures.items())
