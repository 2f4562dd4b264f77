"""Scoring logits from any source, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from forgetbench.scoring.scorecards import Scorecard

    Arrays = Mapping[str, ArrayLike] | str | Path
    """Subset -> array, or the path of an .npz file with one array per subset."""


def score(
    unlearned: Arrays,
    oracle: Arrays,
    labels: Arrays,
    *,
    original: Arrays | None = None,
    track: Literal["match-oracle", "erase", "corrective"] = "match-oracle",
    name: str | None = None,
    all_rows: bool = False,
) -> Scorecard:
    """Score the logits of unlearned models against those of models that never saw the forget set. Needs no torch.

    Each argument maps subsets to arrays, or is the path of an ``.npz`` file. Subsets are ``forget``, ``retain`` and
    ``test``; further metrics use ``test-forgotten``, ``withheld``, ``validation``, penultimate features as
    ``features:SUBSET`` next to the logits, and groups as ``groups:SUBSET`` next to the labels. For correction:
    ``test-triggered``, and next to its labels ``targets:test-triggered``, the classes that harmful data makes models
    answer.

    Args:
        unlearned: Logits (S, n, K) of S unlearned models, before any softmax; (n, K) of one model.
        oracle: Logits of at least S oracles. 2 S oracles also give the bands in which oracles themselves fall.
        labels: Class numbers (n,), or A binary attributes (n, A).
        original: Logits of the S models before unlearning.
        track: ``match-oracle``, ``erase`` (which also needs ``test-forgotten``), or ``corrective``.
        name: Name of the scorecard; the file's name for a path.
        all_rows: Compute metrics that never rank, such as the SVC attack and forgetting quality, from all rows as
            published, and not from a fixed number of them. It is slow.

    Returns:
        The scorecard. ``card["lira.forget"].value`` is a metric, ``.low`` and ``.high`` its 95 % interval, ``.z`` its
        deviations from the oracle band; ``card.to_frame()`` has all of them.

    Raises:
        UsageError: A file or subset is missing, shapes or types do not fit, or the arrays are probabilities or hard
            answers instead of logits; the message names the argument. Log-probabilities are accepted: all metrics
            are the same for them.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> sizes = {"forget": 20, "retain": 60, "test": 60}
        >>> labels = {subset: np.arange(n) % 4 for subset, n in sizes.items()}
        >>> models = {subset: rng.normal(size=(6, n, 4)) for subset, n in sizes.items()}
        >>> unlearned = {subset: logits[:2] for subset, logits in models.items()}
        >>> oracle = {subset: logits[2:] for subset, logits in models.items()}
        >>> card = score(unlearned, oracle, labels)
        >>> round(card["accuracy.test"].value, 2)
        0.35
    """
    from forgetbench.importers.arrays import score_arrays
    from forgetbench.importers.npz import read_npz

    def arrays(given: Arrays) -> Mapping[str, ArrayLike]:
        return read_npz(Path(given)) if isinstance(given, str | Path) else given

    return score_arrays(
        arrays(unlearned),
        arrays(oracle),
        arrays(labels),
        original=None if original is None else arrays(original),
        track=track,
        all_rows=all_rows,
        name=name or (Path(unlearned).stem if isinstance(unlearned, str | Path) else "unlearned"),
    )


def score_run(folder: str | Path, *, reference: str | Path | None = None, all_rows: bool = False) -> Scorecard:
    """Score a recorded run again.

    Args:
        folder: The run's folder.
        reference: Folder of the reference bundle; the one made on this machine for the run's task by default.
        all_rows: Compute metrics that never rank, such as the SVC attack and forgetting quality, from all rows as
            published, and not from a fixed number of them. It is slow.

    Raises:
        UsageError: There is no run, or no reference bundle for it.
        ForgetBenchError: The run is no evidence for the reference bundle's task.
    """
    from forgetbench.evidence.run import read_run
    from forgetbench.runner.results import Results

    run = read_run(Path(folder))
    return Results().scorer_of(run.manifest, Path(reference) if reference else None, all_rows=all_rows).score(run)
