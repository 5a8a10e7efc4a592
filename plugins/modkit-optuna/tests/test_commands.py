"""The command in a process of its own: what needs no search imports neither torch nor optuna."""

import pytest

from tests.processes import run_python

LIST = """
import sys
from modkit.cli.app import main

sys.argv = ["modkit", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end
assert "modkit_optuna" in sys.modules and not {"torch", "optuna"} & {*sys.modules}
"""


@pytest.mark.parametrize("words", ["list data", "search --help"])
def test_what_needs_no_search_imports_no_optuna(words):
    assert run_python("-c", LIST, *words.split()).stdout
