"""The public names of `forgetbench`: complete, documented, typed, and imported on first use."""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import forgetbench

NAMES = """
BoardResult ForgetBenchError ForgetRequest Method RunConfig RunResult Scorecard Task UsageError __version__ attack audit
audit_attacks check_attack check_method evaluate get_method list_attacks list_datasets list_methods list_metrics
list_tasks load_results load_task param plan plan_jobs reproduce score submit tune verify
"""
FUNCTIONS = [name for name in NAMES.split() if name.islower() and name != "__version__"]


def test_all_names_are_the_documented_ones() -> None:
    assert forgetbench.__all__ == NAMES.split()
    assert dir(forgetbench) == sorted(NAMES.split())


@pytest.mark.parametrize("name", NAMES.split())
def test_public_name_can_be_imported(name: str) -> None:
    assert getattr(forgetbench, name) is not None


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        forgetbench.evaluat  # noqa: B018


def test_type_checkers_see_every_public_name() -> None:
    """The names below TYPE_CHECKING are those that `__getattr__` gives."""
    tree = ast.parse(Path(str(forgetbench.__file__)).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported | {"__version__"} == set(forgetbench.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_function_documents_its_arguments(name: str) -> None:
    function = getattr(forgetbench, name)
    documentation = inspect.getdoc(function) or ""
    assert "Args:" in documentation
    for parameter in inspect.signature(function).parameters:
        assert f"    {parameter}" in documentation or f"**{parameter}" in documentation, parameter
    if name != "param":
        assert "Returns:" in documentation
        assert ">>> " in documentation


def test_no_subpackage_has_the_name_of_a_public_function() -> None:
    """Importing such a subpackage would replace the function."""
    code = (
        "import pkgutil, forgetbench\n"
        "packages = {module.name for module in pkgutil.iter_modules(forgetbench.__path__)}\n"
        "assert not packages & set(forgetbench.__all__), packages\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import forgetbench", {"torch", "timm", "numpy", "pandas", "altair", "pydantic", "rich"}),
        ("from forgetbench import load_task; load_task('digits/cnn/class')", {"torch", "timm", "pandas", "altair"}),
        ("from forgetbench import score, load_results, submit, verify", {"torch", "timm", "altair"}),
        ("from forgetbench import BoardResult, Scorecard, RunConfig, evaluate", {"torch", "timm", "altair"}),
    ],
)
def test_import_is_lazy(code: str, absent: set[str]) -> None:
    check = f"{code}\nimport sys\nfound = {absent!r} & set(sys.modules)\nassert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_import_takes_a_fraction_of_a_second() -> None:
    """The import time of the package; the interpreter's start is not counted."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import forgetbench"], capture_output=True, text=True, check=True
    )
    [line] = [line for line in done.stderr.splitlines() if line.rpartition("|")[2].strip() == "forgetbench"]
    assert int(line.split("|")[1]) < 300_000  # microseconds


@pytest.mark.parametrize("name", FUNCTIONS)
def test_documented_example_runs(name: str) -> None:
    function = getattr(forgetbench, name)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    module = sys.modules[function.__module__]
    for example in finder.find(function, name, module=module, globs=dict(vars(module))):
        runner.run(example)
    assert runner.failures == 0


def test_command_bodies_are_thin() -> None:
    """Functions that are commands delegate: at most 15 lines without signature and docstring."""
    for path in sorted((Path(str(forgetbench.__file__)).parent / "cli").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [node for node in tree.body if isinstance(node, ast.FunctionDef)]:
            if "Example: forgetbench" not in (ast.get_docstring(function) or ""):
                continue
            first, last = function.body[1], function.body[-1]
            lines = (last.end_lineno or 0) - first.lineno + 1
            assert lines <= 15, f"{path.name}: {function.name} has {lines} lines"
