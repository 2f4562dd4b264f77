"""From answers to scorecards: bands, distance, intervals, feasibility, and what the records hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

from forgetbench.errors import UsageError
from forgetbench.metrics import Cost, centered_js, lira, lira_auc, metrics, mia_population, phi, shift
from forgetbench.metrics import loss as cross_entropy
from forgetbench.scoring.per_model import per_model_values
from forgetbench.scoring.score import reference_bands, score, unscored
from forgetbench.scoring.scorecards import Bands, Scorecard
from forgetbench.scoring.statistics import split_halves


class Board:
    def __init__(self, task, track="match-oracle", originals=2.0):
        self.task, self.labels = task, task.labels
        self.references, self.controls = task.models(), task.models()
        self.originals = task.models(memory=originals)
        self.bands = reference_bands(self.labels, self.references, self.controls, self.originals, track)

    def score(self, answers, name="contestant", **more):
        return score(
            answers,
            name=name,
            references=self.references,
            labels=self.labels,
            bands=self.bands,
            originals=self.originals,
            **more,
        )


@pytest.fixture
def board(simulate):
    return Board(simulate())


def test_score_values_equal_the_metric_functions(board):
    answers = board.task.models(memory=1.0)
    found = board.score(answers).metrics
    mine, theirs, labels = answers[0], board.references[0], board.labels[0]
    sides = phi(mine["forget"], labels["forget"]), phi(theirs["forget"], labels["forget"])
    whole = lira(*sides)
    assert found["lira.forget"].value == whole.auc
    assert found["lira.forget.balanced"].value == whole.balanced_accuracy
    assert found["lira.forget.worst-decile"].value == whole.worst_decile
    assert found["shift.forget"].value == pytest.approx(shift(*sides))
    assert found["js"].value == pytest.approx(centered_js(mine["forget"], theirs["forget"]))
    expected = mia_population(
        (mine["forget"], mine["test"]), (theirs["forget"], theirs["test"]), labels["forget"], labels["test"]
    )
    assert found["mia.population"].value == pytest.approx(expected)
    right = [(side["test"].argmax(-1) == labels["test"]).mean() for side in (mine, theirs)]
    assert found["gap.test"].value == pytest.approx(right[0] - right[1])
    assert found["accuracy.test"].value == pytest.approx(right[0])
    assert set(found) <= set(metrics.names())


@pytest.mark.parametrize("rows", [(20, 320), (320, 20)])
def test_per_model_loss_attack_is_balanced(rows):
    generator = np.random.default_rng(0)
    truth = {name: generator.integers(0, 3, n) for name, n in zip(("forget", "test"), rows, strict=True)}
    answers = {name: generator.normal(size=(2, len(labels), 3)) for name, labels in truth.items()}
    losses = [cross_entropy(answers[name], truth[name])[:, :: max(1, len(truth[name]) // 20)] for name in truth]
    sides = np.concatenate([losses[1], losses[0]], axis=1)[..., None]
    splits = StratifiedShuffleSplit(n_splits=10, random_state=0)
    line = LogisticRegression(tol=1e-10, max_iter=1000)
    expected = [cross_val_score(line, side, np.repeat([0, 1], 20), cv=splits).mean() for side in sides]
    assert per_model_values([answers], [truth])[0]["mia.loss"][0] == pytest.approx(expected, abs=1e-12)


def test_bands_are_the_distribution_over_splits(board):
    labels = board.labels[0]["retain"]
    pool = phi(np.concatenate([board.references[0]["retain"], board.controls[0]["retain"]]), labels)
    values = [lira_auc(pool[left], pool[right]) for left, right in split_halves(6)]
    band = board.bands.bands["lira.retain"]
    assert band.mean == pytest.approx(np.mean(values))
    assert band.sd == pytest.approx(np.std(values))
    assert (band.low, band.high) == pytest.approx(tuple(np.quantile(values * 2, [0.025, 0.975])))
    assert band.floor == 0.05
    assert board.bands.split_halves == 924


def test_score_z_respects_the_floor(board):
    card = board.score(board.task.models(memory=1.0))
    for name in card.ranking:
        value = card.metrics[name]
        expected = (value.value - value.band.mean) / max(value.band.sd, metrics.get(name).floor)
        assert value.z == pytest.approx(expected)
    assert [metrics.get(name).floor for name in ("gap.forget", "gap.test", "lira.forget", "lira.retain")] == [
        0.005,
        0.005,
        0.01,
        0.05,
    ]


def test_distance_pseudo_values_leave_out_both_sides(board):
    answers = board.task.models(memory=0.6)
    card = board.score(answers)
    zs = {name: abs(card.metrics[name].z) for name in card.ranking}
    assert card.distance.value == max(zs.values())
    assert card.distance.metric == max(zs, key=zs.get)
    left_out = []
    for seed in range(6):
        rest = [
            {name: np.delete(array, seed, axis=0) for name, array in side[0].items()}
            for side in (answers, board.references)
        ]
        parts = []
        for name in card.ranking:
            kind, subset = name.split(".")
            truth = board.labels[0][subset]
            if kind == "gap":
                value = np.diff([(side[subset].argmax(-1) == truth).mean() for side in rest[::-1]])[0]
            else:
                value = lira_auc(*(phi(side[subset], truth) for side in rest))
            band = board.bands.bands[name]
            parts.append(abs(value - band.mean) / band.width)
        left_out.append(max(parts))
    expected = card.distance.value + 5 * (np.mean(left_out) - np.array(left_out))
    np.testing.assert_allclose(card.distance.pseudo_values, expected, rtol=1e-9)
    half = stats.t.ppf(0.975, 5) * np.std(expected, ddof=1) / np.sqrt(6)
    assert card.distance.high - card.distance.value == pytest.approx(half)


def test_distance_rises_with_harm(board):
    cards = [board.score(board.task.models(memory=memory)) for memory in (0.0, 0.5, 1.0, 2.0)]
    distances = [card.distance.value for card in cards]
    assert distances == sorted(distances)
    assert cards[0].distance.within_band
    assert not cards[2].distance.within_band
    harmed = board.score(board.task.models(retain=0.5))
    assert not harmed.distance.within_band
    assert harmed.distance.metric in {"gap.retain", "lira.retain"}


def test_score_retrain_and_no_unlearning(board):
    retrain, untouched = board.score(board.controls, "Retrain"), board.score(board.originals, "No unlearning")
    assert retrain.distance.value < untouched.distance.value
    assert untouched.flags == ("under-forgotten",)
    for name, reference in board.bands.references.items():
        assert untouched.metrics[name].value == pytest.approx(reference.original)
        if reference.original_z is not None:
            assert untouched.metrics[name].z == pytest.approx(reference.original_z)


def test_distance_saturated_lira_uses_the_shift(board):
    far, farther = (board.score(board.task.models(memory=-memory)) for memory in (12.0, 30.0))
    for card in (far, farther):
        assert card.metrics["lira.forget"].value > 0.99
        assert card.distance.metric == "shift.forget"
        assert card.distance.value == abs(card.metrics["shift.forget"].z)
    assert farther.distance.value > far.distance.value + 1


def test_distance_changes_that_cancel_still_count(simulate):
    board = Board(simulate())
    answers = board.task.models()
    truth = board.labels[0]["forget"]
    answers[0]["forget"][:, np.arange(60), truth] += np.where(np.arange(60) % 2, 60.0, -60.0)
    card = board.score(answers)
    assert card.metrics["lira.forget"].value > 0.99
    assert card.distance.value >= abs(card.metrics["lira.forget"].z)


def test_bands_nothing_remembered_is_informational(simulate):
    board = Board(simulate(), originals=0.0)
    assert "No unlearning is not distinguishable from the oracles" in board.bands.unranked_reason
    assert board.bands.ranking == ("gap.retain", "gap.test", "lira.retain")
    card = board.score(board.controls)
    assert card.distance is not None
    assert card.exclusion_reason == board.bands.unranked_reason


def test_score_ranking_only_gives_the_same_distance(board):
    answers = board.task.models(memory=1.0)
    alone = reference_bands(
        board.labels, board.references, board.controls, board.originals, "match-oracle", ranking_only=True
    )
    assert alone.family_limit == board.bands.family_limit
    assert alone.ranking == board.bands.ranking
    card = score(answers, name="x", references=board.references, labels=board.labels, bands=alone, ranking_only=True)
    assert card.distance == board.score(answers).distance


def test_score_every_value_is_in_its_specs_range(board):
    cards = [board.score(answers) for answers in (board.controls, board.originals, board.task.models(memory=-8.0))]
    for card in cards:
        for name, value in card.metrics.items():
            low, high = metrics.get(name).range
            assert (value.value is None) == bool(value.reason), name
            if value.value is not None:
                assert low is None or value.value >= low - 1e-9, name
                assert high is None or value.value <= high + 1e-9, name
    shown = {name for name, value in cards[0].metrics.items() if value.value is not None}
    assert shown >= {"w1.forget", "rmia", "forgetting-quality", "nomus", "avg-gap", "aus", "completeness", "mia.retain"}
    assert "see w1" in cards[0].metrics["klom.forget"].reason


def test_score_retrain_on_relative_metrics(board):
    card = board.score(board.controls)
    assert abs(card.metrics["w1.forget"].value) < 4 * card.metrics["w1.forget"].band.sd
    assert card.metrics["forgetting-quality"].value == pytest.approx(1, abs=0.6)
    assert card.metrics["rmia"].value == pytest.approx(0.5, abs=0.1)


def test_bands_infeasible_efficacy_metric_does_not_rank(board):
    for name in ("gap.forget", "lira.forget"):
        reference = board.bands.references[name]
        assert reference.feasible == (abs(reference.original_z) > 3)
        assert (name in board.bands.ranking) == reference.feasible
    assert board.bands.references["gap.test"].feasible is None


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_score_few_seeds_has_values_but_no_ranks(simulate, seeds):
    board = Board(simulate(seeds=seeds))
    assert board.bands.unranked_reason.startswith(f"{seeds} seeds")
    card = board.score(board.task.models(memory=1.0))
    assert card.metrics["gap.forget"].value is not None
    assert (card.metrics["lira.forget"].value is None) == (seeds < 3)
    if seeds < 3:
        assert "at least three models" in card.metrics["lira.forget"].reason
    assert Scorecard.model_validate_json(card.model_dump_json()) == card


def test_score_draws_are_averaged(simulate):
    task = simulate(draws=2)
    board = Board(task)
    card = board.score(answers := task.models(memory=1.0))
    parts = [
        lira_auc(*(phi(side[draw]["forget"], task.labels[draw]["forget"]) for side in (answers, board.references)))
        for draw in range(2)
    ]
    assert card.metrics["lira.forget"].value == pytest.approx(np.mean(parts))
    assert card.draws == 2
    assert len(card.distance.pseudo_values) == 6


def test_records_survive_json_bit_by_bit(board):
    card = board.score(board.task.models(memory=1.0), cost=Cost(flops=0.123, trials=10))
    assert Scorecard.model_validate_json(card.model_dump_json()) == card
    assert Bands.model_validate_json(board.bands.model_dump_json()) == board.bands
    failed = unscored("x", "failed", "out of memory", board.bands)
    assert Scorecard.model_validate_json(failed.model_dump_json()) == failed


def test_score_same_arrays_give_the_same_bits(board):
    answers = board.task.models(memory=1.0)
    reversed_answers = [dict(reversed(draw.items())) for draw in answers]
    first = board.score(answers).model_dump_json()
    assert board.score(reversed_answers).model_dump_json() == first
    again = reference_bands(board.labels, board.references, board.controls, board.originals, "match-oracle")
    assert again.model_dump_json() == board.bands.model_dump_json()


def test_score_float16_equals_float64(board):
    answers = board.task.models(memory=1.0)
    small = [{name: array.astype(np.float16) for name, array in draw.items()} for draw in answers]
    wide = [{name: array.astype(np.float64) for name, array in draw.items()} for draw in small]
    assert board.score(small) == board.score(wide)


def test_score_constant_added_to_logits_no_change(board):
    answers = board.task.models(memory=1.0)
    moved = [{name: array + 3.0 for name, array in draw.items()} for draw in answers]
    assert board.score(moved).distance.value == pytest.approx(board.score(answers).distance.value, abs=1e-6)


def test_score_attribute_labels(simulate):
    generator = np.random.default_rng(0)
    labels = [
        {name: generator.integers(0, 2, (rows, 3)) for name, rows in {"forget": 40, "retain": 80, "test": 160}.items()}
    ]

    def models(memory=0.0):
        return [
            {
                name: generator.normal(0, 1, (6, *truth.shape)) + (2 * truth - 1) * (1.0 + (name == "forget") * memory)
                for name, truth in labels[0].items()
            }
        ]

    references, controls, originals = models(), models(), models(2.0)
    bands = reference_bands(labels, references, controls, originals, "match-oracle")
    card = score(originals, name="No unlearning", references=references, labels=labels, bands=bands)
    assert card.flags == ("under-forgotten",)
    assert card.distance.value > bands.family_limit
    values = phi(originals[0]["forget"], labels[0]["forget"])
    expected = ((2 * labels[0]["forget"] - 1) * originals[0]["forget"]).sum(-1)
    np.testing.assert_allclose(values, expected)


def test_score_erase_track(simulate):
    task = simulate(rows={"forget": 60, "retain": 150, "test": 200, "test-forgotten": 50})

    def models(level):
        population = task.models(memory=level)
        truth = task.labels[0]["test-forgotten"]
        population[0]["test-forgotten"][:, np.arange(50), truth] += 3 * level
        return population

    references, controls, originals = models(0.0), models(0.0), models(2.0)
    bands = reference_bands(task.labels, references, controls, originals, "erase")
    assert bands.ranking == ("gap.test-forgotten", "gap.retain", "gap.test", "lira.retain")
    assert bands.references["probe"].feasible is False
    card = score(originals, name="x", references=references, labels=task.labels, bands=bands, originals=originals)
    assert card.metrics["h-mean"].value == 0.0
    assert "not computable" in card.metrics["probe"].reason
    assert card.distance.metric == "gap.test-forgotten"
    gone = score(references, name="y", references=controls, labels=task.labels, bands=bands, originals=originals)
    assert gone.metrics["h-mean"].value > 0.3
    assert gone.metrics["generalization"].value > 0.5


def test_score_wrong_calls_are_refused(board, simulate):
    short = [{name: array[:5] for name, array in draw.items()} for draw in board.controls]
    with pytest.raises(UsageError, match="6 seeds"):
        board.score(short)
    with pytest.raises(UsageError, match="1 draws"):
        board.score([*board.controls, *board.controls])
    broken = [{name: array.copy() for name, array in draw.items()} for draw in board.controls]
    broken[0]["retain"][2, 7, 0] = np.nan
    with pytest.raises(UsageError, match="retain logits: nan in row 7 of model 2"):
        board.score(broken)
    with pytest.raises(UsageError, match="missing on one side"):
        board.score([{name: array for name, array in board.controls[0].items() if name != "test"}])
    fewer = [{name: array[:, :5] for name, array in board.controls[0].items()}]
    with pytest.raises(UsageError, match="rows and outputs"):
        board.score(fewer)
    with pytest.raises(UsageError, match="same number of originals"):
        reference_bands(board.labels, board.references, short, board.originals, "match-oracle")
