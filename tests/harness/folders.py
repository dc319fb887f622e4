"""What a run left in its results folder, for tests that hold two of them against each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def records(cell: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(cell.glob("records.*.jsonl")) for line in path.read_text().splitlines()]


def cells(results: Path, task: str = "tokens", model: str = "tiny") -> dict[str, Path]:
    return {path.name: path for path in sorted((results / model / task).iterdir()) if path.is_dir()}


def outcome(results: Path, task: str = "tokens") -> dict[str, dict[str, Any]]:
    """Everything but provenance: scores as bytes, records by example."""
    return {
        name: {"scores": (cell / "scores.json").read_bytes(), "records": sorted(map(json.dumps, records(cell)))}
        for name, cell in cells(results, task).items()
    }
