"""The seconds of a CPU prefill by the size of its blocks of attention rows.

    python benchmarks/prefill_blocks.py [tokens] [rounds]

The embedded model prefills one random prompt for FullKV, H2O and SnapKV with each block size in turn and, for
comparison, once with transformers' own SDPA, which selects nothing. Times are CPU time of one thread, and medians over
rounds; ratios are within a round.
"""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from harness.compression import attention_weights  # noqa: E402
from harness.compression.budget import parse_budgets  # noqa: E402
from harness.compression.grid import make_grid  # noqa: E402
from harness.compression.selection import Selection  # noqa: E402
from harness.config.build import build  # noqa: E402
from harness.engine.attention import NAME  # noqa: E402
from harness.engine.loading import load_model  # noqa: E402
from harness.engine.model_spec import ModelSpec, shape_of  # noqa: E402
from harness.engine.prefill import prefill  # noqa: E402

SIZES = (64, 16, 4, 1)
METHODS = (
    {"_target_": "methods.fullkv.FullKV", "label": "fullkv"},
    {"_target_": "methods.h2o.H2O", "label": "h2o", "window": 8, "causal": True},
    {"_target_": "methods.snapkv.SnapKV", "label": "snapkv", "window": 8, "kernel": 7, "pooling": "maxpool"},
)


def main() -> None:
    """Run the benchmark and print its table."""
    tokens, rounds = (int(word) for word in [*sys.argv[1:], *("4000", "5")[len(sys.argv) - 1 :]][:2])
    torch.set_num_threads(1)
    spec = ModelSpec(str(ROOT / "models/tiny"), None, None, "float32", "cpu", None, None, "", None, None, {})
    config = spec.config()
    model = load_model(spec, config)
    ids = torch.randint(2, config.vocab_size, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    variants = make_grid([build(node) for node in METHODS], parse_budgets([64, 128]))
    selection = Selection("query_head", "mean", "stable", "float32")
    plans = [variant.plan(shape_of(config, tokens, selection)) for variant in variants]
    seconds: dict[int | str, list[float]] = {name: [] for name in (*SIZES, "sdpa")}
    for _ in range(rounds):
        for size in SIZES:
            attention_weights._BLOCK_BYTES["cpu"] = size * 2**20
            start = time.process_time()
            prefill(model, "tiny", ids, plans, selection)
            seconds[size].append(time.process_time() - start)
        model.set_attn_implementation("sdpa")
        start = time.process_time()
        with torch.inference_mode():
            model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        seconds["sdpa"].append(time.process_time() - start)
        model.set_attn_implementation(NAME)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, {tokens} tokens, {rounds} rounds")
    print(f"{'block':>8} {'seconds':>8} {'x 4 MiB':>8}")
    for name, values in seconds.items():
        ratios = [value / base for value, base in zip(values, seconds[4], strict=True)]
        print(f"{name if name == 'sdpa' else f'{name} MiB':>8} {median(values):>8.2f} {median(ratios):>8.2f}")


if __name__ == "__main__":
    main()
