"""Training for a GPU, on a CPU: the graph's static step, and what a pretended GPU has to wait for."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from support.fake_gpu import FakeTensor, fake_gpu
from support.training import make_examples, make_network, make_recipe, same_weights

from forgetbench.methods import methods
from forgetbench.methods.base import ForgetRequest
from forgetbench.training import count_flops, fit, graph
from forgetbench.training.graph import WARM_UP, GraphedStep, is_supported

AUGMENTATIONS = ((), ("flip",), ("crop", "flip"), ("crop-reflect", "flip"))


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """The functions that were captured; a CPU replays them by calling them again."""
    captured: list[Callable[[], None]] = []

    def capture(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
        captured.append(function)
        return function

    monkeypatch.setattr(graph, "capture", capture)
    monkeypatch.setattr(graph, "on_side_stream", lambda function, _: function())
    monkeypatch.setattr(graph, "is_supported", lambda _: True)
    return captured


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_fit_with_a_graph_has_the_bits_of_ordinary_steps(augment, monkeypatch, graphs):
    recipe = make_recipe(epochs=3, augment=augment, crop_padding=2, nesterov=True, schedule="one-cycle", grad_clip=1.0)
    examples = make_examples(61)  # the last batch is smaller
    replayed = fit(make_network(), examples, recipe, 3)
    assert len(graphs) == 1
    monkeypatch.setattr(graph, "is_supported", lambda _: False)
    assert same_weights(replayed, fit(make_network(), examples, recipe, 3))
    assert len(graphs) == 1


def test_fit_without_a_graph_where_its_capture_fails(monkeypatch, graphs, caplog):
    def capture(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    recipe, examples = make_recipe(epochs=2), make_examples(64)
    expected = fit(make_network(), examples, recipe, 3)
    monkeypatch.setattr(graph, "capture", capture)
    with caplog.at_level(logging.WARNING):
        assert same_weights(expected, fit(make_network(), examples, recipe, 3))
    assert [record.getMessage() for record in caplog.records] == [
        "training without a CUDA graph, which is slower: operation not permitted when stream is capturing"
    ]


def test_fit_with_a_given_loss_has_no_graph(graphs):
    fit(make_network(), make_examples(64), make_recipe(), 3, loss=lambda network, images, _: network(images).mean())
    assert graphs == []


def test_graph_is_not_used_where_operations_are_counted():
    device = torch.device("cuda")
    assert is_supported(device)
    assert not is_supported(torch.device("cpu"))
    with count_flops():
        assert not is_supported(device)


def test_graphed_step_copies_rows_into_its_buffers(graphs):
    seen = []
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    step = GraphedStep(lambda rows, _: seen.append((rows, rows.tolist())), optimizer, torch.device("cpu"), 2)
    batches = [torch.tensor([number, number + 1]) for number in range(WARM_UP + 3)]
    for rows in batches:
        step(rows, None)
    step(torch.tensor([7]), None)
    assert [values for _, values in seen] == [*(rows.tolist() for rows in batches), [7]]
    assert len({rows.data_ptr() for rows, _ in seen[WARM_UP:-1]}) == 1
    graph.set_lr(optimizer, 0.25)
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    assert float(optimizer.param_groups[0]["lr"]) == 0.25


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("network", ["cnn", "vit"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fit_on_a_gpu_with_a_graph_is_close(optimizer, network, monkeypatch, caplog):
    fields = {"optimizer": optimizer, "lr": 0.01, "augment": ("crop", "flip"), "crop_padding": 2, "grad_clip": 1.0}
    recipe = make_recipe(epochs=3, mixed_precision=False, **fields)
    examples = make_examples(61).to("cuda")
    replayed, ordinary = make_network(network).to("cuda"), make_network(network).to("cuda")
    fit(replayed, examples, recipe, 3)
    assert not caplog.records
    monkeypatch.setattr(graph, "is_supported", lambda _: False)
    fit(ordinary, examples, recipe, 3)
    for value, expected in zip(replayed.state_dict().values(), ordinary.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_fit_on_a_gpu_waits_at_most_once_in_five_steps(augment):
    recipe = make_recipe(epochs=1, augment=augment, crop_padding=2, batch_size=4, mixed_precision=False)
    steps = 96 // 4
    with fake_gpu() as waits:
        examples = make_examples(96)
        on_gpu = type(examples)(*(value.to("cuda") for value in (examples._images, examples._labels)))
        network = make_network().to("cuda")
        waits.clear()
        fit(network, on_gpu, recipe, 1)
        assert waits.total() <= 0.2 * steps, dict(waits)
        weights = [value.cpu() for value in network.state_dict().values()]
    assert isinstance(on_gpu.labels, FakeTensor)
    for value, expected in zip(weights, fit(make_network(), examples, recipe, 1).state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(("name", "steps"), [("finetune", 30), ("jit", 20), ("l1-sparse", 30), ("random-label", 50)])
def test_method_on_a_gpu_waits_at_most_once_in_five_steps(name, steps):
    recipe = make_recipe(augment=("crop", "flip"), crop_padding=2, mixed_precision=False)
    with fake_gpu() as waits:
        examples = make_examples(200)
        on_gpu = type(examples)(*(value.to("cuda") for value in (examples._images, examples._labels)))
        forget, retain = (on_gpu.take(torch.arange(*rows).to("cuda")) for rows in ((0, 80), (80, 200)))
        network = make_network().to("cuda")
        request = ForgetRequest(
            forget=forget, retain=retain, validation=retain, seed=0, recipe=recipe, new_network=make_network
        )
        method = methods.get(name)(epochs=1, batch_size=4)
        waits.clear()
        method.unlearn(network, request)
    assert waits.total() <= 0.2 * steps, dict(waits)
