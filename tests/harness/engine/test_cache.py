"""Rows that leave the cache: which buckets are copied, and where the others then stand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from harness.engine.buckets import LayerKV, PlainBucket
from harness.engine.cache import KVCache
from harness.engine.layer_forms import PLAIN


def test_only_buckets_of_which_some_rows_leave_and_some_stay_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, selected = KVCache([PLAIN] * 2), list[list[int]]()
    real = PlainBucket.select

    def select(bucket: PlainBucket, rows: Sequence[int]) -> None:
        selected.append(list(rows))
        real(bucket, rows)

    monkeypatch.setattr(PlainBucket, "select", select)
    entries = [1, 2, 2, 2, 3, 4, 4]
    cache.add(
        [[LayerKV(torch.full((1, n, 1), float(row)), torch.zeros(1, n, 1))] * 2 for row, n in enumerate(entries)], 3
    )
    cache.keep([1, 3, 5, 6])
    assert selected == [[0, 2]] * 2
    for place, row in enumerate([1, 3, 5, 6]):
        for layer in cache.row(place):
            assert layer.keys.unique().tolist() == [row] and layer.keys.shape[1] == entries[row]
    cache.keep([])
    assert len(selected) == 2 and cache._layers == [[], []]
