"""Fixtures of simulated boards."""

from __future__ import annotations

import pytest
from support.boards import Simulation


@pytest.fixture
def simulate():
    return Simulation


@pytest.fixture(scope="module")
def simulate_once():
    return Simulation
