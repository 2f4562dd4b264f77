"""Charts on the pages of boards."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

SVG = "{http://www.w3.org/2000/svg}"


def picture(site, query=""):
    answer = site.client.get(f"/boards/{site.world.task}.svg{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    return ET.fromstring(answer.content)  # noqa: S314 - our own picture


def rows_of(site):
    found = site.client.get(f"/api/v1/boards/{site.world.task}?columns=all").json()
    return found["references"] + found["rows"]


def test_board_page_has_two_charts_linked_to_entries(full):
    page = full.client.get(f"/boards/{full.world.task}").text
    assert page.count('<svg class="chart"') == 2
    first = page[page.index('<svg class="chart"') :].partition("</figure>")[0]
    with_cost = {row["id"] for row in rows_of(full) if row["cost"] is not None}
    assert set(re.findall(r'<a tabindex="-1" [^>]*href="/entries/(\w+)"', first)) == with_cost
    assert "distance to retraining, in oracle sd against cost" in first
    assert "The table above has the same values" in page


def test_filtered_and_later_pages_link_to_the_charts(full):
    address = f"/boards/{full.world.task}"
    filtered = full.client.get(f"{address}?q=finetune").text
    assert '<svg class="chart"' not in filtered
    assert f'<a href="{address}#charts">Charts of all rows</a>' in filtered
    assert '<h2 id="charts">' in full.client.get(address).text  # where that link leads to
    assert '<svg class="chart"' in full.client.get(f"{address}?sort=-cost").text
    assert '<svg class="chart"' in full.client.get(f"{address}?q=finetune&x=cost").text  # axes were chosen


def test_any_two_numbers_can_be_axes_and_stay_in_the_query(full):
    page = full.client.get(f"/boards/{full.world.task}?x=gap.retain&y=lira.forget&sort=cost").text
    assert re.search(r'aria-label="[^"]*\(lira\.forget\)[^"]* against [^"]*\(gap\.retain\)', page)
    assert re.search(r"<option selected>gap.retain</option>.*<option selected>lira.forget</option>", page, re.DOTALL)
    assert 'name="sort" value="cost"' in page
    assert "x=gap.retain&amp;y=lira.forget" in page  # links that sort keep the axes
    answer = full.client.get(f"/boards/{full.world.task}?x=nonsense", headers={"Accept": "text/html"})
    assert answer.status_code == 422
    assert "Available: distance, cost" in answer.text


def test_points_are_drawn_at_their_numbers(full):
    rows = [row for row in rows_of(full) if row["values"].get("accuracy.test", {}).get("value") is not None]
    drawn = picture(full, "?x=accuracy.test&y=distance")
    places = {}
    claims, points = [group for group in drawn.iter(f"{SVG}g") if "mark-symbol role-mark" in group.get("class", "")]
    assert all(shape.get("stroke-dasharray") for shape in claims.iter(f"{SVG}path"))  # hatched
    for shape in (*claims.iter(f"{SVG}path"), *points.iter(f"{SVG}path")):
        label, _, numbers = shape.get("aria-label").removeprefix("[C] ").rpartition(": ")
        x = re.match(r"translate\(([-\d.]+),", shape.get("transform"))[1]
        places[label] = (float(x), float(numbers.split(", ")[0]))
    values = {row["label"]: row["values"]["accuracy.test"]["value"] for row in rows}
    assert set(places) == set(values)
    labels = sorted(values, key=values.__getitem__)
    assert [places[label][0] for label in labels] == sorted(places[label][0] for label in labels)
    for label in labels:
        assert places[label][1] == pytest.approx(100 * values[label], rel=1e-3)


def test_chart_specification_has_the_points_and_loads_nothing(full):
    answer = full.client.get(f"/boards/{full.world.task}.vega?x=cost&y=distance")
    found = answer.json()
    layers = [layer for layer in found["layer"] if layer["mark"]["type"] == "point"]
    points = [point for layer in layers for point in layer["data"]["values"]]
    assert [{point["kind"] for point in layer["data"]["values"]} for layer in layers] == [
        {"claimed"},
        {"Retrain", "No unlearning"},
    ]
    assert {point["url"] for point in points} == {
        f"/entries/{row['id']}" for row in rows_of(full) if row["cost"] is not None
    }
    assert all("url" not in layer["data"] for layer in found["layer"])


def test_board_without_entries_has_no_chart(site):
    assert '<svg class="chart"' not in site.client.get(f"/boards/{site.world.task}").text
    assert site.client.get(f"/boards/{site.world.task}.svg").status_code == 404
    assert site.client.get("/vega.js").status_code == 404
