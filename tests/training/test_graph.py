"""Training for a GPU, on a CPU: the graph's static step, and what a pretended GPU has to wait for."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from support.fake_gpu import FakeTensor, fake_gpu
from support.training import make_examples, make_network, make_recipe, same_weights

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


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_fit_on_a_gpu_waits_at_most_once_in_five_steps(augment):
    recipe = make_recipe(epochs=1, augment=augment, crop_padding=2, batch_size=4)
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
