"""The page "Results": its counts, by other means than its own."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from forgetbench.reporting.figures.verdicts import ABSENT, PALE
from forgetbench.reproduction.reference_file import read_board, reference_tasks
from forgetbench.reproduction.results_page import ORDERS, _order_table, _own_scores, page, picture
from forgetbench.scoring.vocabulary import Verdict


def shipped():
    """Board -> method -> row with default hyper-parameters."""
    boards = map(read_board, reference_tasks())
    return {board.task: {row.label: row for row in board.rows[2:] if ":" not in row.label} for board in boards}


def test_picture_has_each_method_on_each_board() -> None:
    cells = picture().specification["layer"][0]["data"]["values"]
    boards = shipped()
    assert Counter(cell["board"] for cell in cells) == {task: len(set().union(*boards.values())) for task in boards}
    for cell in cells:
        row = boards[cell["board"]].get(cell["method"])
        if row is None or row.verdict is None:
            assert cell["says"] == ABSENT
        else:
            assert cell["says"] in (row.verdict, PALE)
            assert int(cell["text"]) == round(100 * row.forgotten[0])
            comes_back = "recoverable" in row.flags and row.verdict in (Verdict.BETTER, Verdict.AT_A_PRICE)
            assert not comes_back or cell["says"] == PALE


def test_page_counts_every_ranked_method_of_a_board() -> None:
    text = page()
    for task, rows in shipped().items():
        line = next(iter(re.findall(rf"^\| `{task}` \| \d+.*$", text, flags=re.MULTILINE)))
        counts = [int(re.match(r"\d+", cell.strip())[0]) for cell in line.split("|")[2:8]]
        verdicts = Counter(row.verdict for row in rows.values() if row.verdict)
        assert sum(counts) == verdicts.total()
        assert counts[4:] == [verdicts[Verdict.WORSE], verdicts[Verdict.COLLAPSED]]
    for title in ("SalUn", "Unlearn-Sparse", "MUFAC", "Fine-tuning is enough", "MSG and CT lead"):
        assert re.search(rf"^### .*{title}", text, flags=re.MULTILINE)


def test_agreement_counts_pairs_of_a_published_order() -> None:
    board = read_board("digits/cnn/class")
    noise = np.random.default_rng(5).normal(size=(3, 10))

    def row(label: str, distance: float, seeds: np.ndarray):
        values = tuple((distance + seeds).tolist())
        whole = (float(np.mean(values)), 0.0, 1.0, None)
        return board.rows[2].model_copy(update={"label": label, "distance": whole, "pseudo": {"distance": values}})

    # published: salun 1.15, finetune 3.78, random-label 7.15
    rows = (row("salun", 5, noise[0]), row("finetune", 50, noise[1]), row("random-label", 5.1, noise[2]))
    theirs = (row("salun:preset=paper", 60, noise[0]), row("finetune:preset=jia2023", 20, noise[1]))
    made = board.model_copy(update={"rows": (*board.rows[:2], *rows, *theirs)})
    *_, last, _ = _order_table(ORDERS[0], [made]).split("\n")
    assert last.split(" | ")[1:] == ["| 1; opposite 1; not distinguished 1", "0; opposite 1; not distinguished 0 |"]
    made = board.model_copy(update={"rows": (*board.rows[:2], *rows)})
    assert "authors" not in _order_table(ORDERS[0], [made])


def test_own_scores_stand_next_to_the_published_ones() -> None:
    board = read_board("digits/cnn/class")

    def row(label: str, score: float):
        whole = {"nomus": (score, score - 0.01, score + 0.01, None)}
        return board.rows[2].model_copy(update={"label": label, "metrics": whole})

    # published: Retrain .6995, neggrad-plus .6863, scrub .6577, finetune .5898, No unlearning .5839
    rows = (row("scrub", 0.7), row("finetune", 0.61), row("neggrad-plus", 0.68))
    rows += (row("finetune:preset=choi2023", 0.59), row("scrub:preset=choi2023", 0.65))
    made = board.model_copy(
        update={"task": "mufac/cnn/legacy", "rows": (row("Retrain", 0.71), row("No unlearning", 0.6), *rows)}
    )
    text = _own_scores(ORDERS[-1], [made])
    assert re.search(
        r"^\| finetune \| 0\.590 \| 0\.610 \(0\.600 to 0\.620\) \| 0\.590 \(0\.580 to 0\.600\) \|$", text, re.M
    )
    assert re.search(r"^\| unsir \| 0\.597 \| – \| – \|$", text, re.M)
    # one of ten pairs is swapped by defaults, one of six by the authors' values
    assert re.search(r"^\| \*\*Kendall.* \| \| 0\.80 \| 0\.67 \|$", text, re.M)
