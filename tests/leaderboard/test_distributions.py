"""Histograms of phi: how they are computed, shown, and kept from readers."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import logit, softmax

from forgetbench.evidence.arrays import read_arrays
from forgetbench.leaderboard.boards.distributions import of_board, shares
from forgetbench.leaderboard.boards.strips import phi_chart
from forgetbench.scoring.scorer import Scorer


def phi_by_hand(world, folder):
    """Log odds of the label's probability, by scipy."""
    rows, found = np.arange(60), []
    for path in sorted(folder.glob("d0-s*.npz")):
        right = softmax(read_arrays(path)["forget"].astype(float), axis=1)[rows, world.labels["forget"]]
        found.append(logit(right))
    return np.concatenate(found)


def test_board_histograms_agree_with_its_files(world, tiny_pack):
    found = of_board(Scorer(tiny_pack))
    edges = np.array(found["edges"])
    for role, name in (("references", "oracles"), ("originals", "originals")):
        values = phi_by_hand(world, tiny_pack.folder / role)
        expected = [np.mean((values >= low) & (values < high)) for low, high in pairwise(edges[1:-1])]
        assert found[name][1:-1] == pytest.approx(expected, abs=1e-5)
        assert sum(found[name]) == pytest.approx(1, abs=1e-4)


def test_shares_beyond_the_ends_count_in_the_outer_bins():
    assert shares(np.array([-9.0, 0.1, 0.6, 9.0]), np.array([0.0, 0.5, 1.0])) == [0.5, 0.5]


def test_entry_page_shows_phi_with_oracles_and_originals(full):
    rows = full.client.get(f"/api/v1/boards/{full.world.task}").json()
    for row in rows["rows"][:2] + rows["references"]:
        page = full.client.get(f"/entries/{row['id']}").text
        chart = page[page.index('aria-label="Distributions of phi') :].partition("</figure>")[0]
        assert all(f">{models}</text>" in chart for models in ("oracles", "originals", "unlearned"))
        assert chart.count("line mark container") == 3
        assert chart.count("area mark container") == 1
    assert re.search(r"median of this entry about -?\d", page)


def test_no_prediction_for_an_example_leaves_the_server(full, tiny_pack):
    """The board stores 40 shares for all models together, and the API does not have even those."""
    with full.database.read_session() as session:
        from forgetbench.leaderboard.boards.queries import current_boards

        [board] = current_boards(session)
        assert {name: len(values) for name, values in board.summary["phi"].items()} == {
            "edges": 41,
            "oracles": 40,
            "originals": 40,
        }
        assert "phi" not in json.dumps(full.client.get(f"/api/v1/boards/{full.world.task}").json())


def test_phi_chart_is_none_where_older_code_scored():
    assert phi_chart(None, {"shares": [1.0]}) is None
    assert phi_chart({"edges": [0, 1, 2], "oracles": [1, 0], "originals": [0, 1]}, None) is None
    assert phi_chart({"edges": [0, 1, 2], "oracles": [1, 0], "originals": [0, 1]}, {"shares": [1.0]}) is None
