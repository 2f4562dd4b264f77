"""Run a submitted method on a task in the sandbox: every draw and seed, its cost, and a run folder as the result.

What the manifest says of cost and of the data that was read is measured here. Everything that is computed is kept in
the runner's store, so that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import ValidationError

from forgetbench.errors import ForgetBenchError, printable, validation_message
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.run import CostRecord, MethodRecord, Record, Run, read_run
from forgetbench.fingerprints import file_fingerprint, method_fingerprint
from forgetbench.method_label import MethodLabel
from forgetbench.methods import methods
from forgetbench.methods._card import TaskFacts
from forgetbench.methods._foreign_code import MethodCodeError
from forgetbench.runner.artifacts import PREDICTIONS, read_meta, require_artifact, write_meta
from forgetbench.runner.collect import RunInfo, RunOutcome, write_run
from forgetbench.runner.config import RunConfig
from forgetbench.runner.jobs import (
    CountTrainingJob,
    MethodFailure,
    PrepareJob,
    TrainedModel,
    TrainJob,
    UnlearnedModel,
    UnlearnJob,
)
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.store import JsonObject
from forgetbench.tasks.task import Task
from forgetbench.verification.calls import PARTS, Answer, MethodCode, MethodError, SandboxCaller
from forgetbench.verification.limits import Limits
from forgetbench.verification.sandbox import Sandbox
from forgetbench.verification.session import SandboxStoppedError
from forgetbench.verification.weights import WeightsError

if TYPE_CHECKING:
    from forgetbench.runner.context import TaskContext
    from forgetbench.runner.unlearn import CallResult, StreamStep

CostClass = Literal["1 %", "5 %", "20 %", "below half", "retraining", "unknown"]
RETRAINING = 0.5
"""Share of retraining's cost from which a method is labelled as retraining."""
_CLASSES: tuple[tuple[float, CostClass], ...] = (
    (0.01, "1 %"),
    (0.05, "5 %"),
    (0.2, "20 %"),
    (RETRAINING, "below half"),
)


class MeasuredCost(Record):
    """What a method cost and read, as the runner measured it."""

    sandbox: str
    """Name of the sandbox."""
    read: tuple[str, ...]
    """The parts of the request that its processes requested: forget, retain, validation."""
    requested_network: bool
    """Whether they requested a newly initialized network."""
    flops: float | None
    """FLOPs of one call relative to retraining; None if they could not be counted."""
    flops_reason: str = ""
    """Why the FLOPs are not known."""
    time: float | None
    """Processor time of one call relative to retraining in the same sandbox (wall time on a GPU); the mean."""
    seconds: float
    """Mean wall time of one call, in seconds."""
    cpu_seconds: float | None
    """Mean processor time of one call, in seconds."""
    memory: int | None
    """Largest peak memory of a call, in bytes, above that of the interpreter with torch."""
    training: float | None = None
    """FLOPs of training one of its own originals relative to retraining, where it trains them."""

    @property
    def relative(self) -> float | None:
        """The larger of both relative costs; a method that evades the counter does not evade the clock."""
        known = [cost for cost in (self.flops, self.time) if cost is not None]
        return max(known) if known else None

    @property
    def cost_class(self) -> CostClass:
        """The class of `relative`."""
        cost = self.relative
        if cost is None:
            return "unknown"
        return next((name for limit, name in _CLASSES if cost < limit), "retraining")


@dataclass(frozen=True, kw_only=True)
class SubmittedMethod(MethodSpec):
    """A submitted method; unlike its base it never imports the source, which only the sandbox does."""

    code: MethodCode = field(default_factory=lambda: MethodCode("", {}), hash=False)
    described: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What it says of itself in the sandbox."""
    recorded_fingerprint: str = ""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its source, or of the method of this package."""
        return self.recorded_fingerprint

    @property
    def source(self) -> str | None:
        """Its source text; None for a method of this package."""
        return self.code.source

    @property
    def trains_originals(self) -> bool:
        """Whether its originals are trained with a loss of its own."""
        return bool(self.described.get("trains_originals"))

    def identity(self) -> JsonObject:
        """What shapes the results; models that were not made in a sandbox are not taken for its own."""
        return {**super().identity(), "sandboxed": True}

    def training_identity(self) -> JsonObject:
        """What shapes the originals that it trains for itself."""
        parameters = dict(self.described.get("training_parameters") or {})
        return {"name": self.name, "parameters": parameters, "fingerprint": self.fingerprint}

    @classmethod
    def describe(cls, caller: SandboxCaller, facts: TaskFacts, label: str) -> SubmittedMethod:
        """Ask a method's code in the sandbox what it is.

        Raises:
            MethodError: Its file does not import, or what it says of itself cannot be recorded.
            SandboxStoppedError: Its process was stopped.
        """
        code = caller.code
        described = caller.describe(facts)
        card, parameters = described.get("card"), described.get("parameters")
        name = card.get("name") if isinstance(card, dict) else None
        if not isinstance(name, str) or not isinstance(parameters, dict):
            raise SandboxStoppedError("The method broke the protocol of the sandbox: its description is incomplete.")
        if code.source is None:
            fingerprint = method_fingerprint(methods.get(code.name))
        else:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "method.py"
                path.write_text(code.source, encoding="utf-8")
                fingerprint = file_fingerprint(path)
        spec = cls(
            label=label or str(MethodLabel(name).extended(code.parameters)),
            name=name,
            parameters=parameters,
            code=replace(code, parameters=parameters),
            described=described,
            recorded_fingerprint=fingerprint,
        )
        try:
            spec.record(())
        except ValidationError as error:
            raise MethodError(f"The method cannot be recorded: {validation_message(error)}.") from error
        return spec

    def record(self, read: tuple[str, ...]) -> MethodRecord:
        """What the manifest says of it.

        Args:
            read: The parts of the request that it read, as measured.
        """
        card = {name: _printable(value) for name, value in self.described["card"].items()}
        return MethodRecord(
            name=self.name,
            label=self.label,
            title=card.get("title", ""),
            family=card.get("family", ""),
            needs=read,
            parameters=dict(self.parameters),
            changes_training=self.trains_originals,
            sentinel=bool(card.get("sentinel")) and self.code.source is None,
            fingerprint=self.fingerprint,
            source=self.source,
            link=card.get("link") or None,
            bibtex=card.get("bibtex") or None,
        )


Progress = Callable[[str], None]
"""Informed of each step in words; may raise to abandon the work."""


@dataclass(frozen=True)
class Rerun:
    """The result of running a submitted method."""

    run: Run
    """The run, with measured cost and needs in its manifest."""
    measured: MeasuredCost
    """What was measured."""


class MethodFailedError(ForgetBenchError):
    """A submitted method failed; the message is the reason for its row."""


def run_method(
    task: Task,
    code: MethodCode,
    label: str,
    sandbox: Sandbox,
    limits: Limits,
    config: RunConfig,
    progress: Progress = lambda _: None,
) -> Rerun:
    """Run a method on every draw and seed of a task, from originals that are in the store.

    Args:
        task: The task with the board's counts of seeds and draws.
        code: The method.
        label: Name of the row; "" is the method's name.
        sandbox: Where its code runs.
        limits: Limits of one call.
        config: Device, image sets, and the home whose store has the originals.
        progress: Informed of each step.

    Raises:
        MethodFailedError: The method failed, was stopped, or does not apply to the task.
        ForgetBenchError: The runner's own work failed.
    """
    with SandboxCaller(sandbox, limits, code, config.env().device) as caller:
        return _Verification(task, caller, label, config, progress).run()


class _CallRecord(NamedTuple):
    """What one call of `unlearn` read and used, as it is kept in the store."""

    read: tuple[str, ...]
    seconds: float
    cpu_seconds: float | None
    memory: int | None

    @classmethod
    def of(cls, answer: Answer) -> _CallRecord:
        """The record of a call."""
        used = answer.measured
        return cls(answer.read, used.seconds, used.cpu_seconds, used.memory)

    @property
    def time(self) -> float:
        """Processor time; wall time where that is not known."""
        return self.seconds if self.cpu_seconds is None else self.cpu_seconds


class _Verification:
    """One method on one task."""

    def __init__(self, task: Task, caller: SandboxCaller, label: str, config: RunConfig, progress: Progress) -> None:
        from forgetbench.runner.context import load_context

        self.task, self.caller, self.label, self.config, self.progress = task, caller, label, config, progress
        self.env = config.env()
        self.context: TaskContext = load_context(task, self.env)
        self.places = [(draw, seed) for draw in range(task.draws) for seed in range(task.seeds)]

    def run(self) -> Rerun:
        """Everything: describe, train its own originals where it needs them, unlearn, measure, and write the run."""
        from forgetbench.runner.train import count_training, prepare_task

        task, env, caller = self.task, self.env, self.caller
        facts = prepare_task(PrepareJob(task=task, env=env))
        spec = self._describe()
        caller.code = spec.code
        originals = self._originals(spec)
        outcomes = [(draw, seed, self._unlearn(spec, draw, seed, originals[seed])) for draw, seed in self.places]
        calls = [
            self._read_call(spec, draw, seed, step, originals[seed])
            for draw, seed in self.places
            for step in range(len(self.context.data.steps(draw)))
        ]
        self.progress("measuring the cost")
        retrain = count_training(CountTrainingJob(task=task, env=env)).flops
        flops, reason = self._count(spec, originals[0], outcomes[0][2])
        training = self._count_originals(spec)
        read = {part for call in calls for part in call.read}
        measured = MeasuredCost(
            sandbox=caller.sandbox.name,
            read=tuple(part for part in PARTS if part in read),
            requested_network="new-network" in read,
            flops=flops / retrain if flops is not None and retrain else None,
            flops_reason=reason,
            time=self._relative_time(calls, originals[0]),
            seconds=sum(call.seconds for call in calls) / len(calls),
            cpu_seconds=_mean([call.cpu_seconds for call in calls]),
            memory=max((call.memory for call in calls if call.memory is not None), default=None),
            training=training / retrain if training and retrain else None,
        )
        info = RunInfo(spec.record(measured.read), f"the board's own run of {spec.label} (sandbox: {measured.sandbox})")
        cost = CostRecord(flops=flops, retrain_flops=retrain, training_flops=training)
        outcome = RunOutcome(outcomes, cost, originals if spec.trains_originals else [])
        folder = self.config.home / "verified" / task.name / spec.key
        write_run(self.config.store, folder, task, info, outcome, facts=facts, device=env.device)
        return Rerun(read_run(folder), measured)

    def _describe(self) -> SubmittedMethod:
        from forgetbench.runner.train import task_facts

        self.progress("reading the method")
        try:
            spec = SubmittedMethod.describe(self.caller, task_facts(self.context), self.label)
        except (MethodError, SandboxStoppedError) as error:
            raise MethodFailedError(str(error)) from error
        refusal = printable(str(spec.described.get("refusal") or ""))
        if refusal:
            raise MethodFailedError(f"The method does not apply to this board: {refusal}.")
        return spec

    def _originals(self, spec: SubmittedMethod) -> list[TrainedModel]:
        """The board's originals, by seed; or those that the method trains for itself, in the sandbox."""
        from forgetbench.runner.train import find_model, train_model, train_model_by

        models: list[TrainedModel] = []
        for seed in range(self.task.seeds):
            job = TrainJob(task=self.task, env=self.env, role="original", seed=seed)
            if not spec.trains_originals:
                if not find_model(job).present:
                    raise ForgetBenchError(f"The original of seed {seed} of {self.task.name} is not in the store.")
                outcome = train_model(job)
            else:
                self.progress(f"training its own original {seed + 1} of {self.task.seeds}")
                outcome = train_model_by(replace(job, trainer=spec), self.caller.train)
            if isinstance(outcome, MethodFailure):
                raise MethodFailedError(outcome.reason)
            models.append(outcome)
        return models

    def _unlearn(self, spec: SubmittedMethod, draw: int, seed: int, original: TrainedModel) -> UnlearnedModel:
        from forgetbench.runner.unlearn import unlearn_by

        number = self.places.index((draw, seed)) + 1
        self.progress(f"model {number} of {len(self.places)}")
        job = UnlearnJob(task=self.task, env=self.env, method=spec, draw=draw, seed=seed, original=original.model)

        def call(context: TaskContext, step: StreamStep) -> CallResult:
            result = self.caller.unlearn(context, step)
            if self.caller.last is not None:
                record = _CallRecord.of(self.caller.last)._asdict()
                key = self._call_key(spec, draw, seed, step.step, original)
                context.store.write(key, lambda folder: write_meta(folder, record))
            return result

        outcome = unlearn_by(job, call)
        if isinstance(outcome, MethodFailure):
            raise MethodFailedError(outcome.reason)
        return outcome

    def _call_key(self, spec: SubmittedMethod, draw: int, seed: int, step: int, original: TrainedModel) -> JsonObject:
        place = {"draw": draw, "seed": seed, "step": step, "original": original.weights}
        return self.context.keys.flops({"call": spec.identity(), **place, "machine": self._machine()})

    def _read_call(self, spec: SubmittedMethod, draw: int, seed: int, step: int, original: TrainedModel) -> _CallRecord:
        key = self.context.store.key(self._call_key(spec, draw, seed, step, original))
        return _CallRecord(**read_meta(require_artifact(self.context.store, key)))

    def _machine(self) -> JsonObject:
        """What a measured time depends on: times of another machine are not reused."""
        return {"node": platform.node(), "machine": platform.machine(), "sandbox": self.caller.sandbox.name}

    def _first_step(self, original: TrainedModel) -> StreamStep:
        """The first request of the first draw, from the first original."""
        from forgetbench.runner.unlearn import StreamStep

        folder = require_artifact(self.context.store, original.model)
        last = len(self.context.data.steps(0)) == 1
        return StreamStep(draw=0, seed=0, step=0, last=last, original=folder, source=folder, keep=False)

    def _count(self, spec: SubmittedMethod, original: TrainedModel, first: UnlearnedModel) -> tuple[float | None, str]:
        """FLOPs of the first call, counted in a second one; and why they are not known."""
        key = self.context.keys.flops({"sandboxed": spec.identity(), "original": original.weights})
        folder = self.context.store.read(self.context.store.key(key))
        if folder is None:
            try:
                flops, network = self.caller.count(self.context, self._first_step(original))
            except (MethodError, SandboxStoppedError, WeightsError) as error:
                return None, printable(str(error))
            measured_in = require_artifact(self.context.store, (*first.steps, first.key)[0])
            recorded = read_arrays(measured_in / PREDICTIONS)
            counted = self.context.predict(network, 0, features=False)
            reason = ""
            if any(not np.array_equal(counted[name], recorded[name]) for name in counted):
                flops, reason = None, "the counted call made another model than the measured one"
            record = {"flops": flops, "reason": reason}
            folder = self.context.store.write(key, lambda place: write_meta(place, record))
        meta = read_meta(folder)
        return meta["flops"], meta["reason"]

    def _count_originals(self, spec: SubmittedMethod) -> float | None:
        """FLOPs of training one of the method's own originals: of one epoch, times the epochs."""
        if not spec.trains_originals:
            return None
        key = self.context.keys.flops({"sandboxed training": spec.training_identity()})
        folder = self.context.store.read(self.context.store.key(key))
        if folder is None:
            data = self.context.data
            network = data.network_spec.build(0).to(data.device)
            try:
                _, flops = self.caller.train(self.context, network, data.examples("train", 0), 0, count=True)
            except MethodCodeError:
                return None
            record = {"flops": flops * self.task.recipe.epochs}
            folder = self.context.store.write(key, lambda place: write_meta(place, record))
        flops_of_training: float = read_meta(folder)["flops"]
        return flops_of_training

    def _relative_time(self, calls: Sequence[_CallRecord], original: TrainedModel) -> float | None:
        """Mean time of a call, relative to retraining in the same sandbox, both without the time of an idle call."""
        idle, retraining = self._reference_time("none", original), self._reference_time("retrain", original)
        if retraining <= idle:
            return None
        mean = sum(call.time for call in calls) / len(calls)
        return max(0.0, mean - idle) / (retraining - idle)

    def _reference_time(self, name: str, original: TrainedModel) -> float:
        """Time of a reference method in the sandbox, measured once for each task and machine."""
        key = self.context.keys.flops({"time": name, "machine": self._machine()})
        folder = self.context.store.read(self.context.store.key(key))
        if folder is None:
            answer = self.caller.measure(MethodCode(name, {}), self.context, self._first_step(original))
            record = {"time": _CallRecord.of(answer).time}
            folder = self.context.store.write(key, lambda place: write_meta(place, record))
        time: float = read_meta(folder)["time"]
        return time


def _printable(value: Any) -> Any:
    """A value that a method says of itself, without control characters if it is a text."""
    return printable(value) if isinstance(value, str) else value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
