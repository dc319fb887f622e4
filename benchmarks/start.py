"""The cost of starting kvgauge and its commands.

    python benchmarks/start.py [--rounds 5]

Commands run one after the other, in rounds. Times are CPU seconds, user and system, of the whole process and its
children, and medians over rounds. The yardstick is the import of torch and of the parts of transformers without which
no prompt can be planned: the tokenizer and the configuration, which for the embedded model is Llama's. Ratios to it are
taken within a round, because a machine's pace changes from one round to the next, and their median is shown.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
YARDSTICK = "import torch, transformers"
NAMES = "from transformers import AutoConfig, AutoTokenizer, GenerationConfig, LlamaConfig"
RUN = ("run.py", "method=[fullkv,snapkv]", "budget=32", "task.lengths=[300]", "task.depths=[0,50]")
COMPUTES = "import harness.run.execute, transformers.models.llama.modeling_llama, matplotlib.figure, pandas"
SMALL = "run.py, two prompts of 300 tokens, the embedded model"
COMMANDS = {
    YARDSTICK: ("-c", YARDSTICK),
    f"{YARDSTICK}; {NAMES}": ("-c", f"{YARDSTICK}; {NAMES}"),
    COMPUTES: ("-c", COMPUTES),
    SMALL: RUN,
    "import kvgauge": ("-c", "import kvgauge"),
    "run.py dry_run=true": ("run.py", "dry_run=true"),
    "kvgauge list": ("-m", "kvgauge", "list"),
    "kvgauge completion --words (a TAB)": ("-m", "kvgauge", "completion", "--words", "kvgauge method="),
    "kvgauge report": ("-m", "kvgauge", "report"),
    "kvgauge status": ("-m", "kvgauge", "status"),
}


def seconds(words: tuple[str, ...]) -> float:
    """CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int) -> None:
    """Run the benchmark and print its table."""
    with TemporaryDirectory() as folder:
        seconds((*RUN, f"results_dir={folder}"))  # writes the results to report, and fills Python's bytecode cache
        commands = {
            name: (*words, folder) if name in ("kvgauge report", "kvgauge status") else words
            for name, words in COMMANDS.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(rounds):
            for name, words in commands.items():
                new = (f"results_dir={folder}/{turn}",) if name == SMALL else ()
                taken[name].append(seconds((*words, *new)))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(
        f"CPU seconds, median of {rounds} rounds (least to most); "
        f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores"
    )
    yardstick = taken[f"{YARDSTICK}; {NAMES}"]
    for name, times in taken.items():
        ratio = median(time / imports for time, imports in zip(times, yardstick, strict=True))
        print(f"{median(times):6.2f}  ({min(times):.2f} to {max(times):.2f})  {ratio:5.2f} x  {name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each command runs")
    main(parser.parse_args().rounds)
