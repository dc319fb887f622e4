"""A clock that goes on by the work of a model alone, so that estimates of time are tested without timing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook


@pytest.fixture
def work_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let ``time.monotonic`` count the work of linear layers: a part for each call and a part for each product."""
    seconds = 0.0

    def work(module: torch.nn.Module, given: tuple[Any, ...], _: object) -> None:
        nonlocal seconds
        if isinstance(module, torch.nn.Linear):
            seconds += 2e-5 + 1e-10 * given[0].numel() * module.out_features

    hook = register_module_forward_hook(work)
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    yield
    hook.remove()
