import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from modkit.building.checker import check
from modkit.building.graph import LETTER, LINE, draw, find_owner
from modkit.building.graph_svg import render_svg
from modkit.models.player import Player
from modkit.specs.load import load_spec
from tests.command import run

EXAMPLES = Path(__file__).parents[2] / "examples"
SVG = "{http://www.w3.org/2000/svg}"
SOME = ("ldm-class", "vqvae2", "d2gan-ring", "gmm-prior")


@cache
def report(name):
    return check(load_spec(EXAMPLES / f"{name}.yaml"))


def rectangle(one):
    if hasattr(one, "path"):
        return one.x, one.y, one.x + one.width, one.y + one.height
    return one.x, one.y, one.x + max(map(len, one.lines)) * LETTER, one.y + len(one.lines) * LINE


def apart(a, b):
    (left, top, right, bottom), (x, y, to_x, to_y) = rectangle(a), rectangle(b)
    return right <= x or to_x <= left or bottom <= y or to_y <= top


def within(a, b):
    (left, top, right, bottom), (x, y, to_x, to_y) = rectangle(a), rectangle(b)
    return x <= left and y <= top and right <= to_x and bottom <= to_y


def overlaps(drawn):
    """Boxes that overlap without one being in the other as its part, words over them, and what lies outside."""
    found = []
    for a, b in itertools.combinations(drawn.boxes, 2):
        nested = b.path.startswith(f"{a.path}.")
        if not (within(b, a) and b.y >= a.y + len(a.lines) * LINE if nested else apart(a, b)):
            found.append((a, b))
    for note in drawn.notes:
        found += [(note, box) for box in drawn.boxes if not (apart(note, box) or within(note, box))]
        inner = [box for box in drawn.boxes if within(note, box)]
        found += [(note, box) for box in inner if note.y < box.y + len(box.lines) * LINE]
        found += [(note, other) for other in drawn.notes if other is not note and not apart(note, other)]
    every = (*drawn.boxes, *drawn.notes)
    return found + [one for one in every if rectangle(one)[2] > drawn.width or rectangle(one)[3] > drawn.height]


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", SOME)
def test_boxes_are_nested_as_the_parts_are_and_nothing_overlaps(name):
    drawn = draw(report(name))
    assert [box.path for box in drawn.boxes].count("data") == 1
    assert sorted(box.path for box in drawn.boxes if box.path != "data") == sorted(p.path for p in report(name).ports)
    assert overlaps(drawn) == []


def test_the_test_of_overlaps_finds_them():
    drawn = draw(report("ldm-class"))
    moved = [replace(box, y=box.y - 40) if box.path.endswith("decoder") else box for box in drawn.boxes]
    assert overlaps(replace(drawn, boxes=tuple(moved)))
    assert overlaps(replace(drawn, notes=tuple(replace(note, x=note.x + 60) for note in drawn.notes)))


def test_an_arrow_leads_from_what_feeds_a_part_with_the_type_beside_it():
    drawn = draw(report("ldm-class"))
    box = {box.path: box for box in drawn.boxes}

    def between(above, below):
        upper, lower = box[above], box[below]
        (arrow,) = [one for one in drawn.arrows if (one.y, one.to_y) == (upper.y + upper.height, lower.y)]
        assert arrow.x == arrow.to_x and lower.x < arrow.x < lower.x + lower.width
        return [note.lines for note in drawn.notes if arrow.x < note.x and arrow.y <= note.y < arrow.to_y]

    inside = "model.autoencoder"
    assert between("data", "model") == [("x 1×16×16 in [-1, 1]",)]
    assert between(f"{inside}.encoder", f"{inside}.bottleneck") == [("h 32×8×8 unbounded",)]
    assert between(f"{inside}.bottleneck", f"{inside}.decoder") == [("z 1×8×8 unbounded",)]
    assert between(inside, "model.prior") == [("x 1×8×8 unbounded",)]
    network = box["model.prior.network"]
    level = [one for one in drawn.arrows if network.y <= one.y == one.to_y <= network.y + network.height]
    (entering,) = [one for one in level if one.to_x == network.x]
    (leaving,) = [one for one in level if one.x == network.x + network.width]
    prior = box["model.prior"]
    assert (entering.x, leaving.to_x) == (prior.x, prior.x + prior.width)
    told = [note.lines for note in drawn.notes if prior.x < note.x < network.x and note.y == network.y]
    assert told == [("x 1×8×8 unbounded", "cond vector 128, time")]


def test_boxes_say_slot_part_and_parameters_and_have_their_player_s_colour():
    found = report("ldm-class")
    root = ET.fromstring(render_svg(found, "ldm"))
    groups = {group.find(f"{SVG}title").text.partition(",")[0]: group for group in root.iter(f"{SVG}g")}
    network = groups["model.prior.network"]
    assert [text.text for text in network.iter(f"{SVG}text")] == ["network: mlp", "1,194,208 parameters"]
    legend = {text.text: rect for rect, text in itertools.pairwise(root) if rect.tag == f"{SVG}rect"}
    (title, autoencoder, prior) = [text for text in legend if text]
    assert (title, autoencoder) == ("ldm: 1,337,139 parameters", "autoencoder/autoencoder: stage 0 (300 steps)")
    assert prior == "prior/denoiser: stage 1 (2,500 steps)"
    assert network.find(f"{SVG}rect").get("fill") == legend[prior].get("fill") != legend[autoencoder].get("fill")
    assert groups["model.autoencoder.encoder"].find(f"{SVG}rect").get("fill") == legend[autoencoder].get("fill")
    assert groups["model.prior.schedule"].find(f"{SVG}rect").get("fill") == "none"


def test_a_part_belongs_to_the_player_that_owns_the_module_it_is_in():
    found = report("vqvae2")
    assert find_owner(found, "model.autoencoder.bottleneck.level[1]") == "autoencoder/autoencoder"
    assert find_owner(found, "model.prior.levels[1].network") == "prior/level-1/network"
    assert find_owner(found, "model.autoencoder") is None
    other = replace(found, players=(Player("of another", ("prior.level",)),))
    assert find_owner(other, "model.prior.levels[1].network") is None


def test_what_nobody_trains_is_dashed_what_is_unchecked_says_so_and_many_players_differ():
    found = report("d2gan-ring")
    frozen = replace(found, players=(), unchecked={"model.generator": "it wants values"})
    text = render_svg(frozen, "frozen").decode()
    assert "no player: parameters are not trained" in text and text.count('stroke-dasharray="4 3"') == 4
    assert ">unchecked<" in text
    many = replace(found, players=tuple(Player(f"player-{i}", (f"discriminators.d{i}",)) for i in range(13)))
    root = ET.fromstring(render_svg(many, "many"))
    styles = {(r.get("fill"), r.get("stroke-dasharray")) for r in root.findall(f"{SVG}rect") if r.get("fill-opacity")}
    assert len(styles) == 13


def test_names_are_escaped_and_the_file_is_a_function_of_the_report():
    found = report("gmm-prior")
    odd = replace(found, ports=tuple(replace(port, name=f'{port.name}<&"\x07') for port in found.ports))
    root = ET.fromstring(render_svg(odd, "</svg>"))
    assert root.find(f"{SVG}text").text.startswith("</svg>: ")
    assert 'model: latent<&"\ufffd' in [text.text for text in root.iter(f"{SVG}text")]
    assert render_svg(found, "name") == render_svg(found, "name")


def luminance(colour):
    parts = [value / 255 for value in colour]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear))


def rgb(text):
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]


def test_text_is_readable_on_every_fill_in_light_and_dark():
    many = replace(report("d2gan-ring"), players=tuple(Player(f"p{i}", ("x",)) for i in range(6)))
    root = ET.fromstring(render_svg(many, "many"))
    fills = {rect.get("fill") for rect in root.findall(f"{SVG}rect") if rect.get("fill-opacity")}
    themes = root.find(f"{SVG}style").text.split("@media (prefers-color-scheme: dark)")
    assert len(fills) == 6 and len(themes) == 2
    for theme in themes:
        ground, words = (rgb(theme.split(f"{name} {{ fill: ")[1]) for name in (".ground", "text"))
        for fill in fills:
            below = ground
            for _ in range(3):  # a box in a box in a box
                below = [0.14 * over + 0.86 * under for over, under in zip(rgb(fill), below)]
                high, low = sorted((luminance(words), luminance(below)), reverse=True)
                assert (high + 0.05) / (low + 0.05) > 4.5  # WCAG 2.2, level AA


def test_check_writes_the_graph_once_all_is_checked(tmp_path):
    spec, out = EXAMPLES / "d2gan-ring.yaml", tmp_path / "new" / "graph.svg"
    said = run("check", spec, "--graph", tmp_path / "graph.png", status=2)[1]
    assert "--graph expects a file ending in .svg, got" in said
    run("check", spec, "model.generator=unet", "--graph", out, status=2)
    assert not out.parent.exists()
    assert run("check", spec, "--graph", out)[0].endswith(f"graph: {out}\n")
    assert out.read_bytes() == render_svg(report("d2gan-ring"), "d2gan-ring") and len(list(out.parent.iterdir())) == 1
