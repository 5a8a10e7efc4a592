"""Figures: readable without red and green, whole SVG whatever the names, better outwards, the front where it is."""

import base64
import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from modkit.comparison import figures, radar, scatter
from modkit.comparison.curves import Curve
from modkit.comparison.figures import CLOCKS, Line, draw_learning_curves
from modkit.comparison.radar import draw_radars
from modkit.comparison.scatter import draw_scatters
from modkit.comparison.theme import GREY, INK, PAPER, choose_style, find_dark
from modkit.comparison.ticks import format_short
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


ALL_ROLES = ("quality", "coverage", "speed")
ERRORS = {"quality": 0.1, "coverage": None, "speed": 1.0}


def point(number, quality, coverage, speed, ranked=ALL_ROLES, label=None, errors=ERRORS):
    values = {"quality": quality, "coverage": coverage, "speed": speed}
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


@pytest.mark.parametrize("show", [str, find_dark], ids=["light", "dark"])
@pytest.mark.parametrize("matrix", BLINDNESS.values(), ids=BLINDNESS)
def test_colours_differ_without_red_or_green_cones(matrix, show):
    seen = [lab(show(choose_style(number).color), matrix) for number in range(7)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15
    assert all(np.linalg.norm(one - lab(show(PAPER), matrix)) > 30 for one in seen)


@pytest.mark.parametrize("show", [str, find_dark], ids=["light", "dark"])
def test_text_stands_out_from_its_background(show):
    plain = np.eye(3)
    assert abs(lab(show(INK), plain)[0] - lab(show(PAPER), plain)[0]) > 75
    assert abs(lab(show(GREY), plain)[0] - lab(show(PAPER), plain)[0]) > 45


def test_the_measure_tells_that_red_and_green_do_not_differ():
    red, green = (lab(color, BLINDNESS["deuteranopia"]) for color in ("#d62728", "#2ca02c"))
    assert np.linalg.norm(red - green) < 8


def test_styles_differ_in_more_than_colour():
    styles = [choose_style(number) for number in range(5)]
    for a, b in itertools.combinations(styles, 2):
        assert a.color != b.color and a.marker != b.marker and a.line != b.line
    assert len({str(choose_style(number)) for number in range(280)}) == 280


@pytest.mark.wide
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
        draw_learning_curves([HOSTILE, "x"], lines, "step"),
    ):
        root = svg(uri)
        assert root.tag.endswith("svg")
        assert not [node for node in root.iter() if node.tag.endswith(("script", "foreignObject"))]
        links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)


@pytest.mark.wide
def test_a_file_is_the_same_each_time():
    assert draw_radars(ALL, [point(0, 3.0, 0.4, 10.0)], {}) == draw_radars(ALL, [point(0, 3.0, 0.4, 10.0)], {})


def share(of_range):
    return 1 / 6 + 5 / 6 * of_range


def bars(axes):
    """Ends of a radar's error bars by the angle of their axis."""
    lines = [line.get_segments()[0] for bars in axes.containers for line in bars.lines[2]]
    return {round(math.degrees(ends[0][0])): ends[:, 1] for ends in lines}


def corners(axes):
    """The line through the three corners of a radar plot."""
    return next(line for line in axes.lines if line.get_marker() in ("o", "s", "^"))


def test_radar_corners(shown):
    values = ((4.0, 0.2, 10.0), (1.0, 0.6, 1000.0), (2.0, 0.5, 100.0))
    points = [point(number, *three, errors={}) for number, three in enumerate(values)]
    figure = draw_radars(ALL, points, {"quality": 0.0, "coverage": 0.8})
    shares = [corners(axes).get_ydata().tolist()[:3] for axes in figure.axes]

    # quality from 4 to the floor's 0, coverage from .2 to the floor's .8, log speed from 10 to 1000
    np.testing.assert_allclose(shares[0], [share(0), share(0), share(0)], atol=1e-12)
    np.testing.assert_allclose(shares[1], [share(3 / 4), share(2 / 3), share(1)], atol=1e-12)
    np.testing.assert_allclose(shares[2], [share(1 / 2), share(1 / 2), share(1 / 2)], atol=1e-12)


def test_a_radars_bars_reach_a_standard_error_to_either_side(shown):
    """The fault: bars ended at the axis' ends, so the best had none outwards and the worst none inwards."""
    points = [point(0, 4.0, 0.2, 10.0), point(1, 1.0, 0.6, 1000.0), point(2, 2.0, 0.5, 0.5)]
    figure = draw_radars(ALL, points, {})
    first, second, third = map(bars, figure.axes)
    assert first.keys() == {90, 330}  # of coverage there is no error
    np.testing.assert_allclose(first[90], [share(0), share(0.2 / 3.2)])  # quality from 4.1 to 0.9
    np.testing.assert_allclose(second[90], [share(3 / 3.2), share(1)])
    whole = math.log(1001) - math.log(0.5)
    np.testing.assert_allclose(first[330], [share(math.log(value / 0.5) / whole) for value in (9.0, 11.0)])
    np.testing.assert_allclose(second[330], [share(math.log(value / 0.5) / whole) for value in (999.0, 1001.0)])
    np.testing.assert_allclose(third[330], [share(0), share(math.log(3) / whole)])  # 0.5 - 1 has no logarithm
    for axes, value in zip(figure.axes, (4.0, 1.0, 2.0)):
        middle = corners(axes).get_ydata()[0]
        np.testing.assert_allclose(bars(axes)[90], [middle - 5 / 6 * 0.1 / 3.2, middle + 5 / 6 * 0.1 / 3.2])
        np.testing.assert_allclose(middle, share((4.1 - value) / 3.2))


def test_a_radars_bar_of_what_is_not_ranked_ends_with_the_axis(shown):
    points = [point(0, 4.0, 0.2, 10.0), point(1, 1.0, 0.6, 1000.0), point(2, 0.9, 0.5, 50.0, ranked=())]
    figure = draw_radars(ALL, points, {})
    np.testing.assert_allclose(bars(figure.axes[2])[90], [share(3.1 / 3.2), share(1)])  # 0.8 is beyond 0.9


@pytest.mark.parametrize("floor", [0.5, 0.0, -0.01])
def test_a_radars_floor_without_a_logarithm_leaves_systems_apart(shown, floor):
    """The fault: beside a floor of 0 or, by rounding, below it, all systems lay at a sixth, and it nowhere."""
    quality = Axis("quality", "FD (pixels)", "lower", log=True)
    points = [point(number, value, 0.5, 10.0, errors={}) for number, value in enumerate((100.0, 10.0, 1.0))]
    figure = draw_radars((quality, COVERAGE, SPEED), points, {"quality": floor})
    change = math.log if floor > 0 else float
    whole = change(100.0) - change(floor)
    for axes, value in zip(figure.axes, (100.0, 10.0, 1.0)):
        np.testing.assert_allclose(corners(axes).get_ydata()[0], share((change(100.0) - change(value)) / whole))
        assert next(line for line in axes.lines if line.get_marker() == (2, 2, 90)).get_ydata()[0] == 1


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
    assert faces == {"o": choose_style(0).color, "s": PAPER}


@pytest.mark.wide
def test_learning_curves_have_one_clock_at_a_time_and_one_line_a_seed(shown):
    curve = Curve(np.array([100.0, 10.0, 1.0]), *(factor * np.arange(1.0, 4.0) for factor in (10, 80, 0.5)))
    lines = [Line("a", choose_style(0), [{"nll": curve}, {"nll": curve}]), Line("b", choose_style(1), [{"kl": curve}])]
    for clock, end in zip(CLOCKS, (30.0, 240.0, 1.5), strict=True):
        figure = draw_learning_curves(["nll", "kl"], lines, clock)
        assert [len(axes.lines) for axes in figure.axes] == [2, 1]
        assert figure.axes[0].lines[0].get_xdata()[-1] == end
        assert [axes.get_xlabel() for axes in figure.axes] == [clock, clock]
        assert [axes.get_title("left") for axes in figure.axes] == ["nll", "kl"]
        assert figure.axes[0].get_yscale() == "log"
        assert [text.get_text() for text in figure.legends[0].texts] == ["a (2 seeds)", "b"]


def test_panels_of_learning_curves_fill_rows_of_three(shown):
    curve = Curve(*[np.arange(1.0, 4.0)] * 4)
    names = list("abcde")
    figure = draw_learning_curves(names, [Line("a", choose_style(0), [dict.fromkeys(names, curve)])], "step")
    assert [axes.get_visible() for axes in figure.axes] == [True] * 5 + [False]
    assert figure.axes[3].get_subplotspec().rowspan.start == 1


@pytest.mark.wide
def test_ticks_tell_their_neighbours_apart(shown):
    curve = Curve(np.array([1.3203, 1.3211]), *(np.array([1.0, 2.0]) * factor for factor in (1e3, 1e5, 1e-3)))
    drawn = [draw_learning_curves(["d"], [Line("a", choose_style(0), [{"d": curve}])], clock) for clock in CLOCKS]
    for figure in drawn:
        figure.draw_without_rendering()
    for axis in (drawn[0].axes[0].yaxis, *(figure.axes[0].xaxis for figure in drawn)):
        texts = [label.get_text() for label in axis.get_ticklabels()]
        assert len(set(texts)) == len(texts) >= 3
        read = [float(text.replace(",", "")) for text in texts]
        np.testing.assert_allclose(read, axis.get_ticklocs(), rtol=1e-6)


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (12.6e6, 13.5e6, "12,600,000"),
        (0.931, 0.93101, "0.9310025"),
        (-1e-5, 1e-5, "5e−06"),
        (9e6, 1.3e7, "11,000,000"),
        (0, 1000, "1,000"),
        (123456780, 123456784, "123,456,782"),
        (-0.5, 0.5, "−0.25"),
    ],
)
def test_ticks_have_the_digits_that_their_step_needs(shown, low, high, text):
    """The fault: from 1e7 on, and for steps such as 2.5e-6, neighbours had the same label."""
    values = np.array([low, high], dtype=np.float64)
    lines = [Line("a", choose_style(0), [{"d": Curve(values, *[np.arange(2.0)] * 3)}])]
    figure = draw_learning_curves(["d"], lines, "step")
    figure.draw_without_rendering()
    axis = figure.axes[0].yaxis
    texts = [label.get_text() for label in axis.get_ticklabels()]
    assert text in texts and len(set(texts)) == len(texts)
    read = [float(one.replace(",", "").replace("−", "-")) for one in texts]
    tiny = 1e-6 * (high - low)  # ticks are as exact as the floats of the axis
    np.testing.assert_allclose(read, axis.get_ticklocs(), rtol=1e-12, atol=tiny)


def test_what_is_not_ranked_moves_no_scale(shown):
    systems = ((4.0, 0.2, 10.0, ALL_ROLES), (2.0, 0.6, 100.0, ALL_ROLES), (1e-3, 0.9, 1.0, ()))
    points = [point(number, *system, errors={}) for number, system in enumerate(systems)]
    figure = draw_radars(ALL, points, {})
    lines = list(map(corners, figure.axes))
    shares = [line.get_ydata()[:3] for line in lines]
    np.testing.assert_allclose(shares, [[1 / 6] * 3, [1] * 3, [1, 1, 1 / 6]], atol=1e-12)
    assert [line.get_markerfacecolor() == PAPER for line in lines] == [False, False, True]


def boxes(figure, pad=0.0):
    """The places of all texts that a figure shows, `pad` points wider to each side."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        title, *others = axes.title, axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label
        found += [title, *others, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            found += [tick.label1 for tick in ticks if axes.name == "polar" or low <= tick.get_loc() <= high]
    found += [text for legend in figure.legends for text in legend.texts]
    wide = pad * figure.dpi / 72
    shown = [text for text in found if text.get_visible() and text.get_text()]
    return [(text.get_text(), text.get_window_extent().padded(wide, 0)) for text in shown]


def collisions(figure, pad=0.0):
    pairs = itertools.combinations(boxes(figure, pad), 2)
    return [(a, b) for (a, here), (b, there) in pairs if here.overlaps(there)]


def outside(figure):
    """The texts that leave the figure."""
    whole = figure.bbox.padded(1)
    return [text for text, box in boxes(figure) if box.x0 < whole.x0 or box.x1 > whole.x1]


LONG = [f"a system with a rather long name, sampler={name}" for name in ("ddim", "heun", "dpm-solver++", "euler")]


@pytest.mark.wide
def test_no_label_of_learning_curves_touches_another(shown):
    """The fault: 60,000 at the end of a panel ran into 100,000 at the start of the next."""
    steps = np.arange(1.0, 6.0) * 12345
    curve = Curve(np.linspace(1.3203, 1.3211, 5), steps, steps * 8, steps * 1000)
    lines = [Line(label, choose_style(number), [{"d": curve, "e": curve}]) for number, label in enumerate(LONG)]
    for clock in CLOCKS:
        figure = draw_learning_curves(["d", "e"], lines, clock)
        assert collisions(figure, pad=1.0) == [] and outside(figure) == []
        for axes in figure.axes:
            ticks = axes.xaxis.get_major_ticks()
            assert sum(bool(tick.label1.get_text()) and tick.label1.get_visible() for tick in ticks) > 1


@pytest.mark.wide(1)
@pytest.mark.parametrize("speeds", [(1000.0, 1001.0, 1007.0, 1003.0), (10.0, 90.0, 20.0, 40.0), (1.0, 1e5, 30.0, 9e3)])
def test_no_label_of_scatters_and_radars_touches_another(shown, speeds):
    """The fault: names of one beginning became equal, and a scatter's legend left the figure."""
    points = [point(n, 1.32 + n / 1e4, 0.8 + n / 1e4, speed, label=LONG[n]) for n, speed in enumerate(speeds)]
    figure = draw_scatters([(SPEED, QUALITY), (SPEED, COVERAGE), (COVERAGE, QUALITY)], points, [[], [], []], {})
    assert collisions(figure, pad=1.0) == [] and outside(figure) == []
    assert len({text.get_text() for text in figure.legends[0].texts}) == 4
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            assert sum(low <= tick.get_loc() <= high for tick in axis.get_major_ticks()) > 1
    radars = draw_radars(ALL, points, {})
    assert collisions(radars, pad=1.0) == [] and outside(radars) == []
    assert len({axes.get_title() for axes in radars.axes}) == 4


@pytest.mark.wide
def test_a_figure_has_one_width_whatever_it_shows():
    few = [point(0, 3.0, 0.4, 10.0), point(1, 2.0, 0.5, 20.0)]
    for uri in (draw_radars(ALL, few, {}), draw_scatters([(SPEED, QUALITY)], few, [[]], {})):
        assert svg(uri).get("width") == "720pt"


def test_no_system_lies_under_another(shown):
    """The fault: of systems with nearly the same scores only the last one was seen."""
    near = [point(n, 2.0 + n * 1e-6, 0.5, 100.0) for n in range(6)] + [point(6, 3.0, 0.4, 10.0)]
    figure = draw_scatters([(SPEED, QUALITY)], near, [["s0"]], {})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    markers = {line.get_marker(): line for line in axes.lines if line.get_markersize() == 6.5}
    places = {
        mark: line.get_transform().transform(line.get_xydata())[0] * 72 / figure.dpi for mark, line in markers.items()
    }
    assert len(places) == 7
    assert min(np.hypot(*(a - b)) for a, b in itertools.combinations(places.values(), 2)) > 7.9
    true = axes.transData.transform((10.0, 3.0)) * 72 / figure.dpi
    np.testing.assert_allclose(places["X"], true)  # which nothing was near
    assert len(axes.texts) == 6 and all(text.arrow_patch is not None for text in axes.texts)
    crowd = axes.transData.transform((100.0, 2.0)) * 72 / figure.dpi
    assert max(np.hypot(*(place - crowd)) for mark, place in places.items() if mark != "X") < 20


@pytest.mark.wide
def test_a_curve_under_others_is_wider(shown):
    steps = np.arange(1.0, 50.0)
    same, other = (Curve(factor / steps, steps, steps * 8, steps) for factor in (1.0, 2.0))
    lines = [Line(str(n), choose_style(n), [{"d": curve}]) for n, curve in enumerate((same, other, same, same))]
    widths = [line.get_linewidth() for line in draw_learning_curves(["d"], lines, "step").axes[0].lines]
    assert widths[0] > widths[2] > widths[1] == widths[3]


def test_a_panel_without_points_has_no_axes(shown):
    """The fault: the numbers of its axes were invented."""
    apart = [
        Point("a", 0, {"speed": 1.0, "quality": 2.0}, {"speed": None, "quality": None}, frozenset()),
        Point("b", 1, {"speed": 1.0, "coverage": 0.2}, {"speed": None, "coverage": None}, frozenset()),
    ]
    figure = draw_scatters([(SPEED, QUALITY), (COVERAGE, QUALITY)], apart, [[], []], {"quality": 0.5})
    full, empty = figure.axes
    assert [text for text, _ in boxes(figure) if "no system" in text] == ["no system has both\ncoverage and quality"]
    assert full.lines and full.xaxis.get_tick_params()["labelbottom"]
    assert not empty.lines and not empty.xaxis.get_tick_params()["labelbottom"]
    assert not any(spine.get_visible() for spine in empty.spines.values())


@pytest.mark.wide
def test_curves_without_times_say_so(shown):
    steps = np.arange(1.0, 4.0)
    timed, untimed = (Curve(steps, steps, steps * 8, seconds) for seconds in (steps, np.full(3, math.nan)))
    lines = [
        Line("a", choose_style(0), [{"d": untimed, "e": untimed}]), Line("b", choose_style(1), [{"d": timed}]),
    ]  # fmt: skip
    both, empty = draw_learning_curves(["d", "e"], lines, "wall-clock time in seconds").axes
    assert both.get_title("right") == "no times: a" and both.get_xlabel() == "wall-clock time in seconds"
    assert [text.get_text() for text in empty.texts] == ["no times were logged"]
    assert not empty.lines and not empty.xaxis.get_tick_params()["labelbottom"] and empty.get_xlabel() == ""
    steps = draw_learning_curves(["d", "e"], lines, "step").axes[1]
    assert steps.lines and steps.yaxis.get_tick_params()["labelleft"]


def test_figures_follow_the_readers_preference():
    uri = draw_scatters([(SPEED, QUALITY)], [point(0, 1.0, 0.5, 2.0), point(6, 2.0, 0.5, 1.0, ranked=())], [[]], {})
    text = base64.b64decode(uri.partition(",")[2]).decode()
    sheet, body = re.search("<style>(.*?)</style>", text)[1], text.partition("</style>")[2]
    light, dark = sheet.split("@media screen and (prefers-color-scheme: dark)")
    for color in (PAPER, INK, choose_style(0).color, choose_style(6).color):
        name = re.search(rf"(--[a-z0-9-]+): {color}", light)[1]
        assert f"{name}: {find_dark(color)}" in dark and f"var({name})" in body
    assert not re.findall("(?:fill|stroke): (?:#[0-9a-f]+|black|white)", body)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.1234, "0.123"), (-2.5, "−2.5"), (12345.6, "12,346"), (2.5e7, "2.5e+07"), (1e-5, "1e−05")],
)
def test_short_numbers(value, text):
    assert format_short(value) == text


test_nothing_to_draw_is_refused = refusals(
    (lambda: draw_radars(ALL[:2], [point(0, 1.0, 1.0, 1.0)], {}), "three axes and points, got 2 and 1"),
    (lambda: draw_scatters([], [], [], {}), "one front for each pair, got 0 pairs, 0 fronts"),
    (lambda: draw_learning_curves([], [], "step"), "names of curves, got none"),
    (lambda: draw_learning_curves(["d"], [], "epochs"), "one of step, images seen, .*, got 'epochs'"),
)
