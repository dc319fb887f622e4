"""CUDA graphs of decoding steps.

A step is thousands of small kernels, and launching them one by one takes longer than running them.
"""

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

# Steps of a batch that are launched before a step is captured: the first one compiles kernels and sets up libraries,
# which is not allowed during a capture.
_BEFORE = 1


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all captures, because libraries keep a workspace for every stream that they have seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class StepGraphs:
    """Runs the steps of a batch: the first are launched, later ones captured and replayed.

    Both ways run the same kernels and give the same numbers. Steps are never captured for a model on several devices
    or in several processes, nor for one whose forward makes the host wait for the device.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Start with nothing captured."""
        one_device = len({parameter.device for parameter in model.parameters()}) == 1
        self._possible = model.device.type == "cuda" and one_device and tensor_parallel.count() == 1
        self._taken = 0
        self._given_up = False
        self._captured: tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor] | None = None

    def forget(self) -> None:
        """Discard the captured step, because the batch has changed."""
        self._taken = 0
        self._given_up = False
        self._captured = None

    def run(self, forward: Forward, tokens: Tensor, positions: Tensor) -> Tensor:
        """Run one step.

        Args:
            forward: the same function for all steps of a batch. Whatever else it reads must keep its address.
            tokens: [rows], on the model's device.
            positions: [rows], on the model's device.

        Returns:
            What ``forward`` returns for these tokens and positions.
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
        return logits.clone()  # the next replay overwrites them

    def _capture(self, forward: Forward, tokens: Tensor, positions: Tensor) -> None:
        own_tokens, own_positions = tokens.clone(), positions.clone()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(tokens.device)
        try:
            # torch.cuda.graph would empty the allocator's cache every time.
            with torch.cuda.stream(_stream(tokens.device)):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    logits = forward(own_tokens, own_positions)
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            # A forward that waits for the device can never be captured; memory may suffice for the next batch.
            self._possible = "out of memory" in str(error)
            self._given_up = True
            torch.cuda.synchronize(tokens.device)
            torch.cuda.empty_cache()
            return
        self._captured = graph, own_tokens, own_positions, logits
