"""The table of a board: order, folding, the axis of distances, and the words of its numbers."""

from __future__ import annotations

import re

import pytest

from forgetbench.leaderboard.boards.queries import Outcome
from forgetbench.leaderboard.boards.view import View
from forgetbench.leaderboard.render import rows
from forgetbench.leaderboard.render.fragments import row_chip
from forgetbench.leaderboard.render.rows import Interval, ShownRow, axis_of, headline
from forgetbench.scoring.vocabulary import COMES_BACK, NOTHING_FORGOTTEN, Verdict


def row(label, distance, place="", **changes):
    value = None if distance is None else Interval(distance, distance - 1, distance + 1)
    baseline = label in {"Retrain", "No unlearning"}
    return ShownRow(label, label, "reference", baseline=baseline, place=place, distance=value, **changes)


REFERENCES = [row("Retrain", 0.4, cost=1.0), row("No unlearning", 50.0, cost=0.0)]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("rank", ["Retrain", "a", "b", "No unlearning", "c"]),
        ("cost", ["No unlearning", "a", "b", "c", "Retrain"]),
        ("method", ["Retrain", "No unlearning", "a", "b", "c"]),
    ],
)
def test_reference_rows_are_in_the_order(sort, expected):
    ranked = [row("a", 2.0, "1", cost=0.1), row("b", 30.0, "2", cost=0.2), row("c", 70.0, "3", cost=0.3)]
    shown = rows._with_references(ranked, REFERENCES, View(sort=sort))
    assert [item.label for item in shown] == expected


def test_value_at_the_end_of_a_scale_is_a_lower_bound():
    ceiling = ShownRow("a", "a", "verified", distance=Interval(200.0, 200.0, 200.0), within_band=False)
    assert (ceiling.distance_text, row("b", 20.0).distance_text) == ("≥ 200", "20.0 ± 1.0")
    assert "at least 200" in axis_of([ceiling], 2.0).strip(ceiling).text
    inside = ShownRow("c", "c", "verified", distance=Interval(0.2, 0.2, 0.2), within_band=True)
    assert inside.distance_text == "0.20"  # not a ceiling


@pytest.mark.parametrize(
    ("verdict", "forgotten", "caveat"),
    [
        (Verdict.BETTER, Interval(0.0, 0.0, 0.0), "but nothing forgotten"),
        (Verdict.AT_A_PRICE, Interval(0.1, -0.1, 0.3), "but nothing forgotten"),
        (Verdict.BETTER, Interval(0.1, 0.05, 0.15), ""),
        (Verdict.AS_NOTHING, Interval(0.0, 0.0, 0.0), ""),
        (Verdict.REACHES_RETRAINING, Interval(0.4, -0.1, 0.9), ""),
        (Verdict.BETTER, None, ""),
    ],
)
def test_nearer_rows_that_forgot_nothing_say_so(verdict, forgotten, caveat):
    shown = row("a", 20.0, verdict=verdict, forgotten=forgotten)
    assert shown.caveat == caveat
    assert shown.mark.symbol == ("△" if caveat else rows.VERDICT_MARKS[verdict].symbol)
    assert caveat in row_chip(shown)
    back = row("a", 20.0, verdict=verdict, forgotten=forgotten, flags=("recoverable",))
    assert back.caveat == (COMES_BACK if verdict in (Verdict.BETTER, Verdict.AT_A_PRICE) else "")


def test_axis_has_limit_nothing_and_every_ranked_row():
    axis = axis_of([*REFERENCES, row("a", 120.0, "1"), row("collapsed", 9000.0)], 2.5)
    assert (axis.limit, axis.nothing) == (2.5, 50.0)
    assert axis.position(0) == rows.AXIS_MARGIN < axis.position(2.5) < axis.position(50) < axis.position(120)
    assert axis.position(9000) == axis.position(axis.maximum) <= rows.AXIS_WIDTH - rows.AXIS_MARGIN
    assert [tick.text for tick in axis.ticks] == ["0", "1", "3", "10", "30", "100"]
    assert axis.strip(row("collapsed", 9000.0)).beyond
    assert axis.strip(row("nothing", None)) is None


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome(tested=True, recoverable=True, recovered=0.54, p=0.01), "54 of 60 % comes back"),
        (Outcome(tested=True, recovered=0.0, p=0.01), "not undone"),
        (Outcome(tested=True, recovered=0.0, p=1.0), "nothing to undo"),
        (Outcome(reason="no batch-norm"), "not tested"),
    ],
)
def test_recalibration_is_shown_in_words(outcome, text):
    assert row("a", 3.0, outcome=outcome, forgotten=Interval(0.6, 0.5, 0.7)).recovery_text == text


def test_headline_counts_verdicts_in_words():
    found = {(Verdict.BETTER, ""): 3, (Verdict.AT_A_PRICE, ""): 1, (Verdict.AS_NOTHING, ""): 2}
    assert headline(found) == (
        "None of 6 reaches retraining. 4 of 6 come nearer to it than doing nothing: 1 at the price of accuracy."
    )
    hidden = {(Verdict.BETTER, NOTHING_FORGOTTEN): 2, (Verdict.AT_A_PRICE, COMES_BACK): 1}
    assert headline(found | hidden).endswith(
        " 7 of 9 come nearer to it than doing nothing: 1 at the price of accuracy, 2 without forgetting anything, "
        "1 so that it comes back."
    )
    assert headline({(Verdict.REACHES_RETRAINING, ""): 2}).startswith("2 of 2 reach retraining. 2 of 2 come nearer")
    assert headline({}) == ""


def test_every_verdict_has_a_mark_with_words():
    assert set(rows.VERDICT_MARKS) == set(Verdict)
    assert len({mark.symbol for mark in rows.VERDICT_MARKS.values()}) == len(Verdict)


def test_page_explains_columns_flags_and_what_sets_distances(full):
    page = full.client.get(f"/boards/{full.world.task}").text
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for words in ("What the columns mean", "standard deviations of retrained models", "by LiRA "):
        assert words in text
    for flag in ("under-forgotten", "recoverable", "suspicious", "collapsed", "harmed", "unstable"):
        assert f"{flag} " in text.partition("Flags")[2]
    assert "lira.forget" not in page.partition("<table")[2].partition("</table>")[0]  # metrics only on demand
    assert "LiRA" in full.client.get(f"/boards/{full.world.task}?columns=all").text
