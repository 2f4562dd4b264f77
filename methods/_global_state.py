"""The global state of the process that a method's code may change: recorded before the code runs, restored after it.

One method must not change another's result. Recorded are torch's switches (gradients, default type and device, threads,
determinism, precision, modes, global hooks), the random states of Python, numpy and torch, functions and classes that
the code may replace, and of the process the working folder, environment, import path, streams and signal handlers.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType, WrapperDescriptorType
from typing import Any

WATCHED = ("builtins", "copy", "forgetbench", "math", "numpy", "numpy.random", "random", "timm.layers", "timm.models")
WATCHED_IN_TORCH = ("autograd", "functional", "linalg", "nn", "optim", "random", "special", "utils.data")
"""Modules whose functions and classes must not be replaced, with the loaded modules below them."""
FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, type)
SET_BY_LIBRARIES = ("CUDA_MODULE", "KMP_", "LAZY_LEGACY", "NUMEXPR_", "TORCH", "TRITON_")
"""Beginnings of environment variables that libraries set when they are first used."""


@dataclass
class StateReport:
    """What a block changed."""

    changed: list[str] = field(default_factory=list)
    """The changes in words, such as `torch's default dtype`; known at the end of the block."""


@contextmanager
def restored_state(seed: int) -> Iterator[StateReport]:
    """Restore all global state after the block, and report what the block had changed.

    Args:
        seed: The global random states of Python, numpy and torch start from it, so that code which draws from them
            repeats.
    """
    report = StateReport()
    settings = [(setting, setting.read()) for setting in (*_torch_settings(), *_process_settings())]
    functions = _Functions()
    generators = _RandomStates(seed)
    try:
        yield report
    finally:
        report.changed += functions.restore()
        for setting, before in settings:
            if setting.read() != before:
                report.changed.append(setting.name)
                with suppress(OSError):  # such as a working folder that is gone
                    setting.write(before)
        report.changed += generators.restore()


@dataclass(frozen=True)
class _Setting:
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _torch_settings() -> list[_Setting]:
    import torch
    from torch.backends import cudnn

    def deterministic() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def set_deterministic(value: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(value[0], warn_only=value[1])

    explicit = torch._C._len_torch_function_stack() > 0  # a default device is a mode; without one it is the CPU

    def default_device() -> str:
        return str(torch.get_default_device())

    def set_default_device(value: str) -> None:
        torch.set_default_device(value if explicit else None)

    def autocast() -> list[tuple[bool, torch.dtype]]:
        return [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]

    def set_autocast(value: list[tuple[bool, torch.dtype]]) -> None:
        for kind, (enabled, dtype) in zip(("cpu", "cuda"), value, strict=True):
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)

    return [
        _Setting("gradients switched off (torch.set_grad_enabled)", torch.is_grad_enabled, torch.set_grad_enabled),
        _Setting("torch's inference mode", torch.is_inference_mode_enabled, _set_inference_mode),
        _Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        _Setting("torch's default device", default_device, set_default_device),
        _Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        _Setting("torch's deterministic algorithms", deterministic, set_deterministic),
        _Setting("torch's anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
        _Setting("torch's autocast", autocast, set_autocast),
        _Setting("torch's float32 precision", _precision, _set_precision),
        _Setting("cudnn.benchmark", lambda: cudnn.benchmark, lambda value: setattr(cudnn, "benchmark", value)),
        _Setting(
            "cudnn.deterministic", lambda: cudnn.deterministic, lambda value: setattr(cudnn, "deterministic", value)
        ),
        _Setting("torch's function modes", _depth_of_modes, _leave_modes),
        *_hooks(),
    ]


def _precision() -> tuple[Any, ...]:
    """What float32 means to torch: by the two older settings, and for each kind of operation."""
    import torch

    try:
        older = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # the older and the newer settings contradict each other
        older = ("highest", False)
    return (*older, *(place.fp32_precision for place in _precision_places()))


def _set_precision(value: tuple[Any, ...]) -> None:
    import torch

    matmul, torch.backends.cudnn.allow_tf32, *precisions = value
    torch.set_float32_matmul_precision(matmul)
    for place, precision in zip(_precision_places(), precisions, strict=True):
        place.fp32_precision = precision


def _precision_places() -> list[Any]:
    """From the general to the special, since setting the former changes the latter."""
    from torch import backends

    found: list[Any] = [backends, backends.cudnn, backends.mkldnn]
    found += [getattr(backends.cudnn, name, None) for name in ("conv", "rnn")]
    found += [getattr(backends.mkldnn, name, None) for name in ("conv", "rnn", "matmul")]
    return [place for place in (*found, backends.cuda.matmul) if hasattr(place, "fp32_precision")]


def _set_inference_mode(value: bool) -> None:
    import torch

    _left_open.append(torch.inference_mode(value))
    _left_open[-1].__enter__()


_left_open: list[Any] = []
"""Inference modes that undo one that was left open; when one is released, torch would return to the mode before it."""


def _depth_of_modes() -> tuple[int, int]:
    import torch

    return int(torch._C._len_torch_function_stack()), int(torch._C._len_torch_dispatch_stack())


def _leave_modes(depth: tuple[int, int]) -> None:
    import torch
    from torch.utils._python_dispatch import _pop_mode

    while torch._C._len_torch_function_stack() > depth[0]:
        torch._C._pop_torch_function_stack()
    while torch._C._len_torch_dispatch_stack() > depth[1]:
        _pop_mode()


def _hooks() -> list[_Setting]:
    """The hooks of all modules and of all optimizers."""
    from torch.nn.modules import module
    from torch.optim import optimizer

    def setting(name: str, holder: dict[Any, Any]) -> _Setting:
        def write(value: dict[Any, Any]) -> None:
            holder.clear()
            holder.update(value)

        return _Setting(name, lambda: dict(holder), write)

    return [
        setting(words, holder)
        for source, words in ((module, "hooks of all torch modules"), (optimizer, "hooks of all torch optimizers"))
        for name, holder in vars(source).items()
        if name.startswith("_global_") and name.endswith("_hooks") and isinstance(holder, dict)
    ]


def _process_settings() -> list[_Setting]:
    import numpy as np

    settings = [
        _Setting("the working folder", _folder, lambda value: os.chdir(value) if value else None),
        _Setting("environment variables", _environment, _set_environment),
        _Setting("the import path (sys.path)", lambda: list(sys.path), lambda value: _replace(sys.path, value)),
        _warning_filters(),
        _stream("stdout"),
        _stream("stderr"),
        _Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
        _Setting("garbage collection", gc.isenabled, lambda value: gc.enable() if value else gc.disable()),
        _Setting("numpy's error state", np.geterr, lambda value: np.seterr(**value)),
    ]
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)]

        def set_handlers(value: list[Any]) -> None:
            for number, handler in zip(numbers, value, strict=True):
                signal.signal(number, handler)

        settings.append(_Setting("signal handlers", lambda: [signal.getsignal(n) for n in numbers], set_handlers))
    return settings


def _replace(target: list[Any], value: list[Any]) -> None:
    target[:] = value


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - the text, which is given back to chdir
    except OSError:
        return ""


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(SET_BY_LIBRARIES)}


def _set_environment(value: dict[str, str]) -> None:
    for name in _environment().keys() - value.keys():
        del os.environ[name]
    os.environ.update(value)


def _stream(name: str) -> _Setting:
    stream = getattr(sys, name)
    return _Setting(f"sys.{name}", lambda: getattr(sys, name) is stream, lambda _: setattr(sys, name, stream))


def _warning_filters() -> _Setting:
    loaded = len(sys.modules)
    before = list(warnings.filters)

    def read() -> list[Any]:  # a library that is imported for the first time may add filters
        return list(warnings.filters) if len(sys.modules) == loaded else before

    def write(value: list[Any]) -> None:
        warnings.resetwarnings()  # also forgets which filters matched
        for one in value:
            warnings.filters.append(one)  # type: ignore[attr-defined]

    return _Setting("the warnings filters", read, write)


class _RandomStates:
    """The global random states: seeded at the beginning, and restored."""

    def __init__(self, seed: int) -> None:
        import numpy as np
        import torch

        self._restores: list[Callable[[], object]] = []
        self._reads: list[tuple[str, Callable[[], Any], Any]] = []
        on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
        self._record("Python's random state", random.getstate, random.setstate)
        self._record("numpy's random state", lambda: np.random.get_state(legacy=True), np.random.set_state)
        self._record("torch's random state", torch.get_rng_state, torch.set_rng_state)
        if on_gpu:
            self._record("the GPU's random state", torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # the legacy generator is the global one
        torch.manual_seed(seed)
        self._seeded = [read() for _, read, _ in self._reads]

    def _record(self, name: str, read: Callable[[], Any], write: Callable[[Any], object]) -> None:
        before = read()
        self._reads.append((name, read, before))
        self._restores.append(lambda: write(before))

    def restore(self) -> list[str]:
        """Write all states back; returns the names of those that the block had changed."""
        changed = [
            name
            for (name, read, _), seeded in zip(self._reads, self._seeded, strict=True)
            if not _equal(read(), seeded)
        ]
        for restore in self._restores:
            restore()
        return changed


def _equal(first: Any, second: Any) -> bool:
    import numpy as np
    import torch

    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return bool(np.array_equal(first, second))
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)


class _Functions:
    """Functions and classes of the watched modules, and the functions of their classes."""

    def __init__(self) -> None:
        self._holders: list[tuple[Any, dict[str, Any]]] = []
        classes: dict[int, type] = {}
        for module in _watched_modules():
            content = _functions_of(module)
            self._holders.append((module, content))
            for value in content.values():
                if isinstance(value, type) and value.__flags__ & _IS_HEAP_TYPE:
                    classes.setdefault(id(value), value)
        self._holders += [(kind, _functions_of(kind)) for kind in classes.values()]

    def restore(self) -> list[str]:
        """Put back what was replaced or removed; returns the names of those."""
        changed = []
        for holder, before in self._holders:
            current = vars(holder)
            for name, value in before.items():
                now = current.get(name)
                if now is value or _is_replaced_by_torch(now, value):
                    continue
                changed.append(f"the function {_name_of(holder)}.{name}")
                setattr(holder, name, value)
        return changed


def _name_of(holder: ModuleType | type) -> str:
    return holder.__name__ if isinstance(holder, ModuleType) else f"{holder.__module__}.{holder.__qualname__}"


_IS_HEAP_TYPE = 1 << 9
"""Flag of classes that are written in Python; others cannot be changed."""


def _watched_modules() -> Iterator[ModuleType]:
    watched = (*WATCHED, *(f"torch.{name}" for name in WATCHED_IN_TORCH))
    loaded: list[tuple[str, Any]] = list(sys.modules.items())  # anything may be registered as a module
    for name, module in loaded:
        if not isinstance(module, ModuleType):
            continue
        if name == "torch" or name in watched or (name.startswith(_BELOW) and not name.startswith("numpy")):
            yield module


_BELOW = tuple(f"{name}." for name in (*WATCHED, *(f"torch.{name}" for name in WATCHED_IN_TORCH)))


def _functions_of(holder: ModuleType | type) -> dict[str, Any]:
    return {
        name: value
        for name, value in list(vars(holder).items())
        if isinstance(value, FUNCTIONS) and name != "Storage"  # torch's follows its default type
    }


def _is_replaced_by_torch(now: Any, before: Any) -> bool:
    """Whether torch itself has wrapped a function, as it does with some for the first optimizer or compiled network."""
    import torch

    file = getattr(getattr(now, "__code__", None), "co_filename", "")
    return file.startswith(f"{torch.__path__[0]}{os.sep}") and (
        f"{os.sep}_dynamo{os.sep}" in file or getattr(now, "__wrapped__", None) is before
    )
