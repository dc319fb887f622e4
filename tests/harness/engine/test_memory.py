"""What a prefill holds at once: nothing that grows with tokens squared, and no layer's keys and values after their
layer."""

from __future__ import annotations

import platform
import resource
import weakref
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Phi3Config, Phi3ForCausalLM

from harness.compression import attention_weights
from harness.compression.grid import Plan
from harness.compression.method import LayerState
from harness.compression.selection import Selection
from harness.engine import prefill_attention
from harness.engine.attention import install
from harness.engine.keeping import Keeping
from harness.engine.memory import keep_freed_memory
from harness.engine.prefill import extend, prefill
from tests.harness.tiny import NAME, STABLE, Cell, methods, prompt_of, tiny

METHODS = methods()
SMALL_BLOCK = 2**14


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest storage that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def largest(tokens: int, names: list[str], ties: Literal["stable", "torch"]) -> int:
    model = tiny(dtype=torch.float32)
    cells = [Cell(prompt_of(tokens), METHODS[name], 32) for name in names]
    with Largest() as seen:
        prefill(
            model,
            NAME,
            cells[0].prompt,
            [cell.plan(3) for cell in cells],
            Selection("query_head", "mean", ties, "float32"),
        )
    return seen.bytes


@pytest.mark.parametrize("ties", ["stable", "torch"])
def test_no_tensor_of_a_prefill_grows_with_tokens_squared(
    ties: Literal["stable", "torch"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(attention_weights._BLOCK_BYTES, "cpu", SMALL_BLOCK)
    monkeypatch.setattr(prefill_attention, "_PUBLISHED_BLOCK_BYTES", SMALL_BLOCK)
    short, long = (largest(tokens, list(METHODS), ties) for tokens in (256, 512))
    assert SMALL_BLOCK < short < 256 * 256 * 4, "the test would see one head's weights"
    assert long <= 2 * short


def test_a_matrix_of_all_weights_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention_weights._BLOCK_BYTES, "cpu", 2**40)
    short, long = (largest(tokens, ["h2o"], "stable") for tokens in (256, 512))
    assert long == 4 * short


def test_while_an_allocation_waits_for_all_layers_their_keys_are_held_and_no_queries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive: list[tuple[weakref.ref[Any], weakref.ref[Any]]] = []
    counts = []
    take = Keeping.take

    def watched(self: Keeping, state: LayerState, scores: Any) -> None:
        counts.append(tuple(sum(pair[which]() is not None for pair in alive) for which in (0, 1)))
        alive.append((weakref.ref(state.queries.untyped_storage()), weakref.ref(state.keys.untyped_storage())))
        take(self, state, scores)

    monkeypatch.setattr(Keeping, "take", watched)
    cell = Cell(prompt_of(200), METHODS["heads-of-all-layers"], 20)
    prefill(tiny(), NAME, cell.prompt, [cell.plan(3)], Selection("query_head", "mean", "stable", "float32"))
    assert counts == [(0, 0), (0, 1), (0, 2)], "storages of queries and of keys of earlier layers, at each layer"


def test_without_a_full_cache_in_the_grid_no_layers_keys_outlive_their_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    counts = []
    take = Keeping.take

    def watched(self: Keeping, state: LayerState, scores: Any) -> None:
        counts.append(sum(reference() is not None for reference in alive))
        alive.extend([weakref.ref(state.keys.untyped_storage()), weakref.ref(state.values.untyped_storage())])
        take(self, state, scores)

    monkeypatch.setattr(Keeping, "take", watched)
    prompt = prompt_of(200)
    cells = [Cell(prompt, method, 20) for name, method in METHODS.items() if "full" not in name and "all" not in name]
    done = prefill(
        tiny(), NAME, prompt, [cell.plan(3, 2) for cell in cells], Selection("kv_head", "mean", "stable", "float32")
    )
    assert counts == [0, 0, 0], "keys and values of earlier layers that were still there when a layer began"
    for kept in done.kept:
        held = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage()
            for layer in kept.layers
            for tensor in (layer.keys, layer.values)
        }
        assert sum(storage.nbytes() for storage in held.values()) == kept.bytes, "what is kept is no view of all keys"


def test_whole_prompts_hold_no_memory_but_their_own_in_a_model_that_makes_all_states_in_one_tensor() -> None:
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    model = Phi3ForCausalLM(config).train(False)
    install(model)
    prompt, plans = [token % 100 for token in prompt_of(40)], [Plan((40, 40), None)]
    past = extend(model, "phi", prompt[:30], plans, STABLE)
    ends = [prefill(model, "phi", prompt, plans, STABLE, beginning) for beginning in (None, past)]
    held = [layer for done in ends for layer in done.kept[0].layers] + list(past.layers)
    for states in [states for layer in held for states in (layer.keys, layer.values)]:
        assert states.untyped_storage().nbytes() == states.nbytes
    assert all(layer.queries.untyped_storage().nbytes() == layer.queries.nbytes for layer in past.layers)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_what_a_layer_freed_is_taken_again_by_the_next_without_fetching_its_pages_anew() -> None:
    keep_freed_memory()
    pages = 4 * 24 * 2**20 // 4096

    def layer() -> None:
        assert len([torch.ones(6 * 2**20) for _ in range(4)]) == 4  # 24 MiB each, all of them there at once

    layer()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        layer()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2 * pages
