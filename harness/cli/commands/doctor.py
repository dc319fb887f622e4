"""``kvgauge doctor``: the machine's devices, packages and data, and what will be slow or refused on it."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from huggingface_hub import constants
from rich.console import Console

from harness.config.build import build, task_config
from harness.config.catalog import choices
from harness.engine.hub import is_reachable
from harness.printing import lines, say, width_of
from harness.task import DataSource

HELP = "Tell what this machine has, what will be slow or refused on it, and what data is found."
_PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "hydra-core",
    "accelerate",
    "safetensors",
    "gguf",
    "wandb",
    "python-Levenshtein",
    "triton",
)
_GIB = 2**30
_SOME_MODEL = "openai-community/gpt2"
"""A public model, for asking the hub whether it answers."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``doctor [--results FOLDER]``."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="where results would go (default: results)"
    )


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print facts, then one line for each thing that will be slow or refused."""
    facts = [*_facts(arguments.results), *_packages()]
    wide = max(len(name) for name, _ in facts)
    for name, value in facts:
        for row, line in enumerate(lines(value, width_of(console) - wide - 2)):
            console.print(f"{name if row == 0 else '':{wide}}  {line}", markup=False, soft_wrap=True)
    console.print()
    findings = _findings(arguments.results)
    for line in findings:
        say(console, f"- {line}", indent="  ")
    if not findings:
        console.print("Nothing stands in the way.")


def _facts(results: Path) -> list[tuple[str, str]]:
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    devices = [f"{card.name}, {card.total_memory / _GIB:.0f} GiB" for card in cards]
    return [
        ("python", platform.python_version()),
        ("device", "; ".join(devices) or f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores"),
        ("memory", f"{_memory_bytes() / _GIB:.1f} GiB"),
        ("free disk", f"{_free_bytes(results) / _GIB:.1f} GiB where {results} lies"),
        ("hub", f"{_hub()}, cache in {constants.HF_HUB_CACHE}"),
        *_data(),
    ]


def _data() -> list[tuple[str, str]]:
    """The path of each task's data, for tasks whose data can be fetched; a preset that inherits a task is left out."""
    paths = {}
    for task in choices("task"):
        built = build(task_config(task.name)) if task.target and "???" not in task.text else None
        if isinstance(built, DataSource):
            paths[task.name] = str(built.cached() or f"not in the cache: kvgauge data {task.name} fetches it")
    return list(paths.items())


def _packages() -> list[tuple[str, str]]:
    versions = []
    for package in _PACKAGES:
        try:
            versions.append((package, version(package)))
        except PackageNotFoundError:
            versions.append((package, "not installed"))
    return versions


def _findings(results: Path) -> list[str]:
    lines = []
    if not torch.cuda.is_available():
        lines.append(
            "No CUDA device: models of billions of parameters take minutes for a prompt; model=tiny runs in seconds."
        )
        lines.append(
            "float16 is several times slower than float32 on a CPU: give model.dtype=float32 where a preset says "
            "float16."
        )
    elif not torch.cuda.is_bf16_supported(including_emulation=False):
        lines.append("The card computes no bfloat16: give model.dtype=float16.")
    if dict(_packages())["python-Levenshtein"] == "not installed":
        lines.append(
            "python-Levenshtein is not there, and is not needed: task.code_similarity=levenshtein is computed with "
            "rapidfuzz."
        )
    if _offline():
        lines.append(
            "HF_HUB_OFFLINE is set: models and the data of tasks must be in the cache or given as local paths."
        )
    elif not is_reachable(_SOME_MODEL):
        lines.append(
            f"This machine is offline, as {constants.ENDPOINT} does not answer: models and the data of tasks must be "
            "in the cache or given as local paths."
        )
    if _free_bytes(results) < _GIB:
        lines.append("Less than 1 GiB of disk is free: a LongBench grid writes about 1 GiB of records.")
    return lines


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_bytes(results: Path) -> int:
    folder = results.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _hub() -> str:
    if _offline():
        return "offline (HF_HUB_OFFLINE)"
    return f"{constants.ENDPOINT} {'answers' if is_reachable(_SOME_MODEL) else 'does not answer'}"


def _offline() -> bool:
    return bool(constants.HF_HUB_OFFLINE)
