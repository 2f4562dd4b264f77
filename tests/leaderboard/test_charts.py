from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetbench.leaderboard.boards.charts import make_scale, pareto_front

SVG = "{http://www.w3.org/2000/svg}"


def picture(site, query=""):
    answer = site.client.get(f"/boards/{site.world.task}.svg{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    return ET.fromstring(answer.content)  # noqa: S314 - our own picture


def rows_of(site):
    found = site.client.get(f"/api/v1/boards/{site.world.task}?columns=all").json()
    return found["references"] + found["rows"]


def test_the_page_shows_two_charts_whose_points_lead_to_the_entries(full):
    page = full.client.get(f"/boards/{full.world.task}").text
    assert page.count('<svg class="chart"') == 2
    first = page[page.index('<svg class="chart"') :].partition("</figure>")[0]
    with_cost = {row["id"] for row in rows_of(full) if row["cost"] is not None}
    assert set(re.findall(r'<a href="/entries/(\w+)" tabindex="-1">', first)) == with_cost
    assert "distance to the oracles, in oracle sd against cost" in first
    assert "The table above holds the same values" in page


def test_any_two_numbers_can_be_the_axes_and_stay_in_the_address(full):
    page = full.client.get(f"/boards/{full.world.task}?x=gap.retain&y=lira.forget&sort=cost").text
    assert re.search(r'aria-label="[^"]*\(lira\.forget\)[^"]* against [^"]*\(gap\.retain\)', page)
    assert re.search(r"<option selected>gap.retain</option>.*<option selected>lira.forget</option>", page, re.DOTALL)
    assert 'name="sort" value="cost"' in page
    assert "x=gap.retain&amp;y=lira.forget" in page  # links that sort keep the axes
    answer = full.client.get(f"/boards/{full.world.task}?x=nonsense", headers={"Accept": "text/html"})
    assert answer.status_code == 422
    assert "choose from distance, cost" in answer.text


def test_points_stand_where_their_numbers_are(full):
    rows = [row for row in rows_of(full) if row["values"].get("accuracy.test", {}).get("value") is not None]
    drawn = picture(full, "?x=accuracy.test&y=distance")
    places = {}
    for group in drawn.iter(f"{SVG}g"):
        label, _, numbers = group.findtext(f"{SVG}title").rpartition(": ")
        shape = group.find(f"{SVG}circle")
        if shape is not None:
            places[label] = (float(shape.get("cx")), float(numbers.split(", ")[0]))
    ranked = {row["label"]: row["values"]["accuracy.test"]["value"] for row in rows if row["rank"]}
    assert set(places) == set(ranked)
    labels = sorted(ranked, key=ranked.__getitem__)
    assert [places[label][0] for label in labels] == sorted(places[label][0] for label in labels)
    for label in labels:
        assert places[label][1] == pytest.approx(100 * ranked[label], rel=1e-3)


def test_the_specification_holds_the_same_points_and_asks_nobody(full):
    answer = full.client.get(f"/boards/{full.world.task}.vega?x=cost&y=distance")
    found = answer.json()
    points = found["layer"][-1]["data"]["values"]
    assert {point["url"] for point in points} == {
        f"/entries/{row['id']}" for row in rows_of(full) if row["cost"] is not None
    }
    assert all("url" not in layer["data"] for layer in found["layer"])


def test_a_board_without_rows_has_no_chart(site):
    assert '<svg class="chart"' not in site.client.get(f"/boards/{site.world.task}").text
    assert site.client.get(f"/boards/{site.world.task}.svg").status_code == 404
    assert site.client.get("/vega.js").status_code == 404


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=30), st.sampled_from(["linear", "log", "symlog"]))
def test_scales_keep_the_order_and_stay_on_the_paper(numbers, kind):
    scale = make_scale(kind, numbers, 10.0, 610.0)
    places = [scale.at(number) for number in sorted(numbers)]
    assert places == sorted(places)
    assert all(9.9 <= place <= 610.1 for place in places)
    ticks = scale.ticks(80.0)
    assert all(b[0] - a[0] >= 80 - 0.2 for a, b in pairwise(ticks))


def test_ticks_are_round_and_where_they_say():
    scale = make_scale("log", [0.5, 200.0], 0.0, 600.0)
    for place, text in scale.ticks(50.0):
        share = (math.log10(float(text)) - math.log10(0.5)) / (math.log10(200) - math.log10(0.5))
        assert place == pytest.approx(600 * share, abs=0.1)
    assert {"1", "10", "100"} <= {text for _, text in scale.ticks(50.0)}
    assert {text for _, text in make_scale("symlog", [-3.0, 40.0], 0.0, 600.0).ticks(50.0)} >= {"0", "10"}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_nothing_beats_the_front_on_both_axes(points):
    front = pareto_front(points)
    for x, y in points:
        assert any(a <= x and b <= y for a, b in front)
    for one in front:
        assert not any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in points)
