"""Source files for methods that are defined in a notebook cell or in the main script.

Worker processes import a method from a file, and a submission carries its source. A class in ``__main__`` has no file
that can be imported without running the whole script, so its definition is collected here, together with the imports,
helper functions, helper classes and constants that it uses, into a file of its own.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import hashlib
import inspect
import linecache
import symtable
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import forgetbench
from forgetbench.errors import UsageError
from forgetbench.store import write_atomically
from forgetbench.user_files import parse_python

_HEADER = "# Collected by ForgetBench from a notebook or script.\n"


def is_importable(cls: type) -> bool:
    """Whether a class comes from a module file that can be imported on its own (not ``__main__``)."""
    module = sys.modules.get(cls.__module__)
    return cls.__module__ != "__main__" and bool(getattr(module, "__file__", None))


def write_source(cls: type, folder: Path) -> Path:
    """Write the source of a class and of everything it uses to a file named by its hash.

    Args:
        cls: A class defined at the top level of a notebook cell or of the main script.
        folder: The folder for such files; created if needed.

    Returns:
        The file; equal source gives the same file.

    Raises:
        UsageError: The source cannot be found, or the class uses a global object that no source can recreate.
    """
    text = collect_source(cls)
    path = folder / f"{cls.__name__.lower()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.py"
    if not path.is_file():
        write_atomically(path, text.encode())
    return path


def collect_source(cls: type) -> str:
    """The source text of a class with the imports, helpers and constants that it uses.

    Raises:
        UsageError: See `write_source`.
    """
    collector = _Collector(cls)
    collector.add_definition(cls)
    future = ["from __future__ import annotations"] if collector.postponed_annotations else []
    blocks = ["\n".join([*future, *sorted(collector.imports)]), "\n".join(collector.constants), *collector.definitions]
    return _HEADER + "\n\n".join(block for block in blocks if block) + "\n"


class _Collector:
    """Walks from one class to everything it refers to by a global name."""

    def __init__(self, cls: type) -> None:
        self.root = cls
        self.imports: set[str] = set()
        self.constants: list[str] = []
        self.definitions: list[str] = []
        """Source of helpers before their users, and the class last."""
        self.postponed_annotations = False
        self._visited: set[int] = set()

    def add_definition(self, thing: type | FunctionType) -> None:
        """Add a class or function, after everything that it uses."""
        if id(thing) in self._visited:
            return
        self._visited.add(id(thing))
        text = self._definition(thing)
        namespace = _namespace(thing)
        for name in sorted(_global_names(text)):
            if name in namespace:
                self._add_global(name, namespace[name], text)
        self.definitions.append(text)

    def _add_global(self, name: str, value: Any, user: str) -> None:
        if isinstance(value, ModuleType):
            self.imports.add(f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}"))
            self.imports.update(f"import {path}" for path in _submodules(user, name, value))
        elif (address := _import_address(value)) is not None:
            module, attribute = address
            self.imports.add(f"from {module} import {attribute}" + ("" if attribute == name else f" as {name}"))
        elif isinstance(value, type | FunctionType) and value.__module__ == self.root.__module__:
            self.add_definition(value)
            if value.__name__ != name:
                self.definitions.append(f"{name} = {value.__name__}\n")
        elif _is_literal(value):
            if (line := f"{name} = {value!r}") not in self.constants:
                self.constants.append(line)
        elif (module_name := _exporting_module(name, value)) is not None:
            self.imports.add(f"from {module_name} import {name}")
        else:
            raise UsageError(
                f"{self.root.__name__} uses {name!r} ({type(value).__name__}), which is defined outside the class and "
                f"cannot be written to a file. Define it inside the class, or put the method into a file and pass "
                f"'my_method.py:{self.root.__name__}'."
            )

    def _definition(self, thing: type | FunctionType) -> str:
        """The source lines of a definition, decorators included."""
        for code in _code_objects(thing):
            self.postponed_annotations |= bool(code.co_flags & __future__.annotations.compiler_flag)
        for file, line in _candidates(thing):
            lines = linecache.getlines(file)
            node = _find_node("".join(lines), thing.__name__, line)
            if node is not None:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                return textwrap.dedent("".join(lines[first - 1 : node.end_lineno])).rstrip() + "\n"
        raise UsageError(
            f"The source of {thing.__qualname__} was not found: a method is run in worker processes and recorded with "
            f"its source. Define it at the top level of a notebook cell or script, or put it into a file and pass "
            f"'my_method.py:{self.root.__name__}'."
        )


def _candidates(thing: type | FunctionType) -> Iterator[tuple[str, int | None]]:
    """Files that may hold a definition, with a line inside it where that is known."""
    for code in _code_objects(thing):
        yield code.co_filename, code.co_firstlineno
    # A class without methods has no code object: look through the script, then the cells, the latest first.
    main = getattr(sys.modules.get(thing.__module__), "__file__", None)
    if main:
        yield main, None
    for file in reversed(list(linecache.cache)):
        if not Path(file).is_file():
            yield file, None


def _code_objects(thing: type | FunctionType) -> list[CodeType]:
    """The code of a function, or of the functions that the body of a class defines."""
    if isinstance(thing, FunctionType):
        return [inspect.unwrap(thing).__code__]
    members: list[Any] = []
    for member in vars(thing).values():
        members += [member.fget] if isinstance(member, property) else [getattr(member, "__func__", member)]
    codes = [inspect.unwrap(member).__code__ for member in members if isinstance(member, FunctionType)]
    prefix = f"{thing.__qualname__}."  # inherited and generated functions have other names, or no source lines
    return [code for code in codes if code.co_qualname.startswith(prefix) and linecache.getlines(code.co_filename)]


def _find_node(source: str, name: str, line: int | None) -> ast.ClassDef | ast.FunctionDef | None:
    """The last top-level definition of a name, or the one that contains a line."""
    try:
        body = parse_python(source).body
    except SyntaxError:
        return None
    found = [node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name]
    if line is not None:
        found = [
            node
            for node in found
            if min([node.lineno, *(each.lineno for each in node.decorator_list)]) <= line <= (node.end_lineno or 0)
        ]
    return found[-1] if found else None


def _global_names(source: str) -> set[str]:
    """The global names that a definition reads, without builtins; local variables of the same name do not count."""
    names: set[str] = set()

    def visit(table: symtable.SymbolTable, *, top: bool) -> None:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (top or symbol.is_global()):
                names.add(symbol.get_name())
        for child in table.get_children():
            visit(child, top=False)

    visit(symtable.symtable(source, "<definition>", "exec"), top=True)
    return names


def _namespace(thing: type | FunctionType) -> dict[str, Any]:
    """The global variables that a definition sees."""
    functions: list[Callable[..., Any]] = [thing] if isinstance(thing, FunctionType) else []
    if isinstance(thing, type):
        functions = [member for member in vars(thing).values() if isinstance(member, FunctionType)]
    own = [function for function in functions if function.__module__ == thing.__module__]
    module = sys.modules.get(thing.__module__)
    namespace = own[0].__globals__ if own else vars(module) if module else {}
    return {name: value for name, value in namespace.items() if getattr(builtins, name, None) is not value}


def _import_address(value: Any) -> tuple[str, str] | None:
    """``(module, name)`` from which an object can be imported; None for what a notebook or script defines."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "." in name:
        return None
    if module.startswith("forgetbench.") and name in forgetbench.__all__:
        return "forgetbench", name  # recorded sources outlive the layout of this package
    imported = sys.modules.get(module)
    if imported is None or not getattr(imported, "__spec__", None) or getattr(imported, name, None) is not value:
        return None
    return module, name


def _exporting_module(name: str, value: Any) -> str | None:
    """The shortest public module that holds an object under a name: for objects that do not know their own module."""
    holders = [
        module
        for module, loaded in list(sys.modules.items())
        if module != "__main__"
        and not any(part.startswith("_") for part in module.split("."))
        and getattr(loaded, "__dict__", {}).get(name) is value
    ]
    return min(holders, key=lambda module: (len(module), module), default=None)


def _submodules(source: str, name: str, module: ModuleType) -> Iterator[str]:
    """Modules that a definition reaches as attributes of an imported module, such as ``scipy.stats``."""
    for chain in ast.walk(parse_python(source)):
        node, path = chain, list[str]()
        while isinstance(node, ast.Attribute):
            path.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id == name:
            reached: Any = module
            for attribute in reversed(path):
                reached = getattr(reached, attribute, None)
                if not isinstance(reached, ModuleType) or reached.__name__ not in sys.modules:
                    break
                if reached.__name__.startswith(f"{module.__name__}."):
                    yield reached.__name__


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError):
        return False
