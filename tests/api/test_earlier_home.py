"""A home of an earlier version: its runs and bundles are scored by the present protocol."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.leaderboard import World

import forgetbench
from forgetbench.evidence.reference import read_pack
from forgetbench.evidence.run import read_run
from forgetbench.runner.results import Results
from forgetbench.scoring.scorer import Scorer


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one run, whose manifests follow protocol 1."""
    world, results = World(), Results(tmp_path / "home")
    pack = read_pack(world.write_pack(tmp_path / "pack", schema_version=1))
    card = pack.card
    place = results.reference_folder(card.task, card.task_key, card.draws, card.seeds)
    world.write_pack(place, schema_version=1)
    folder = results.run_folder(card.task, "scrub")
    world.write_run(folder, memory=1.0, schema_version=1)
    assert json.loads((folder / "manifest.json").read_bytes())["protocol"] == card.protocol == 1
    return tmp_path / "home"


def test_home_of_protocol_1_is_scored_by_protocol_2(home: Path) -> None:
    [board] = forgetbench.load_results(home=home)
    row = board["scrub"]
    assert row.scorecard.protocol == 2
    assert row.verdict == "better than doing nothing"
    assert 0 < row.forgotten.value < 1
    assert row.harm.value is not None
    assert board["No unlearning"].forgotten.value == 0.0
    assert board["Retrain"].forgotten.value == 1.0
    assert row.scorecard.recalibration.recoverable is None
    assert board.tables[0].records[0]["verdict"]
    assert {"verdict", "forgotten", "harm, points"} <= set(board.tables[0].header)
    assert "better than doing nothing" in repr(row)
    assert row.scorecard.to_frame().loc["forgotten", "value"] == row.forgotten.value


def test_cached_scores_of_protocol_1_are_computed_again(home: Path) -> None:
    results = Results(home)
    [(bundle, [run])] = results.finished(["*"]).items()
    scorer = results.scorer(read_pack(bundle))
    expected = scorer.score(read_run(run))
    for path in [*(home / "bands").glob("*.json"), *(home / "scores").glob("*.json")]:
        document = json.loads(path.read_bytes())
        path.write_text(json.dumps({**document, "protocol": 1}))
    again = results.scorer(read_pack(bundle))
    assert isinstance(again, Scorer)
    assert again.score(read_run(run)) == expected
    assert {json.loads(path.read_bytes())["protocol"] for path in (home / "scores").glob("*.json")} == {2}
