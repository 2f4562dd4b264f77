import numpy as np
import pytest
from support.mutations import MUTATORS, mutate

CONTENT = bytes(range(256)) * 4


@pytest.mark.parametrize("name", MUTATORS)
def test_mutators_repeat_with_the_same_seed(name):
    first, second = (MUTATORS[name](CONTENT, np.random.default_rng(5)) for _ in range(2))
    assert first == second
    changed = [MUTATORS[name](CONTENT, np.random.default_rng(seed)) != CONTENT for seed in range(20)]
    assert sum(changed) >= 15


@pytest.mark.parametrize("content", [b"", b"a", b"ab"])
def test_mutators_accept_short_content(content):
    rng = np.random.default_rng(0)
    for _ in range(20):
        for mutator in MUTATORS.values():
            assert isinstance(mutator(content, rng), bytes)


def test_mutate_names_the_mutators():
    names, content = mutate(CONTENT, np.random.default_rng(1))
    assert set(names.split("+")) <= set(MUTATORS)
    assert isinstance(content, bytes)
