"""Gradients of single examples, summed after squaring (or taking absolute values), without ever holding a whole set's.

For a linear layer the gradient of one example is an outer product, so the sum of squares over examples is one matrix
product of squares; for a convolution it is one small product per example, or one group of a grouped convolution
where its map is large (Rochette et al. 2019). Both take what an ordinary batched backward leaves behind: on small
images that is four to twenty times as fast as batches of one, on large ones no slower than the backward itself. A
position embedding is laid out once for each example; what is left goes through `torch.func.vmap`. All in eval mode,
where examples do not see each other.
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

_PLAIN = (nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
_PLAIN_IN_TIMM = {("timm.layers.norm", "LayerNorm"), ("timm.layers.linear", "Linear")}
"""Subclasses that compute what their base class does."""

Importance = dict[str, Tensor]
"""One figure per parameter, by the parameter's name and in its shape."""

EachLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K), labels) -> the losses of the examples (B,)."""

_MOST_ELEMENTS = 500_000
"""Per-example gradients held at once, in floats, so that they stay in the cache: 2 MB."""

_MANY_PLACES = 256
"""From so many places in its map on, a convolution's gradients are faster as one grouped convolution."""


def losses_of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """The classification loss of each example (B,)."""
    return classification_loss(logits, labels, reduction="none")


def per_example(
    model: nn.Module,
    examples: Examples,
    *,
    each_loss: EachLoss = losses_of_labels,
    power: Literal["square", "absolute"] = "square",
    batch_size: int = 64,
) -> Importance:
    """Mean over examples of the squared (or absolute) gradient of each example's own loss.

    With the classification loss and squares this is the diagonal of the empirical Fisher information. It does not
    depend on the order or the batch size, but for rounding.

    Args:
        model: Set to eval mode meanwhile; its gradients and mode are left as they were.
        examples: Labels as the loss takes them.
        each_loss: Losses of the examples of a batch.
        power: What is summed.
        batch_size: Examples per backward.

    Raises:
        DivergedError: A gradient is not a number.
    """
    was_training = model.training
    model.eval()
    names = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    total = {name: torch.zeros_like(parameter) for name, parameter in names.items()}
    with channels_last(model):
        first_image, first_label = next(iter(examples.batches(1)))
        spread = _spread_over_batch(model, names, first_image, first_label, each_loss)
        for images, labels in examples.batches(batch_size):
            _add_batch(model, names, spread, total, images, labels, each_loss, power)
    model.train(was_training)
    return _finite({name: value.div_(len(examples)) for name, value in total.items()})


def squared_batch_means(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Importance:
    """Mean over batches of the square of a batch's mean gradient, in eval mode: what released codes call a Fisher.

    It depends on batch size and order, since gradients of unlike examples cancel before they are squared.
    """
    return _batch_means(model, batches, losses_of_labels, "square")


def absolute_batch_means(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], each_loss: EachLoss) -> Importance:
    """Mean over batches of the absolute value of a batch's mean gradient, in eval mode."""
    return _batch_means(model, batches, each_loss, "absolute")


def _batch_means(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], each_loss: EachLoss, power: str
) -> Importance:
    was_training = model.training
    model.eval()
    names = dict(model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in names.items()}
    count = 0
    for images, labels in batches:
        gradients = torch.autograd.grad(each_loss(model(images), labels).mean(), list(names.values()))
        for sums, gradient in zip(total.values(), gradients, strict=True):
            sums.add_(_powered(gradient, power))
        count += 1
    model.train(was_training)
    return _finite({name: value.div_(count) for name, value in total.items()})


def _finite(importance: Importance) -> Importance:
    for name, value in importance.items():
        if not torch.isfinite(value).all():
            raise DivergedError(f"the model given has diverged: gradients of {name} are not numbers")
    return importance


def mean_gradient(
    model: nn.Module, examples: Examples, *, each_loss: EachLoss = losses_of_labels, batch_size: int = 256
) -> list[Tensor]:
    """Gradient of the mean loss over all examples, accumulated in chunks, in the mode that the model is in."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for images, labels in examples.batches(batch_size):
        loss = each_loss(model(images), labels).sum() / len(examples)
        for sums, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            sums.add_(gradient)
    return total


class _Call(NamedTuple):
    """One layer, what came in, and the tensor that went out."""

    name: str
    layer: nn.Module
    inputs: Tensor
    output: Tensor


def _add_batch(
    model: nn.Module,
    names: dict[str, nn.Parameter],
    spread: list[str],
    total: Importance,
    images: Tensor,
    labels: Tensor,
    each_loss: EachLoss,
    power: str,
) -> None:
    count = active_flop_count()
    if count is None:
        return _sum_batch(model, names, spread, total, images, labels, each_loss, power)
    # a per-example gradient counts as its share of one batched backward, whichever way it is computed
    torch.autograd.grad(each_loss(model(images), labels).sum(), list(names.values()))
    with count.ignored():
        return _sum_batch(model, names, spread, total, images, labels, each_loss, power)


def _sum_batch(
    model: nn.Module,
    names: dict[str, nn.Parameter],
    spread: list[str],
    total: Importance,
    images: Tensor,
    labels: Tensor,
    each_loss: EachLoss,
    power: str,
) -> None:
    copies = _copies(names, spread, len(images))
    with _recorded(model) as calls:
        loss = each_loss(functional_call(model, copies, (images,)), labels).sum()
    seen = [call.name for call in calls]
    shared = _shared(model)
    # the gradients of all uses of a layer, or of a parameter in several layers, add up before they are squared
    calls = [call for call in calls if seen.count(call.name) == 1 and call.name not in shared]
    sought = [call.output for call in calls] + list(copies.values())
    found = torch.autograd.grad(loss, sought, materialize_grads=True) if sought else ()
    done = set(copies)
    for name, gradient in zip(copies, found[len(calls) :], strict=True):
        total[name].add_(_powered(gradient, power).sum(0, keepdim=True))
    for call, gradient in zip(calls, found, strict=False):
        for part, value in _layer_sums(call, gradient, power).items():
            name = f"{call.name}.{part}"
            if name in total:
                total[name].add_(value)
                done.add(name)
    rest = [name for name in names if name not in done]
    if rest:
        _add_by_vmap(model, names, rest, total, images, labels, each_loss, power)


def _shared(model: nn.Module) -> set[str]:
    """Names of the layers that hold a parameter which another layer holds too."""
    holders: dict[Tensor, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        holders.setdefault(value, []).append(name.rpartition(".")[0])
    return {name for names in holders.values() if len(names) > 1 for name in names}


def _copies(names: dict[str, nn.Parameter], chosen: Iterable[str], count: int) -> Importance:
    """The chosen parameters (1, ...), once for each example (count, ...)."""
    return {name: names[name].detach().expand(count, *names[name].shape[1:]).requires_grad_() for name in chosen}


def _spread_over_batch(
    model: nn.Module, names: dict[str, nn.Parameter], image: Tensor, label: Tensor, each_loss: EachLoss
) -> list[str]:
    """Names of the parameters (1, ...) that meet each example by itself, as a position embedding (1, L, D) does.

    With a copy for each example, an ordinary backward leaves the example's own gradient in its copy. Tried on one
    image (1, C, H, W), taken twice: the second's loss must not reach the first's copy.
    """
    layers = dict(model.named_modules())
    copies = _copies(
        names,
        [
            name
            for name, value in names.items()
            if value.ndim >= 3 and len(value) == 1 and not _has_formula(layers[name.rpartition(".")[0]])
        ],
        2,
    )
    if not copies:
        return []
    count = active_flop_count()
    with count.ignored() if count else nullcontext():
        try:
            loss = each_loss(
                functional_call(model, copies, (image.repeat(2, 1, 1, 1),)), label.repeat_interleave(2, 0)
            )[1]
            found = torch.autograd.grad(loss, list(copies.values()), materialize_grads=True)
        except RuntimeError:  # one of them meets something else than the batch
            return []
    return [name for name, of in zip(copies, found, strict=True) if not of[0].any()]


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[_Call]]:
    """Record what the layers that have a formula take in and give out."""
    calls: list[_Call] = []
    handles = []
    for name, layer in model.named_modules():
        if _has_formula(layer):

            def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> Tensor:
                calls.append(_Call(name, layer, inputs[0].detach(), output))
                return output.clone()  # so that an in-place ReLU behind it changes the clone

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
    return kind in _PLAIN or (kind.__module__, kind.__qualname__) in _PLAIN_IN_TIMM


def _layer_sums(call: _Call, gradient: Tensor, power: str) -> Importance:
    """Parameter's own name -> the sum over examples of its powered gradients."""
    layer, inputs = call.layer, call.inputs
    if isinstance(layer, nn.Linear):
        columns = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        rows = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        return _weight_sums(rows, columns, power) | {"bias": _powered(rows.sum(1), power).sum(0)}
    if isinstance(layer, nn.Conv2d):
        bias = {"bias": _powered(gradient.sum((2, 3)), power).sum(0)}
        if gradient[0, 0].numel() >= _MANY_PLACES:
            return {"weight": _grouped_sums(layer, inputs, gradient, power)} | bias
        sums = _weight_sums(gradient.permute(0, 2, 3, 1).flatten(1, 2), _patches(layer, inputs), power)["weight"]
        height, width = cast("tuple[int, int]", layer.kernel_size)
        return {"weight": sums.view(-1, height, width, inputs.shape[1]).permute(0, 3, 1, 2)} | bias
    scaled, axes = _normalized(layer, inputs)
    return {
        "weight": _powered(_summed(gradient * scaled, axes), power).sum(0),
        "bias": _powered(_summed(gradient, axes), power).sum(0),
    }


def _normalized(layer: nn.Module, inputs: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """What a normalization multiplies its weight with, and the axes that its gradient is summed over."""
    if isinstance(layer, nn.LayerNorm):
        axes = tuple(range(1, inputs.ndim - len(layer.normalized_shape)))
        return functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps), axes
    norm = cast("nn.BatchNorm2d", layer)
    return (
        functional.batch_norm(inputs, norm.running_mean, norm.running_var, training=False, eps=norm.eps),
        tuple(range(2, inputs.ndim)),
    )


def _summed(value: Tensor, axes: tuple[int, ...]) -> Tensor:
    return value.sum(axes) if axes else value  # torch sums over all axes when it is given none


def _grouped_sums(layer: nn.Conv2d, inputs: Tensor, gradient: Tensor, power: str) -> Tensor:
    """A convolution's sums by the backward of one grouped convolution, each example a group; for large maps."""
    step = max(1, 8 * _MOST_ELEMENTS // layer.weight.numel())
    total = torch.zeros_like(layer.weight, memory_format=torch.contiguous_format)
    for some_inputs, some_gradient in zip(inputs.split(step), gradient.split(step), strict=True):
        count, (out, *rest) = len(some_inputs), layer.weight.shape
        each = conv2d_weight(
            some_inputs.flatten(0, 1)[None],
            (count * out, *rest),
            some_gradient.flatten(0, 1)[None],
            cast("tuple[int, int]", layer.stride),
            cast("tuple[int, int]", layer.padding),
            cast("tuple[int, int]", layer.dilation),
            groups=count,
        )
        total += _powered(each.view(count, out, *rest), power).sum(0)
    return total


def _patches(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """What a convolution multiplies its weights with: (B, places, height * width * channels), channels innermost."""
    (tall, wide), (down, right) = cast("Any", layer.kernel_size), cast("Any", layer.stride)
    (top, left), (down_gap, right_gap) = cast("Any", layer.padding), cast("Any", layer.dilation)
    padded = functional.pad(inputs.permute(0, 2, 3, 1), (0, 0, left, left, top, top)).contiguous()
    count, height, width, channels = padded.shape
    rows = (height - down_gap * (tall - 1) - 1) // down + 1
    columns = (width - right_gap * (wide - 1) - 1) // right + 1
    image, row, column, _ = padded.stride()
    view = padded.as_strided(
        (count, rows, columns, tall, wide, channels),
        (image, row * down, column * right, row * down_gap, column * right_gap, 1),
    )
    return view.reshape(count, rows * columns, tall * wide * channels)


def _weight_sums(rows: Tensor, columns: Tensor, power: str) -> Importance:
    """Sums for a weight whose gradient is rows (B, L, out) transposed times columns (B, L, in)."""
    if rows.shape[1] == 1:
        return {"weight": _powered(rows[:, 0], power).T @ _powered(columns[:, 0], power)}
    total = torch.zeros(rows.shape[2], columns.shape[2], device=rows.device)
    step = _MOST_ELEMENTS // total.numel()
    if step > 1:
        for some_rows, some_columns in zip(rows.split(step), columns.split(step), strict=True):
            gradients = torch.bmm(some_rows.transpose(1, 2), some_columns)
            total += (gradients.square_() if power == "square" else gradients.abs_()).sum(0)
        return {"weight": total}
    band = max(1, _MOST_ELEMENTS // columns.shape[2])
    for some_rows, sums in zip(rows.split(band, 2), total.split(band), strict=True):
        gradient = torch.empty_like(sums)  # written again for each example, so that it stays in the cache
        for row, column in zip(some_rows, columns, strict=True):
            torch.mm(row.T, column, out=gradient)
            sums.addcmul_(gradient, gradient) if power == "square" else sums.add_(gradient.abs_())
    return {"weight": total}


def _add_by_vmap(
    model: nn.Module,
    names: dict[str, nn.Parameter],
    rest: list[str],
    total: Importance,
    images: Tensor,
    labels: Tensor,
    each_loss: EachLoss,
    power: str,
) -> None:
    fixed = {name: value.detach() for name, value in names.items() if name not in rest} | dict(model.named_buffers())

    def loss(free: Importance, image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, (free, fixed), (image[None],))
        return each_loss(logits, label[None]).sum()

    free = {name: names[name].detach() for name in rest}
    step = max(1, _MOST_ELEMENTS // sum(value.numel() for value in free.values()))
    for some_images, some_labels in zip(images.split(step), labels.split(step), strict=True):
        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(free, some_images, some_labels)
        for name, value in gradients.items():
            total[name].add_(_powered(value, power).sum(0))


def _powered(value: Tensor, power: str) -> Tensor:
    return value.square() if power == "square" else value.abs()


def smallest(values: Tensor, count: int) -> Tensor:
    """A mask of `count` entries, those of the smallest absolute value; of equal ones the first in order.

    Args:
        values: Any shape.
        count: How many, from 0 to all.
    """
    sizes = values.detach().abs().flatten()
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    largest = sizes.kthvalue(count).values
    mask = sizes < largest
    equal = torch.nonzero(sizes == largest)[:, 0]
    mask[equal[: count - int(mask.sum())]] = True
    return mask.view_as(values)
