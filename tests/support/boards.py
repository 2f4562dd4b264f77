"""Simulated boards: populations of models from one distribution, with a given memory of the forget set."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Simulation:
    """A task whose models return base + noise + a margin on the label, higher on what they were trained on."""

    seeds: int = 6
    classes: int = 5
    rows: dict = field(default_factory=lambda: {"forget": 60, "retain": 150, "test": 200})
    draws: int = 1
    seed: int = 0

    def __post_init__(self):
        self.generator = np.random.default_rng(self.seed)
        self.labels = [
            {name: self.generator.integers(0, self.classes, rows) for name, rows in self.rows.items()}
            for _ in range(self.draws)
        ]
        self.base = [
            {name: self.generator.normal(0, 1.5, (rows, self.classes)) for name, rows in self.rows.items()}
            for _ in range(self.draws)
        ]

    def models(self, memory=0.0, *, retain=3.0, test=0.0, noise=1.0):
        """Logits of S models for each draw, with an extra margin on forget, retain and test."""
        extra = {"forget": memory, "retain": retain, "test": test}
        population = []
        for labels, base in zip(self.labels, self.base, strict=True):
            logits_by_subset = {}
            for name, truth in labels.items():
                logits = base[name] + self.generator.normal(0, noise, (self.seeds, *base[name].shape))
                logits[:, np.arange(len(truth)), truth] += 1.5 * (1 + extra.get(name, 0.0))
                logits_by_subset[name] = logits
            population.append(logits_by_subset)
        return population
