"""Numbers as the pages show them."""

from __future__ import annotations

import pytest

from forgetbench.leaderboard.render.formatting import estimate, number, percent, rank_text, z_text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.02314, 0.019, 0.0272, "0.0231 ± 0.0041"),
        (14.86, 14.26, 15.46, "14.86 ± 0.60"),
        (63.0, 50.0, 76.0, "63 ± 13"),
        (-0.5, -0.8, -0.2, "−0.50 ± 0.30"),
        (1.0, 1.0, 1.0, "1.00 ± 0.00"),
        (0.0, None, None, "0.00"),
        (None, None, None, "–"),
    ],
)
def test_estimate_is_rounded_by_its_interval(value, low, high, text):
    assert estimate(value, low, high) == text


def test_numbers_signs_and_infinities_are_formatted():
    assert number(-0.001, 1, signed=True) == "0.0"
    assert number(float("-inf")) == "−∞"
    assert (z_text(123.4), z_text(-5.25), z_text(None)) == ("+123", "−5.2", "")
    assert (rank_text(2, 4), rank_text(3, 3), rank_text(None, None)) == ("2–4", "3", "–")
    assert (percent(0.004), percent(0.11), percent(0.0), percent(None)) == ("0.4 %", "11 %", "0 %", "–")
