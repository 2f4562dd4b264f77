"""Outputs of another meaning in place of logits: probabilities, answers, per cent; and logits that look like them."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import encode
from forgetbench.evidence.probabilities import describe_evidence, describe_probabilities
from forgetbench.importers.arrays import score_arrays


def logits_of(classes: int = 10, rows: int = 300, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Logits of a network that is right for most rows, (n, K)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (rows, classes))
    logits[np.arange(rows), rng.integers(0, classes, rows)] += 5 * scale
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to 8 bits of precision."""
    return (values.astype(np.float32).view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)


def evidence_of(outputs: np.ndarray, *, attributes: bool = False) -> str:
    halves = [encode(outputs[start::2], attributes=attributes) for start in (0, 1)]
    return describe_evidence(halves, attributes=attributes)


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_softmax_is_recognized_in_any_precision(classes: int) -> None:
    shares = softmax(logits_of(classes, scale=2.0))
    for outputs in (
        shares,
        shares.astype(np.float32),
        shares.astype(np.float16),
        bfloat16(shares),
        np.round(shares, 4),
    ):
        assert describe_probabilities(outputs).startswith("probabilities (between 0 and 1, sum 1)")
        assert "np.log(p.clip(1e-12))" in describe_probabilities(outputs)
        assert evidence_of(outputs).startswith("probabilities (between 0 and 1, sum 1)")


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8, bool])
def test_hard_answers_are_recognized(kind: type) -> None:
    answers = np.eye(10, dtype=kind)[logits_of().argmax(1)]
    assert describe_probabilities(answers).startswith("hard answers (0 or 1)")
    assert evidence_of(answers).startswith("hard answers (0 or 1)")


def test_percent_is_recognized() -> None:
    shares = 100 * softmax(logits_of())
    for outputs in (shares, np.round(shares, 1)):
        assert describe_probabilities(outputs).startswith("probabilities in per cent")
        assert "np.log((p / 100)" in describe_probabilities(outputs)


def test_sigmoid_outputs_of_attributes_are_recognized() -> None:
    shares = sigmoid(np.random.default_rng(0).normal(0, 3, (200, 4)))
    for outputs in (shares, 100 * shares):
        assert describe_probabilities(outputs, attributes=True).startswith("probabilities of attributes")
    assert evidence_of(shares, attributes=True).startswith("probabilities of attributes")
    assert describe_probabilities(shares.round(), attributes=True).startswith("hard answers")
    assert not describe_probabilities(shares[:, :1])
    assert describe_probabilities(shares[:, :1], attributes=True)


def constant(probabilities: list[float], noise: float = 0.0) -> np.ndarray:
    """Log-probabilities of a network that has learned the frequencies of the classes alone."""
    shape = (400, len(probabilities))
    return np.log(probabilities) + noise * np.random.default_rng(1).normal(size=shape)


LOGITS = {
    "logits": logits_of(),
    "two classes": logits_of(2),
    "log-softmax": np.log(softmax(logits_of())),
    "all zero": np.zeros((50, 10)),
    "uniform probabilities": np.full((50, 10), 0.1),
    "uniform, two classes": np.full((50, 2), 0.5),
    "constant": constant([0.7, 0.3]),
    "constant, at the bound": constant([0.7311, 0.2689]),
    "constant and noise": constant([0.73, 0.27], 0.02),
    "constant, ten classes": constant([0.5, *[0.5 / 9] * 9], 0.01),
    "positive": np.abs(logits_of()),
    "small": logits_of(scale=0.02),
    "uncertain": logits_of(2, scale=0.12),
    "one row": logits_of(2, rows=1),
    "no row": np.zeros((0, 3)),
}


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_never_taken_for_probabilities(name: str) -> None:
    assert describe_probabilities(LOGITS[name]) == ""
    assert evidence_of(LOGITS[name]) == ""


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_logits_of_attributes_are_accepted(shift: float) -> None:
    rng = np.random.default_rng(0)
    for outputs in (rng.normal(shift, 2, (200, 4)), np.full((200, 4), shift), rng.normal(shift, 0.1, (200, 4))):
        assert describe_probabilities(outputs, attributes=True) == ""
        assert evidence_of(outputs, attributes=True) == ""


ROUNDED = {"mia.entropy", "mia.population", "mia.retain", "mia.svc-confidence", "avg-gap", "tow-mia"}
"""Attacks of the literature whose values depend on the last digit of a logit, and metrics made from them."""
ROWS = {"forget": 40, "retain": 60, "test": 60}


def arguments() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Logits of two unlearned models and four oracles, and labels."""
    models = {name: np.stack([logits_of(4, rows, seed=seed) for seed in range(6)]) for name, rows in ROWS.items()}
    labels = {name: logits.mean(0).argmax(1) for name, logits in models.items()}
    return {name: one[:2] for name, one in models.items()}, {name: one[2:] for name, one in models.items()}, labels


@pytest.mark.parametrize("side", ["unlearned", "oracle", "original"])
@pytest.mark.parametrize("subset", ROWS)
def test_score_refuses_softmax_of_one_side_or_subset(side: str, subset: str) -> None:
    unlearned, oracle, labels = arguments()
    sides = {"unlearned": unlearned, "oracle": oracle, "original": dict(unlearned)}
    sides[side] = sides[side] | {subset: softmax(sides[side][subset])}
    with pytest.raises(UsageError, match=rf"^{side}: {subset} contains probabilities .* before the softmax"):
        score_arrays(**sides, labels=labels)


def test_score_refuses_answers_of_one_model_and_integers() -> None:
    unlearned, oracle, labels = arguments()
    answers = oracle["test"].copy()
    answers[1] = np.eye(4)[answers[1].argmax(1)]
    with pytest.raises(UsageError, match=r"^oracle: test contains hard answers .* before argmax"):
        score_arrays(unlearned, oracle | {"test": answers}, labels)
    with pytest.raises(UsageError, match=r"^unlearned: forget: real numbers expected, .* int64. Whole numbers are"):
        score_arrays(unlearned | {"forget": unlearned["forget"].astype(int)}, oracle, labels)


def test_score_of_log_softmax_equals_score_of_logits() -> None:
    unlearned, oracle, labels = arguments()
    plain = score_arrays(unlearned, oracle, labels)
    sides = ({name: np.log(softmax(one)) for name, one in side.items()} for side in (unlearned, oracle))
    logs = score_arrays(*sides, labels)
    assert {"js", "lira.forget", "accuracy.test"} <= set(plain.metrics) - ROUNDED
    for name in set(plain.metrics) - ROUNDED:
        assert logs.metrics[name].value == pytest.approx(plain.metrics[name].value, abs=1e-9), name


def test_score_of_a_tensor_says_how_to_convert_it() -> None:
    class Tensor:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")

    unlearned, oracle, labels = arguments()
    with pytest.raises(UsageError, match=r"oracle: test: .* requires grad.*tensor.detach\(\).cpu\(\).numpy\(\)"):
        score_arrays(unlearned, oracle | {"test": Tensor()}, labels)
    with pytest.raises(UsageError, match="labels: test: expected one array of numbers, with rows of equal length"):
        score_arrays(unlearned, oracle, labels | {"test": [[1], [1, 2]]})
