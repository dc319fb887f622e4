"""Steps of a batch: launched, captured, replayed, given up. A stand-in for CUDA's graphs, on a CPU; a card has them in
test_kernels.py."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.engine import cuda_graphs
from harness.engine.cuda_graphs import StepGraphs


class Card:
    """Captures what is computed between begin and end, and computes it again."""

    def __init__(self, fails: list[str]) -> None:
        self.fails, self.captures, self.replays = fails, 0, 0
        card = self

        class Graph:
            def capture_begin(self, **_: Any) -> None:
                card.captures += 1
                if card.fails:
                    raise RuntimeError(card.fails.pop(0))

            def capture_end(self) -> None:
                pass

            def replay(self) -> None:
                card.replays += 1
                if card.again is not None:
                    card.again()

        self.graph, self.again = Graph, cast("Any", None)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card([])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", made.graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(cuda_graphs, "_stream", lambda device: None)
    return made


def graphs_of(card: Card) -> tuple[StepGraphs, Any]:
    """Graphs of a model on a card, and its forward, which doubles the tokens and adds the positions."""
    parameters = [SimpleNamespace(device=torch.device("cuda"))]
    model = SimpleNamespace(device=torch.device("cuda"), parameters=lambda: iter(parameters))

    def forward(tokens: Tensor, positions: Tensor) -> Tensor:
        out = 2 * tokens + positions
        card.again = lambda: out.copy_(2 * tokens + positions)
        return out

    return StepGraphs(cast("PreTrainedModel", model)), forward


def run(graphs: StepGraphs, forward: Any, number: int) -> None:
    found = graphs.run(forward, torch.tensor([number]), torch.tensor([100]))
    assert found.tolist() == [2 * number + 100]


def test_a_batch_is_launched_once_then_captured_and_replayed_until_it_changes(card: Card) -> None:
    graphs, forward = graphs_of(card)
    for number, (captures, replays) in enumerate([(0, 0), (1, 1), (1, 2), (1, 3)]):
        run(graphs, forward, number)
        assert (card.captures, card.replays) == (captures, replays)
    graphs.forget()
    for number, (captures, replays) in enumerate([(1, 3), (2, 4), (2, 5)]):
        run(graphs, forward, number)
        assert (card.captures, card.replays) == (captures, replays)


def test_logits_of_a_step_outlive_the_next(card: Card) -> None:
    graphs, forward = graphs_of(card)
    run(graphs, forward, 1)
    first = graphs.run(forward, torch.tensor([2]), torch.tensor([100]))
    run(graphs, forward, 3)
    assert first.tolist() == [104]


def test_a_model_that_cannot_be_captured_is_launched_from_then_on(card: Card) -> None:
    card.fails = ["operation not permitted when stream is capturing"]
    graphs, forward = graphs_of(card)
    for number in range(3):
        run(graphs, forward, number)
    graphs.forget()
    for number in range(3):
        run(graphs, forward, number)
    assert (card.captures, card.replays) == (1, 0)


def test_where_memory_ran_out_the_batch_is_launched_and_the_next_one_captured(card: Card) -> None:
    card.fails = ["CUDA out of memory. Tried to allocate 2.00 GiB"]
    graphs, forward = graphs_of(card)
    for number in range(4):
        run(graphs, forward, number)
    assert (card.captures, card.replays) == (1, 0)
    graphs.forget()
    for number in range(3):
        run(graphs, forward, number)
    assert (card.captures, card.replays) == (2, 2)


def test_on_a_cpu_nothing_is_captured(card: Card) -> None:
    graphs, forward = graphs_of(card)
    model = SimpleNamespace(
        device=torch.device("cpu"), parameters=lambda: iter([SimpleNamespace(device=torch.device("cpu"))])
    )
    graphs = StepGraphs(cast("PreTrainedModel", model))
    for number in range(3):
        run(graphs, forward, number)
    assert (card.captures, card.replays) == (0, 0)
