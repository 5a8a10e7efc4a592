import json
from functools import partial

import pytest

from modkit.runs.hold import Hold
from modkit.runs.tags import read_tags, update_tags
from tests.forks import act_at_once


def test_tags_are_added_removed_and_kept_in_order(tmp_path):
    assert read_tags(tmp_path) == () and not list(tmp_path.iterdir())
    assert update_tags(tmp_path, add=["paper", "a"]) == ("a", "paper")
    assert update_tags(tmp_path, add=["seed=1", "a"], remove=["paper", "absent"]) == ("a", "seed=1")
    assert read_tags(tmp_path) == ("a", "seed=1") and [path.name for path in tmp_path.iterdir()] == ["tags.json"]


@pytest.mark.wide
def test_processes_that_tag_a_run_at_once_lose_no_tag_while_another_trains_it(tmp_path):
    def add(number):
        for turn in range(10):
            update_tags(tmp_path, add=[f"{number}.{turn}"])

    with Hold(tmp_path, pytest.fail):
        act_at_once([partial(add, number) for number in range(4)])
    assert len(read_tags(tmp_path)) == 40 and {path.name for path in tmp_path.iterdir()} == {"tags.json", ".lock"}


@pytest.mark.parametrize("tag", ["", " ", "a,b", "-a", "a\n", "\x1b[31m", "a b"])
def test_a_malformed_tag_is_refused_and_nothing_is_written(tag, tmp_path):
    with pytest.raises(ValueError, match="a tag expects letters, digits"):
        update_tags(tmp_path, add=[tag])
    assert not list(tmp_path.iterdir())


def test_no_link_is_followed(tmp_path):
    (tmp_path / "elsewhere").write_text('{"tags": ["kept"]}')
    run = tmp_path / "run"
    run.mkdir()
    (run / "tags.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"tags\.json is a link, through which nothing is written"):
        update_tags(run, add=["new"])
    assert json.loads((tmp_path / "elsewhere").read_text()) == {"tags": ["kept"]} and (run / "tags.json").is_symlink()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tags": 1}', '{"tags": [1]}', '{"tags": ["\\u001b"]}', "[" * 10**5])
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "tags.json").write_text(text)
    with pytest.raises(ValueError, match=r"tags\.json is damaged"):
        read_tags(tmp_path)


def test_a_kill_leaves_the_former_tags(tmp_path, monkeypatch):
    update_tags(tmp_path, add=["a"])
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        update_tags(tmp_path, add=["b"])
    assert read_tags(tmp_path) == ("a",) and len(list(tmp_path.iterdir())) == 1
