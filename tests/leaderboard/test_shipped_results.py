"""The results that ship with the package: read-only boards, apart from those of the server."""

from __future__ import annotations

import pytest

from forgetbench.leaderboard.boards.shipped import shipped_tasks

TASK = "digits/cnn/class"


def test_shipped_results_are_boards_of_their_own(full):
    assert TASK in shipped_tasks()
    page = full.client.get(f"/shipped/{TASK}").text
    assert ("Read-only." in page, "Nothing can be submitted here" in page) == (True, True)
    table = page.partition("<tbody")[2]
    assert 0 < table.index('<span class="tier"') < table.index("Retrain")
    assert f"forgetbench reproduce {TASK}" in page
    [table] = full.client.get(f"/shipped/{TASK}.json").json()["tables"].values()
    assert {row["tier"] for row in table} == {"shipped"}
    assert [row["entry"] for row in table[:2]] == ["Retrain", "No unlearning"]


def test_shipped_rows_say_where_their_values_are_from(full):
    page = full.client.get("/shipped/mufac/cnn/legacy").text
    rows = [part.partition("</th>")[0] for part in page.split('<th scope="row"') if ">scrub<" in part]
    assert {(":preset=choi2023" in row, "hyper-parameters of a publication" in row) for row in rows} == {
        (True, True),
        (False, False),
    }
    assert [">defaults<" in row for row in rows].count(True) == 1


@pytest.mark.parametrize(
    ("task", "people"),
    [
        ("mufac/cnn/clean", True),
        ("cmu-faces/vit/stream-3", True),
        ("faces/cnn/identity", True),
        ("cifar10-jpeg/fast/class-small", False),
        (TASK, False),
    ],
)
def test_boards_of_people_say_what_is_not_proved(full, task, people):
    assert ("What this does not prove" in full.client.get(f"/shipped/{task}").text) is people


def test_no_board_lists_shipped_results(full):
    assert [board["task"] for board in full.client.get("/api/v1/boards").json()] == [full.world.task]
    for address in ("/methods", f"/boards/{full.world.task}", "/dump.jsonl"):
        assert "ssd" not in full.client.get(address).text, address
    own, _, shipped = full.client.get("/").text.partition('id="shipped"')
    row = 'href="/methods/ssd"'
    assert (row in own, row in shipped, "alpha" in shipped) == (False, True, False)
    assert 'href="/shipped"' in shipped
    assert f'href="/shipped/{TASK}"' in full.client.get("/shipped").text


@pytest.mark.parametrize("path", ["/shipped/none", f"/shipped/{TASK}.xml"])
def test_unknown_shipped_results_are_not_found(full, path):
    assert full.client.get(path).status_code == 404
