"""The notebooks are stored without outputs, and do what they say."""

import re
from pathlib import Path

import pytest

import modkit

nbformat = pytest.importorskip("nbformat")
processors = pytest.importorskip("nbconvert.preprocessors")
pytest.importorskip("ipykernel")

FOLDER = Path(modkit.__file__).parents[1] / "examples" / "notebooks"
NAMES = ["first-steps", "own-network", "own-data", "swap-and-compare", "latent-priors", "evaluate"]
SHOWN = {
    "first-steps": ("<progress", "<polyline", "data:image/png", "image/png", "<table>"),
    "own-network": ("<polyline", "image/png", "True"),
    "own-data": ("image/png", "('one', 'zero')"),
    "swap-and-compare": ("no problems", "no network is called", "<table>", "image/png"),
    "latent-priors": ("<polyline", "image/png"),
    "evaluate": ("FD (", "<table>", "image/png"),
}


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_valid_leads_on_and_has_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert not [one for one in notebook.cells if one.cell_type == "code" and (one.outputs or one.execution_count)]
    told = "\n".join(one.source for one in notebook.cells if one.cell_type == "markdown")
    assert told.startswith("# ")
    following = NAMES[NAMES.index(name) + 1 :][:1]
    assert re.findall(r"\(([\w-]+)\.ipynb\)", told) == following


def test_every_notebook_is_known():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "first-steps" else [pytest.mark.wide]) for name in NAMES]
)
def test_a_notebook_shows_what_it_promises(name, tmp_path):
    notebook = read(name)
    processors.ExecutePreprocessor(timeout=300).preprocess(notebook, {"metadata": {"path": tmp_path}})
    outputs = [str(output) for one in notebook.cells if one.cell_type == "code" for output in one.outputs]
    assert not [word for word in SHOWN[name] if not any(word in output for output in outputs)]
