"""Checks of a checkpoint against its configuration: every weight has a place, and every place has a weight."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from harness.errors import ModelError
from harness.text import plain

_HARMLESS = re.compile(
    r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$"  # computed from the configuration
    r"|\.attn\.(masked_)?bias$|\.attention\.(masked_)?bias$|position_ids$"  # masks and counters of earlier releases
    r"|^v_head\.|_extra_state$"  # the value head of a reward model; notes of Transformer Engine
)
"""Keys that do not change logits and that many published checkpoints have."""


def refuse_adapter(path: str, found: str | None) -> None:
    """Refuse an adapter, alone or beside full weights, which would be evaluated without it.

    Args:
        path: the model's path: a folder or a hub id.
        found: the adapter's file; None if there is none.

    Raises:
        ModelError: there is an adapter.
    """
    if found is not None:
        other = "move the adapter's files elsewhere" if Path(path).is_dir() else "give the model that it adapts"
        raise ModelError(
            f"model.path={path} has an adapter ({Path(found).name}), and weights are read without it: merge it into "
            f"them (merge_and_unload and save_pretrained of peft), or {other}"
        )


def refuse_outside(path: str, folder: Path) -> None:
    """Refuse a list of weights files that names others than those of its folder, of which the model's hash is made.

    Args:
        path: the model's path, for errors.
        folder: the model's folder.

    Raises:
        ModelError: names the first such file; or the list cannot be read.
    """
    file = folder / "model.safetensors.index.json"
    if not file.is_file():
        return
    try:
        named = json.loads(file.read_text("utf-8"))["weight_map"].values()
        wrong = next((name for name in named if Path(name).name != name), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"model.path={path} has a {file.name} that is no list of weights: fetch it again") from error
    if wrong is not None:
        raise ModelError(
            f"{file.name} of model.path={path} names {plain(wrong)[:80]}, which is not in the folder: fetch it again"
        )


def refuse_misfits(path: str, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Refuse a checkpoint that does not fit its configuration.

    Args:
        path: the model's path, for errors.
        missing: weights that the configuration has a place for and the checkpoint lacks.
        unexpected: weights of the checkpoint that the configuration has no place for.

    Raises:
        ModelError: with the first weight of a kind and the number of the others.
    """
    if missing:
        raise ModelError(
            f"model.path={path} has no weights for {_first(missing)}: the checkpoint is incomplete, or its config.json "
            "is that of another model"
        )
    if left := [key for key in unexpected if not _HARMLESS.search(key)]:
        raise ModelError(
            f"model.path={path} has weights that its config.json has no place for, {_first(left)}, and without them it "
            "is another model: correct config.json (number of layers, biases, quantization), or take the unused "
            "weights out of the checkpoint"
        )


def _first(keys: Collection[str]) -> str:
    first, others = min(keys), len(keys) - 1
    return f"{first} and {others} more" if others else first
