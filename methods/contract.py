"""Checks of the contract of a method on tiny random images, in seconds.

The forget set is a whole class, which no retained image has, so that methods for class scenarios run too.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.methods._foreign_code import MethodCodeError, output_to_stderr, wrapped_errors
from forgetbench.methods._global_state import restored_state
from forgetbench.methods._result import check_result
from forgetbench.methods.base import ForgetRequest, Method, TaskFacts
from forgetbench.networks import NetworkSpec
from forgetbench.options import Options, OptionSpec, option_specs
from forgetbench.training import Examples, LossFunction, Recipe, fit

SIZE, CLASSES, ATTRIBUTES, BATCH = 8, 4, 3, 8
CHANNELS = 3
"""More than one, since the layouts of memory differ only then."""


class CheckResult(NamedTuple):
    """Result of one check."""

    name: str
    ok: bool
    message: str


class UnreadableExamples(Examples):
    """Examples with a length, whose images and labels raise an error when they are read."""

    def __init__(self, examples: Examples, name: str) -> None:
        super().__init__(examples._images, examples._labels, examples._index)
        self._count, self._name = len(examples), name

    def __len__(self) -> int:
        """Number of examples."""
        return self._count

    def __getattribute__(self, name: str) -> Any:
        """Raise for everything but the number, the device and the kind of labels."""
        if name in ("_images", "_labels", "_index") and "_name" in object.__getattribute__(self, "__dict__"):
            part = object.__getattribute__(self, "_name")
            raise ForgetBenchError(f"the {part} examples were read, which the card does not list under needs")
        return object.__getattribute__(self, name)

    @property
    def device(self) -> torch.device:
        """Device of the examples."""
        return object.__getattribute__(self, "_images").device  # type: ignore[no-any-return]

    @property
    def attributes(self) -> bool:
        """Whether labels are rows of attributes."""
        return object.__getattribute__(self, "_labels").ndim == 2  # type: ignore[no-any-return]


def check_method(
    kind: type[Method],
    *,
    network: str = "cnn",
    options: dict[str, Any] | None = None,
    values: dict[str, Any] | None = None,
    device: str = "cpu",
    mixed_precision: bool = True,
) -> list[CheckResult]:
    """Check a method on one network.

    Args:
        kind: The method's class.
        network: Name of a network.
        options: The network's options.
        values: Hyper-parameters, such as few epochs; the others keep their defaults.
        device: Device to run on.
        mixed_precision: Whether the recipe uses bfloat16, which has an effect on GPUs only.

    Returns:
        One result per check; a failed check does not raise.
    """
    suite = ContractChecks(kind, network, options or {}, values or {}, device, mixed_precision=mixed_precision)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("hyper-parameters survive JSON", suite.round_trip),
        ("wrong hyper-parameters are refused", suite.wrong_values),
        ("the result is equivalent and the given network unchanged", suite.contract),
        ("the seed determines the result", suite.seeds),
        ("only the needed examples are read", suite.needs),
        ("one forget example", suite.one_example),
        ("a last batch of one", suite.last_batch),
        ("labels of several attributes", suite.attributes),
    ]
    return [run_check(name, check) for name, check in checks]


def run_check(name: str, check: Callable[[], str]) -> CheckResult:
    """The result of one check, whatever it raises."""
    try:
        with output_to_stderr(), wrapped_errors():
            return CheckResult(name, True, check())
    except MethodCodeError as error:
        return CheckResult(name, False, str(error))


T = TypeVar("T", bound=Options)


class TinyTask(Generic[T]):
    """Tiny random images, a network and its originals, for the checks of a class of options: a method or an attack."""

    def __init__(
        self,
        kind: type[T],
        network: str,
        options: dict[str, Any],
        values: dict[str, Any],
        device: str,
        *,
        mixed_precision: bool = True,
    ) -> None:
        self.kind, self.network, self.options, self.values = kind, network, options, values
        self.device = torch.device(device)
        self._originals: dict[tuple[bool, int, int], nn.Module] = {}
        # without label smoothing a large network learns these images to a loss of 0, whose gradient changes no weight
        recipe = {"epochs": 12, "batch_size": BATCH, "optimizer": "adamw", "lr": 0.01, "label_smoothing": 0.1}
        self.recipe = Recipe.model_validate(recipe | {"mixed_precision": mixed_precision})

    def build(self) -> T:
        """An object with the given values."""
        return self.kind.from_dict(self.values)

    def spec(self, attributes: bool) -> NetworkSpec:
        """The network for classes or for attributes."""
        return NetworkSpec(
            name=self.network,
            channels=CHANNELS,
            height=SIZE,
            width=SIZE,
            outputs=ATTRIBUTES if attributes else CLASSES,
            mean=(0.5,) * CHANNELS,
            std=(0.29,) * CHANNELS,
            options=self.options,
        )

    def request(self, *, forget: int = 6, retain: int = 22, attributes: bool = False, seed: int = 1) -> ForgetRequest:
        """A request to forget one class; with attributes, labels are random attributes."""
        generator = torch.Generator().manual_seed(5)

        def examples(count: int, classes: tuple[int, int]) -> Examples:
            images = torch.randint(0, 256, (count, CHANNELS, SIZE, SIZE), generator=generator, dtype=torch.uint8)
            labels = torch.randint(*classes, (count,), generator=generator)
            bright = torch.arange(SIZE) // (SIZE // CLASSES) == labels[:, None]  # two bright rows per class
            levels = bright * 60 + 30 * labels[:, None]  # and each class is brighter than the one before
            images = images // 3 + levels.to(torch.uint8)[:, None, :, None]
            if attributes:
                labels = torch.randint(0, 2, (count, ATTRIBUTES), generator=generator)
            return Examples(images, labels).to(self.device)

        spec = self.spec(attributes)
        return ForgetRequest(
            forget=examples(forget, (CLASSES - 1, CLASSES)),
            retain=examples(retain, (0, CLASSES - 1)),
            validation=examples(9, (0, CLASSES - 1)),
            seed=seed,
            recipe=self.recipe,
            new_network=lambda: spec.build(11).to(self.device),
        )

    def original(self, request: ForgetRequest) -> nn.Module:
        """The original of a request, trained once per kind of request."""
        key = (request.forget.attributes, len(request.forget), len(request.retain))
        if key not in self._originals:
            network = self.spec(request.forget.attributes).build(3).to(self.device)
            data = request.retain.join(request.forget)
            self._originals[key] = fit(network, data, self.recipe, 3, loss=self.training_loss())
        return copy.deepcopy(self._originals[key])

    def training_loss(self) -> LossFunction | None:
        """The loss that originals are trained with; None: the ordinary one."""
        return None

    def facts(self, *, attributes: bool, scenario: str = "class") -> TaskFacts:
        """The facts of the task."""
        outputs = ATTRIBUTES if attributes else CLASSES
        like = self.spec(attributes).build(0).body.similar_to
        return TaskFacts(network=self.network, like=like, scenario=scenario, attributes=attributes, outputs=outputs)

    def round_trip(self) -> str:
        """Values survive a round trip through JSON."""
        thing = self.build()
        reloaded = self.kind.from_dict(json.loads(json.dumps(thing.to_dict())))
        require(reloaded == thing, f"{thing} became {reloaded} after JSON")
        return ""

    def wrong_values(self) -> str:
        """Unknown names, wrong types and values out of range are refused with name and range."""
        cases: list[tuple[str, object, str]] = [("no_such_parameter", 1, "")]
        specs = option_specs(self.kind)
        for document in self.kind.options():
            allowed = "" if document.range == "any" else document.range
            cases += [
                (document.name, value, allowed) for value in _invalid_values(specs[document.name], document.default)
            ]
        for name, value, allowed in cases:
            try:
                self.kind.from_dict({name: value})
            except UsageError as error:
                require(name in str(error), f"the refusal of {name}={value!r} does not name it: {error}")
                require(allowed in str(error), f"the refusal of {name}={value!r} does not say {allowed}: {error}")
            else:
                raise ForgetBenchError(f"{name}={value!r} was not refused")
        return ""


class ContractChecks(TinyTask[Method]):
    """The checks of one method on one network; each returns a remark, or raises an error that says what is wrong."""

    def method(self) -> Method:
        """The method with the given hyper-parameters."""
        return self.build()

    def training_loss(self) -> LossFunction | None:
        """The method's own."""
        return self.method().training_loss

    def inapplicable(self, *, attributes: bool = False) -> str | None:
        """Why the method does not apply, or None."""
        scenario = self.kind.card.scenarios[0].replace("*", "class")
        return self.method().applies_to(self.facts(attributes=attributes, scenario=scenario))

    def contract(self) -> str:
        """The result is an equivalent, finite network in eval mode; model, data and random state do not change."""
        if reason := self.inapplicable():
            return f"does not apply: {reason}"
        request = self.request()
        model = self.original(request)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)  # as an earlier backward pass of the caller may leave them
        before, modes = state_of(model), modes_of(model)
        data = (request.forget, request.retain, request.validation)
        copies = [(examples.images.clone(), examples.labels) for examples in data]
        with _checked_layouts(), restored_state(request.seed) as state:
            unlearned = self.method().unlearn(model, request)
        require(
            not state.changed,
            f"global state was changed: {', '.join(state.changed)}. Restore it, and draw random numbers from "
            "request.generator().",
        )
        require(same_state(before, state_of(model)), "the given model was changed")
        require(modes == modes_of(model), "the mode or requires_grad of the given model was changed")
        require(
            all(part.grad is not None and bool((part.grad == 1).all()) for part in model.parameters()),
            "the gradients of the given model were changed",
        )
        require(unlearned is not model, "the given model was returned instead of a copy")
        check_result(unlearned, self.original(request))
        _equivalent(before, state_of(unlearned))
        require(not unlearned.training, "the returned network is in train mode: end with .eval()")
        for examples, (images, labels) in zip(data, copies, strict=True):
            require(torch.equal(examples.images, images), "images were changed in place")
            require(torch.equal(examples.labels, labels), "labels were changed in place")
        return ""

    def seeds(self) -> str:
        """The same seed gives the same bits on a CPU; another seed gives others if the card says random."""
        if reason := self.inapplicable():
            return f"does not apply: {reason}"
        with self._batches_of(4):  # so that the order of examples matters
            first, second, other = (state_of(self._unlearned(self.request(seed=seed))) for seed in (1, 1, 2))
        exact = self.device.type == "cpu"
        require(not exact or same_state(first, second), "the same seed gave different bits")
        if self.kind.card.random is True:
            require(not same_state(first, other), "another seed gave the same bits, although the card says random")
        elif self.kind.card.random is False and exact:
            require(same_state(first, other), "another seed gave different bits, although the card says not random")
        return ""

    def needs(self) -> str:
        """Only the examples that the card lists under needs are read."""
        if reason := self.inapplicable():
            return f"does not apply: {reason}"
        request = self.request()
        model = self.original(request)
        parts: dict[str, Any] = {
            name: getattr(request, name)
            if name in self.kind.card.needs
            else UnreadableExamples(getattr(request, name), name)
            for name in ("forget", "retain", "validation")
        }
        limited = ForgetRequest(
            **parts, seed=request.seed, recipe=request.recipe, new_network=request.new_network, step=request.step
        )
        with restored_state(request.seed):
            self.method().unlearn(model, limited)
        return ""

    def one_example(self) -> str:
        """One example can be forgotten."""
        if reason := self.inapplicable():
            return f"does not apply: {reason}"
        _finite(self._unlearned(self.request(forget=1)))
        return ""

    def last_batch(self) -> str:
        """A last batch of one works."""
        if reason := self.inapplicable():
            return f"does not apply: {reason}"
        with self._batches_of(BATCH):
            _finite(self._unlearned(self.request(forget=BATCH + 1, retain=2 * BATCH + 1)))
        return ""

    @contextmanager
    def _batches_of(self, size: int) -> Iterator[None]:
        sizes = {fact.name: size for fact in self.kind.parameters() if fact.name == "batch_size"}
        previous, self.values = self.values, {**self.values, **sizes}
        try:
            yield
        finally:
            self.values = previous

    def attributes(self) -> str:
        """Labels of several attributes work, unless the card excludes them."""
        if reason := self.inapplicable(attributes=True):
            return f"does not apply: {reason}"
        _finite(self._unlearned(self.request(attributes=True)))
        return ""

    def _unlearned(self, request: ForgetRequest) -> nn.Module:
        original = self.original(request)
        with _checked_layouts(), restored_state(request.seed):
            return check_result(self.method().unlearn(original, request), self.original(request))


@contextmanager
def _checked_layouts() -> Iterator[None]:
    """Raise an error at a step of a fused optimizer whose parameter and gradient differ in their memory layout.

    On a CPU such a step silently changes the wrong values.
    """

    def check(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"] if group.get("fused") else ():
                gradient = parameter.grad
                if gradient is not None and _strides(gradient) != _strides(parameter):
                    raise ForgetBenchError(
                        f"a fused {type(optimizer).__name__} took a step on a parameter {tuple(parameter.shape)} whose "
                        f"gradient has another memory layout: strides {gradient.stride()} instead of "
                        f"{parameter.stride()}. Give both the same layout, as with gradient.contiguous()."
                    )

    handle = register_optimizer_step_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _strides(tensor: Tensor) -> list[int]:
    """The strides of the dimensions that have more than one entry."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def require(condition: bool, message: str) -> None:
    """Raise an error with a message unless a condition holds."""
    if not condition:
        raise ForgetBenchError(message)


def _invalid_values(spec: OptionSpec, default: object) -> list[object]:
    """Values that a hyper-parameter must refuse: of the wrong type, beyond each end of its range, NaN."""
    outside = {"ge": -1, "le": 1, "gt": 0, "lt": 0}
    values: list[object] = [object()]
    values += [bound + outside[name] for name, bound in spec.constraints.items()]
    if isinstance(default, float):
        values.append(math.nan)
    if spec.choices:
        values.append("no-such-choice")
    return values


def modes_of(network: nn.Module) -> tuple[list[bool], list[bool]]:
    """Mode of each module, and requires_grad of each parameter."""
    return (
        [module.training for module in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
    )


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the tensors of a network."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states are equal, bit by bit."""
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def _equivalent(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    require(before.keys() == after.keys(), f"the state dict has different keys: {sorted(before.keys() ^ after.keys())}")
    for name, value in before.items():
        result = after[name]
        require(
            value.shape == result.shape and value.dtype == result.dtype,
            f"{name} is {result.dtype} {tuple(result.shape)}, not {value.dtype} {tuple(value.shape)}",
        )
        require(result.is_contiguous(), f"{name} has another memory layout")
        require(bool(torch.isfinite(result).all()), f"{name} is not finite")


def _finite(network: nn.Module) -> None:
    for name, value in state_of(network).items():
        require(bool(torch.isfinite(value).all()), f"{name} is not finite")
