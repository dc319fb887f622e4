"""Attention that gives the logarithms of its sums: with a stand-in for FlashAttention on a CPU; a card has the real one
in test_kernels.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.fused_causal import fused_causal, gives_log_sums

CPU = torch.device("cpu")


def exact(queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Causal attention [H, rows, D] of the last queries in float32, and the logarithms of its sums."""
    copies, (rows, tokens) = queries.shape[0] // keys.shape[0], (queries.shape[1], keys.shape[1])
    keys, values = (states.float().repeat_interleave(copies, dim=0) for states in (keys, values))
    logits = (queries.float() @ keys.transpose(1, 2)) * scaling
    logits = logits.masked_fill(torch.ones(rows, tokens, dtype=torch.bool).triu(tokens - rows + 1), -torch.inf)
    return logits.softmax(-1) @ values, logits.logsumexp(-1)


def flash(queries: Tensor, keys: Tensor, values: Tensor, *_: Any, scale: float, **__: Any) -> tuple[Any, ...]:
    out, log_sums = exact(queries[0], keys[0], values[0], scale)
    rest = torch.zeros(1, dtype=torch.int64)
    return (out.to(queries.dtype)[None], log_sums[None], rest, rest, 1, 1, rest, rest, rest)


@pytest.fixture
def stand_in() -> Iterator[Callable[[Callable[..., Any]], None]]:
    """Registers a CPU kernel of FlashAttention's operation for one test."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    gives_log_sums.cache_clear()

    def register(kernel: Callable[..., Any]) -> None:
        library.impl("_scaled_dot_product_flash_attention", kernel, "CPU")  # type: ignore[no-untyped-call]

    yield register
    library._destroy()
    gives_log_sums.cache_clear()


def states(rows: int, tokens: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((4, rows), (2, tokens), (2, tokens))
    queries, keys, values = (torch.randn(*shape, 16, generator=generator).to(dtype) for shape in shapes)
    return queries, keys, values


@pytest.mark.parametrize("rows", [50, 20, 1])
def test_log_sums_come_with_the_output_of_a_whole_prompt_and_of_its_end(
    rows: int, stand_in: Callable[[Callable[..., Any]], None]
) -> None:
    stand_in(flash)
    of = states(rows, 50)
    out, log_sums = fused_causal(*of, 0.2)
    expected, sums = exact(*of, 0.2)
    assert log_sums is not None and torch.equal(log_sums, sums)
    assert torch.equal(out, expected.to(out.dtype))


def base_two(*words: Any, **keywords: Any) -> tuple[Any, ...]:
    out, log_sums, *rest = flash(*words, **keywords)
    return (out, log_sums / torch.log(torch.tensor(2.0)), *rest)


def padded_rows(*words: Any, **keywords: Any) -> tuple[Any, ...]:
    out, log_sums, *rest = flash(*words, **keywords)
    return (out, torch.nn.functional.pad(log_sums, (0, 8)), *rest)


def upper_left(queries: Tensor, keys: Tensor, *words: Any, **keywords: Any) -> tuple[Any, ...]:
    return flash(queries, *(states[:, :, : queries.shape[2]] for states in (keys, words[0])), *words[1:], **keywords)


def refusing(*words: Any, **keywords: Any) -> tuple[Any, ...]:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


@pytest.mark.parametrize("kernel", [base_two, padded_rows, upper_left, refusing])
def test_an_operation_with_other_numbers_is_not_used(
    kernel: Callable[..., Any], stand_in: Callable[[Callable[..., Any]], None]
) -> None:
    stand_in(kernel)
    of = states(50, 50)
    out, log_sums = fused_causal(*of, 0.2)
    assert log_sums is None
    torch.testing.assert_close(out.float(), exact(*of, 0.2)[0], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_the_operation_the_output_is_the_same_and_log_sums_are_not_known(dtype: torch.dtype) -> None:
    of = states(50, 50, dtype)
    out, log_sums = fused_causal(*of, 0.2)
    assert log_sums is None
    torch.testing.assert_close(out.float(), exact(*of, 0.2)[0], rtol=0.02, atol=0.02)


def test_torch_has_the_operation_with_these_arguments_and_log_sums_for_every_query_head() -> None:
    queries, keys, values = (of.to("meta") for of in states(20, 50))
    out, log_sums = torch.ops.aten._scaled_dot_product_flash_attention(
        queries[None], keys[None], values[None], 0.0, is_causal=True, return_debug_mask=False, scale=0.2
    )[:2]
    assert out.shape == (1, 4, 20, 16) and log_sums.shape == (1, 4, 20) and log_sums.dtype == torch.float32
