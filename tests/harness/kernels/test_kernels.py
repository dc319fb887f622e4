"""Our kernels against the torch operations that they stand for: on a CUDA device compiled, elsewhere in Triton's
interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.bench.kernels import LEAST_TOKENS, column_sums_cost
from harness.compression.grid import Plan
from harness.compression.method import LayerState
from harness.compression.scorers import ColumnSums, column_sums
from harness.compression.selection import Selection, kept_indices, order_of
from harness.config.build import composed
from harness.engine import cuda_graphs, prefill_attention
from harness.engine import settings as engine_settings
from harness.engine.buckets import LayerKV
from harness.engine.cache import KVCache
from harness.engine.decode import decode
from harness.engine.fused_causal import fused_causal
from harness.engine.layer_forms import PLAIN
from harness.engine.prefill import extend, prefill
from harness.engine.rows import Generated, Limits, Row
from harness.engine.settings import EngineSettings, choose_kernels
from harness.errors import ConfigError
from harness.kernels import Kernels, probe
from harness.kernels.ragged_tables import SPLIT, Held, tabulate
from tests.conftest import ROOT, needs_triton
from tests.harness.tiny import NAME, STABLE, Cell, methods, prompt_of, tiny

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Float32 sums in another order; tensor cores have one of their own.
TOLERANCE = 1e-4 if DEVICE == "cuda" else 1e-5

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def layer(heads: int, kv_heads: int, tokens: int, dim: int, dtype: torch.dtype, seed: int = 0) -> LayerState:
    """Random states, laid out as a model has them: the heads of a token are neighbours. Logits as wide as those of a
    real layer."""
    generator = torch.Generator().manual_seed(seed)

    def states(heads: int, width: float) -> Tensor:
        return (width * torch.randn(tokens, heads, dim, generator=generator)).to(dtype).to(DEVICE).transpose(0, 1)

    return LayerState(
        states(heads, 3), states(kv_heads, 1), states(kv_heads, 1), 0, 1, dim**-0.5, torch.float32, "triton"
    )


def log_sums_of(of: LayerState) -> Tensor:
    """The logarithm of each query's sum of exponentials, as the attention of a prefill gives it."""
    keys = of.keys.float().repeat_interleave(of.queries.shape[0] // of.keys.shape[0], dim=0)
    logits = (of.queries.float() @ keys.transpose(1, 2)) * of.scaling
    later = torch.ones(logits.shape[1:], dtype=torch.bool, device=logits.device).triu(1)
    return logits.masked_fill(later, -torch.inf).logsumexp(-1)


def check_equal(of: LayerState, window: int) -> None:
    """Whether the kernel gives what torch gives."""
    expected = column_sums(replace(of, kernels="torch"), window, True)
    for each in (of, replace(of, log_sums=log_sums_of(of))):
        found = column_sums(each, window, True)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=0)


@needs_triton
@pytest.mark.parametrize(
    ("heads", "kv_heads", "tokens", "dim", "dtype", "window"),
    [
        (2, 2, 130, 64, torch.float32, 8),  # every query head has its own keys; tokens beyond whole tiles
        (4, 2, 70, 64, torch.bfloat16, 8),
        (3, 1, 97, 80, torch.bfloat16, 32),  # a width that is padded
        (2, 1, 65, 80, torch.float32, 1),
        (2, 1, 128, 16, torch.float16, 64),  # whole tiles
        (1, 1, 40, 256, torch.bfloat16, 7),  # smaller tiles
        (2, 1, 9, 64, torch.float32, 8),  # one candidate
        (1, 1, 2, 3, torch.bfloat16, 1),
    ],
)
def test_the_kernel_gives_the_column_sums_of_torch(
    heads: int, kv_heads: int, tokens: int, dim: int, dtype: torch.dtype, window: int
) -> None:
    check_equal(layer(heads, kv_heads, tokens, dim, dtype), window)


@needs_triton
@given(data=st.data())
@settings(deadline=None, derandomize=True, database=None, max_examples=12)
def test_the_kernel_gives_the_column_sums_of_torch_for_any_shape(data: st.DataObject) -> None:
    kv_heads, copies, tokens = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)), data.draw(st.integers(2, 70))
    dim, dtype = (
        data.draw(st.integers(1, 40)),
        data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])),
    )
    of = layer(kv_heads * copies, kv_heads, tokens, dim, dtype, data.draw(st.integers(0, 9)))
    check_equal(
        replace(of, scaling=data.draw(st.sampled_from([of.scaling, 0.1, 1.0]))), data.draw(st.integers(1, tokens - 1))
    )


@needs_triton
@pytest.mark.parametrize("granularity", ["kv_head", "query_head"])
def test_the_kernel_keeps_what_torch_keeps(granularity: str) -> None:
    selection = Selection(granularity, "mean", "stable", "float32")  # type: ignore[arg-type]
    of, scorer = layer(4, 2, 100, 32, torch.bfloat16), ColumnSums(8, True)
    orders = [order_of(scorer, each, selection) for each in (of, replace(of, kernels="torch"))]
    heads = 2 if granularity == "kv_head" else 4
    for keep in (9, 16, 40, 99):
        ours, theirs = (kept_indices(order, keep, 8, 100, heads, of.keys.device) for order in orders)
        assert torch.equal(ours, theirs)


@needs_triton
@pytest.mark.parametrize(
    ("causal", "dtype", "calls"), [(True, "float32", 3), (False, "float32", 0), (True, "model", 0)]
)
def test_a_prefill_takes_the_kernel_for_causal_scores_in_float32_alone(
    causal: bool, dtype: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.kernels import column_sums as kernel

    model = tiny(
        dtype=torch.bfloat16
    )  # on a CPU, float32 scores of a float32 model are read from the prefill's own weights
    selection = replace(STABLE, dtype=dtype)  # type: ignore[arg-type]
    seen, real = [], kernel.causal_column_sums
    monkeypatch.setattr(kernel, "causal_column_sums", lambda *words: seen.append(1) or real(*words))
    arguments = (model, NAME, prompt_of(40), [Plan((12,) * 3, ColumnSums(4, causal))], selection, None)
    expected = prefill(*arguments)
    assert not seen
    found = prefill(*arguments, "triton")
    assert len(seen) == calls
    assert found.kept[0].sha256 == expected.kept[0].sha256


@needs_triton
@pytest.mark.parametrize("held", [0, 25, 39])
def test_the_kernel_takes_the_log_sums_of_the_attention_of_all_parts_of_a_prompt(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.kernels import column_sums as kernel

    model, prompt, plans = tiny(dtype=torch.bfloat16), prompt_of(40), [Plan((12,) * 3, ColumnSums(4, True))]
    expected = prefill(model, NAME, prompt, plans, STABLE)
    real = prefill_attention.full_attention

    def with_log_sums(queries: Tensor, state: LayerState, *words: Any) -> tuple[Tensor, Tensor]:
        missing = state.keys.shape[1] - queries.shape[1]
        before = queries.new_zeros(queries.shape[0], missing, queries.shape[2])
        whole = replace(state, queries=torch.cat([before, queries], dim=1))
        return real(queries, state, *words)[0], log_sums_of(whole)[:, missing:]

    monkeypatch.setattr(prefill_attention, "full_attention", with_log_sums)
    monkeypatch.setattr(kernel, "_log_sums", None)  # the pass that is not needed
    run, given = kernel.causal_column_sums, []
    monkeypatch.setattr(kernel, "causal_column_sums", lambda *words: given.append(words[-1]) or run(*words))
    past = extend(model, NAME, prompt[:held], plans, STABLE) if held else None
    found = prefill(model, NAME, prompt, plans, STABLE, past, "triton")
    assert [log_sums.shape for log_sums in given] == [(4, 40)] * 3
    assert found.kept[0].sha256 == expected.kept[0].sha256


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from harness.kernels import column_sums, ragged_attention
from harness.kernels.tiles import padded, product_dtype, tile_tokens
import torch

KERNELS = ((column_sums, ("_log_sums", "_sums")), (ragged_attention, ("_attend", "_join")))
parts = [part + way for part in ("mixed", "largest", "total") for way in ("_in", "_out")]
tables = ["rows", "lengths", "first_splits", "step", "heads_before"]
tables += ["key_addresses", "value_addresses", "capacities", "split_rows"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
for capability, dtype, dim in ((80, "bf16", 128), (90, "fp32", 20), (80, "bf16", 256), (80, "fp32", 128)):
    size = DTYPES[dtype].itemsize
    for module, names in KERNELS:
        constants = {"GROUP": 4, "GROUP_PADDED": 16, "COPIES": 1, "DIM": dim, "PADDED": padded(dim),
            "SPLIT_ENTRIES": 512, "TOGETHER": 16, "PRODUCT": product_dtype(DTYPES[dtype]), "ALIGNED": 16}
        most, options, numbers = module._TILE_TOKENS[size], {}, 2 * dim
        if module is column_sums:
            constants["OWN"] = tile_tokens(dim, most[0], DTYPES[dtype])
            most, options, numbers = most[1], {"num_warps": module._WARPS[size]}, dim
        constants["TILE"] = tile_tokens(numbers, most, DTYPES[dtype])
        types = dict.fromkeys(["queries", "keys", "new_keys", "new_values", "out"], "*" + dtype) | {"scaling": "fp32"}
        types |= dict.fromkeys(["log_sums", "sums", *parts], "*fp32")
        types |= dict.fromkeys(tables, "*i64") | dict.fromkeys(constants, "constexpr")
        for name in names:
            kernel = getattr(module, name)
            signature = {word: types.get(word, "i32") for word in kernel.arg_names}
            its = {word: value for word, value in constants.items() if word in signature}
            # As in a launch: torch's tensors begin at multiples of 16 bytes, and a head's numbers are neighbours.
            its |= {word: 1 for word in ("query_dim", "key_dim") if word in signature}
            signature |= dict.fromkeys([word for word in its if word.endswith("_dim")], "constexpr")
            whole = [n for n, word in enumerate(kernel.arg_names)
                if signature[word].startswith("*") or word.endswith(("_row", "_head", "_token"))]
            source = ASTSource(kernel, signature, its, {(n,): [["tt.divisibility", 16]] for n in whole})
            compiled = compile(source, GPUTarget("cuda", capability, 32), options)
            used = next((kind for kind in ("tf32", "f32.bf16.bf16") if kind in compiled.asm["ptx"]), "-")
            wide = any("cp.async" in line and "0x10" in line for line in compiled.asm["ptx"].splitlines())
            print(name, bool(compiled.asm["cubin"]), used, compiled.metadata.shared, wide)
"""
# What a program may have on the smallest cards that kernels run on, compute capability 8.6 and 8.9.
SHARED_BYTES = 99 * 1024


@needs_triton
def test_the_kernels_compile_for_cards_that_are_not_here(tmp_path: Path) -> None:
    # The interpreter takes more than the compiler does.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert len(found) == 16 and all(
        compiled == "True" and int(shared) <= SHARED_BYTES for _, compiled, _, shared, _ in found
    ), done.stdout
    products = [how for name, _, how, *_ in found if name != "_join"]
    assert products == 3 * ["f32.bf16.bf16"] + 3 * ["-"] + 3 * ["f32.bf16.bf16"] + 3 * ["-"]
    # Entries are loaded ahead, 16 bytes at a time, those too whose addresses are known at run time alone.
    assert all(wide == "True" for name, *_, wide in found if name != "_join")


@needs_triton
@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("dim", [64, 80, 128, 256])
def test_long_prompts_have_the_column_sums_of_torch_on_a_cuda_device(dim: int, dtype: torch.dtype) -> None:
    check_equal(layer(8, 2, 4099, dim, dtype), 8)


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [300, 90, 1])
def test_flash_attention_gives_its_log_sums_on_a_cuda_device(rows: int, dtype: torch.dtype) -> None:
    of = layer(8, 2, 300, 128, dtype)
    _, log_sums = fused_causal(of.queries[:, 300 - rows :], of.keys, of.values, of.scaling)
    assert log_sums is not None
    torch.testing.assert_close(log_sums, log_sums_of(of)[:, 300 - rows :], rtol=TOLERANCE, atol=TOLERANCE)


@needs_triton
def test_the_benchmark_holds_the_kernel_against_torch() -> None:
    row = column_sums_cost(layer(2, 1, LEAST_TOKENS, 16, torch.bfloat16), 1)
    assert row["tokens"] == LEAST_TOKENS and row["torch ms"] > 0 and row["triton ms"] > 0
    assert row["largest relative difference"] < TOLERANCE
    assert row["same among the best 128 %"] == 100


def pool_of(kernels: Kernels, rows: list[list[LayerKV]], steps: int) -> KVCache:
    pool = KVCache([PLAIN], kernels)
    pool.add([list(row) for row in rows], steps)
    return pool


@pytest.mark.parametrize(("before", "dim", "aligned"), [(0, 8, 16), (1, 8, 4), (2, 8, 8), (0, 3, 4), (0, 20, 16)])
def test_the_loads_of_entries_are_as_wide_as_their_addresses_allow(before: int, dim: int, aligned: int) -> None:
    def part(rows: int, before: int) -> Held:
        states = torch.zeros(before + rows * 2 * 5 * dim)[before:].view(rows, 2, 5, dim)
        return Held(states, torch.zeros_like(states), 4, 0, 0, 2)

    ((table,),) = tabulate([[part(2, 0), part(1, before)]])
    assert table.aligned == aligned and len(table.rows) == 3


@needs_triton
@pytest.mark.parametrize(
    ("heads", "kv_heads", "cached", "dim", "dtype"),
    [
        (4, 2, (2, 2, 2, 2), 16, torch.float32),
        (4, 2, (2, 4, 2, 4), 16, torch.bfloat16),  # some rows with entries for every query head
        (6, 1, (6, 6, 1, 1), 20, torch.float16),  # a width and a number of heads that are padded
        (8, 8, (8, 8, 8, 8), 80, torch.bfloat16),
    ],
)
def test_rows_of_any_length_attend_as_by_torch_and_as_they_do_alone(
    heads: int, kv_heads: int, cached: tuple[int, ...], dim: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)

    def states(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).to(DEVICE)

    # An entry is written as the last of a split, as the first of one, into an empty row, and far behind.
    entries, steps = (SPLIT - 1, SPLIT, 0, 2 * SPLIT + 70), 3
    rows = [
        [LayerKV(states(held, count, dim), states(held, count, dim))]
        for held, count in zip(cached, entries, strict=True)
    ]
    ours, theirs = (pool_of(kernels, rows, steps) for kernels in ("triton", "torch"))
    alone = [pool_of("triton", [row], steps) for row in rows]
    for _ in range(steps):
        new = states(len(rows), heads, 1, dim), states(len(rows), kv_heads, 1, dim), states(len(rows), kv_heads, 1, dim)
        found, expected = (pool.attend(0, *new, dim**-0.5) for pool in (ours, theirs))
        assert found.dtype == dtype and found.shape == expected.shape
        # One rounding of the outputs, which torch also does to the weights.
        rounding = 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)
        for place, pool in enumerate(alone):
            assert torch.equal(pool.attend(0, *(state[place : place + 1] for state in new), dim**-0.5)[0], found[place])
        for pool in (ours, theirs, *alone):
            pool.advance()


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_of_different_lengths_attend_as_by_torch_and_as_they_do_alone(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)

    def states(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).to(DEVICE)

    def uneven(*counts: int) -> list[LayerKV]:
        return [LayerKV(states(sum(counts), 16), states(sum(counts), 16), counts)]

    # Kv heads and query heads, runs of equal heads between others, and rows whose heads are all equal.
    rows = [
        uneven(SPLIT - 1, 3),
        uneven(5, SPLIT + 40, SPLIT + 40, 1),
        [LayerKV(states(2, 9, 16), states(2, 9, 16))],
        uneven(1, 2),
        uneven(7, 7, 8, 8),
    ]
    ours, theirs = (pool_of(kernels, rows, 4) for kernels in ("triton", "torch"))
    alone = [pool_of("triton", [row], 4) for row in rows]
    places = list(range(len(rows)))
    for step in range(4):
        if step == 2:
            places = [1, 3, 4]
            ours.keep(places), theirs.keep(places)
        new = states(len(places), 4, 1, 16), states(len(places), 2, 1, 16), states(len(places), 2, 1, 16)
        found, expected = (pool.attend(0, *new, 0.25) for pool in (ours, theirs))
        rounding = 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)
        for index, place in enumerate(places):
            here = (state[index : index + 1] for state in new)
            assert torch.equal(alone[place].attend(0, *here, 0.25)[0], found[index])
        for pool in (ours, theirs, *alone):
            pool.advance()


@needs_triton
@pytest.mark.parametrize("granularity", ["kv_head", "query_head"])
def test_decoding_with_the_kernels_gives_the_tokens_of_torch(granularity: str) -> None:
    model = deepcopy(tiny(2)).to(DEVICE)
    selection = replace(STABLE, granularity=granularity)  # type: ignore[arg-type]
    rows = []
    for place, method in enumerate(methods().values()):
        cell = Cell(prompt_of(30 + place), method, 12)
        done = prefill(model, NAME, cell.prompt, [cell.plan(3, 2 if granularity == "kv_head" else 4)], selection)
        question = prompt_of(place % 3, place)  # none, one token or two, by torch
        rows.append(Row(len(cell.prompt) + len(question), done.logits, list(done.kept[0].layers), question=question))

    def again(kernels: Kernels) -> list[Generated]:
        copies = [replace(row, layers=list(row.layers)) for row in rows]
        return decode(model, NAME, copies, Limits(frozenset(), 8), kernels=kernels)

    by: tuple[Kernels, Kernels] = ("torch", "triton")
    found = [again(kernels) for kernels in by]
    assert found[0] == found[1]


@needs_triton
@needs_cuda
@pytest.mark.gpu
def test_a_captured_step_gives_what_a_launched_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model = deepcopy(tiny(2)).to(DEVICE)
    replays: list[int] = []
    real = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(1) or real(graph))
    found = []
    for before in (1, 99):
        monkeypatch.setattr(cuda_graphs, "_BEFORE", before)
        rows, logits = [], []
        for place, method in enumerate(methods().values()):
            cell = Cell(prompt_of(30 + place), method, 12)
            done = prefill(model, NAME, cell.prompt, [cell.plan(3)], STABLE)
            rows.append(Row(len(cell.prompt), done.logits, list(done.kept[0].layers)))
        decode(
            model, NAME, rows, Limits(frozenset(), 8), observe=lambda _, of, to=logits: to.append(of), kernels="triton"
        )
        found.append(torch.stack(logits))
        assert len(replays) == 6, "of the seven steps all but the first, and none where launched"
    assert torch.equal(*found)


@needs_triton
def test_the_smallest_kernel_runs() -> None:
    from harness.kernels.tiles import write_one

    write_one(torch.device(DEVICE))


def settings_of(kernels: str) -> EngineSettings:
    return EngineSettings(**composed(f"engine.kernels={kernels}").engine)


def test_kernels_are_taken_where_they_run_and_refused_where_they_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert composed().engine.kernels == "auto"
    why_not = probe.why_not.__wrapped__
    monkeypatch.setattr(engine_settings, "why_not", why_not)
    monkeypatch.setattr(probe, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old Card")
    monkeypatch.setattr(probe, "_launch", lambda device: None)
    monkeypatch.setattr(engine_settings, "onednn_is_faster", lambda: False)
    assert [choose_kernels(settings_of("auto").kernels, device) for device in (cpu, cuda)] == ["torch", "triton"]
    assert [choose_kernels(settings_of("torch").kernels, device) for device in (cpu, cuda)] == ["torch", "torch"]
    with pytest.raises(
        ConfigError, match=r"engine\.kernels=triton is for CUDA devices, and the model's is cpu: use engine\.kernels"
    ):
        choose_kernels(settings_of("triton").kernels, cpu)

    def no_compiler(device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify")

    with monkeypatch.context() as broken:
        broken.setattr(probe, "_launch", no_compiler)
        assert choose_kernels(settings_of("auto").kernels, cuda) == "torch"
        with pytest.raises(
            ConfigError, match=r"engine\.kernels=triton cannot compile here \(Failed to find C compiler\.\): use engine"
        ):
            choose_kernels(settings_of("triton").kernels, cuda)
    with monkeypatch.context() as old:
        old.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert choose_kernels(settings_of("auto").kernels, cuda) == "torch"
        with pytest.raises(
            ConfigError, match=r"needs an NVIDIA card of compute capability 8\.0 or more, and Old Card is none: use"
        ):
            choose_kernels(settings_of("triton").kernels, cuda)
    monkeypatch.setattr(probe, "find_spec", lambda name: None)
    assert choose_kernels(settings_of("auto").kernels, cuda) == "torch"
    with pytest.raises(ConfigError, match=r"engine\.kernels=triton needs triton, which is not installed \(pip install"):
        choose_kernels(settings_of("triton").kernels, cuda)
    with pytest.raises(ConfigError, match=r"engine\.kernels=fast is unknown: use auto, torch, onednn or triton"):
        settings_of("fast")
