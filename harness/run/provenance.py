"""The provenance of a cell: versions, commit, source hash, device and command of the run that began it."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from harness.config.catalog import ROOT
from harness.config.outside import files_sha256

_PACKAGES = ("kvgauge", "torch", "transformers", "tokenizers", "safetensors", "numpy", "rouge-score")


def provenance(device: str) -> dict[str, Any]:
    """What a manifest says about the process that began a cell.

    Args:
        device: the device that the model runs on.
    """
    import torch  # here, because importing predictions or reading results needs no torch until this is called

    from harness.engine import tensor_parallel

    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if (status := _git("status", "--porcelain", "--untracked-files=no")) is None else bool(status),
        "source_sha256": _source_sha256(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else platform.machine() + " " + device,
        "processes": tensor_parallel.count(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


@cache
def _source_sha256() -> str:
    """Hash of the running code, which a commit does not identify in a dirty checkout or in a wheel."""
    return files_sha256(
        (ROOT, path) for folder in ("harness", "methods", "tasks") for path in (ROOT / folder).rglob("*.py")
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    """The output of git in this file's checkout; None in an installed wheel or without git."""
    if not (ROOT / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=20,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
