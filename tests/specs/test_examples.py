"""The example specs by name; their figures are the gallery's."""

import json
import re
from pathlib import Path

import pytest

import modkit
from modkit.specs import examples
from modkit.specs.examples import find_spec_file, list_examples
from tests.command import run

ROOT = Path(__file__).parents[2]


def test_every_example_says_what_it_is_and_how_long_the_gallery_trained_it():
    page = "".join(path.read_text("utf-8") for path in (ROOT / "docs" / "gallery").glob("*.md"))
    trained = re.findall(r"`modkit train examples/(.+)\.yaml`: .+ steps, ([\d.]+) (s|min)", page)
    minutes = {
        f"example:{name}": max(1, round(float(time) / (60 if unit == "s" else 1))) for name, time, unit in trained
    }
    found = list_examples()
    assert {one.spec: one.minutes for one in found} == minutes
    assert [one.path for one in found] == sorted((ROOT / "examples").glob("*.yaml"))
    assert all(len(one.summary) > 6 for one in found)


def test_an_example_needs_no_clone(tmp_path, monkeypatch):
    """The wheel has them in the package."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "tiny.yaml").write_text("name: tiny  # 2 min: a VAE of é\n", "utf-8")
    monkeypatch.setattr(examples, "_PACKAGE", tmp_path)
    assert list_examples() == [("example:tiny", 2, "a VAE of é", tmp_path / "examples" / "tiny.yaml")]


def test_commands_list_print_and_check_examples_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = {row["spec"]: row for row in json.loads(run("examples", "--json")[0])}
    assert {"spec": "example:vae", "minutes": 1, "summary": "a VAE of digits"}.items() <= rows["example:vae"].items()
    assert re.search(r"example:vae +1 +a VAE of digits\n", re.sub(r" +\n", "\n", run("examples")[0]))
    text = (ROOT / "examples" / "vae.yaml").read_text("utf-8")
    assert run("examples", "vae")[0] == text
    (tmp_path / "vae.yaml").write_text(text, "utf-8")
    assert run("check", "example:vae", "train.seed=3")[0] == run("check", "vae.yaml", "train.seed=3")[0]
    assert run("diff", "example:vae", "vae.yaml")[0] == "no difference\n"


@pytest.mark.wide
def test_an_example_trains_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("train", "example:vae", "--steps", 1, "--no-evaluate")
    assert modkit.Run.open("runs/vae").status == "finished"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lmd", r"got 'lmd' \(did you mean 'ldm'\?\)"),
        ("../vae", r"got '\.\./vae'"),
        ("", r"got '' \(`modkit ex"),
    ],
)
def test_an_unknown_example_is_refused(name, said):
    with pytest.raises(modkit.SpecError, match=rf"^example: expects the name of an example, {said}"):
        modkit.load_spec(f"example:{name}")


def test_a_file_of_such_a_name_is_reached_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_spec_file("./example:vae") == "./example:vae"
