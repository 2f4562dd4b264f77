"""Published tables: their numbers follow from their other columns, or are listed as errors."""

from __future__ import annotations

import fnmatch
import math

import numpy as np
import pytest

from forgetbench.methods import methods
from forgetbench.metrics import metrics
from forgetbench.reporting.literature import (
    compare_with_papers,
    largest_deviation,
    matching_tables,
    recomputed,
    sources,
)
from forgetbench.scoring.scorecards import Scorecard, Value
from forgetbench.tasks.task import names

TABLES = [
    pytest.param(source, table, id=f"{name}: {table.number}")
    for name, source in sources().items()
    for table in source.tables
]
ROUNDING = {"average-gap": 0.0101, "h-mean": 0.0151, "nomus": 1.01e-4}
UNREGISTERED = {"salun-soft", "SCRUB-S", "L2*", "EWC*", "MAS*", "LwF", "DER", "DER++", "FDR", "LIRF*"}


@pytest.mark.parametrize(("source", "table"), TABLES)
def test_formula_columns_follow_or_are_known_misprints(source, table):
    misprints = {(error.row, error.column) for error in table.errors if error.kind == "misprint"}
    for (row, column), (printed, computed) in recomputed(source, table).items():
        allowed = table.tolerance or ROUNDING[source.columns[column].formula]
        if (row, column) in misprints:
            assert abs(printed - computed) > allowed, f"{row}, {column} is not a misprint"
        else:
            assert printed == pytest.approx(computed, abs=allowed), f"{row}, {column}"
    assert bool(table.tolerance) == bool(table.tolerance_note)


@pytest.mark.parametrize(("source", "table"), TABLES)
def test_deviations_are_possible_or_known_errors(source, table):
    impossible = {(error.row, error.column) for error in table.errors if error.kind == "impossible deviation"}
    found = set()
    for row in table.rows:
        for column in table.order:
            deviation, unit = table.deviation(row, column), source.columns[column].unit
            if deviation is not None and unit in ("percent", "share"):
                top = 100 if unit == "percent" else 1
                margin = 0.005 * top / 100  # of rounding
                mean = min(max(table.mean(row, column), margin), top - margin)
                if deviation > largest_deviation(mean, table.trials, top) + top / 100:
                    found.add((row, column))
    assert found == impossible


def test_formulas_are_recomputed_in_all_read_cells():
    counts = {"average-gap": 0, "h-mean": 0, "nomus": 0}
    for source in sources().values():
        for table in source.tables:
            for _, column in recomputed(source, table):
                counts[source.columns[column].formula] += 1
    assert counts["nomus"] == 45
    assert counts["average-gap"] == 2 * 11 + 2 * 10 + 4 * 5
    assert (
        counts["h-mean"] == 4 * 13 + 4 * 4 + 4 * 9 + 4 * 3 + 2
    )  # tables 2, 2 with four images, 3, and what was read of 4


def test_columns_and_rows_have_known_names():
    for source in sources().values():
        for name, column in source.columns.items():
            assert column.metric is None or column.metric in metrics.names(), name
        for table in source.tables:
            assert set(table.order) <= set(source.columns)
            for row in table.rows:
                assert row in methods or row in UNREGISTERED or row.endswith(")"), row


def test_matching_settings_are_tasks_of_the_catalog():
    known = names()
    patterns = {pattern for source in sources().values() for table in source.tables for pattern in table.tasks}
    assert not [pattern for pattern in patterns if not fnmatch.filter(known, pattern)]
    assert matching_tables("digits/cnn/class") == []
    assert len(matching_tables("cifar10-jpeg/resnet18/random-10")) == 3


def test_largest_deviation_is_reached_and_not_exceeded():
    random = np.random.default_rng(0)
    for mean_of in (0.03, 0.2, 0.5, 0.9):
        draws = np.clip(random.normal(mean_of, 0.5, (500, 10)), 0, 1)
        for row in draws:
            assert row.std(ddof=1) <= largest_deviation(row.mean(), 10, 1.0) + 1e-9
    one = np.array([1.0] + [0.0] * 9)
    assert one.std(ddof=1) == pytest.approx(largest_deviation(0.1, 10, 1.0))
    assert largest_deviation(1.44, 10, 100) < 6.33


def test_compare_with_papers_reads_streams_by_request():
    records = [
        {"method": "gs-lora", "request": 1, "retained": 0.6, "requested": 0.0, "earlier": None, "h-mean": 0.7},
        {"method": "gs-lora", "request": 2, "retained": 0.7, "requested": 0.0, "earlier": 0.25, "h-mean": 0.7},
    ]
    tables = compare_with_papers("casia100/vit/stream-4x20-published", {}, records)
    first, second = (next(table for table in tables if table.title.endswith(name)) for name in ("100-20", "80-20"))
    row = next(record for record in second.records if record["method"] == "gs-lora")
    assert row["Acc_r measured"] == pytest.approx(70)
    assert (row["Acc_o measured"], row["Acc_o published"]) == (25, 0.05)
    row = next(record for record in first.records if record["method"] == "gs-lora")
    assert row["Acc_r measured"] == pytest.approx(60)
    assert math.isnan(row["Acc_o measured"])


def test_forgetting_score_is_the_distance_from_one_half():
    metrics_ = {"mia.loss": Value(value=0.3)}
    cards = {"finetune": Scorecard(name="finetune", track="match-oracle", seeds=10, draws=1, metrics=metrics_)}
    [table] = compare_with_papers("mufac/resnet18/legacy", cards)
    row = next(record for record in table.records if record["method"] == "finetune")
    assert (row["FS published"], row["FS measured"]) == (0.2129, pytest.approx(0.2))


def test_compare_with_papers_uses_units_and_marks_errors():
    metrics_ = {"accuracy.forget": Value(value=0.94), "accuracy.retain": Value(value=0.99)}
    cards = {"l1-sparse": Scorecard(name="l1-sparse", track="match-oracle", seeds=10, draws=1, metrics=metrics_)}
    tables = compare_with_papers("cifar10/resnet18/random-50", cards)
    salun = next(table for table in tables if table.title.startswith("Fan 2024"))
    row = next(row for row in salun.rows if row[1] == "l1-sparse")
    assert salun.header[:6] == ("", "method", "UA published", "measured", "RA published", "measured")
    assert row[2:6] == ("1.44±6.3!", "6", "99.52±4.5!", "99")
    assert any("at most 4.55" in note for note in salun.notes)
    record = next(record for record in salun.records if record["method"] == "l1-sparse")
    assert record["UA measured"] == pytest.approx(6.0)
    assert math.isnan(next(record for record in salun.records if record["method"] == "salun")["UA measured"])
