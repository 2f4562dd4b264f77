"""One test per property, run on every case of tests/support/metric_cases.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.metric_case import draw
from support.metric_cases import CASES, results, roles

from forgetbench.errors import UsageError
from forgetbench.metrics import metrics
from forgetbench.metrics import shadow_models as shadow

COMPLETE = [name for name in CASES if not name.startswith("published_code.")]


def having(field):
    return [name for name, case in CASES.items() if getattr(case, field) is not None]


def over_draws(case, check, *, ties=True):
    """Runs the check on drawn arguments, some of them full of ties."""

    @settings(max_examples=case.examples)
    @given(st.integers(0, 10**6), st.integers(0, 8), st.booleans() if ties and case.ties else st.just(value=False))
    def run(seed, more, tied):
        check(draw(case, seed, max(case.min_rows, 1) + more, tied=tied), np.random.default_rng(seed + 1))

    run()


def same(case, found, expected, tolerance=None):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=tolerance or case.tolerance)


def holds(case, found, expected):
    if callable(expected):
        assert np.all(expected(found)), found
    else:
        same(case, found, np.broadcast_to(expected, np.shape(found)))


@pytest.mark.parametrize("name", CASES)
def test_metric_stays_in_range(name):
    case = CASES[name]

    def check(args, _):
        value = np.asarray(case.call(*args), dtype=np.float64)
        assert np.isfinite(value).all()
        assert value.min() >= case.range[0] - 1e-9
        assert value.max() <= case.range[1] + 1e-9

    over_draws(case, check)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if set(case.rows) & set(case.axes)])
def test_metric_ignores_the_order_of_rows(name):
    case = CASES[name]

    def check(args, generator):
        words = [word.strip("#?") for word in case.axes.split()]
        sizes = {
            letter: size
            for word, a in zip(words, args, strict=True)
            for letter, size in zip(word, a.shape, strict=True)
        }
        orders = {letter: generator.permutation(sizes[letter]) for letter in case.rows}
        mixed = []
        for word, array in zip(words, args, strict=True):
            moved = array
            for axis, letter in enumerate(word):
                moved = np.take(moved, orders[letter], axis=axis) if letter in orders else moved
            mixed.append(moved)
        value = np.asarray(case.call(*args))
        same(case, case.call(*mixed), value[orders[case.out]] if case.out else value)

    over_draws(case, check, ties=case.holds_with_ties)


@pytest.mark.parametrize("name", having("shift"))
def test_metric_constant_added_to_all_no_change(name):
    case = CASES[name]

    def check(args, generator):
        by = generator.uniform(-0.5, 0.5) if case.share else generator.uniform(-9, 9)
        if case.bounded:
            by = generator.uniform(-min(np.min(a) for a in args), 1 - max(np.max(a) for a in args))
        moved = [a + by if place in case.shift else a for place, a in enumerate(args)]
        same(case, case.call(*moved), case.call(*args), max(case.tolerance, 1e-5))

    over_draws(case, check, ties=False)  # rounding makes and breaks ties


@pytest.mark.parametrize("name", having("swap"))
def test_metric_exchanged_sides(name):
    case = CASES[name]

    def check(args, _):
        order = case.swapped
        same(case, case.call(*(args[place] for place in order)), case.swap(case.call(*args)))

    over_draws(case, check, ties=case.holds_with_ties)


@pytest.mark.parametrize("name", having("more"))
def test_metric_direction(name):
    case = CASES[name]

    def check(args, _):
        rise = case.sign * (np.asarray(case.call(*case.more(*args))) - np.asarray(case.call(*args)))
        assert (rise >= -case.tolerance).all(), rise

    over_draws(case, check, ties=case.holds_with_ties)


@pytest.mark.parametrize("name", having("constant"))
@pytest.mark.parametrize("more", [0, 3])
def test_metric_constant_input(name, more):
    case = CASES[name]
    args = [np.full_like(a, 0.5) for a in draw(case, 0, max(case.min_rows, 1) + more)]  # and all labels 0
    holds(case, case.call(*args), case.constant)


@pytest.mark.parametrize("name", having("separated"))
@pytest.mark.parametrize("seed", range(3))
def test_metric_separated_sides(name, seed):
    case = CASES[name]
    separate, expected = case.separated
    holds(case, case.call(*separate(*draw(case, seed, max(case.min_rows, 1) + 3))), expected)


@pytest.mark.parametrize("name", CASES)
def test_metric_too_few_rows_are_refused(name):
    case = CASES[name]
    assert np.isfinite(np.asarray(case.call(*draw(case, 1, case.min_rows)), dtype=np.float64)).all()
    if set(case.axes) - set("#? stkf"):
        for rows in range(case.min_rows):
            with pytest.raises(UsageError):
                case.call(*draw(case, 1, rows))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_metric_nan_is_refused_with_its_row(name, bad):
    case = CASES[name]
    words = case.axes.split()
    for place, word in enumerate(words):
        if word[0] == "#":
            continue
        args = draw(case, 2, case.min_rows + 5)
        shape = args[place].shape
        model, row = (shape[0] - 1, shape[1] - 1) if word[0] in "st" else (None, shape[0] - 1 if shape else None)
        where = () if row is None else (row,) if model is None else (model, row)
        args[place] = args[place].copy()
        args[place][where + (0,) * (len(shape) - len(where))] = bad
        named = str(bad) if row is None else f"in row {row}" + ("" if model is None else f" of model {model}")
        with pytest.raises(UsageError, match=named):
            case.call(*args)


@pytest.mark.parametrize("name", CASES)
def test_metric_masked_values_are_refused(name):
    case = CASES[name]
    for place in range(len(case.axes.split())):
        args = draw(case, 4, case.min_rows + 5)
        mask = np.zeros(args[place].shape, dtype=bool)
        mask.flat[-1] = True
        args[place] = np.ma.array(args[place], mask=mask)
        with pytest.raises(UsageError, match=r"masked"):
            case.call(*args)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.bounded])
def test_metric_percentages_are_refused(name):
    case = CASES[name]
    args = draw(case, 3, case.min_rows + 2)
    for place in range(len(args)):
        rounded, percent = (
            [np.full_like(a, value) if at == place else a for at, a in enumerate(args)] for value in (1 + 1e-7, 59.5)
        )
        case.call(*rounded)  # 1e-7 is what a mean in float32 may add
        with pytest.raises(UsageError, match=r"is not between 0 and 1\. Use shares, such as 0\.595 instead of 59\.5"):
            case.call(*percent)


@pytest.mark.parametrize("name", COMPLETE)
def test_case_every_property_or_a_reason(name):
    case = CASES[name]
    assert case.swap or case.more
    assert case.constant is not None
    assert case.separated
    assert case.shift or case.share or case.reason, "a constant shift"
    assert set(case.rows) & set(case.axes) or not set(case.axes) - set("#? ") or case.reason, "the order of rows"


def test_case_exists_for_every_spec():
    assert {metrics.get(name).function for name in metrics.names()} <= {name.split("[")[0] for name in CASES}


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_ulira_roc_ignores_the_order_of_examples(seed):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(12, 7))
    order = generator.permutation(7)
    mixed = shadow.ulira_roc(values[:, order], *(role[:, order] for role in roles(values)))
    assert results(mixed) == pytest.approx(results(shadow.ulira_roc(values, *roles(values))))
