"""A decoding step as a CUDA graph: a step is thousands of small kernels, and launching them one by one takes longer than they do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine import tensor_parallel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Forward = Callable[[Tensor, Tensor], Tensor]

# Steps of a batch before it is captured: the first compiles and sets up what a capture must not.
_BEFORE = 1


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: libraries keep a workspace for each that they have seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class StepGraphs:
    """Runs the steps of a batch: launched, then captured and replayed, with the same kernels and the same numbers.

    A model on several devices or in several processes, and one that cannot be captured because the host waits for the
    device in the middle of a step, is launched always.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Nothing is captured yet."""
        one = len({parameter.device for parameter in model.parameters()}) == 1
        self._possible = model.device.type == "cuda" and one and tensor_parallel.count() == 1
        self._taken = 0
        self._given_up = False
        self._captured: tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor] | None = None

    def forget(self) -> None:
        """The batch has changed."""
        self._taken = 0
        self._given_up = False
        self._captured = None

    def run(self, forward: Forward, tokens: Tensor, positions: Tensor) -> Tensor:
        """One step: what ``forward`` gives for these tokens and positions, [rows] each.

        Args:
            forward: the same function for all steps of a batch; all else that it reads must lie where it lay.
            tokens: on the model's device.
            positions: the same.
        """
        if self._possible and not self._given_up and self._captured is None and self._taken >= _BEFORE:
            self._capture(forward, tokens, positions)
        self._taken += 1
        if self._captured is None:
            return forward(tokens, positions)
        graph, own_tokens, own_positions, logits = self._captured
        own_tokens.copy_(tokens)
        own_positions.copy_(positions)
        graph.replay()
        return logits.clone()  # the next replay writes over them

    def _capture(self, forward: Forward, tokens: Tensor, positions: Tensor) -> None:
        own_tokens, own_positions = tokens.clone(), positions.clone()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(tokens.device)
        try:
            # Not torch.cuda.graph, which empties the allocator's cache every time.
            with torch.cuda.stream(_stream(tokens.device)):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    logits = forward(own_tokens, own_positions)
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            # A model that waits for the device never can be captured; memory may be there for the next batch.
            self._possible = "out of memory" in str(error)
            self._given_up = True
            torch.cuda.synchronize(tokens.device)
            torch.cuda.empty_cache()
            return
        self._captured = graph, own_tokens, own_positions, logits
