"""The cost of a grid with a real model on text, against stock ``generate`` of transformers in the same round.

    python benchmarks/real_model.py                        SmolLM2-135M-Instruct, which `make smollm2` fetches
    python benchmarks/real_model.py model.gguf             another GGUF file, or a folder with safetensors
    python benchmarks/real_model.py --methods all --prompts 1        as many cells as there are methods
    python benchmarks/real_model.py --quick                a few seconds with the embedded model, to see that it works

Every prompt is another piece of the built-in haystack. All prompts are prefilled one after the other and all rows
decode together; "times stock" is the grid's time per prompt over that of one ``generate`` with the full cache. Times
are CPU time of one thread, and a round runs in one process. Starting and reporting are apart: ``load s`` is what
loading the model and checking its attention take, and ``benchmarks/start.py`` measures imports and reports.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from outputs import add_out, out_folder  # noqa: E402

from harness.bench.clock import machine, seconds  # noqa: E402
from harness.bench.grid import grid_cost  # noqa: E402
from harness.bench.setup import subject_of  # noqa: E402
from harness.bench.subject import Subject  # noqa: E402
from harness.bench.write import table, write  # noqa: E402
from harness.config.build import build, composed  # noqa: E402
from tasks.needle.haystack import builtin_text  # noqa: E402

BUDGETS = "[64,128,256,512,1024]"


@dataclass(frozen=True)
class OnText(Subject):
    """A subject whose prompts are pieces of a text.

    Attributes:
        ids: the text's token ids.
    """

    ids: tuple[int, ...] = ()

    def prompt(self, tokens: int, number: int = 0) -> list[int]:
        """So many tokens of the text; another number gives another piece."""
        start = number * tokens % max(1, len(self.ids) - tokens)
        return list(self.ids[start : start + tokens])


def on_text(overrides: list[str], new_tokens: int) -> OnText:
    """The model and the grid of a run with these overrides, on the built-in haystack."""
    subject = subject_of(overrides, new_tokens)
    ids = build(composed(*overrides).model).tokenizer().encode(builtin_text())
    return OnText(**{each.name: getattr(subject, each.name) for each in fields(subject)}, ids=tuple(ids))


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a GGUF file, or a folder with safetensors (default: SmolLM2-135M)")
    parser.add_argument("--quick", action="store_true", help="the embedded model, a short prompt, one round")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over them (default: 3)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048], help="lengths, 1k to 4k (default: 2048)")
    parser.add_argument("--prompts", type=int, default=2, help="prompts that decode together (default: 2)")
    parser.add_argument("--new-tokens", type=int, default=32, help="of each row (default: 32)")
    parser.add_argument("--heads", default="kv_head", help="granularity (default: kv_head)")
    parser.add_argument("--methods", default="published", help="published, all, or names in brackets")
    parser.add_argument("--cells", type=int, help="the first so many cells of the grid (default: all)")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    if options.quick:
        options.tokens, options.rounds, options.new_tokens = [300], 1, 4
    model = f"model.path={options.model}" if options.model else f"model={'tiny' if options.quick else 'smollm2_135m'}"
    grid = [f"method={options.methods}", f"budget={BUDGETS}", f"selection.granularity={options.heads}"]
    subject = on_text([model, *grid], options.new_tokens)
    subject = replace(subject, variants=subject.variants[: options.cells])
    start = seconds()
    engine = subject.engine()
    load = seconds() - start
    costs, rows = [], []
    for tokens in options.tokens:
        costs.append(grid_cost(subject, engine, tokens, options.prompts, options.rounds, alone=False))
        rows.append({**costs[-1].row(), "load s": load})
        print("\n".join(table(rows[-1:])), flush=True)
    title = f"A grid on text against stock generate: {subject.name}, {str(engine.model.dtype).removeprefix('torch.')}"
    name = "real_model" if options.methods == "published" else "real_model_methods"
    for path in write(out, name, title, machine(), rows, [asdict(cost) for cost in costs]):
        print(path)


if __name__ == "__main__":
    main()
