"""Per-example gradients, summed after squaring or taking absolute values, without holding those of a whole set.

For a linear layer the gradient of one example is an outer product, so the sum of squares over examples is one matrix
product of squares; for a convolution it is one small product per example, or one group of a grouped convolution if its
feature map is large (Rochette et al. 2019). Both need only what an ordinary batched backward leaves behind: on small
images that is four to twenty times as fast as batches of one, on large ones as fast as the backward itself. A position
embedding is expanded to one copy per example; all other parameters go through `torch.func.vmap`. Everything runs in
eval mode, in which examples do not affect each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from forgetbench.training import DivergedError, Examples, classification_loss
from forgetbench.training.compute import active_flop_count, channels_last

Importance = dict[str, Tensor]
"""Parameter name -> one value per weight, in the parameter's shape."""

ExampleLosses = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K), labels) -> loss of each example (B,)."""

Power = Literal["square", "absolute"]
"""What is summed: squares or absolute values of gradients."""

_PLAIN_LAYERS = (nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
_PLAIN_TIMM_LAYERS = {("timm.layers.norm", "LayerNorm"), ("timm.layers.linear", "Linear")}
"""Subclasses that compute the same as their base class."""

_MAX_ELEMENTS = {"cpu": 500_000, "cuda": 64_000_000}
"""Per-example gradients held at once, in floats: on a CPU 2 MB, which stay in the cache; on a GPU 256 MB, since more in
each launch is faster there."""

_LARGE_MAP = 256
"""With at least so many places in its feature map, a convolution is faster as one grouped convolution."""


def losses_of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """The classification loss of each example (B,)."""
    return classification_loss(logits, labels, reduction="none")


def importance_per_example(
    model: nn.Module,
    examples: Examples,
    example_losses: ExampleLosses = losses_of_labels,
    power: Power = "square",
    *,
    batch_size: int = 64,
) -> Importance:
    """Mean over examples of the squared (or absolute) gradient of each example's loss.

    With the classification loss and squares this is the diagonal of the empirical Fisher information. Except for
    rounding, it does not depend on the order or the batch size.

    Args:
        model: In eval mode meanwhile; its gradients and mode are left unchanged.
        examples: Labels as the loss expects them.
        example_losses: Losses of the examples of a batch.
        power: What is averaged.
        batch_size: Examples per backward.

    Raises:
        DivergedError: A gradient is not finite.
    """
    was_training = model.training
    model.eval()
    sums = _GradientSums(model, examples, example_losses, power)
    with channels_last(model):
        for images, labels in examples.batches(batch_size):
            sums.add_batch(images, labels)
    model.train(was_training)
    return _check_finite({name: value.div_(len(examples)) for name, value in sums.total.items()})


def importance_per_batch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    example_losses: ExampleLosses = losses_of_labels,
    power: Power = "square",
    *,
    bfloat16: bool = False,
) -> Importance:
    """Mean over batches of the squared (or absolute) mean gradient of a batch, in eval mode, as in released codes.

    It depends on batch size and order, because gradients of different examples cancel before they are squared.

    Args:
        model: Its mode is left unchanged.
        batches: Images and labels as the loss expects them.
        example_losses: Losses of the examples of a batch.
        power: What is averaged.
        bfloat16: Whether logits are computed in bfloat16 autocast; losses and sums are float32.
    """
    was_training = model.training
    model.eval()
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    count = 0
    with channels_last(model) if bfloat16 else nullcontext():
        for images, labels in batches:
            with torch.autocast(images.device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext():
                logits = model(images)
            loss = example_losses(logits.float() if bfloat16 else logits, labels).mean()
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            for sums, gradient in zip(total.values(), gradients, strict=True):
                sums.add_(_powered(gradient, power))
            count += 1
    model.train(was_training)
    return _check_finite({name: value.div_(count) for name, value in total.items()})


def _check_finite(importance: Importance) -> Importance:
    for name, value in importance.items():
        if not torch.isfinite(value).all():
            raise DivergedError(f"the given model has diverged: gradients of {name} are not finite")
    return importance


def mean_gradient(
    model: nn.Module, examples: Examples, *, example_losses: ExampleLosses = losses_of_labels, batch_size: int = 256
) -> list[Tensor]:
    """Gradient of the mean loss over all examples, accumulated in chunks, in the mode that the model is in."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for images, labels in examples.batches(batch_size):
        loss = example_losses(model(images), labels).sum() / len(examples)
        for sums, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            sums.add_(gradient)
    return total


class _Call(NamedTuple):
    """One call of a layer."""

    name: str
    layer: nn.Module
    inputs: Tensor
    output: Tensor


class _GradientSums:
    """Sums of powered per-example gradients, batch by batch, for a model in eval mode."""

    def __init__(self, model: nn.Module, examples: Examples, example_losses: ExampleLosses, power: Power) -> None:
        self._model, self._example_losses, self._power = model, example_losses, power
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.total: Importance = {name: torch.zeros_like(value) for name, value in self._parameters.items()}
        image, label = next(iter(examples.batches(1)))
        self._expandable = _expandable_parameters(model, self._parameters, image, label, example_losses)

    def add_batch(self, images: Tensor, labels: Tensor) -> None:
        """Add the gradients of a batch."""
        count = active_flop_count()
        if count is None:
            self._add(images, labels)
            return
        # a per-example gradient counts as its part of one batched backward, however it is computed
        loss = self._example_losses(self._model(images), labels).sum()
        torch.autograd.grad(loss, list(self._parameters.values()))
        with count.paused():
            self._add(images, labels)

    def _add(self, images: Tensor, labels: Tensor) -> None:
        copies = _copies_per_example(self._parameters, self._expandable, len(images))
        with _record_calls(self._model) as calls:
            loss = self._example_losses(functional_call(self._model, copies, (images,)), labels).sum()
        names = [call.name for call in calls]
        shared = _layers_with_shared_parameters(self._model)
        # the gradients of all uses of a layer, or of a parameter in several layers, add up before they are squared
        calls = [call for call in calls if names.count(call.name) == 1 and call.name not in shared]
        tensors = [call.output for call in calls] + list(copies.values())
        gradients = torch.autograd.grad(loss, tensors, materialize_grads=True) if tensors else ()
        added = set(copies)
        for name, gradient in zip(copies, gradients[len(calls) :], strict=True):
            self.total[name].add_(_powered(gradient, self._power).sum(0, keepdim=True))
        for call, gradient in zip(calls, gradients, strict=False):
            for part, value in _layer_sums(call, gradient, self._power).items():
                name = f"{call.name}.{part}"
                if name in self.total:
                    self.total[name].add_(value)
                    added.add(name)
        others = [name for name in self._parameters if name not in added]
        if others:
            self._add_by_vmap(others, images, labels)

    def _add_by_vmap(self, names: list[str], images: Tensor, labels: Tensor) -> None:
        fixed = {name: value.detach() for name, value in self._parameters.items() if name not in names}
        fixed |= dict(self._model.named_buffers())

        def loss(free: Importance, image: Tensor, label: Tensor) -> Tensor:
            logits = functional_call(self._model, (free, fixed), (image[None],))
            return self._example_losses(logits, label[None]).sum()

        free = {name: self._parameters[name].detach() for name in names}
        step = max(1, _max_elements(images.device) // sum(value.numel() for value in free.values()))
        for some_images, some_labels in zip(images.split(step), labels.split(step), strict=True):
            gradients = vmap(grad(loss), in_dims=(None, 0, 0))(free, some_images, some_labels)
            for name, value in gradients.items():
                self.total[name].add_(_powered(value, self._power).sum(0))


def _layers_with_shared_parameters(model: nn.Module) -> set[str]:
    """Names of the layers that share a parameter with another layer."""
    layers: dict[Tensor, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        layers.setdefault(value, []).append(name.rpartition(".")[0])
    return {name for names in layers.values() if len(names) > 1 for name in names}


def _copies_per_example(parameters: dict[str, nn.Parameter], names: Iterable[str], count: int) -> Importance:
    """Copies (count, ...) of the named parameters (1, ...), one for each example."""
    values = {name: parameters[name].detach() for name in names}
    return {name: value.expand(count, *value.shape[1:]).requires_grad_() for name, value in values.items()}


def _expandable_parameters(
    model: nn.Module, parameters: dict[str, nn.Parameter], image: Tensor, label: Tensor, example_losses: ExampleLosses
) -> list[str]:
    """Names of the parameters (1, ...) that each example uses separately, such as a position embedding (1, L, D).

    With a copy for each example, an ordinary backward leaves the example's own gradient in its copy. Tested on one
    image (1, C, H, W), used twice: the loss of the second must not reach the copy of the first.
    """
    layers = dict(model.named_modules())
    candidates = [
        name
        for name, value in parameters.items()
        if value.ndim >= 3 and len(value) == 1 and not _has_formula(layers[name.rpartition(".")[0]])
    ]
    copies = _copies_per_example(parameters, candidates, 2)
    if not copies:
        return []
    count = active_flop_count()
    with count.paused() if count else nullcontext():
        try:
            logits = functional_call(model, copies, (image.repeat(2, 1, 1, 1),))
            loss = example_losses(logits, label.repeat_interleave(2, 0))[1]
            gradients = torch.autograd.grad(loss, list(copies.values()), materialize_grads=True)
        except RuntimeError:  # one of them combines with something else than the batch
            return []
    return [name for name, gradient in zip(copies, gradients, strict=True) if not gradient[0].any()]


@contextmanager
def _record_calls(model: nn.Module) -> Iterator[list[_Call]]:
    """Record inputs and outputs of the layers whose sums have a formula."""
    calls: list[_Call] = []
    handles = []
    for name, layer in model.named_modules():
        if _has_formula(layer):

            def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> Tensor:
                calls.append(_Call(name, layer, inputs[0].detach(), output))
                return output.clone()  # so that an in-place ReLU after it changes the clone

            handles.append(layer.register_forward_hook(record))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _has_formula(layer: nn.Module) -> bool:
    kind = type(layer)  # a subclass may do more: pad, standardize its weight, or apply an activation
    if kind is nn.Conv2d:
        convolution = cast("nn.Conv2d", layer)
        return (
            convolution.groups == 1 and convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
        )
    return kind in _PLAIN_LAYERS or (kind.__module__, kind.__qualname__) in _PLAIN_TIMM_LAYERS


def _layer_sums(call: _Call, gradient: Tensor, power: Power) -> Importance:
    """Name of each parameter in the layer -> sum over examples of its powered gradients."""
    layer, inputs = call.layer, call.inputs
    if isinstance(layer, nn.Linear):
        columns = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        rows = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        return _weight_sums(rows, columns, power) | {"bias": _powered(rows.sum(1), power).sum(0)}
    if isinstance(layer, nn.Conv2d):
        bias = {"bias": _powered(gradient.sum((2, 3)), power).sum(0)}
        if gradient[0, 0].numel() >= _LARGE_MAP:
            return {"weight": _grouped_sums(layer, inputs, gradient, power)} | bias
        sums = _weight_sums(gradient.permute(0, 2, 3, 1).flatten(1, 2), _patches(layer, inputs), power)["weight"]
        height, width = cast("tuple[int, int]", layer.kernel_size)
        return {"weight": sums.view(-1, height, width, inputs.shape[1]).permute(0, 3, 1, 2)} | bias
    scaled, axes = _normalized(layer, inputs)
    return {
        "weight": _powered(_sum_over(gradient * scaled, axes), power).sum(0),
        "bias": _powered(_sum_over(gradient, axes), power).sum(0),
    }


def _normalized(layer: nn.Module, inputs: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The normalized inputs, which multiply the weight, and the axes over which its gradient is summed."""
    if isinstance(layer, nn.LayerNorm):
        axes = tuple(range(1, inputs.ndim - len(layer.normalized_shape)))
        return functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps), axes
    norm = cast("nn.BatchNorm2d", layer)
    return (
        functional.batch_norm(inputs, norm.running_mean, norm.running_var, training=False, eps=norm.eps),
        tuple(range(2, inputs.ndim)),
    )


def _sum_over(value: Tensor, axes: tuple[int, ...]) -> Tensor:
    return value.sum(axes) if axes else value  # torch sums over all axes if given none


def _grouped_sums(layer: nn.Conv2d, inputs: Tensor, gradient: Tensor, power: Power) -> Tensor:
    """A convolution's sums by the backward of one grouped convolution, each example a group; for large maps."""
    step = max(1, 8 * _max_elements(inputs.device) // layer.weight.numel())
    total = torch.zeros_like(layer.weight, memory_format=torch.contiguous_format)
    for some_inputs, some_gradient in zip(inputs.split(step), gradient.split(step), strict=True):
        count, (out, *rest) = len(some_inputs), layer.weight.shape
        gradients = conv2d_weight(
            some_inputs.flatten(0, 1)[None],
            (count * out, *rest),
            some_gradient.flatten(0, 1)[None],
            cast("tuple[int, int]", layer.stride),
            cast("tuple[int, int]", layer.padding),
            cast("tuple[int, int]", layer.dilation),
            groups=count,
        )
        total += _powered(gradients.view(count, out, *rest), power).sum(0)
    return total


def _patches(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """The patches that a convolution multiplies by its weights (B, places, height * width * channels)."""
    (kernel_height, kernel_width), (stride_down, stride_right) = (
        cast("Any", layer.kernel_size),
        cast("Any", layer.stride),
    )
    (pad_top, pad_left), (dilation_down, dilation_right) = cast("Any", layer.padding), cast("Any", layer.dilation)
    padded = functional.pad(inputs.permute(0, 2, 3, 1), (0, 0, pad_left, pad_left, pad_top, pad_top)).contiguous()
    count, height, width, channels = padded.shape
    rows = (height - dilation_down * (kernel_height - 1) - 1) // stride_down + 1
    columns = (width - dilation_right * (kernel_width - 1) - 1) // stride_right + 1
    image, row, column, _ = padded.stride()
    view = padded.as_strided(
        (count, rows, columns, kernel_height, kernel_width, channels),
        (image, row * stride_down, column * stride_right, row * dilation_down, column * dilation_right, 1),
    )
    return view.reshape(count, rows * columns, kernel_height * kernel_width * channels)


def _weight_sums(rows: Tensor, columns: Tensor, power: Power) -> Importance:
    """Sums for a weight whose gradient is rows (B, L, out) transposed times columns (B, L, in)."""
    if rows.shape[1] == 1:
        return {"weight": _powered(rows[:, 0], power).T @ _powered(columns[:, 0], power)}
    total = rows.new_zeros(rows.shape[2], columns.shape[2])
    step = _max_elements(rows.device) // total.numel()
    if step > 1:
        for some_rows, some_columns in zip(rows.split(step), columns.split(step), strict=True):
            gradients = torch.bmm(some_rows.transpose(1, 2), some_columns)
            total += (gradients.square_() if power == "square" else gradients.abs_()).sum(0)
        return {"weight": total}
    band = max(1, _max_elements(rows.device) // columns.shape[2])
    for some_rows, sums in zip(rows.split(band, 2), total.split(band), strict=True):
        gradient = torch.empty_like(sums)  # reused for each example, so that it stays in the cache
        for row, column in zip(some_rows, columns, strict=True):
            torch.mm(row.T, column, out=gradient)
            sums.addcmul_(gradient, gradient) if power == "square" else sums.add_(gradient.abs_())
    return {"weight": total}


def _max_elements(device: torch.device) -> int:
    return _MAX_ELEMENTS.get(device.type, _MAX_ELEMENTS["cuda"])


def _powered(value: Tensor, power: Power) -> Tensor:
    return value.square() if power == "square" else value.abs()


def smallest(values: Tensor, count: int) -> Tensor:
    """A boolean mask of the `count` entries with the smallest absolute values; of equal ones, the first in order.

    Args:
        values: Any shape.
        count: Number of entries, from 0 to all.
    """
    sizes = values.detach().abs().flatten()
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    largest = sizes.kthvalue(count).values
    mask = sizes < largest
    equal = torch.nonzero(sizes == largest)[:, 0]
    mask[equal[: count - int(mask.sum())]] = True
    return mask.view_as(values)
