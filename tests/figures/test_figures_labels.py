"""Axes and labels: pixels match what Vega draws, and labels cover nothing."""

from __future__ import annotations

import itertools
import math

import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetbench.reporting.figures._label_placement import POINT, place, text_width
from forgetbench.reporting.figures.axes import Axis, linear_axis, symlog_axis
from forgetbench.reporting.figures.points import Interval, Point
from forgetbench.reporting.figures.scatter import COLUMN, pareto, pareto_front

WORDS = st.text("abcdefghijklmnopqrstuvwxyz-+=:0123456789", min_size=1, max_size=20)
PLACES = st.tuples(st.floats(0, 300), st.floats(0, 200), WORDS)


@settings(max_examples=40)
@given(st.lists(PLACES, max_size=25))
def test_labels_cover_no_label_point_or_edge(points):
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


def test_label_is_adjacent_if_alone_and_has_a_line_in_a_crowd():
    [alone] = place([(50, 50)], ["salun"], [0], (300, 200), 9)
    assert alone.line is None
    assert (alone.x, alone.y) == (58, 50)
    crowd = [(50 + dx, 50 + dy) for dx in range(-16, 17, 8) for dy in range(-16, 17, 8)]
    placed = place(crowd, ["x"] * len(crowd), [12], (300, 200), 9)
    assert placed[0].line is not None


@given(st.floats(-1e4, 1e4), st.floats(0.1, 10))
def test_axis_value_inverts_pixel(value, constant):
    scale = symlog_axis([-1e4, 1e4], 250, constant)
    assert scale.value(scale.pixel(value)) == pytest.approx(value, rel=1e-9, abs=1e-6)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=30), st.sampled_from([symlog_axis, linear_axis]))
def test_axes_keep_the_order_and_stay_in_range(numbers, make_axis):
    axis = make_axis(numbers, 600.0)
    pixels = [axis.pixel(number) for number in sorted(numbers)]
    assert pixels == sorted(pixels)
    assert all(-0.1 <= pixel <= 600.1 for pixel in pixels)
    ticks = [axis.pixel(tick) for tick in axis.ticks]
    assert all(b - a > 22 for a, b in itertools.pairwise(ticks))
    assert all(-0.1 <= tick <= 600.1 for tick in ticks)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1], {0, 0.2, 1}),
        ([-30, 42], {-20, 0, 20, 40}),
        ([0.5], {0.2, 0.4, 0.6, 0.8}),
        ([1e-9, 3e-9], {1e-9, 2e-9, 3e-9}),
    ],
)
def test_linear_axis_ticks_are_round(numbers, expected):
    ticks = linear_axis(numbers, 600).ticks
    assert expected <= set(ticks)
    assert 3 <= len(ticks) <= 11


def test_symlog_ticks_are_in_range_and_spaced():
    scale = symlog_axis([0.5, 200], 250)
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


def cost(percent):
    return Interval(percent, percent, percent)


def test_vega_draws_points_at_the_pixels_of_the_axes():
    points = [
        Point("a", "ranked", cost(1.0), Interval(3.0, 1.0, 5.0)),
        Point("b", "ranked", cost(20.0), Interval(40.0, 30.0, 50.0)),
        Point("Retrain", "Retrain", cost(100.0), Interval(0.7, 0.0, 1.5)),
    ]
    drawn = vl_convert.vegalite_to_scenegraph(pareto(points, 1.3))
    costs = symlog_axis([1, 20, 100], COLUMN.width, 1.0, minimum=100)
    distances = symlog_axis([5.0, 50.0, 1.5], COLUMN.height, minimum=10)
    seen = symbols(drawn["scenegraph"])
    for point in points:
        x, y = costs.pixel(point.x.value), COLUMN.height - distances.pixel(point.y.value)
        assert any(math.dist((x, y), place) < 0.6 for place in seen), (point.label, x, y, seen)


def test_symlog_axis_agrees_with_hand_calculation():
    scale = Axis(0, math.e - 1, 100)
    assert scale.pixel(math.sqrt(math.e) - 1) == pytest.approx(50)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_pareto_front_is_beaten_nowhere_on_both_axes(points):
    front = pareto_front(points)
    for x, y in points:
        assert any(a <= x and b <= y for a, b in front)
    for point in front:
        assert not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
