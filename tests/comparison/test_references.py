"""Data sets by name."""

from modkit.comparison.references import name_references
from modkit.specs.node import Node


def test_a_data_set_has_the_shortest_name_that_tells_it_apart():
    digits = {"use": "digits", "num": 3}
    named = name_references(
        {
            "a": Node({"use": "ring", "modes": 8}),
            "b": Node({**digits, "size": 8}),
            "c": Node({**digits, "size": 16}),
        }
    )
    assert named == {"a": "ring", "b": "digits size=8", "c": "digits size=16"}


def test_a_folder_whose_files_have_changed_is_named_by_its_content():
    folder = Node({"use": "images", "path": "pictures"})
    keys = [letter * 64 for letter in "ab"]
    assert name_references(dict.fromkeys(keys, folder)) == {key: f"images with content {key[:8]}" for key in keys}
    assert name_references({"x": folder, "y": None}) == {"x": "images", "y": "null"}
