"""R-KV beside its goldens: what comparing all keys takes."""

from __future__ import annotations

import torch

from methods.r_kv import redundancy
from tests.harness.engine.test_memory import Largest


def test_many_keys_are_compared_a_bounded_number_at_a_time() -> None:
    keys = torch.randn(1, 4096, 2, generator=torch.Generator().manual_seed(0))
    with Largest() as seen:
        redundancy(keys, 8, "last")
    assert seen.bytes == 4 * 2**21
