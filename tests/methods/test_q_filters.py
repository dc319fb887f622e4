"""Q-Filters says in one line what is wrong with its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.compression.method import LayerState
from harness.errors import ConfigError
from methods.q_filters import QFilters


def layer_state(kv_heads: int = 2) -> LayerState:
    queries, keys, values = (torch.randn(heads, 12, 8) for heads in (2 * kv_heads, kv_heads, kv_heads))
    return LayerState(queries, keys, values, 1, 3, 8**-0.5, torch.float32)


def saved(folder: Path, **tensors: torch.Tensor) -> str:
    path = folder / "filters.safetensors"
    save_file(tensors, path)
    return str(path)


def test_keys_that_lie_along_the_filter_are_dropped_first(tmp_path: Path) -> None:
    filters, layer = torch.randn(3, 2, 8), layer_state()
    scores = QFilters("q", saved(tmp_path, q_filters=filters)).scorer.score(layer)
    torch.testing.assert_close(scores, -torch.einsum("htd,hd->ht", layer.keys, filters[1]))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"filters": torch.zeros(3, 2, 8)}, "has no finite tensor q_filters"),
        ({"q_filters": torch.zeros(2, 8)}, "has no finite tensor q_filters"),
        ({"q_filters": torch.full((3, 2, 8), torch.nan)}, "has no finite tensor q_filters"),
    ],
)
def test_a_file_of_another_form_is_refused(tensors: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        QFilters("q", saved(tmp_path, **tensors))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_missing_or_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file"):
        QFilters("q", str(tmp_path / "none"))
    (tmp_path / "text").write_text("not a tensor")
    with pytest.raises(ConfigError, match="is no safetensors file"):
        QFilters("q", str(tmp_path / "text"))


def test_filters_of_another_model_are_refused(tmp_path: Path) -> None:
    scorer = QFilters("q", saved(tmp_path, q_filters=torch.zeros(3, 2, 8))).scorer
    with pytest.raises(ConfigError, match=r"shape \[3, 2, 8\] for a model of \[3, 4, 8\]"):
        scorer.score(layer_state(kv_heads=4))
