"""What the library that multiplies changes: kept entries and answers, against those of float64.

    python benchmarks/rounding.py               SmolLM2-135M-Instruct, which `make smollm2` fetches; all methods
    python benchmarks/rounding.py model.gguf    another GGUF file, or a folder with safetensors
    python benchmarks/rounding.py --quick       the embedded model, to see that it works

The same prompts, pieces of the built-in haystack, are prefilled and answered in four ways, each in a process of its
own: with float32 products by torch, by oneDNN, by torch with MKL bound to the instructions that all processors have
(``MKL_CBWR=COMPATIBLE``), and in float64, where norms, angles, the softmax and scores stay float32. A head of a layer
keeps the same of a prompt, or other entries; a cell answers with the same tokens, or with others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from outputs import add_out, out_folder
from real_model import BUDGETS, on_text
from torch import Tensor

from harness.bench.clock import machine
from harness.bench.subject import decoded, prefilled
from harness.bench.write import table, write
from harness.engine import prefill_attention
from harness.engine.keeping import Keeping
from harness.kernels.products import why_not_onednn

# What a way adds to the command and to the environment.
FLOAT64, TORCH = "float64", "float32 by torch"
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    FLOAT64: ("torch", {}),
    TORCH: ("torch", {}),
    "float32 by oneDNN": ("onednn", {}),
    "float32 by torch, MKL_CBWR=COMPATIBLE": ("torch", {"MKL_CBWR": "COMPATIBLE"}),
}
Layers = list[list[Tensor] | None]
_KEPT: list[Layers] = []
"""Per prompt, what the heads of each layer of each plan keep; None for everything."""


class Noting(Keeping):
    """Notes which entries every plan keeps, which a prefill tells as a hash alone."""

    def end(self) -> None:
        """See ``Keeping``."""
        super().end()
        _KEPT.append(
            [
                _heads(kept, indices)
                for growing in self.growing.values()
                for kept, indices in zip(growing.entries, growing.indices, strict=True)
            ]
        )


def _heads(kept: int | tuple[int, ...], indices: Tensor | None) -> list[Tensor] | None:
    """The indices of each head; see ``Growing``."""
    if indices is None or isinstance(kept, int):
        return None if indices is None else list(indices)
    return list(torch.split(indices[len(kept) :], list(kept)))


def found_by(options: argparse.Namespace) -> None:
    """Prefill and answer in one way, and save what was kept and said."""
    prefill_attention.Keeping = Noting  # type: ignore[misc]
    torch.set_num_threads(1)
    model = f"model.path={options.model}" if options.model else f"model={'tiny' if options.quick else 'smollm2_135m'}"
    grid = [f"method={options.methods}", f"budget={BUDGETS}", f"engine.kernels={WAYS[options.way][0]}"]
    subject = on_text([model, *grid], options.new_tokens)
    engine = subject.engine()
    if options.way == FLOAT64:
        engine.model.double()
    said = []
    for number in range(options.prompts):
        rows = prefilled(subject, engine, subject.prompt(options.tokens, number), subject.variants)
        distinct = {id(row): row for row in rows.values()}
        answers = dict(zip(distinct, decoded(subject, engine, list(distinct.values())), strict=True))
        said.append([answers[id(row)].tokens for row in rows.values()])
    torch.save((_KEPT, said), options.to)


def differences(ours: Any, theirs: Any) -> dict[str, int]:
    """What two ways found otherwise."""
    layers = [pair for one, other in zip(ours[0], theirs[0], strict=True) for pair in zip(one, other, strict=True)]
    heads = [pair for one, other in layers if one and other for pair in zip(one, other, strict=True)]
    differing = [(one, other) for one, other in heads if not torch.equal(one, other)]
    entries = sum(len(set(one.tolist()) - set(other.tolist())) for one, other in differing)
    answers = [pair for one, other in zip(ours[1], theirs[1], strict=True) for pair in zip(one, other, strict=True)]
    whole = sum(len(one or other) for one, other in layers if (one is None) != (other is None))
    return {
        "heads that keep other entries": len(differing) + whole,
        "other entries": entries,
        "other answers": sum(one != other for one, other in answers),
    }


def main() -> None:
    """Run all ways, print the table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a GGUF file, or a folder with safetensors (default: SmolLM2-135M)")
    parser.add_argument("--quick", action="store_true", help="the embedded model, a short prompt, few methods")
    parser.add_argument("--methods", default="all", help="published, all, or names in brackets (default: all)")
    parser.add_argument("--prompts", type=int, default=4, help="number of prompts (default: 4)")
    parser.add_argument("--tokens", type=int, default=2048, help="length of each (default: 2048)")
    parser.add_argument("--new-tokens", type=int, default=32, help="of each answer (default: 32)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    add_out(parser)
    options = parser.parse_args()
    if options.quick:
        options.methods, options.prompts, options.tokens, options.new_tokens = "published", 1, 300, 4
    if options.way:
        found_by(options)
        return
    found = {}
    ways = [way for way in WAYS if WAYS[way][0] != "onednn" or why_not_onednn(torch.device("cpu")) is None]
    with tempfile.TemporaryDirectory() as folder:
        for number, way in enumerate(ways):
            to = Path(folder) / str(number)
            words = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--to", str(to)]
            subprocess.run(words, check=True, env={**os.environ, **WAYS[way][1]})
            found[way] = torch.load(to, weights_only=True)
    heads = [head for layers in found[FLOAT64][0] for layer in layers for head in layer or ()]
    pairs = [(way, against) for against in (FLOAT64, TORCH) for way in ways if ways.index(way) > ways.index(against)]
    lines = [{"products": way, "against": other, **differences(found[way], found[other])} for way, other in pairs]
    print("\n".join(table(lines)))
    total = {
        "heads": len(heads),
        "entries": sum(len(head) for head in heads),
        "answers": sum(len(said) for said in found[FLOAT64][1]),
    }
    note = "Of " + ", ".join(f"{count:,} {name}" for name, count in total.items()) + "."
    print(note)
    title = "Kept entries and answers by the library that multiplies"
    for path in write(out_folder(options), "rounding", title, machine(), lines, [lines, total], [note]):
        print(path)


if __name__ == "__main__":
    main()
