"""Our kernels against the torch operations that they stand for: on a CUDA device compiled, elsewhere in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness import engine
from harness.bench.kernels import LEAST_TOKENS, column_sums_cost
from harness.build import composed
from harness.engine import EngineSettings
from harness.errors import ConfigError
from harness.method import LayerState
from harness.prefill import Plan, prefill
from harness.ranking import ColumnSums, column_sums, kept_indices, order_of
from harness.schema import Selection
from tests.conftest import ROOT
from tests.harness.tiny import NAME, STABLE, prompt_of, tiny

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Float32 sums in another order; tensor cores have one of their own.
TOLERANCE = 1e-4 if DEVICE == "cuda" else 1e-5

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: pip install -e '.[triton]'")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def layer(heads: int, kv_heads: int, tokens: int, dim: int, dtype: torch.dtype, seed: int = 0) -> LayerState:
    """Random states, laid out as a model has them: the heads of a token are neighbours. Logits as wide as those of a real layer."""
    generator = torch.Generator().manual_seed(seed)

    def states(heads: int, width: float) -> Tensor:
        return (width * torch.randn(tokens, heads, dim, generator=generator)).to(dtype).to(DEVICE).transpose(0, 1)

    return LayerState(states(heads, 3), states(kv_heads, 1), states(kv_heads, 1), 0, 1, dim**-0.5, torch.float32, "triton")


def check_equal(of: LayerState, window: int) -> None:
    """Whether the kernel gives what torch gives."""
    expected = column_sums(replace(of, column_sums="torch"), window, True)
    found = column_sums(of, window, True)
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
    dim, dtype = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    of = layer(kv_heads * copies, kv_heads, tokens, dim, dtype, data.draw(st.integers(0, 9)))
    check_equal(replace(of, scaling=data.draw(st.sampled_from([of.scaling, 0.1, 1.0]))), data.draw(st.integers(1, tokens - 1)))


@needs_triton
@pytest.mark.parametrize("granularity", ["kv_head", "query_head"])
def test_the_kernel_keeps_what_torch_keeps(granularity: str) -> None:
    selection = Selection(granularity, "mean", "stable", "float32")  # type: ignore[arg-type]
    of, ranking = layer(4, 2, 100, 32, torch.bfloat16), ColumnSums(8, True)
    orders = [order_of(ranking, each, selection) for each in (of, replace(of, column_sums="torch"))]
    heads = 2 if granularity == "kv_head" else 4
    for keep in (9, 16, 40, 99):
        ours, theirs = (kept_indices(order, keep, 8, 100, heads, of.keys.device) for order in orders)
        assert torch.equal(ours, theirs)


@needs_triton
@pytest.mark.parametrize(("causal", "dtype", "calls"), [(True, "float32", 3), (False, "float32", 0), (True, "model", 0)])
def test_a_prefill_takes_the_kernel_for_causal_scores_in_float32_alone(
    causal: bool, dtype: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.kernels import column_sums as kernel

    model = tiny(dtype=torch.bfloat16)  # on a CPU, float32 scores of a float32 model are read from the prefill's own weights
    selection = replace(STABLE, dtype=dtype)  # type: ignore[arg-type]
    seen, real = [], kernel.causal_column_sums
    monkeypatch.setattr(kernel, "causal_column_sums", lambda *words: seen.append(1) or real(*words))
    arguments = (model, NAME, prompt_of(40), [Plan((12,) * 3, ColumnSums(4, causal))], selection, None)
    expected = prefill(*arguments)
    assert not seen
    found = prefill(*arguments, "triton")
    assert len(seen) == calls
    assert found.kept[0].sha256 == expected.kept[0].sha256


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from harness.kernels import column_sums

for capability, dtype, precision in ((80, "bf16", "tf32"), (90, "fp32", "ieee")):
    constants = {"GROUP": 4, "DIM": 20, "PADDED": 32, "TILE": 32, "PRECISION": precision}
    types = {"queries": "*" + dtype, "keys": "*" + dtype, "log_sums": "*fp32", "sums": "*fp32", "scaling": "fp32"}
    types |= dict.fromkeys(constants, "constexpr")
    for kernel in (column_sums._log_sums, column_sums._sums):
        signature = {name: types.get(name, "i32") for name in kernel.arg_names}
        compiled = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32))
        print(capability, bool(compiled.asm["cubin"]), "tf32" in compiled.asm["ptx"])
"""


@needs_triton
def test_the_kernels_compile_for_cards_that_are_not_here(tmp_path: Path) -> None:
    # The interpreter takes more than the compiler does.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == 2 * ["80 True True"] + 2 * ["90 True False"]


@needs_triton
@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("dim", [64, 80, 128, 256])
def test_long_prompts_have_the_column_sums_of_torch_on_a_cuda_device(dim: int, dtype: torch.dtype) -> None:
    check_equal(layer(8, 2, 4099, dim, dtype), 8)


@needs_triton
def test_the_benchmark_holds_the_kernel_against_torch() -> None:
    row = column_sums_cost(layer(2, 1, LEAST_TOKENS, 16, torch.bfloat16), 1)
    assert row["tokens"] == LEAST_TOKENS and row["torch ms"] > 0 and row["triton ms"] > 0
    assert row["largest relative difference"] < TOLERANCE
    assert row["same among the best 128 %"] == 100


def settings_of(column_sums: str) -> EngineSettings:
    return EngineSettings(**composed(f"engine.column_sums={column_sums}").engine)


def test_the_kernel_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert composed().engine.column_sums == "torch"
    settings_of("torch").check_device(torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"engine\.column_sums=triton is for CUDA devices, and the model's is cpu: use engine\.column_"):
        settings_of("triton").check_device(torch.device("cpu"))
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"engine\.column_sums=triton needs triton, which is not installed: pip install"):
        settings_of("triton").check_device(torch.device("cuda"))
    with pytest.raises(ConfigError, match=r"engine\.column_sums=fast is unknown: use torch or triton"):
        settings_of("fast")
