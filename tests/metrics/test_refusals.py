"""Every metric refuses NaN and names its row, whatever argument it stands in."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics import (
    attacks,
    divergence,
    likelihood,
    literature,
    margins,
    quality,
    relearn,
    roc,
    shadow,
    utility,
)
from forgetbench.metrics.erasure import h_mean
from forgetbench.metrics.membership import loss_auc

VECTOR, MATRIX = np.linspace(0.1, 0.9, 20), np.linspace(-1, 1, 80).reshape(4, 20)
STACK = np.linspace(-1, 1, 4 * 20 * 2).reshape(4, 20, 2)
LABELS = np.arange(20) % 2
PLACES = {
    VECTOR.shape: ((19,), "in row 19"),
    MATRIX.shape: ((3, 1), "in row 1 of model 3"),  # phi is (models, examples)
    STACK[0].shape: ((19, 0), "in row 19"),
    STACK.shape: ((2, 19, 0), "in row 19 of model 2"),
}
CALLS = {
    "roc.auc": (roc.auc, (VECTOR, VECTOR)),
    "roc.tpr_at_fpr": (lambda a, b: roc.tpr_at_fpr(a, b, 0.5), (VECTOR, VECTOR)),
    "roc.balanced_accuracy": (roc.balanced_accuracy, (VECTOR, VECTOR)),
    "utility.accuracy": (lambda a: utility.accuracy(a, LABELS), (STACK,)),
    "utility.gap": (utility.gap, (VECTOR, VECTOR)),
    "utility.tow": (lambda a, b: utility.tow({"test": a}, {"test": b}), (VECTOR, VECTOR)),
    "divergence.centred_js": (divergence.centred_js, (STACK, STACK)),
    "likelihood.lira": (likelihood.lira, (MATRIX, MATRIX)),
    "likelihood.shift": (likelihood.shift, (MATRIX, MATRIX)),
    "margins.klom": (margins.klom, (MATRIX, MATRIX)),
    "margins.wasserstein": (margins.wasserstein, (MATRIX, MATRIX)),
    "quality.epsilons": (quality.epsilons, (MATRIX, MATRIX)),
    "quality.forgetting_quality": (lambda a: quality.forgetting_quality(a, 64), (VECTOR,)),
    "shadow.fit_normal": (shadow.fit_normal, (MATRIX,)),
    "shadow.rmia": (lambda a, b, c, d: shadow.rmia((a, b), (c, d)), (VECTOR, VECTOR, VECTOR, VECTOR)),
    "attacks.svc": (attacks.svc_non_members, (VECTOR, VECTOR, VECTOR)),
    "attacks.loss": (attacks.loss_attack, (VECTOR, VECTOR)),
    "attacks.entropy": (attacks.entropy_attack, (VECTOR, VECTOR, VECTOR)),
    "membership.loss_auc": (lambda a, b: loss_auc((a, LABELS), (b, LABELS)), (STACK, STACK)),
    "literature.completeness": (literature.completeness, (STACK[0], STACK[0])),
    "literature.activation_distance": (literature.activation_distance, (STACK[0], STACK[0])),
    "literature.zrf": (literature.zrf, (STACK[0], STACK[0])),
    "erasure.h_mean": (h_mean, (VECTOR, VECTOR, VECTOR)),
    "relearn.relearn_time": (lambda a: relearn.relearn_time(a, 1.0), (VECTOR,)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused_with_its_row(name, bad):
    function, arguments = CALLS[name]
    function(*arguments)
    for place in range(len(arguments)):
        broken = [argument.copy() for argument in arguments]
        where, named = PLACES[broken[place].shape]
        broken[place][where] = bad
        with pytest.raises(UsageError, match=named):
            function(*broken)


@pytest.mark.parametrize("name", [name for name, (_, arguments) in CALLS.items() if arguments[0].ndim == 1])
def test_no_rows_are_refused(name):
    function, arguments = CALLS[name]
    with pytest.raises(UsageError):
        function(*(np.zeros(0) for _ in arguments))
