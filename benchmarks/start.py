"""The cost of starting kvgauge and its commands.

    python benchmarks/start.py [--rounds 5]

Commands run one after the other, in rounds. Times are CPU seconds, user and system, of the whole process and its
children, and medians over rounds. The yardstick is the import of torch and of the parts of transformers without which
no prompt can be planned: the tokenizer and the configuration, which for the embedded model is Llama's. Ratios to it are
taken within a round, because a machine's pace changes from one round to the next, and their median is shown. What a
small run does beside importing is the median of its differences to a process that imports every module that it imports.
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
SMALL = "run.py, two prompts of 300 tokens, the embedded model"
IMPORTS = f"the imports of {SMALL}"
# Run a script, then print the names of the modules that it imported; import modules of these names.
_NAMES_OF = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    found = [name for name, module in sys.modules.items() if getattr(module, "__spec__", None) is not None]
    print("modules:", *[name for name in found if name != "__main__"])
"""
_IMPORT = """
import contextlib, importlib, pathlib, sys
for name in pathlib.Path(sys.argv[1]).read_text().split():
    with contextlib.suppress(ImportError):  # names that only their parents make
        importlib.import_module(name)
"""
COMMANDS = {
    YARDSTICK: ("-c", YARDSTICK),
    f"{YARDSTICK}; {NAMES}": ("-c", f"{YARDSTICK}; {NAMES}"),
    SMALL: RUN,
    IMPORTS: ("-c", _IMPORT),
    "import kvgauge": ("-c", "import kvgauge"),
    "run.py dry_run=true": ("run.py", "dry_run=true"),
    "kvgauge list": ("-m", "kvgauge", "list"),
    "kvgauge completion --words (a TAB)": ("-m", "kvgauge", "completion", "--words", "kvgauge method="),
    "kvgauge report": ("-m", "kvgauge", "report"),
    "kvgauge status": ("-m", "kvgauge", "status"),
}


def run(words: tuple[str, ...]) -> str:
    """Run Python with these words; what it printed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def seconds(words: tuple[str, ...]) -> float:
    """CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int) -> None:
    """Run the benchmark and print its table."""
    with TemporaryDirectory() as folder:
        # Writes the results to report, and fills Python's bytecode cache.
        printed = run(("-c", _NAMES_OF, *RUN, f"results_dir={folder}"))
        modules = Path(folder) / "modules.txt"
        modules.write_text(printed.rpartition("modules:")[2])
        last = {"kvgauge report": (folder,), "kvgauge status": (folder,), IMPORTS: (str(modules),)}
        commands = {name: (*words, *last.get(name, ())) for name, words in COMMANDS.items()}
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
    beyond = [small - imports for small, imports in zip(taken[SMALL], taken[IMPORTS], strict=True)]
    print(f"{median(beyond):6.2f}  ({min(beyond):.2f} to {max(beyond):.2f})           {SMALL}, beyond its imports")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each command runs")
    main(parser.parse_args().rounds)
