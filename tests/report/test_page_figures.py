"""Figures from plain data: how they are divided, told apart, labelled and drawn."""

from __future__ import annotations

import base64
import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib.image
import numpy as np
import pytest

import isthmus.report
from isthmus.core import drawing, scales
from isthmus.core.display import Figure, Gallery, Mark, Picture, Series
from isthmus.report import blocks, figures, labels, legend
from isthmus.report.palette import COLOURS, Looks
from isthmus.report.panels import split, variant

X = (0.0, 0.1, 0.2)


def line(name: str, group: str = "", style: str = "line", y: tuple[float, ...] = (1.0, 0.5, 0.1)) -> Series:
    return Series(name, X, y, tuple(v - 0.05 for v in y), tuple(v + 0.05 for v in y), style, group or name)


def figure(*series: Series, **options: object) -> Figure:
    return Figure("Title", "Reading.", "x", "y", series, **options)


def test_variants_are_what_names_say_beyond_the_classifier() -> None:
    assert variant(line("ceb", "ceb")) == ""
    assert variant(line("ceb (stochastic)", "ceb")) == "stochastic"
    assert variant(line("ceb, mean mode", "ceb")) == "mean mode"
    assert variant(line("mean mode", "ceb")) == "mean mode"


def test_few_lines_share_one_drawing() -> None:
    assert len(split(figure(*(line(f"m{i}") for i in range(6))))) == 1


def test_reliability_diagrams_of_many_stand_side_by_side() -> None:
    assert len(split(figure(line("a"), line("b"), identity=True))) == 1
    panels = split(figure(line("a"), line("b"), line("c"), identity=True))
    assert [(panel.title, panel.group) for panel in panels] == [("a", "a"), ("b", "b"), ("c", "c")]


def test_many_lines_of_several_modes_are_divided_by_mode() -> None:
    modes = [line(f"m{i} ({mode})", f"m{i}") for i in range(4) for mode in ("mean", "stochastic")]
    panels = split(figure(*modes, line("plain")))
    assert [panel.title for panel in panels] == ["mean", "stochastic"]
    assert [len(panel.series) for panel in panels] == [5, 5]  # the one without modes is in both


def test_many_classifiers_stand_before_the_others_in_grey() -> None:
    panels = split(figure(*(line(f"m{i}") for i in range(9))))
    assert len(panels) == 9
    assert len(panels[0].background) == 8


def test_each_further_line_of_a_classifier_has_another_dash() -> None:
    siblings = [line("a"), line("a (s)", "a", "dashed"), line("a (t)", "a"), line("b", "b", "dashed")]
    assert [figures.dash(one, siblings) for one in siblings] == [
        drawing.DASHES[0],
        drawing.DASHES[1],
        drawing.DASHES[2],
        drawing.DASHES[1],
    ]


def test_looks_stay_with_their_group() -> None:
    looks = Looks(["a", "b"])
    assert looks.of("a") == Looks(["a"]).of("a") != looks.of("b")
    many = [looks.of(f"m{i}") for i in range(22)]
    assert len({looks.of("a"), looks.of("b"), *many}) == 24
    assert [looks.owner(label) for label in ("a", "a (mean)", "m2, mean", "ab", "m22 (mean)")] == [
        "a",
        "a",
        "m2",
        None,
        None,
    ]


def test_legends_name_each_classifier_once_with_its_variants() -> None:
    ys = (0.9, 0.8, 0.7), (0.6, 0.5, 0.4)
    one = figure(line("a"), line("b (mean)", "b", y=ys[0]), line("b (s)", "b", "dashed", y=ys[1]))
    entries = legend.entries(one, split(one), Looks())
    assert [(entry.name, [part.name for part in entry.parts]) for entry in entries] == [
        ("a", []),
        ("b", ["mean", "s"]),
    ]
    assert "stroke-dasharray" in entries[1].parts[1].swatch
    diagrams = figure(line("a"), line("b"), line("c"), identity=True)
    assert [entry.name for entry in legend.entries(diagrams, split(diagrams), Looks())] == ["ideal: both axes equal"]
    many = figure(*(line(f"m{i}") for i in range(9)))
    assert [entry.name for entry in legend.entries(many, split(many), Looks())] == ["the others"]


def test_lines_that_end_apart_are_named_at_their_ends_and_need_no_legend() -> None:
    apart = figure(line("a"), line("b", y=(1.0, 0.9, 0.8)), y_range=(0, 1))
    assert legend.entries(apart, split(apart), Looks()) == []
    assert {"a", "b"} <= set(texts(draw(apart)))
    near = [line(f"m{i}", y=(1.0, 0.9 - i / 10, 0.5 + i / 100)) for i in range(4)]
    found = labels.ends(figure(*near, y_range=(0, 1)), split(figure(*near)))
    assert [end.group for end in found] == ["m0", "m1", "m2", "m3"]
    heights = [end.label for end in found]
    assert np.diff(heights) == pytest.approx([0.07] * 3)
    assert 0 <= min(heights) < max(heights) <= 1
    many = figure(*(line(f"m{i}", y=(1.0, 0.9 - i / 10, 0.0)) for i in range(6)), y_range=(0, 1))
    assert labels.ends(many, split(many)) == [], "names would be too far from their lines"
    long = figure(line("a"), line("a name of many letters", y=(1.0, 0.9, 0.8)))
    assert labels.ends(long, split(long)) == []


def test_lines_that_coincide_are_offset() -> None:
    alike = [line(name) for name in "abc"]
    apart = line("d", y=(0.9, 0.8, 0.7))
    assert scales.places([*alike, apart], (0.0, 1.0)) == [0, 1, -1, 0]
    assert scales.places([line("a", style="points"), line("b", style="points")], (0.0, 1.0)) == [0, 0]
    one = figure(line("a"), line("b"), line("c", "c", "dashed"))
    assert legend.entries(one, split(one), Looks())[-1].name == "coinciding lines are offset"


def test_every_point_has_its_value_under_the_pointer() -> None:
    svg = draw(figure(line("a"), line("b & c", y=(1.0, -0.5, float("nan"))), y_range=(0, 1)))
    titles = [e.text for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}title")]
    assert titles[:2] == ["a: 100.0% (95.0% to 105.0%) at 0", "a: 50.0% (45.0% to 55.0%) at 0.1"]
    assert len(titles) == 5
    assert titles[4].startswith("b & c: −50.0%")
    long = Series("a", tuple(map(float, range(60))), (0.5,) * 60)
    assert draw(figure(long)).count("<title>") == 20


def texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def draw(one: Figure) -> str:
    (svg,) = figures.draw(one, split(one)[:1], Looks(), "f")
    return svg


def test_a_drawing_scales_and_speaks() -> None:
    root = ET.fromstring(draw(figure(line("a"))))
    assert {"width", "height"}.isdisjoint(root.attrib)
    assert root.attrib["viewBox"].startswith("0 0 440")
    assert root.attrib["aria-label"] == "Title. Reading."
    assert root.find(".//{http://www.w3.org/2000/svg}style") is None


def test_fractions_have_ticks_in_percent_and_names_are_no_formulas() -> None:
    one = Figure("t", "r", "ε", "$x$ 准确率", (line("a"),), (Mark("a$b$", y=0.2),), y_range=(0, 1))
    written = texts(draw(one))
    assert {"100%", "$x$ 准确率", "a$b$", "0.15"} <= set(written)


def test_numbers_that_are_none_leave_gaps() -> None:
    holes = Series("a", X, (1.0, float("nan"), 0.2), style="line")
    beyond = Series("b", (0.0, float("inf")), (0.5, 0.5))
    assert "nan" not in draw(figure(holes, beyond)).lower()
    assert texts(draw(figure()))


@pytest.mark.parametrize("style", ["line", "points", "bars", "dashed"])
def test_every_style_draws_its_interval(style: str) -> None:
    bare = Series("a", X, (1.0, 0.5, 0.1), style=style)
    assert len(draw(figure(line("a", style=style)))) > len(draw(figure(bare)))


def test_points_of_several_classifiers_stand_side_by_side() -> None:
    svg = draw(figure(line("a", style="points"), line("b", style="points")))
    places = [float(x) for x in re.findall(r'<use [^>]*? x="([\d.]+)"[^>]*--series-[01]', svg)]
    assert len(places) == len(set(places)) == 6


def test_points_beside_lines_stay_where_they_are() -> None:
    curve, first, second = line("a"), line("b", style="points"), line("c", style="points")
    assert drawing._aside(first, [first, second]) != drawing._aside(second, [first, second])
    assert drawing._aside(first, [curve, first, second]) == drawing._aside(second, [curve, first, second]) == 0.0


def test_points_at_places_of_their_own_get_a_drawing_each() -> None:
    def bins(name: str, shift: float) -> Series:
        one = line(name, style="points")
        return Series(name, tuple(x + shift for x in one.x), one.y, one.low, one.high, "points", name)

    scattered = [bins(name, shift) for name, shift in (("a", 0.0), ("b", 0.01), ("c", 0.02))]
    assert [panel.title for panel in split(figure(*scattered))] == ["a", "b", "c"]
    assert len(split(figure(*scattered[:2]))) == 1
    assert len(split(figure(*(bins(name, 0.0) for name in "abc")))) == 1  # at the same places: side by side


def test_labels_avoid_the_data() -> None:
    flat = Series("a", (0.0, 0.4, 1.0), (0.52, 0.52, 0.0))
    one = Figure("t", "r", "x", "y", (flat,), (Mark("here", y=0.5),), (0, 1), (0, 1))
    svg = draw(one)
    label = next(e for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text") if e.text == "here")
    start = {"x": float(label.attrib["x"]), "y": float(label.attrib["y"])}
    assert start["x"] > 200, "the label lies on the line"


def test_pictures_are_encoded_without_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        image = rng.integers(0, 256, (7, 5, channels), dtype=np.uint8)
        path = tmp_path / "image.png"
        path.write_bytes(base64.b64decode(blocks._data_uri(image).partition(",")[2]))
        read = np.rint(matplotlib.image.imread(path) * 255).astype(np.uint8)
        assert np.array_equal(read.reshape(image.shape), image)


def test_small_pictures_are_enlarged_pixel_by_pixel() -> None:
    picture = Picture(np.zeros((8, 8, 1), np.uint8), "a zero")
    view = blocks.view(Gallery("t", "r", (("row", (picture,)),)), Looks(), "g")
    assert isinstance(view, blocks.GalleryView)
    (thumbnail,) = view.rows[0][1]
    assert (thumbnail.width, thumbnail.height, thumbnail.pixelated) == (64, 64, True)


@pytest.mark.parametrize("image", [np.zeros((8, 8)), np.zeros((8, 8, 2), np.uint8), np.zeros((0, 8, 1), np.uint8)])
def test_other_arrays_are_no_pictures(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a picture is uint8, height × width × \(1 or 3\)"):
        blocks._data_uri(image)


# ---- colours ------------------------------------------------------------------------

# Machado, Oliveira & Fernandes 2009, full protanopia and deuteranopia, on linear RGB
SIGHT = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def themes() -> list[dict[str, str]]:
    """The light and the dark block of variables in the style sheet."""
    css = (Path(isthmus.report.__file__).parent / "templates" / "style.css").read_text("utf-8")
    found = re.findall(r":root \{([^}]*--series-0[^}]*)\}", css)
    assert len(found) == 2
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in found]


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(first: str, second: str) -> float:
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    f = np.cbrt(np.maximum(XYZ @ rgb / [0.9505, 1.0, 1.089], 0.008856))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
def test_colours_stand_out_from_the_background(theme: dict[str, str]) -> None:
    for name in ("ink", "muted", "pass", "warn", "fail"):
        assert contrast(theme[name], theme["paper"]) >= 4.5, name
    for index in range(COLOURS):
        assert contrast(theme[f"series-{index}"], theme["paper"]) >= 3, index


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_colour_blind_eyes(theme: dict[str, str], sight: str) -> None:
    seen = [lab(np.clip(SIGHT[sight] @ linear(theme[f"series-{i}"]), 0, 1)) for i in range(COLOURS)]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) >= 20
