"""What a run would do, before it does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from forgetbench.api.methods import as_list, resolve_methods
from forgetbench.api.tasks import load_task
from forgetbench.method_label import MethodLabel
from forgetbench.runner.config import RunConfig

if TYPE_CHECKING:
    from forgetbench.api.methods import MethodLike
    from forgetbench.options import Scalar
    from forgetbench.runner.method_spec import MethodSpec
    from forgetbench.runner.plan import TaskPlan
    from forgetbench.tasks.task import Setting, Task


class PlannedMethod(NamedTuple):
    """One row of a board that is not run yet."""

    label: str
    """The row's name."""
    parameters: Mapping[str, Scalar]
    """The value of every hyper-parameter."""
    source: str
    """Where the values come from."""
    differs: str
    """What the publication of a preset did that no hyper-parameter expresses; "" if nothing."""


def plan(
    methods: MethodLike | Iterable[MethodLike],
    task: str | Path | Task,
    *,
    preset: str | None = None,
    config: RunConfig | None = None,
) -> list[PlannedMethod]:
    """The exact values that methods would be run with on a task, and where they come from. Runs nothing.

    Args:
        methods: One or several methods (see `evaluate`).
        task: Name of a task, path of a task file, or a task.
        preset: The preset of every method that is given by name without one.
        config: Folders; sources of notebook classes are written below its home.

    Returns:
        One entry per row, in the order given.

    Raises:
        UsageError: A task, method, hyper-parameter or preset is wrong.

    Example:
        >>> [row] = plan("ssd:preset=paper", "cifar20/resnet18/subclass")
        >>> row.parameters["alpha"]
        10.0
    """
    loaded = load_task(task)
    specs = resolve_methods(as_list(methods), loaded, (config or RunConfig()).home, preset)
    return [_planned(spec, loaded.setting) for spec in specs]


def plan_jobs(
    methods: MethodLike | Iterable[MethodLike],
    task: str | Path | Task,
    *,
    preset: str | None = None,
    config: RunConfig | None = None,
) -> TaskPlan:
    """The jobs of a run on a task, those in the store, and what the others need: operations, hours, disk and memory.

    Trains nothing, but loads the images, and computes one training step of two of them. Hours are those of devices on
    which models were trained before, by the artifacts of this machine.

    Args:
        methods: One or several methods (see `evaluate`).
        task: Name of a task, path of a task file, or a task.
        preset: The preset of every method that is given by name without one.
        config: Device, engine and folders.

    Returns:
        The plan; without the images, only the numbers of jobs.

    Raises:
        UsageError: A task, method, hyper-parameter or preset is wrong.

    Example:
        >>> plan_jobs("ssd", "digits/cnn/class").jobs  # doctest: +SKIP
        42
    """
    from forgetbench.runner.plan import plan_task

    loaded, chosen = load_task(task), config or RunConfig()
    return plan_task(loaded, resolve_methods(as_list(methods), loaded, chosen.home, preset), chosen)


def _planned(spec: MethodSpec, setting: Setting) -> PlannedMethod:
    from forgetbench.methods import defaults_by_setting
    from forgetbench.methods._presets import find_preset

    given = MethodLabel.parse(spec.label).assignments
    name = given.pop("preset", None)
    preset = find_preset(spec.name, name, setting) if name is not None and spec.file is None else None
    if preset is not None:
        base = f"preset {preset.name}: {preset.source}"
    else:
        own = {} if spec.file is not None else defaults_by_setting(spec.name)
        where = [table for table in setting.tables if table in own]
        base = f"defaults for {where[-1]}" if where else "defaults"
    source = f"{', '.join(given)} as given; otherwise {base}" if given else base
    return PlannedMethod(spec.label, spec.parameters, source, preset.differs if preset else "")
