"""Which rows are choices from the keys and values of their prompt, and which of them share these while they decode.

All are choices until they decode if the prompt takes less memory than what they keep; those share it that take less
time so, by what heads read and cost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from harness.compression.grid import Plan
from harness.compression.method import LayerState
from harness.compression.selection import Selection
from harness.engine import tensor_parallel
from harness.kernels import Kernels
from harness.results import by_head

# What rows that share a prompt cost, in rows that read a whole one (benchmarks/shared_rows.py): all of them together 1,
# and each this much by torch's products or by oneDNN's, once and for every query head of a kv head.
_COST, _COST_BY_ONEDNN = 1 / 20, 1 / 36
# Others would round the logits that lie between the products.
_DTYPES = torch.float32, torch.float64


def choosing(plans: Collection[Plan], state: LayerState, selection: Selection) -> Mapping[Plan, bool]:
    """The plans whose rows are choices until they decode, and whether they share the prompt then.

    Args:
        plans: those of a prompt.
        state: one of its layers.
        selection: how entries are selected.
    """
    keys = state.keys
    if not _lies_whole(state):
        return {}
    kv_heads, tokens, _ = keys.shape
    copies = state.queries.shape[0] // kv_heads
    each = copies if selection.granularity == "query_head" else 1
    # Entries that are not as the model made them are no choice; what keeps everything does so for kv heads.
    shares = {plan: _share(plan, tokens) * (1 if plan.scorer is None else each) for plan in plans if not plan.changes}
    if sum(shares.values()) <= 1:
        return {}
    cost, able = row_cost(copies, state.kernels), can_share(state)
    sharing = {plan: share for plan, share in shares.items() if able and share > cost}
    return {plan: plan in sharing and pays(sharing.values(), cost) for plan in shares}


def can_share(state: LayerState) -> bool:
    """Whether rows can attend by products with all entries of a prompt in such a layer."""
    by_products = state.kernels != "triton" and state.softmax.is_plain
    return by_products and state.keys.dtype in _DTYPES and _lies_whole(state)


def _lies_whole(state: LayerState) -> bool:
    """Whether a layer lies on a CPU, with all of its heads."""
    return state.keys.device.type == "cpu" and tensor_parallel.count() == 1


def row_cost(copies: int, kernels: Kernels) -> float:
    """What a row costs that shares a prompt, with so many query heads for each kv head."""
    return (_COST_BY_ONEDNN if kernels == "onednn" else _COST) * (1 + copies)


def pays(shares: Collection[float], cost: float) -> bool:
    """Whether two rows or more take less time if they share their prompt.

    Args:
        shares: what each reads by itself, in entries of the whole prompt.
        cost: see ``row_cost``.
    """
    return len(shares) > 1 and sum(share - cost for share in shares) > 1


def _share(plan: Plan, tokens: int) -> float:
    """The share of a prompt that a plan keeps, on average over layers and heads; of one that waits, its budget."""
    layers = [sum(heads) / len(heads) for heads in (tuple(by_head(counts)) for counts in plan.keep)]
    return sum(layers) / (len(layers) * tokens) if layers else 0.0
