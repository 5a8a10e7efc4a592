"""Figures: readable without red and green, whole SVG whatever the names, better outwards, the front where it is."""

import base64
import itertools
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from modkit.comparison import figures, radar, scatter
from modkit.comparison.curves import Curve
from modkit.comparison.figures import Line, choose_style, draw_learning_curves, format_short
from modkit.comparison.radar import draw_radars
from modkit.comparison.scatter import draw_scatters
from modkit.comparison.trilemma import Axis, Point
from tests.refusals import refusals

QUALITY, COVERAGE = Axis("quality", "FD (pixels)", "lower"), Axis("coverage", "coverage (pixels)", "higher")
SPEED = Axis("speed", "samples/s", "higher", log=True)
ALL = (QUALITY, COVERAGE, SPEED)
HOSTILE = "<script>alert(1)</script> $x_{$ & \x00\x1b ]]> 猫 \N{GRINNING FACE}" + "y" * 200

# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as seen without red or green cones.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def point(number, quality, coverage, speed, ranked=("quality", "coverage", "speed"), label=None):
    values = {"quality": quality, "coverage": coverage, "speed": speed}
    errors = {"quality": 0.1, "coverage": None, "speed": 1.0}
    return Point(label or f"s{number}", number, values, errors, frozenset(ranked))


def svg(uri):
    """The parsed file; parsing fails where it is no XML."""
    head, _, content = uri.partition(",")
    assert head == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(content))


@pytest.fixture
def shown(monkeypatch):
    """Figures themselves in place of their files."""
    for module in (figures, radar, scatter):
        monkeypatch.setattr(module, "embed_svg", lambda figure: figure)


def lab(color, matrix):
    channels = np.array([int(color[first : first + 2], 16) / 255 for first in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrix) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = [
        math.copysign(abs(v) ** (1 / 3), v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz / [0.9505, 1, 1.089]
    ]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("matrix", BLINDNESS.values(), ids=BLINDNESS)
def test_colours_differ_without_red_or_green_cones(matrix):
    seen = [lab(choose_style(number).color, matrix) for number in range(7)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15
    assert all(np.linalg.norm(one - lab("#ffffff", matrix)) > 30 for one in seen)


def test_the_measure_tells_that_red_and_green_do_not_differ():
    red, green = (lab(color, BLINDNESS["deuteranopia"]) for color in ("#d62728", "#2ca02c"))
    assert np.linalg.norm(red - green) < 8


def test_styles_differ_in_more_than_colour():
    styles = [choose_style(number) for number in range(5)]
    for a, b in itertools.combinations(styles, 2):
        assert a.color != b.color and a.marker != b.marker and a.line != b.line
    assert len({str(choose_style(number)) for number in range(280)}) == 280


def test_names_of_any_kind_give_whole_files():
    points = [point(0, 3.0, 0.4, 10.0, label=HOSTILE), point(1, 2.0, 0.5, 5.0, label="$\\frac{")]
    curve = Curve(*(np.arange(1.0, 40.0) for _ in range(4)))
    lines = [
        Line(HOSTILE, choose_style(0), [{HOSTILE: curve}]),
        Line("b", choose_style(1), [{HOSTILE: curve}, {"x": curve}]),
    ]
    pairs = [(Axis("speed", HOSTILE, "higher"), Axis("quality", HOSTILE, "lower"))]
    for uri in (
        draw_radars(ALL, points, {}),
        draw_scatters(pairs, points, [[HOSTILE]], {}),
        draw_learning_curves([HOSTILE, "x"], lines),
    ):
        root = svg(uri)
        assert root.tag.endswith("svg")
        assert not [node for node in root.iter() if node.tag.endswith(("script", "foreignObject"))]
        links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)


def test_a_file_is_the_same_each_time():
    assert draw_radars(ALL, [point(0, 3.0, 0.4, 10.0)], {}) == draw_radars(ALL, [point(0, 3.0, 0.4, 10.0)], {})


def corners(axes):
    """The line through the three corners of a radar plot."""
    return next(line for line in axes.lines if line.get_marker() in ("o", "s", "^"))


def test_radar_corners(shown):
    points = [point(0, 4.0, 0.2, 10.0), point(1, 1.0, 0.6, 1000.0), point(2, 2.0, 0.5, 100.0)]
    figure = draw_radars(ALL, points, {"quality": 0.0, "coverage": 0.8})
    shares = [corners(axes).get_ydata().tolist()[:3] for axes in figure.axes]

    def share(of_range):
        return 1 / 6 + 5 / 6 * of_range

    # quality from 4 to the floor's 0, coverage from .2 to the floor's .8, log speed from 10 to 1000
    np.testing.assert_allclose(shares[0], [share(0), share(0), share(0)], atol=1e-12)
    np.testing.assert_allclose(shares[1], [share(3 / 4), share(2 / 3), share(1)], atol=1e-12)
    np.testing.assert_allclose(shares[2], [share(1 / 2), share(1 / 2), share(1 / 2)], atol=1e-12)


def test_a_radars_bars_reach_a_standard_error_to_either_side(shown):
    points = [point(0, 4.0, 0.2, 10.0), point(1, 1.0, 0.6, 1000.0), point(2, 2.0, 0.5, 0.5)]
    figure = draw_radars(ALL, points, {})

    def bars(axes):
        """Ends of the error bars by the angle of their axis."""
        lines = [line.get_segments()[0] for bars in axes.containers for line in bars.lines[2]]
        return {round(math.degrees(ends[0][0])): ends[:, 1] for ends in lines}

    first, second, third = map(bars, figure.axes)
    assert first.keys() == {90, 330}  # of coverage there is no error
    np.testing.assert_allclose(first[90], [1 / 6, 1 / 6 + 5 / 6 * 0.1 / 3])  # worse than the worst is at the worst
    np.testing.assert_allclose(second[90], [1 / 6 + 5 / 6 * 2.9 / 3, 1])
    whole = math.log(1000) - math.log(0.5)
    np.testing.assert_allclose(first[330], [1 / 6 + 5 / 6 * math.log(value / 0.5) / whole for value in (9.0, 11.0)])
    np.testing.assert_allclose(third[330], [1 / 6, 1 / 6 + 5 / 6 * math.log(3) / whole])  # 0.5 - 1 is no speed


def test_a_scatter_has_better_outwards_and_the_front_drawn(shown):
    points = [point(0, 4.0, 0.9, 1000.0), point(1, 1.0, 0.6, 10.0), point(2, 2.0, 0.5, 100.0), point(3, 3.0, 0.7, 50.0)]
    figure = draw_scatters([(SPEED, QUALITY)], points, [["s0", "s1", "s2"]], {"quality": 0.5})
    axes = figure.axes[0]
    assert axes.get_xscale() == "log" and not axes.xaxis_inverted() and axes.yaxis_inverted()
    front = next(line for line in axes.lines if line.get_drawstyle() == "steps-pre")
    across, up = front.get_data()
    assert list(across)[1:-1] == [10.0, 100.0, 1000.0] and list(up)[1:-1] == [1.0, 2.0, 4.0]
    assert (across[0], up[0]) == (axes.get_xlim()[0], 1.0) and (across[-1], up[-1]) == (1000.0, axes.get_ylim()[0])
    assert [text.get_text() for text in figure.legends[0].texts] == ["s0", "s1", "s2", "s3"]
    assert any(line.get_linestyle() == "--" and set(line.get_ydata()) == {0.5} for line in axes.lines)


def test_what_is_not_ranked_is_hollow(shown):
    points = [point(0, 4.0, 0.9, 10.0), point(1, 1.0, 0.6, 10.0, ranked=("quality",))]
    axes = draw_scatters([(COVERAGE, QUALITY)], points, [["s0"]], {}).axes[0]
    faces = {line.get_marker(): line.get_markerfacecolor() for line in axes.lines if line.get_marker() in "os"}
    assert faces == {"o": choose_style(0).color, "s": "white"}


def test_learning_curves_have_three_clocks_and_one_line_a_seed(shown):
    curve = Curve(np.array([100.0, 10.0, 1.0]), *(factor * np.arange(1.0, 4.0) for factor in (10, 80, 0.5)))
    lines = [Line("a", choose_style(0), [{"nll": curve}, {"nll": curve}]), Line("b", choose_style(1), [{"kl": curve}])]
    figure = draw_learning_curves(["nll", "kl"], lines)
    assert len(figure.axes) == 6
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2, 1, 1, 1]
    ends = [axes.lines[0].get_xdata()[-1] for axes in figure.axes[:3]]
    assert ends == [30.0, 240.0, 1.5]
    assert [axes.get_xlabel() for axes in figure.axes[3:]] == ["step", "images seen", "wall-clock, s"]
    assert figure.axes[0].get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].texts] == ["a (2 seeds)", "b"]


def test_ticks_tell_their_neighbours_apart(shown):
    curve = Curve(np.array([1.3203, 1.3211]), *(np.array([1.0, 2.0]) * factor for factor in (1e3, 1e5, 1e-3)))
    figure = draw_learning_curves(["d"], [Line("a", choose_style(0), [{"d": curve}])])
    figure.draw_without_rendering()
    for axis in (figure.axes[0].yaxis, *(axes.xaxis for axes in figure.axes)):
        texts = [label.get_text() for label in axis.get_ticklabels()]
        assert len(set(texts)) == len(texts) >= 3
        read = [float(text.replace(",", "")) for text in texts]
        np.testing.assert_allclose(read, axis.get_ticklocs(), rtol=1e-6)


def test_what_is_not_ranked_moves_no_scale(shown):
    points = [point(0, 4.0, 0.2, 10.0), point(1, 2.0, 0.6, 100.0), point(2, 1e-3, 0.9, 1.0, ranked=())]
    figure = draw_radars(ALL, points, {})
    lines = list(map(corners, figure.axes))
    shares = [line.get_ydata()[:3] for line in lines]
    np.testing.assert_allclose(shares, [[1 / 6] * 3, [1] * 3, [1, 1, 1 / 6]], atol=1e-12)
    assert [line.get_markerfacecolor() == "white" for line in lines] == [False, False, True]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.1234, "0.123"), (-2.5, "−2.5"), (12345.6, "12,346"), (2.5e7, "2.5e+07"), (1e-5, "1e−05")],
)
def test_short_numbers(value, text):
    assert format_short(value) == text


test_nothing_to_draw_is_refused = refusals(
    (lambda: draw_radars(ALL[:2], [point(0, 1.0, 1.0, 1.0)], {}), "three axes and points, got 2 and 1"),
    (lambda: draw_scatters([], [], [], {}), "one front for each pair, got 0 pairs, 0 fronts"),
    (lambda: draw_learning_curves([], []), "names of curves, got none"),
)
