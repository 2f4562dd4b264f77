"""An attack that finds retained rows as well as forgotten ones has found drift, and ranks nobody."""

from __future__ import annotations

from forgetbench.scoring.bands import reference_bands


def board(simulate, memory, retain):
    """Bands of a board whose originals are surer by ``memory`` on forgotten rows and by ``retain`` on retained ones."""
    task = simulate(rows={"forget": 150, "retain": 150, "test": 200})
    references, controls, originals = task.models(), task.models(), task.models(memory, retain=3.0 + retain)
    return reference_bands(task.labels, references, controls, originals, "match-oracle")


def test_bands_drift_alone_is_not_feasible(simulate):
    bands = board(simulate, memory=2.0, retain=2.0)
    lira = bands.references["lira.forget"]
    assert lira.original_z > 3
    assert lira.feasible is False
    assert lira.reason.startswith("drift: ")
    assert "lira.forget" not in bands.ranking


def test_bands_memory_beyond_drift_is_feasible(simulate):
    bands = board(simulate, memory=2.0, retain=0.2)
    assert bands.references["lira.forget"].feasible is True
    assert bands.references["lira.forget"].reason == ""
    assert "lira.forget" in bands.ranking
