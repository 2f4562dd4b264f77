"""One method's trials on one task, kept by optuna in the run's home.

Only finished trials are written, each in one transaction, and what a trial proposes follows from the trials before it
and its number: a killed study continues as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forgetbench.errors import UsageError
from forgetbench.store import digest

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Scalar = bool | int | float | str | None
Selector = Literal["oracle-free", "oracle"]
Status = Literal["ok", "collapsed", "diverged", "failed"]

RANDOM_TRIALS = 5
"""Trials before the sampler begins to learn from those that there are."""
LOGARITHMIC = 5.0
"""A range of positive numbers is searched on a logarithmic scale where its ends differ by this factor."""
COLLAPSED = 10.0
"""Added to what the sampler is told of a collapsed trial, so that it looks elsewhere; the trial keeps its value."""


@dataclass(frozen=True)
class Trial:
    """One trial, as it is kept."""

    number: int
    """From 0, which is the defaults."""
    parameters: dict[str, Scalar]
    """The hyper-parameters that were searched."""
    status: Status
    """Whether it holds, collapsed, diverged or failed."""
    value: float | None
    """What the selector minimizes; None where there was nothing to judge."""
    parts: dict[str, float] = field(default_factory=dict)
    """What the value is made of."""
    reason: str = ""
    """Why it diverged or failed."""


@dataclass(frozen=True, eq=False)
class Study:
    """The trials of one method.

    Args:
        path: SQLite file of the task's studies.
        name: The study's name in it, with a hash of all that shapes it.
        space: Hyper-parameter -> what is searched.
        defaults: All hyper-parameters of trial 0.
        seed: Of the sampler; a trial's own seed is derived from it and the trial's number.
        facts: What the study is about, kept beside its trials.
    """

    path: Path
    name: str
    space: Mapping[str, tuple[Scalar, ...]]
    defaults: Mapping[str, Scalar]
    seed: int
    facts: Mapping[str, Any]

    @property
    def selector(self) -> Selector:
        """By what its trials are judged."""
        chosen: Selector = self.facts["selector"]
        return chosen

    @property
    def asked(self) -> int:
        """How many trials were asked for last; 0 where none were made."""
        return int(self._study.user_attrs.get("asked", 0)) if self.path.is_file() else 0

    def has(self, trials: int) -> bool:
        """Whether so many trials were asked for and made, or the method does not apply."""
        if not self.asked:
            return False
        return "refused" in self._study.user_attrs or (self.asked >= trials <= len(self.trials()))

    def check(self, trials: int) -> None:
        """Refuse to search where the method does not say what.

        Raises:
            UsageError: More than the defaults are asked for, and there is nothing to search.
        """
        if trials > 1 and not self.space:
            raise UsageError(
                f"{self.facts['method']} does not say what to search: give a hyper-parameter its range, as in "
                "`lr: float = param(0.01, gt=0, search=(1e-4, 1e-1))`, or ask for one trial, which is its defaults."
            )

    def trials(self) -> list[Trial]:
        """The trials that were made, in order."""
        if not self.path.is_file():
            return []
        return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def ask(self, trials: int) -> None:
        """Note how many trials were asked for."""
        self._study.set_user_attr("asked", trials)

    def refuse(self, reason: str) -> None:
        """Note that the method does not apply to the task."""
        self._study.set_user_attr("refused", reason)
        self._study.set_user_attr("asked", 1)

    def propose(self) -> dict[str, Scalar]:
        """The hyper-parameters of the next trial: first the defaults, then what the sampler makes of those before."""
        import optuna

        made = self._study.get_trials(deepcopy=False)
        if not made:
            return {name: self.defaults[name] for name in self.space}
        seed = int(digest([self.seed, len(made)])[:8], 16)
        sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)
        beside = optuna.create_study(sampler=sampler)
        beside.add_trials(made)
        proposed = beside.ask(self._distributions).params
        return {name: _short(value, self._distributions[name]) for name, value in proposed.items()}

    def tell(
        self,
        parameters: Mapping[str, Scalar],
        *,
        status: Status,
        value: float | None = None,
        parts: Mapping[str, float] | None = None,
        reason: str = "",
    ) -> None:
        """Keep a trial."""
        import optuna

        told = None if value is None else value + (COLLAPSED if status == "collapsed" else 0.0)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if told is not None else optuna.trial.TrialState.FAIL,
                params=dict(parameters),
                distributions=self._distributions,
                value=told,
                user_attrs={"status": status, "value": value, "parts": dict(parts or {}), "reason": reason},
            )
        )

    @cached_property
    def _study(self) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(storage=_storage(self.path), study_name=self.name, load_if_exists=True)
        if "facts" not in study.user_attrs:
            study.set_user_attr("facts", dict(self.facts))
        return study

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return {name: _distribution(values, self.defaults[name]) for name, values in self.space.items()}


@lru_cache(maxsize=4)
def _storage(path: Path) -> optuna.storages.RDBStorage:
    """One connection for all studies of a file."""
    import optuna

    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(f"sqlite:///{path}")


def _distribution(values: tuple[Scalar, ...], default: Scalar) -> BaseDistribution:
    """What optuna searches: a range, widened so that it holds the default, or a choice."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(default, bool) or not isinstance(default, int | float):
        return CategoricalDistribution((*values, *(() if default in values else (default,))))
    least, largest = (bound(float(end), float(default)) for bound, end in zip((min, max), values, strict=True))  # type: ignore[arg-type]
    logarithmic = least > 0 and largest / least >= LOGARITHMIC
    if isinstance(default, int):
        return IntDistribution(int(least), int(largest), log=logarithmic)
    return FloatDistribution(least, largest, log=logarithmic)


def _short(value: Scalar, searched: BaseDistribution) -> Scalar:
    """A float with three digits, so that labels can be read, but within its range, whose ends may have more."""
    if not isinstance(value, float):
        return value
    return min(max(float(f"{value:.3g}"), searched.low), searched.high)  # type: ignore[attr-defined, no-any-return]


def _trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    told = frozen.user_attrs
    return Trial(frozen.number, dict(frozen.params), told["status"], told["value"], told["parts"], told["reason"])
