"""One method's trials on one task, kept by optuna in the run's home.

Only finished trials are written, each in one transaction, and each proposal is a function of the trials before it and
of its number: an interrupted study resumes with the same trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forgetbench.errors import UsageError
from forgetbench.options import ScaledValue, parse_scaled
from forgetbench.store import digest

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Scalar = bool | int | float | str | None
Selector = Literal["oracle-free", "oracle"]
Status = Literal["ok", "harmed", "collapsed", "diverged", "failed"]

RANDOM_TRIALS = 5
"""Random trials before the sampler learns from earlier ones."""
LOGARITHMIC = 5.0
"""A range of positive numbers is searched on a logarithmic scale if its ends differ by this factor."""
PENALTIES = {"harmed": 10.0, "collapsed": 20.0}
"""Added to the value of a trial of this status that the sampler sees, so that it searches elsewhere."""


@dataclass(frozen=True)
class Trial:
    """One finished trial."""

    number: int
    """Position, from 0; trial 0 is the defaults."""
    parameters: dict[str, Scalar]
    """The hyper-parameters that were searched."""
    status: Status
    """Whether it can be chosen, is harmed, collapsed, diverged or failed."""
    value: float | None
    """What the selector minimizes; None if the trial could not be judged."""
    parts: dict[str, float] = field(default_factory=dict)
    """The terms of the value."""
    reason: str = ""
    """Why it diverged or failed."""
    unchanged: bool = False
    """Whether its models answer exactly as the originals."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial."""

    status: Status
    """Whether it can be chosen, is harmed, collapsed, diverged or failed."""
    value: float | None = None
    """What the selector minimizes; None if the trial could not be judged."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """The terms of the value."""
    reason: str = ""
    """Why it diverged or failed."""
    unchanged: bool = False
    """Whether its models answer exactly as the originals."""


@dataclass(frozen=True, eq=False)
class Study:
    """The trials of one method.

    Args:
        path: SQLite file of the task's studies.
        name: The study's name in it, with a hash of all that shapes it.
        space: Hyper-parameter -> what is searched.
        defaults: All hyper-parameters of trial 0.
        seed: Seed of the sampler; a trial's own seed is derived from it and the trial's number.
        facts: What shapes the study, kept with its trials.
    """

    path: Path
    name: str
    space: Mapping[str, tuple[Scalar, ...]]
    defaults: Mapping[str, Scalar]
    seed: int
    facts: Mapping[str, Any]

    @property
    def selector(self) -> Selector:
        """How its trials are judged."""
        chosen: Selector = self.facts["selector"]
        return chosen

    @property
    def budget(self) -> int:
        """The last requested number of trials; 0 before the first."""
        return int(self._study.user_attrs.get("budget", 0)) if self.path.is_file() else 0

    def has(self, trials: int) -> bool:
        """Whether that many trials were requested and are finished, or the method does not apply."""
        if not self.budget:
            return False
        return "refused" in self._study.user_attrs or (self.budget >= trials <= len(self.trials()))

    def check(self, trials: int) -> None:
        """Check that there is something to search.

        Raises:
            UsageError: More than one trial is requested, and the method declares no search ranges.
        """
        if trials > 1 and not self.space:
            raise UsageError(
                f"{self.facts['method']} does not declare what to search. Give a hyper-parameter a range, as in "
                "`lr: float = param(0.01, gt=0, search=(1e-4, 1e-1))`, or use --trials 1, which is the defaults."
            )

    def trials(self) -> list[Trial]:
        """The finished trials, in order."""
        if not self.path.is_file():
            return []
        return [self._trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    @property
    def note(self) -> str:
        """What a reader of its trials should know of how they were judged; "" where nothing."""
        return str(self._study.user_attrs.get("note", "")) if self.path.is_file() else ""

    @property
    def untouched(self) -> float | None:
        """The selector's value of No unlearning; None where it was not computed."""
        value = self._study.user_attrs.get("untouched") if self.path.is_file() else None
        return None if value is None else float(value)

    def describe(self, note: str, untouched: float) -> None:
        """Record what to know of the selector, and its value of No unlearning."""
        self._study.set_user_attr("note", note)
        self._study.set_user_attr("untouched", untouched)

    def set_budget(self, trials: int) -> None:
        """Record the requested number of trials."""
        self._study.set_user_attr("budget", trials)

    def refuse(self, reason: str) -> None:
        """Record that the method does not apply to the task."""
        self._study.set_user_attr("refused", reason)
        self._study.set_user_attr("budget", 1)

    def propose(self) -> dict[str, Scalar]:
        """The hyper-parameters of the next trial: first the defaults, then those that the sampler proposes."""
        import optuna

        finished = self._study.get_trials(deepcopy=False)
        if not finished:
            return {name: self.defaults[name] for name in self.space}
        seed = int(digest([self.seed, len(finished)])[:8], 16)
        sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)
        copy = optuna.create_study(sampler=sampler)
        copy.add_trials(finished)
        proposed = copy.ask(self._distributions).params
        dimensions = self._dimensions
        return {name: dimensions[name].value(dimensions[name].rounded(sampled)) for name, sampled in proposed.items()}

    def add(self, parameters: Mapping[str, Scalar], outcome: Outcome) -> None:
        """Record a finished trial."""
        import optuna

        value = outcome.value
        objective = None if value is None else value + PENALTIES.get(outcome.status, 0.0)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if objective is not None else optuna.trial.TrialState.FAIL,
                params={name: self._dimensions[name].number(value) for name, value in parameters.items()},
                distributions=self._distributions,
                value=objective,
                user_attrs={**asdict(outcome), "parts": dict(outcome.parts)},
            )
        )

    def _trial(self, frozen: optuna.trial.FrozenTrial) -> Trial:
        outcome = frozen.user_attrs
        return Trial(
            frozen.number,
            {name: self._dimensions[name].value(sampled) for name, sampled in frozen.params.items()},
            outcome["status"],
            outcome["value"],
            outcome["parts"],
            outcome["reason"],
            outcome.get("unchanged", False),
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
        return {name: dimension.distribution for name, dimension in self._dimensions.items()}

    @cached_property
    def _dimensions(self) -> dict[str, _Dimension]:
        return {name: _dimension(values, self.defaults[name]) for name, values in self.space.items()}


@lru_cache(maxsize=4)
def _storage(path: Path) -> optuna.storages.RDBStorage:
    """One connection for all studies of a file."""
    import optuna

    path.parent.mkdir(parents=True, exist_ok=True)
    path.open("ab").close()  # a place that cannot be written raises OSError here, with the file's name
    return optuna.storages.RDBStorage(f"sqlite:///{path}")


@dataclass(frozen=True)
class _Dimension:
    """What optuna samples for a hyper-parameter, and how its numbers become values.

    A range is one of numbers, or of multiples or steps (``0.1x``, ``40steps``); others are values to choose from.
    """

    distribution: BaseDistribution
    unit: str | None
    """``x`` or ``steps``; "" for plain numbers, and None for values to choose from."""

    def number(self, value: Scalar) -> Scalar:
        """What optuna keeps for a value."""
        return _number(value)[0] if self.unit is not None else value

    def value(self, number: Scalar) -> Scalar:
        """The value of what optuna keeps."""
        return str(ScaledValue(float(number), self.unit)) if self.unit else number  # type: ignore[arg-type]

    def rounded(self, sampled: Scalar) -> Scalar:
        """A float with three digits, for readable labels, clipped to its range, whose ends may have more."""
        if not isinstance(sampled, float):
            return sampled
        least, largest = self.distribution.low, self.distribution.high  # type: ignore[attr-defined]
        return min(max(float(f"{sampled:.3g}"), least), largest)  # type: ignore[no-any-return]


def _dimension(values: tuple[Scalar, ...], default: Scalar) -> _Dimension:
    """A range, widened to include the default, or a choice.

    Raises:
        UsageError: The default and the ends of the range are not of one kind, such as ``0.1x`` and 0.01.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    try:
        numbers, units = zip(*(_number(value) for value in (*values, default)), strict=True)
    except UsageError:  # words
        choices = (*values, *(() if default in values else (default,)))
        return _Dimension(CategoricalDistribution(choices), None)
    if len(set(units)) > 1:
        raise UsageError(f"A default of {default} cannot be searched from {values[0]} to {values[-1]}: use one unit.")
    least, largest = min(numbers), max(numbers)
    logarithmic = least > 0 and largest / least >= LOGARITHMIC
    if units[0] == "steps" or isinstance(default, int):
        return _Dimension(IntDistribution(int(least), int(largest), log=logarithmic), units[0])
    return _Dimension(FloatDistribution(float(least), float(largest), log=logarithmic), units[0])


def _number(value: Scalar) -> tuple[float, str]:
    """A number and its unit, "" for a plain one.

    Raises:
        UsageError: It is neither a number nor a text such as ``0.1x``.
    """
    if isinstance(value, str):
        number, unit = parse_scaled(value)
        return (int(number) if unit == "steps" else number), unit
    if isinstance(value, bool) or value is None:
        raise UsageError(f"{value} is not a number.")
    return value, ""
