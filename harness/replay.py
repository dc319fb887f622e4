"""A decoding step as a CUDA graph: a step is thousands of small kernels, and launching them one by one takes longer than they do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness import ranks

Forward = Callable[[Tensor, Tensor], Tensor]

# Steps of a batch before it is captured: the first compiles and sets up what a capture must not.
_BEFORE = 1


class StepGraphs:
    """Runs the steps of a batch: launched, then captured and replayed, with the same kernels and the same numbers.

    A model on several devices or in several processes, and one that cannot be captured because the host waits for the device in the
    middle of a step, is launched always.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Nothing is captured yet."""
        one = len({parameter.device for parameter in model.parameters()}) == 1
        self._possible = model.device.type == "cuda" and one and ranks.count() == 1
        self._taken = 0
        self._captured: tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor] | None = None

    def forget(self) -> None:
        """The batch has changed."""
        self._taken = 0
        self._captured = None

    def run(self, forward: Forward, tokens: Tensor, positions: Tensor) -> Tensor:
        """One step: what ``forward`` gives for these tokens and positions, [rows] each.

        Args:
            forward: the same function for all steps of a batch; all else that it reads must lie where it lay.
            tokens: on the model's device.
            positions: the same.
        """
        if self._possible and self._captured is None and self._taken >= _BEFORE:
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
        stream = torch.cuda.Stream(tokens.device)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(tokens.device)
        try:
            # Not torch.cuda.graph, which empties the allocator's cache every time.
            with torch.cuda.stream(stream):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    logits = forward(own_tokens, own_positions)
                finally:
                    graph.capture_end()
        except RuntimeError:
            self._possible = False
            torch.cuda.synchronize(tokens.device)
            return
        self._captured = graph, own_tokens, own_positions, logits
