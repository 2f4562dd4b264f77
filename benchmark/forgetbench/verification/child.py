"""The method's process in the sandbox: one call of a method, with what it asks for, and the weights as the answer.

``python -m forgetbench.verification.child`` speaks `channel` on standard input and output. Everything that this process
says may be forged by the method that it runs: the runner takes weights from it, checks them, and measures the rest
from outside.
"""

from __future__ import annotations

import io
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from forgetbench.errors import UsageError, describe_error
from forgetbench.verification.channel import Message, read_message, write_message

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetbench.methods.base import ForgetRequest, Method
    from forgetbench.networks.base import NetworkSpec

_MAX_PAYLOAD = 2**40
PARTS = ("forget", "retain", "validation")
_folders: list[TemporaryDirectory[str]] = []
"""Where submitted source is; a method may read its own file while it runs."""


class Channel:
    """The connection to the runner."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source, self._target = source, target

    def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send a message."""
        write_message(self._target, header, payload)

    def receive(self) -> Message:
        """The next message; ends this process if the runner has ended."""
        message = read_message(self._source, _MAX_PAYLOAD)
        if message is None:
            os._exit(1)
        return message

    def ask(self, part: str) -> dict[str, Tensor]:
        """Tensors that the runner gives on demand, and of which it records that they were read."""
        from safetensors.torch import load

        self.send({"kind": "ask", "part": part})
        return load(self.receive().payload)


def main() -> NoReturn:
    """Serve one job and end."""
    channel = Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    quiet = os.open(os.devnull, os.O_RDONLY)
    os.dup2(quiet, 0)
    os.dup2(2, 1)  # whatever a method prints goes to standard error
    _import_everything()
    channel.send({"kind": "ready"})
    job = channel.receive().header
    _confine(job["limits"])
    try:
        answer = _JOBS[job["kind"]](channel, job)
    except Exception as error:  # noqa: BLE001 - the reason becomes the state of the row
        answer = {"kind": "error", "status": _status(error), "reason": describe_error(_cause(error))}, b""
    channel.send(*answer)
    sys.stderr.flush()
    for folder in _folders:
        folder.cleanup()
    os._exit(0)


def _import_everything() -> None:
    """Do what torch does once in a process, so that it is not part of what is measured."""
    import safetensors.torch
    import torch

    import forgetbench.methods._result
    import forgetbench.methods.baselines
    import forgetbench.networks.base  # noqa: F401
    from forgetbench.methods._global_state import restored_state
    from forgetbench.runner.warm_up import import_optimizers
    from forgetbench.training import count_flops

    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # as in every process of the runner on a CPU
    import_optimizers()
    with restored_state(0), count_flops():
        safetensors.torch.save({"ready": torch.zeros(1)})


def _confine(limits: Mapping[str, int]) -> None:
    """Set the kernel's limits for this process and its children, which none of them can raise."""
    values = {
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_CORE: 0,
    }
    optional = {resource.RLIMIT_NPROC: limits["processes"], resource.RLIMIT_DATA: limits["memory"]}
    values |= {name: value for name, value in optional.items() if value}
    for name, value in values.items():
        hard = resource.getrlimit(name)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (most, most))


def _cause(error: BaseException) -> BaseException:
    from forgetbench.methods._foreign_code import MethodCodeError

    return error.__cause__ if isinstance(error, MethodCodeError) and error.__cause__ is not None else error


def _status(error: BaseException) -> str:
    from forgetbench.training import DivergedError

    return "diverged" if isinstance(_cause(error), DivergedError) else "failed"


def _load_method(job: Mapping[str, Any]) -> Method:
    """The method with its hyper-parameters: of this package, or of the submitted file."""
    from forgetbench.methods import load_method_file, methods

    spec = job["method"]
    if spec["source"] is None:
        return methods.get(spec["name"]).from_dict(spec["parameters"])
    _folders.append(TemporaryDirectory())
    path = Path(_folders[-1].name) / "method.py"
    path.write_text(spec["source"], encoding="utf-8")
    kind = load_method_file(f"{path}:{spec['class_name']}") if spec["class_name"] else _class_called(spec["name"], path)
    return kind.from_dict(kind.current_names(spec["parameters"]))


def _class_called(name: str, path: Path) -> type[Method]:
    """The class of a file whose method has a name; the only one where there is one.

    Raises:
        UsageError: The file does not import, or defines no such method.
    """
    import ast

    from forgetbench.methods import load_method_file
    from forgetbench.user_files import parse_python

    names = [item.name for item in parse_python(path.read_bytes()).body if isinstance(item, ast.ClassDef)]
    found: list[type[Method]] = []
    for one in names:
        with suppress(UsageError):  # a helper class
            found.append(load_method_file(f"{path}:{one}"))
    called = [kind for kind in found if kind.card.name == name]
    return called[0] if called else load_method_file(str(path))


def _network_spec(job: Mapping[str, Any]) -> NetworkSpec:
    from forgetbench.networks import NetworkSpec

    facts = dict(job["network"])
    return NetworkSpec(**{**facts, "mean": tuple(facts["mean"]), "std": tuple(facts["std"])})


def _load_network(job: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    import torch

    network = _network_spec(job).build(0, load_weights=False)
    network.load_state_dict(dict(state))
    return network.to(torch.device(job["device"])).eval()


def _describe(_channel: Channel, job: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What a method says of itself: its card, all hyper-parameters, and whether it applies to the task."""
    from forgetbench.methods._card import TaskFacts

    method = _load_method(job)
    card = method.card
    trains = method.training_loss is not None
    answer = {
        "kind": "described",
        "card": {
            **card.model_dump(mode="json", include={"name", "title", "family", "needs", "sentinel"}),
            "link": card.link,
            "bibtex": card.bibtex,
        },
        "parameters": method.to_dict(),
        "trains_originals": trains,
        "training_parameters": method.training_parameters() if trains else {},
        "refusal": method.applies_to(TaskFacts(**job["facts"])) or "",
    }
    return answer, b""


def _unlearn(channel: Channel, job: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Call `unlearn` once, counting its floating-point operations if the job says so."""
    from contextlib import nullcontext

    from forgetbench.methods._foreign_code import capture_warnings, wrapped_errors
    from forgetbench.methods._global_state import restored_state
    from forgetbench.methods._result import check_result
    from forgetbench.training import count_flops

    state = channel.ask("model")
    model, original = _load_network(job, state), _load_network(job, state)
    request = _request(channel, job)
    method = _load_method(job)
    counting = count_flops() if job["count"] else nullcontext(None)
    with capture_warnings() as warnings, counting as counted, restored_state(request.seed) as changes, wrapped_errors():
        start = time.perf_counter()
        result = method.unlearn(model, request)
        seconds = time.perf_counter() - start
    flops = None if counted is None else float(counted.total)
    with wrapped_errors():
        network = check_result(result, original)
    return {
        "kind": "result",
        "seconds": seconds,
        "flops": flops,
        "peak_memory": _gpu_memory(job),
        "notes": {str(name): value for name, value in _json_values(request.notes).items()},
        "warnings": list(warnings),
        "changed": list(changes.changed),
    }, _weights(network)


def _train(channel: Channel, job: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Train one original with the loss of the method."""
    from contextlib import nullcontext

    from forgetbench.methods._foreign_code import wrapped_errors
    from forgetbench.methods._global_state import restored_state
    from forgetbench.tasks.recipe import Recipe
    from forgetbench.training import count_flops, fit

    network = _load_network(job, channel.ask("model"))
    rows, recipe, seed = _Part(channel, job, "train"), Recipe.model_validate(job["recipe"]), job["seed"]
    method = _load_method(job)
    counting = count_flops() if job["count"] else nullcontext(None)
    with counting as counted, restored_state(seed), wrapped_errors():
        start = time.perf_counter()
        fit(network, rows, recipe, seed, loss=method.training_loss)
        seconds = time.perf_counter() - start
    flops = None if counted is None else float(counted.total)
    return {"kind": "result", "seconds": seconds, "flops": flops}, _weights(network)


_JOBS: dict[str, Callable[[Channel, Mapping[str, Any]], tuple[dict[str, Any], bytes]]] = {
    "describe": _describe,
    "unlearn": _unlearn,
    "train": _train,
}


def _request(channel: Channel, job: Mapping[str, Any]) -> ForgetRequest:
    """The request, whose examples and new network are fetched when they are first used."""
    from forgetbench.methods.base import ForgetRequest
    from forgetbench.tasks.recipe import Recipe

    class Request(ForgetRequest):
        """A request whose fine labels, like its examples, are read from the runner on demand."""

        def __getattribute__(self, name: str) -> Any:
            if name in ("forget_fine_labels", "retain_fine_labels"):
                return object.__getattribute__(self, name.partition("_")[0]).fine_labels
            return object.__getattribute__(self, name)

    parts: dict[str, Any] = {name: _Part(channel, job, name) for name in PARTS}
    initial: dict[str, Tensor] = {}

    def new_network() -> nn.Module:
        if not initial:
            initial.update(channel.ask("new-network"))
        return _load_network(job, initial)

    return Request(
        **parts,
        seed=job["seed"],
        recipe=Recipe.model_validate(job["recipe"]),
        new_network=new_network,
        step=job["step"],
    )


def _Part(channel: Channel, job: Mapping[str, Any], name: str) -> Any:  # noqa: N802 - it makes an object of a class
    """Examples that are fetched when they are first read; their number is known before."""
    import torch

    from forgetbench.training import Examples

    class Part(Examples):
        """Examples of the runner."""

        def __init__(self) -> None:
            pass

        def __len__(self) -> int:
            return int(job["sizes"][name])

        def __getattr__(self, attribute: str) -> Any:
            if attribute not in ("_images", "_labels", "_index", "fine_labels"):
                raise AttributeError(attribute)
            tensors = channel.ask(name)
            device = torch.device(job["device"])
            fine = tensors.get("fine_labels")
            Examples.__init__(self, tensors["images"].to(device), tensors["labels"].to(device))
            self.__dict__["fine_labels"] = fine
            return self.__dict__[attribute]

        @property
        def attributes(self) -> bool:
            return bool(job["attributes"])

        @property
        def device(self) -> torch.device:
            return torch.device(job["device"])

    return Part()


def _weights(network: nn.Module) -> bytes:
    from safetensors.torch import save

    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}))


def _gpu_memory(job: Mapping[str, Any]) -> int | None:
    import torch

    return int(torch.cuda.max_memory_allocated()) if job["device"].startswith("cuda") else None


def _json_values(notes: Mapping[Any, Any]) -> dict[Any, float | str]:
    """Notes as JSON can hold them."""
    import math
    from numbers import Real

    return {
        name: float(value) if isinstance(value, Real) and math.isfinite(value) else str(value)
        for name, value in notes.items()
    }


if __name__ == "__main__":
    sys.stdout = io.TextIOWrapper(os.fdopen(os.dup(2), "wb"), line_buffering=True)
    main()
