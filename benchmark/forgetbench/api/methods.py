"""Methods as users name them: strings, instances and classes, also those defined in a notebook."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from forgetbench.errors import UsageError
from forgetbench.method_label import MethodLabel, is_method_file
from forgetbench.store import home

if TYPE_CHECKING:
    from forgetbench.methods.base import Method
    from forgetbench.options import Scalar
    from forgetbench.runner.method_spec import MethodSpec
    from forgetbench.tasks.task import Setting, Task

    MethodLike = str | Method | type[Method] | MethodSpec
    """What names a method: ``"ssd"``, ``"ssd:alpha=3"``, ``"my_method.py:MyMethod"``, an instance or a class."""

CHECK_NETWORKS = ("mlp", "cnn")
"""Networks that `check_method` uses by default."""


def list_methods(pattern: str = "*", *, sentinels: bool = False) -> list[str]:
    """Names of the available unlearning methods.

    Args:
        pattern: A wildcard pattern.
        sentinels: Also list the sentinels: contestants with a known place that test the metrics.

    Returns:
        Sorted names, without the two reference rows (no unlearning and retraining).

    Example:
        >>> list_methods("ss*")
        ['ssd']
    """
    from forgetbench.methods import methods

    cards = {name: methods.get(name).card for name in methods.names(pattern)}
    return [name for name, card in cards.items() if not card.reference and (sentinels or not card.sentinel)]


def get_method(name: str, /, **parameters: Scalar) -> Method:
    """A method with hyper-parameters.

    A string passed to `evaluate` takes defaults tuned for the task's network where the package has some; an instance
    has the hyper-parameters given here and the class's defaults for the others, on every network.

    Args:
        name: Name of a method (see `list_methods`), or ``"my_method.py:MyMethod"``.
        **parameters: Hyper-parameters that differ from their defaults.

    Returns:
        An instance: a frozen dataclass of hyper-parameters.

    Raises:
        UsageError: The name or a hyper-parameter is unknown, or a value is out of range.

    Example:
        >>> get_method("ssd", alpha=3).alpha
        3.0
    """
    return _class_of(name).from_dict(parameters)


class MethodCheck(NamedTuple):
    """The result of one check of the contract of methods or attacks."""

    network: str
    """The network it was checked on."""
    name: str
    """What was checked."""
    ok: bool
    """Whether it passed."""
    message: str
    """What was seen, or what is wrong."""


@dataclass(frozen=True)
class MethodReport:
    """The results of all checks of the contract of methods or attacks."""

    method: str
    """The name of the method or attack."""
    checks: tuple[MethodCheck, ...]
    """Results, by network."""

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    def __str__(self) -> str:
        lines = [
            f"{check.network:>6}  {'ok' if check.ok else 'FAIL':4}  {check.name}"
            + (f": {check.message}" if check.message else "")
            for check in self.checks
        ]
        return "\n".join([f"{self.method}: {'all checks passed' if self.ok else 'some checks failed'}", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
            for cells in ((each.network, each.name, "ok" if each.ok else "FAIL", each.message) for each in self.checks)
        )
        head = "<tr><th>network<th>check<th>result<th>details</tr>"
        return f"<table><caption>{html.escape(self.method)}</caption>{head}{rows}</table>"


def check_method(
    method: str | type[Method] | Method, *, networks: Sequence[str] = CHECK_NETWORKS, isolated: bool = False
) -> MethodReport:
    """Check a method against the contract that every method fulfills, on tiny random images (seconds).

    Args:
        method: A class, an instance, a name, or ``"my_method.py:MyMethod"``. Only the class is checked.
        networks: Names of the networks to check on.
        isolated: Run the checks in a process of their own, so that a method that crashes does not end this one.

    Returns:
        All results; ``report.ok`` tells whether the method passed.

    Raises:
        UsageError: The method or a network is unknown, or the source of the class cannot be found.
        ForgetBenchError: The method ended the process of its checks.

    Example:
        >>> check_method("finetune", networks=["mlp"]).ok
        True
    """
    return report_of(run_method_checks, CheckJob(method_text(method, home()), tuple(networks)), isolated=isolated)


@dataclass(frozen=True)
class CheckJob:
    """The checks of one method or attack."""

    method: str
    """Its name, or ``file.py:Class``."""
    networks: tuple[str, ...]
    """Names of the networks to check on."""

    @property
    def title(self) -> str:
        """What a message about a dead process calls it."""
        return f"check of {self.method}"


def report_of(run_checks: Callable[[CheckJob], MethodReport], job: CheckJob, *, isolated: bool) -> MethodReport:
    """The report of checks, run here or in a process of their own.

    Args:
        run_checks: Runs the checks: importable by its name.
        job: What is checked.
        isolated: Whether a process of its own runs the checks.

    Raises:
        ForgetBenchError: The checked code ended that process.
    """
    if not isolated:
        return run_checks(job)
    from forgetbench.runner.engines import ProcessesEngine, results_of

    with ProcessesEngine(1, retries=0) as engine:
        [report] = results_of(engine.map(run_checks, [job], lambda *_: None))
    return report


def run_method_checks(job: CheckJob) -> MethodReport:
    """Check a method in this process."""
    from forgetbench.methods.contract import check_method as run_checks

    cls = _class_of(job.method)
    checks = (MethodCheck(network, *result) for network in job.networks for result in run_checks(cls, network=network))
    return MethodReport(cls.card.name, tuple(checks))


def as_list(methods: MethodLike | Iterable[MethodLike]) -> list[MethodLike]:
    """One method or several, as a list."""
    from forgetbench.methods.base import Method
    from forgetbench.runner.method_spec import MethodSpec

    single = isinstance(methods, str | Method | MethodSpec | type)
    return [methods] if single else list(methods)  # type: ignore[arg-type, list-item]


def resolve_methods(
    methods: Sequence[MethodLike], task: Task, folder: Path, preset: str | None = None
) -> list[MethodSpec]:
    """The specifications of methods for a task.

    Args:
        methods: Names, instances, classes or specifications.
        task: The task: a method may have defaults and presets for it.
        folder: ForgetBench's folder; sources of notebook classes are written below it.
        preset: The preset of every method that is given by a name without one.

    Raises:
        UsageError: A name or hyper-parameter is wrong, a method is given twice, or a source cannot be found.
    """
    from forgetbench.runner.method_spec import MethodSpec, check_distinct, parse_methods

    specs = [method for method in methods if isinstance(method, MethodSpec)]
    texts = [method_text(method, folder, task.setting) for method in methods if not isinstance(method, MethodSpec)]
    files = [text for text in texts if is_method_file(text)]
    found = specs + parse_methods([text for text in texts if text not in files], files, task.setting, preset)
    check_distinct(found)
    return found


def method_text(method: str | Method | type[Method], folder: Path, setting: Setting | None = None) -> str:
    """The text of a method in the label grammar: ``name:parameter=value,...`` or ``file.py:Class:parameter=value,...``.

    Args:
        method: A text as it is, a class, or an instance.
        folder: ForgetBench's folder.
        setting: The task's, whose defaults apply to a bare name; other hyper-parameters are written out.

    Raises:
        UsageError: It is no method, or the source of its class cannot be found.
    """
    from forgetbench.methods import setting_defaults
    from forgetbench.methods.base import Method

    if isinstance(method, str):
        return method
    cls = method if isinstance(method, type) else type(method)
    if not issubclass(cls, Method):
        raise UsageError(f"{cls.__name__} is not a method: derive it from forgetbench.Method.")
    address = _address(cls, folder)
    if isinstance(method, type):
        return address
    known = setting_defaults(address, setting) if setting and not is_method_file(address) else {}
    defaults = cls.from_dict(known).to_dict()
    changed = {name: value for name, value in method.to_dict().items() if value != defaults[name]}
    return str(MethodLabel(address).extended(changed))


def _address(cls: type[Method], folder: Path) -> str:
    """The registered name of a class of the package, or ``file.py:Class``."""
    from forgetbench.api._source import is_importable, write_source
    from forgetbench.methods import methods

    name = cls.card.name
    if name in methods.names() and methods.get(name) is cls:
        return name
    if is_importable(cls):
        return f"{inspect.getfile(cls)}:{cls.__qualname__}"
    return f"{write_source(cls, folder / 'methods')}:{cls.__name__}"


def _class_of(text: str) -> type[Method]:
    from forgetbench.methods import load_method_file, methods

    return load_method_file(text) if is_method_file(text) else methods.get(MethodLabel.parse(text).name)
