"""Score saved logits of any code, without torch.

    python examples/score_saved_logits.py

The same with files: forgetbench score --unlearned unlearned.npz --oracle oracle.npz --labels labels.npz
"""

# %% Logits, as an evaluation loop saves them: subset -> (models, examples, classes).
from __future__ import annotations

import numpy as np

import forgetbench as fb
from forgetbench.metrics import lira, metrics, mia_population, phi, shift

generator = np.random.default_rng(0)
labels = {"forget": generator.integers(0, 10, 200), "retain": generator.integers(0, 10, 800)}
labels["test"] = generator.integers(0, 10, 1000)
noise = {name: generator.normal(0, 1.5, (len(truth), 10)) for name, truth in labels.items()}


def models(count: int, memory: float) -> dict[str, np.ndarray]:
    """Simulated models: more confident on the data that they were trained on."""
    answers = {}
    for name, truth in labels.items():
        logits = noise[name] + generator.normal(0, 1, (count, *noise[name].shape))
        logits[:, np.arange(len(truth)), truth] += {"forget": 2 + memory, "retain": 6.0, "test": 2.0}[name]
        answers[name] = logits
    return answers


originals, unlearned, oracles = models(6, 3.0), models(6, 0.7), models(12, 0.0)

# %% One metric at a time: arrays in, numbers out.
u, r = phi(unlearned["forget"], labels["forget"]), phi(oracles["forget"][:6], labels["forget"])
print(f"LiRA AUC {lira(u, r).auc:.3f}, worst decile {lira(u, r).worst_decile:.3f}, shift {shift(u, r):+.2f} oracle sd")
attack = mia_population(
    (unlearned["forget"], unlearned["test"]),
    (oracles["forget"][:6], oracles["test"][:6]),
    labels["forget"],
    labels["test"],
)
print(f"population attack {attack:+.3f} AUC above the oracles: the cheap floor sees less\n")

# %% The whole scorecard. Twelve oracles for six unlearned models: the second six give the bands.
card = fb.score(unlearned, oracles, labels, original=originals, name="unlearned")
for name in card.ranking:
    value = card.metrics[name]
    print(f"{metrics.get(name).title:<16} {value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]  z {value.z:+.1f}")
distance = card.distance
print(f"\ndistance {distance.value:.1f} (decided by {distance.metric}), inside the oracle band: {distance.within_band}")
print(f"flags: {', '.join(card.flags) or 'none'}")
