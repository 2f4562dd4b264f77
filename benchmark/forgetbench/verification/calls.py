"""Calls of a method in a sandbox: what its process is given, what is taken from it, and what it cost.

The process is given the weights of one original and, on request, one part of the examples; the parts that it requested
are what it read. It never sees test images, other originals, oracles or a file of this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from forgetbench.errors import LONGEST_MESSAGE, ForgetBenchError, printable
from forgetbench.methods._card import TaskFacts
from forgetbench.methods._foreign_code import MethodCodeError
from forgetbench.verification.limits import Limits
from forgetbench.verification.sandbox import Sandbox
from forgetbench.verification.session import Measured, SandboxStoppedError, Session
from forgetbench.verification.weights import WeightsError, load_weights, max_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from forgetbench.runner.context import TaskContext
    from forgetbench.runner.unlearn import CallResult, StreamStep
    from forgetbench.training import Examples

_SHOWN_NOTES = 50
_NOTE_LENGTH = 500
PARTS = ("forget", "retain", "validation")


class MethodError(ForgetBenchError):
    """What went wrong in a method's process, in its own words; the method is to blame, not the machine."""


@dataclass(frozen=True)
class MethodCode:
    """A method to run: one of this package by name, or a class of submitted source."""

    name: str
    """Name in the registry; of a submitted class only a label."""
    parameters: Mapping[str, Any]
    """Hyper-parameters; the others have their defaults."""
    source: str | None = None
    """Source text; None for a method of this package."""
    class_name: str = ""
    """The class in the source; "" if it defines one method."""


@dataclass(frozen=True)
class Answer:
    """What a method's process answered."""

    header: Mapping[str, Any]
    """Its message: claims of a process that may have been taken over."""
    payload: bytes
    """Weights that are not checked yet."""
    read: tuple[str, ...]
    """The parts that it requested; measured."""
    measured: Measured
    """What it used; measured."""


class SandboxCaller:
    """Calls one method in a sandbox; a context manager that leaves no process behind.

    Args:
        sandbox: The sandbox.
        limits: Limits of one call.
        code: The method.
        device: The torch device.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        limits: Limits,
        code: MethodCode,
        device: str = "cpu",
    ) -> None:
        self.sandbox, self.limits, self.code, self._device = sandbox, limits, code, device
        self.last: Answer | None = None
        """The answer of the last successful call of `unlearn`."""
        self._spare: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process that was started in advance."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _open_session(self, device: str) -> Session:
        """A new process; the next one starts at once, so that it imports torch while this one works."""
        session = self._spare or Session(self.sandbox, self.limits, device)
        self._spare = Session(self.sandbox, self.limits, device)
        return session

    def describe(self, facts: TaskFacts) -> Mapping[str, Any]:
        """What the method says of itself.

        Raises:
            MethodError: Its file does not import, or a hyper-parameter is wrong.
            SandboxStoppedError: Its process was stopped.
        """
        answer = self._call({"kind": "describe", "facts": asdict(facts)}, {}, 0)
        if answer.header.get("kind") != "described":
            raise SandboxStoppedError("The method broke the protocol of the sandbox: it did not describe itself.")
        return answer.header

    def unlearn(self, context: TaskContext, step: StreamStep) -> CallResult:
        """Let the method unlearn; for `unlearn_by`.

        Raises:
            MethodCodeError: Anything went wrong in the method's process.
        """
        from forgetbench.runner.unlearn import CallResult, plain_notes

        try:
            answer, network = self._unlearn(context, step, count=False)
            self.last = answer
            header = answer.header
            changed = [str(name) for name in _list(header.get("changed"))]
            notes = plain_notes(_dict(header.get("notes")), _list(header.get("warnings")), changed)
        except (MethodError, SandboxStoppedError, WeightsError) as error:
            raise MethodCodeError(str(error)) from error
        short = {name[:100]: _short(value) for name, value in list(notes.items())[:_SHOWN_NOTES]}
        gpu = header.get("peak_memory")
        peak = gpu if isinstance(gpu, int) and gpu >= 0 else answer.measured.memory
        return CallResult(network, context.load_model(step.original), answer.measured.seconds, peak, short)

    def count(self, context: TaskContext, step: StreamStep) -> tuple[float | None, nn.Module]:
        """The FLOPs that the method's process counted in a separate call, and the network that this call returned.

        The count is the process's word. It is believed only if the network is the one of the measured call, bit by
        bit, which a method that works less while it is counted does not reach.

        Raises:
            MethodError, SandboxStoppedError: It failed.
        """
        answer, network = self._unlearn(context, step, count=True)
        flops = answer.header.get("flops")
        return (float(flops) if isinstance(flops, int | float) and 0 <= flops < float("inf") else None), network

    def train(
        self, context: TaskContext, network: nn.Module, rows: Examples, seed: int, *, count: bool = False
    ) -> tuple[nn.Module, float]:
        """Train an original with the method's loss; for `train_model_by`.

        Returns:
            The network, and the seconds that it took or, with ``count``, the FLOPs of one epoch.

        Raises:
            MethodCodeError: Anything went wrong in the method's process.
        """
        recipe = context.task.recipe
        if count:
            recipe = recipe.model_copy(update={"epochs": 1, "warmup_epochs": 0.0})
        job = self._job(context, "train", {"train": len(rows)}, seed=seed, count=count)
        job["recipe"] = recipe.model_dump(mode="json")
        parts = {"model": lambda: _state(network), "train": lambda: _tensors(rows, None)}
        try:
            answer = self._call(job, parts, max_bytes(network))
            trained = load_weights(answer.payload, network)
        except (MethodError, SandboxStoppedError, WeightsError) as error:
            raise MethodCodeError(str(error)) from error
        flops = answer.header.get("flops")
        if count:
            return trained, float(flops) if isinstance(flops, int | float) else 0.0
        return trained, answer.measured.seconds

    def measure(self, code: MethodCode, context: TaskContext, step: StreamStep) -> Answer:
        """The answer of a call of another method, for what it used.

        Raises:
            MethodError, SandboxStoppedError: It failed.
        """
        own, self.code = self.code, code
        try:
            return self._unlearn(context, step, count=False)[0]
        finally:
            self.code = own

    def _unlearn(self, context: TaskContext, step: StreamStep, *, count: bool) -> tuple[Answer, nn.Module]:
        from forgetbench.runner.unlearn import make_request

        source, original = context.load_model(step.source), context.load_model(step.original)
        request = make_request(context, step.draw, step.seed, step.step)
        examples = {"forget": request.forget, "retain": request.retain, "validation": request.validation}
        fine = {"forget": request.forget_fine_labels, "retain": request.retain_fine_labels, "validation": None}
        parts: dict[str, Callable[[], dict[str, Tensor]]] = {
            name: partial(_tensors, examples[name], fine[name]) for name in PARTS
        }
        parts["model"] = lambda: _state(source)
        parts["new-network"] = lambda: _state(request.new_network())
        sizes = {name: len(rows) for name, rows in examples.items()}
        job = self._job(context, "unlearn", sizes, seed=request.seed, count=count)
        answer = self._call({**job, "step": step.step}, parts, max_bytes(original))
        return answer, load_weights(answer.payload, original).to(context.data.device)

    def _job(
        self, context: TaskContext, kind: str, sizes: Mapping[str, int], *, seed: int, count: bool
    ) -> dict[str, Any]:
        return {
            "kind": kind,
            "network": asdict(context.data.network_spec),
            "recipe": context.task.recipe.model_dump(mode="json"),
            "sizes": dict(sizes),
            "attributes": context.data.attributes,
            "seed": seed,
            "count": count,
        }

    def _call(
        self, job: Mapping[str, Any], parts: Mapping[str, Callable[[], dict[str, Tensor]]], max_payload: int
    ) -> Answer:
        """One process: give it a job, serve what it asks for, and take its answer."""
        limits, read = self.limits, []
        confined = {
            "cpu_seconds": int(limits.cpu_seconds) + 60,  # of one process; the watchdog counts all of them
            "file_bytes": limits.file_bytes,
            "processes": limits.kernel_processes if self.sandbox.name != "none" else 0,
            "open_files": limits.open_files,
            "memory": limits.memory if self._device == "cpu" else 0,
        }
        with self._open_session(self._device) as session:
            session.begin()
            session.send({**job, "device": self._device, "method": asdict(self.code), "limits": confined})
            while True:
                message = session.receive(max_payload)
                header = message.header
                if header.get("kind") != "ask":
                    measured = session.measure()
                    break
                part = header.get("part")
                if not isinstance(part, str) or part not in parts or part in read:
                    raise SandboxStoppedError(
                        f"The method broke the protocol of the sandbox: it requested {printable(str(part))[:50]!r}."
                    )
                read.append(part)
                session.send({"kind": "part"}, _bytes(parts[part]()))
        if header.get("kind") == "error":
            raise MethodError(_short(printable(str(header.get("reason", ""))), LONGEST_MESSAGE) or "It failed.")
        return Answer(header, message.payload, tuple(read), measured)


def _tensors(rows: Examples, fine: Tensor | None) -> dict[str, Tensor]:
    tensors = {"images": rows.images.cpu(), "labels": rows.labels.cpu()}
    return tensors if fine is None else {**tensors, "fine_labels": fine}


def _state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _short(value: Any, most: int = _NOTE_LENGTH) -> Any:
    return f"{value[:most]}…" if isinstance(value, str) and len(value) > most else value
