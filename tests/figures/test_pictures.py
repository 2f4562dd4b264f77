"""Charts of reports: their data, and files that load nothing from elsewhere."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from forgetbench.errors import UsageError
from forgetbench.reporting.figures import critical_difference as across
from forgetbench.reporting.figures import export as files
from forgetbench.reporting.figures.catalog import NAMES, Picture, chosen, pictures_across
from forgetbench.reporting.figures.distributions import confidence
from forgetbench.reporting.figures.points import Interval, Point, kind_of, short_names
from forgetbench.reporting.figures.scatter import pareto, utility
from forgetbench.reporting.figures.steps import steps
from forgetbench.reporting.figures.strips import ranks, seeds
from forgetbench.reporting.streams import StreamCurves
from forgetbench.reporting.tables import Row
from forgetbench.scoring.scorecards import BoardRow, Distance, Effect, MetricBand, Scorecard, Value
from forgetbench.scoring.scorer import REFERENCES


def row(name, distance, rank=None, value=0.1):
    card = Scorecard(
        name=name,
        track="match-oracle",
        seeds=3,
        draws=1,
        distance=Distance(
            value=distance, low=distance - 1, high=distance + 1, metric="gap.test", pseudo_values=(), within_band=False
        ),
        metrics={
            "gap.forget": Value(
                value=value,
                seeds=(value - 0.01, value, value + 0.01),
                band=MetricBand(mean=0, low=-0.02, high=0.02, sd=0.01, floor=0.005),
            )
        },
        flags=() if rank else ("collapsed",),
    )
    place = BoardRow(index=0, name=name, rank=rank, low=rank, high=rank, detectable=None, reason="")
    return Row(card, None if name in {"Retrain", "No unlearning"} else place)


BOARD = [row("a", 3.0, 1), row("b", 5.0, 2), row("Retrain", 0.5), row("No unlearning", 30.0), row("c", 9.0)]


def datasets(specification):
    """The data of all layers and panels, each once."""
    found = [specification["data"]["values"]] if "data" in specification else []
    for part in (part for key in ("layer", "concat", "hconcat") for part in specification.get(key, [])):
        found += [rows for rows in datasets(part) if rows not in found]
    return found


def data(specification, field):
    """Every value of a field in the data of a specification."""
    return [row[field] for rows in datasets(specification) for row in rows if field in row]


def test_mean_ranks_agree_with_scipy_and_demsar():
    generator = np.random.default_rng(3)
    table = generator.permuted(np.arange(1.0, 6.0)[None].repeat(4, axis=0), axis=1)
    boards = {
        f"t{task}": [row(f"m{method}", value, 1) for method, value in enumerate(values)]
        for task, values in enumerate(table)
    }
    found = across.mean_ranks(boards)
    expected = {f"m{method}": rank for method, rank in enumerate(stats.rankdata(table, axis=1).mean(axis=0))}
    assert dict(zip(found.names, found.mean, strict=True)) == pytest.approx(expected)
    assert list(found.mean) == sorted(found.mean)
    assert found.critical == pytest.approx(2.728 * np.sqrt(5 * 6 / (6 * 4)), rel=1e-3)  # q of five methods: Demsar 2006


def across_picture(boards, name="critical-difference"):
    [picture] = pictures_across(boards, [name])
    return picture


def test_pairs_are_separated_by_wilcoxon_and_holm():
    boards = {
        f"task{place}": [row("a", 1.0, 1), row("b", 2.0 + 0.1 * place, 2), row("c", 9.0 + place, 3)]
        for place in range(8)
    }
    found = across.mean_ranks(boards)
    p = stats.wilcoxon(np.ones(8), method="exact").pvalue  # each pair differs on each task, on the same side
    assert 3 * p < 0.05
    assert found.separated == (("a", "b"), ("a", "c"), ("b", "c"))
    few = across.mean_ranks(dict(list(boards.items())[:6]))
    assert few.separated == ()  # 3 pairs at 2^-5 each
    assert "corrected by Holm: a before b, a before c, b before c." in across_picture(boards).caption
    assert "corrected by Holm: none." in across_picture(dict(list(boards.items())[:6])).caption


def test_mean_ranks_put_collapsed_last_and_omit_missing():
    first = [row("a", 1.0, 1), row("b", 2.0, 2), row("c", 0.1), row("d", 0.2), row("Retrain", 0.1)]
    second = [row("a", 1.0, 1), row("b", 2.0, 2), row("c", 3.0, 3), row("Retrain", 0.1)]
    found = across.mean_ranks({"one": first, "two": second})
    assert dict(zip(found.names, found.mean, strict=True)) == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert found.left_out == ("d",)
    assert found.separated == ()  # two tasks are too few for the test
    assert across.mean_ranks({"one": first}) is None
    assert pictures_across({"one": first, "two": [row("x", 1.0)]}, ["critical-difference"]) == []


def judged(name, distance, verdict, forgotten=1.0, low=0.9, flags=()):
    board_row = row(name, distance, 1)
    effect = Effect(value=forgotten, low=low, high=forgotten)
    return Row(board_row.card.model_copy(update={"verdict": verdict, "forgotten": effect, "flags": flags}), None)


def test_verdicts_order_by_success_and_pale_what_comes_back():
    one = [judged("a", 9.0, "better than doing nothing"), judged("b:lr=0.1", 1.0, "collapsed", 0.333)]
    two = [
        judged("a", 3.0, "better than doing nothing", flags=("recoverable",)),
        judged("c", 4.0, "forgets at a price", 0.0, -0.1),
        judged("Retrain", 0.5, "reaches retraining"),
        row("failed", 2.0),
    ]
    cells = across_picture({"one": one, "two": two}, "verdicts").specification["layer"][0]["data"]["values"]
    found = [(cell["method"], cell["board"], cell["says"], cell["text"]) for cell in cells]
    pale, white = "nearer, but nothing forgotten or it comes back", "not applicable, or not run"
    assert found == [
        ("a", "one", "better than doing nothing", "100"),
        ("a", "two", pale, "100"),
        ("b:…", "one", "collapsed", "33"),
        ("b:…", "two", white, ""),
        ("c", "one", white, ""),
        ("c", "two", pale, "0"),
    ]
    assert pictures_across({"one": one}, ["verdicts"]) == []


@pytest.mark.parametrize(
    ("mean", "critical", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], 1.5, [(0, 1), (1, 2), (2, 3)]),
        ([1.0, 1.2, 1.4, 4.0], 1.5, [(0, 2)]),
        ([1.0, 3.0, 5.0], 1.5, []),
        ([1.0, 2.0, 3.0], 9.0, [(0, 2)]),
    ],
)
def test_cliques_join_tied_methods(mean, critical, expected):
    assert across.cliques(mean, critical) == expected


def cost(percent):
    return Interval(percent, percent, percent)


def test_pareto_draws_the_front_and_zero_cost():
    points = [
        Point("cheap", "ranked", cost(1), Interval(20, 18, 22)),
        Point("good", "ranked", cost(20), Interval(2, 1, 3)),
        Point("beaten", "ranked", cost(30), Interval(4, 3, 5)),
        Point("out", "not ranked", cost(0.1), Interval(1, 0.5, 2)),
        Point("No unlearning", "No unlearning", cost(0), Interval(30, 29, 31)),
    ]
    drawn = pareto(points, 1.5)
    [line] = [layer for layer in drawn["layer"] if layer["mark"].get("interpolate") == "step-after"]
    front = line["data"]["values"]
    assert [(point["x"], point["y"]) for point in front] == [(1, 20), (20, 2)]
    assert {"cheap", "good", "No unlearning"} <= set(data(drawn, "label"))
    assert pareto(points[4:], 1.5) is None
    assert utility([]) is None


def test_ranks_show_ranges_or_why_there_is_none():
    drawn = ranks(BOARD, 1.2)
    assert set(data(drawn, "why")) == {"", "collapsed"}
    assert kind_of("a", ranked=False) == "not ranked"
    assert all(kind_of(name, ranked=False) == name for name in REFERENCES)
    assert ranks([], None) is None


def test_seeds_draw_a_dot_for_each_seed():
    drawn = seeds(BOARD, ["gap.forget"])
    assert sorted(set(data(drawn, "seed"))) == [0, 1, 2]
    assert data(drawn, "end") == [2.0]  # the band, in points
    assert seeds(BOARD, ["lira.forget"]) is None


def test_confidence_peaks_where_the_sample_does():
    generator = np.random.default_rng(0)
    sample = generator.normal(2, 1, 4000)
    drawn = confidence({"oracles": generator.normal(-3, 1, 4000), "originals": sample, "mine": np.full(50, 2.0)})
    rows = {side: [] for side in ("oracles", "originals", "unlearned")}
    for side, x, y in zip(data(drawn, "side"), data(drawn, "phi"), data(drawn, "density"), strict=True):
        rows[side].append((y, x))
    assert max(rows["oracles"])[1] == pytest.approx(-3, abs=0.4)
    assert max(rows["originals"])[1] == pytest.approx(2, abs=0.4)
    assert max(rows["unlearned"])[1] == pytest.approx(2, abs=0.2)
    assert confidence({"oracles": sample, "originals": sample}) is None


def test_steps_draw_no_line_across_a_missing_model():
    missing = np.full((3, 2, 4), 0.5)
    missing[1] = np.nan
    kept = np.linspace(0, 1, 12).reshape(3, 4)
    drawn = steps([StreamCurves("Retrain", missing, kept, erased=True, flops=1.0)])
    points = list(zip(data(drawn, "what"), data(drawn, "step"), data(drawn, "piece"), data(drawn, "mean"), strict=True))
    assert ("request 1", 0, 0, 50.0) in points
    assert ("request 1", 2, 1, 50.0) in points
    assert not [one for one in points if one[:2] == ("request 1", 1)]
    assert [one[3] for one in points if one[0] == "retained"] == pytest.approx(
        (100 * kept.mean(axis=1)).tolist(), abs=1e-3
    )
    assert data(drawn, "low")[-1] == pytest.approx(100 * kept[2].min(), abs=1e-3)
    assert steps([]) is None


@pytest.fixture(scope="module")
def picture():
    return Picture("t-ranks", ranks(BOARD, 1.2), "caption <&>")


def test_write_fills_a_folder_or_one_file(picture, tmp_path):
    written = files.write([picture], tmp_path / "new")
    assert sorted(path.name for path in written) == ["t-ranks.html", "t-ranks.pdf", "t-ranks.png", "t-ranks.svg"]
    heads = {path.suffix: path.read_bytes()[:5] for path in written}
    assert heads[".png"][1:4] == b"PNG"
    assert heads[".pdf"] == b"%PDF-"
    assert heads[".svg"].startswith(b"<svg")
    twice = files.write([picture, picture], tmp_path / "two boards")
    assert {path.stem for path in twice} == {"t-ranks", "t-ranks-2"}
    [path] = files.write([picture], tmp_path / "one.json")
    assert b"vega-lite" in path.read_bytes()
    with pytest.raises(UsageError, match="2 pictures do not fit"):
        files.write([picture, picture], tmp_path / "two.svg")
    with pytest.raises(UsageError, match="Available: svg"):
        files.write([picture], tmp_path / "one.gif")


def test_html_file_loads_nothing_from_elsewhere(picture):
    page = files.WRITERS["html"](picture).decode()
    assert "caption &lt;&amp;&gt;" in page
    assert not re.search(r"""<(script|link|img)[^>]*(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "@import" not in page
    assert not re.search(r"""\b(import|from)\s*\(?["']https?://""", page)


def test_short_names_drop_unambiguous_parameters():
    assert short_names(["a", "a:x=1", "b:y=2,z=3", "c:x=1", "c:x=2"]) == {
        "a": "a",
        "a:x=1": "a:…",
        "b:y=2,z=3": "b:…",
        "c:x=1": "c:x=1",
        "c:x=2": "c:x=2",
    }


def test_chosen_figures_must_exist():
    assert chosen(["ranks", "ranks"]) == ("ranks",)
    assert chosen(["all"]) == NAMES
    with pytest.raises(UsageError, match="Available: pareto"):
        chosen(["paretto"])
