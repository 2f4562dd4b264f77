"""Axes and names: where they say that things lie is where they are drawn, and nothing lies over anything."""

from __future__ import annotations

import itertools
import math

import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetbench.reporting.figures._axes import Axis, axis
from forgetbench.reporting.figures._label_placement import POINT, place, text_width
from forgetbench.reporting.figures.points import Interval, Point
from forgetbench.reporting.figures.scatter import HEIGHT, WIDTH, pareto

WORDS = st.text("abcdefghijklmnopqrstuvwxyz-+=:0123456789", min_size=1, max_size=20)
PLACES = st.tuples(st.floats(0, 300), st.floats(0, 200), WORDS)


@settings(max_examples=40, deadline=None)
@given(st.lists(PLACES, max_size=25))
def test_no_name_lies_over_another_over_a_point_or_over_the_edge(points):
    size = 9.0
    centers, names = [(x, y) for x, y, _ in points], [name for _, _, name in points]
    placed = place(centers, names, range(len(points)), (300, 200), size)
    boxes = []
    for label in placed:
        width = text_width(names[label.point], size)
        assert -1e-9 <= label.x <= 300 - width + 1e-9
        assert size / 2 - 1e-9 <= label.y <= 200 - size / 2 + 1e-9
        for x, y in (center for number, center in enumerate(centers) if number != label.point):
            assert not (label.x - POINT < x < label.x + width + POINT and abs(y - label.y) < size / 2 + POINT)
        boxes.append((label.x, label.x + width, label.y))
    for number, (left, right, y) in enumerate(boxes):
        for other_left, other_right, other_y in boxes[:number]:
            assert right <= other_left + 1e-9 or other_right <= left + 1e-9 or abs(y - other_y) >= size


def test_a_lonely_point_is_named_beside_it_and_a_crowded_one_from_afar():
    [alone] = place([(50, 50)], ["salun"], [0], (300, 200), 9)
    assert alone.line is None
    assert (alone.x, alone.y) == (58, 50)
    crowd = [(50 + dx, 50 + dy) for dx in range(-16, 17, 8) for dy in range(-16, 17, 8)]
    placed = place(crowd, ["x"] * len(crowd), [12], (300, 200), 9)
    assert placed[0].line is not None


@given(st.floats(-1e4, 1e4), st.floats(0.1, 10))
def test_a_pixel_has_its_value(value, constant):
    scale = axis([-1e4, 1e4], 250, constant)
    assert scale.value(scale.pixel(value)) == pytest.approx(value, rel=1e-9, abs=1e-6)


def test_ticks_are_in_range_and_apart():
    scale = axis([0.5, 200], 250)
    assert 0 in scale.ticks
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
    pixels = sorted(map(scale.pixel, scale.ticks))
    assert min(b - a for a, b in itertools.pairwise(pixels)) > 22


def symbols(item, x=0.0, y=0.0):
    """Every symbol of a scene graph with its place."""
    found = []
    for child in item.get("items", []):
        inside = (x + child.get("x", 0.0), y + child.get("y", 0.0))
        if item.get("marktype") == "symbol":
            found.append(inside)
        elif "items" in child:
            found += symbols(child, *(inside if item.get("marktype") == "group" else (x, y)))
    return found


def test_vega_draws_where_the_axes_say():
    points = [
        Point("a", "ranked", 0.01, Interval(3.0, 1.0, 5.0)),
        Point("b", "ranked", 0.2, Interval(40.0, 30.0, 50.0)),
        Point("Retrain", "Retrain", 1.0, Interval(0.7, 0.0, 1.5)),
    ]
    drawn = vl_convert.vegalite_to_scenegraph(pareto(points, 1.3))
    costs, distances = axis([1, 20, 100], WIDTH, 1.0, minimum=100), axis([5.0, 50.0, 1.5], HEIGHT, minimum=10)
    seen = symbols(drawn["scenegraph"])
    for point in points:
        x, y = costs.pixel(100 * point.cost), HEIGHT - distances.pixel(point.distance.value)
        assert any(math.dist((x, y), place) < 0.6 for place in seen), (point.label, x, y, seen)


def test_symlog_by_hand():
    scale = Axis(0, math.e - 1, 100)
    assert scale.pixel(math.sqrt(math.e) - 1) == pytest.approx(50)
