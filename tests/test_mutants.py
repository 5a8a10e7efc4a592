"""With `--full`, the tests that run by default find each fault that is planted in a copy of the library."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.commit import ROOT
from tests.mutants import MUTANTS

COPIED = ("modkit", "tests", "examples", "docs", "conftest.py", "pyproject.toml", "README.md")


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_planted_fault_has_one_place(mutant):
    text = (ROOT / "modkit" / mutant.path).read_text(encoding="utf-8")
    assert text.count(mutant.before) == 1 and mutant.before != mutant.after
    assert all((ROOT / path).exists() for path in mutant.tests)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the library and its tests, which is no repository: nothing in it has changed."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def run_python(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, "-B", *words], cwd=folder, env=environment, capture_output=True, text=True)


def run_tests(folder, *paths):
    return run_python(folder, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *paths)


@pytest.mark.full
def test_the_copy_is_what_is_tested_and_passes(copy):
    code = "import modkit; print(modkit.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    where = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert where.stdout.startswith(str(copy))
    for path in sorted({path for mutant in MUTANTS.values() for path in mutant.tests}):
        done = run_tests(copy, path)
        assert done.returncode == 0, done.stdout


@pytest.mark.full
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_planted_fault_is_found_by_what_runs_by_default(mutant, copy):
    file = copy / "modkit" / mutant.path
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        done = run_tests(copy, *mutant.tests)
    finally:
        file.write_text(text, encoding="utf-8")
    assert done.returncode == 1, done.stdout
