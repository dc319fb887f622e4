"""A whole model in float64: what decodes in a wide batch has the logits that it has alone, to 1e-10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from harness.compression.selection import Selection
from harness.engine.decode import Decoding, decode
from harness.engine.prefill import prefill
from harness.engine.rows import Limits, Row
from tests.harness.tiny import HEADS, NAME, Cell, methods, prompt_of, tiny


@pytest.fixture(autouse=True, scope="module")
def float64_norms() -> Any:
    """transformers' norms cast to float32, which would hide a difference of ours below 1e-7."""

    def forward(norm: LlamaRMSNorm, states: Tensor) -> Tensor:
        return norm.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaRMSNorm, "forward", forward)
        yield


class Uncast:
    """A model whose logits are remembered before anything rounds them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.config, self.device, self.dtype, self._model = model.config, model.device, model.dtype, model
        self.modules = model.modules
        self.steps: list[Tensor] = []

    def __call__(self, ids: Tensor, **keywords: Any) -> Any:
        output = self._model(ids, **keywords)
        self.steps.append(output.logits[:, -1])
        return output


def logits_of(model: PreTrainedModel, cells: list[Cell], selection: Selection, steps: int) -> list[list[Tensor]]:
    """Per cell, float64 logits of its new tokens but the first, all cells decoded together."""
    uncast = Uncast(model)
    cached = HEADS if selection.granularity == "query_head" else model.config.num_key_value_heads
    rows = []
    for cell in cells:
        done = prefill(
            cast("PreTrainedModel", uncast),
            NAME,
            cell.prompt,
            [cell.plan(model.config.num_hidden_layers, cached)],
            selection,
        )
        rows.append(Row(len(cell.prompt), done.logits, list(done.kept[0].layers)))
    uncast.steps.clear()
    batches: list[list[int]] = []
    decode(
        cast("PreTrainedModel", uncast),
        NAME,
        rows,
        Limits(frozenset(), steps),
        observe=lambda batch, _: batches.append(list(batch)),
    )
    found: list[list[Tensor]] = [[] for _ in cells]
    for batch, logits in zip(batches[1:], uncast.steps, strict=True):
        assert logits.dtype == torch.float64
        for place, row in enumerate(batch):
            found[row].append(logits[place])
    return found


@given(
    kv_heads=st.sampled_from([1, 2, 4]),
    granularity=st.sampled_from(["query_head", "kv_head"]),
    lengths=st.lists(st.integers(9, 40), min_size=2, max_size=3),
    budget=st.integers(6, 44),
)
@settings(deadline=None, derandomize=True, database=None, max_examples=12)
def test_all_methods_of_several_prompts_together_have_the_logits_of_each_alone(
    kv_heads: int, granularity: Any, lengths: list[int], budget: int
) -> None:
    model = tiny(kv_heads, layers=4)
    selection = Selection(granularity, "mean", "stable", "float32")
    cells = [
        Cell(prompt_of(length, place), method, budget)
        for place, length in enumerate(lengths)
        for method in methods().values()
    ]
    together = logits_of(model, cells, selection, 5)
    for cell, wide in zip(cells, together, strict=True):
        (alone,) = logits_of(model, [cell], selection, 5)
        assert len(wide) == len(alone) == 4
        for one, other in zip(wide, alone, strict=True):
            assert (one - other).abs().max() < 1e-10 * max(1.0, float(other.abs().max()))


def test_rows_that_join_while_others_decode_have_the_logits_of_each_alone() -> None:
    model = tiny(2, layers=4)
    selection = Selection("query_head", "mean", "stable", "float32")
    cells = [Cell(prompt_of(11 + 7 * place, place), method, 9) for place in range(4) for method in methods().values()]
    uncast, numbers = Uncast(model), list[int]()
    found: dict[int, list[Tensor]] = {}

    def observe(batch: Sequence[int], _: Tensor) -> None:
        numbers[:] = batch

    decoding = Decoding(cast("PreTrainedModel", uncast), NAME, Limits(frozenset(), 5), observe=observe)
    waiting = [cells[start : start + 6] for start in range(0, len(cells), 6)]
    while waiting or decoding.alive:
        if waiting:
            rows = []
            for cell in waiting.pop(0):
                done = prefill(model, NAME, cell.prompt, [cell.plan(4)], selection)
                rows.append(Row(len(cell.prompt), done.logits, list(done.kept[0].layers)))
            decoding.add(rows)
        decoding.step()
        for place, number in enumerate(numbers):
            found.setdefault(number, []).append(uncast.steps[-1][place])
    for number, cell in enumerate(cells):
        (alone,) = logits_of(model, [cell], selection, 5)
        for one, other in zip(found[number][:4], alone, strict=True):
            assert (one - other).abs().max() < 1e-10 * max(1.0, float(other.abs().max()))
