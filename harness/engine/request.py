"""What is asked of the engine for one prompt, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.compression.grid import Variant
from harness.engine.decode import Generated
from harness.engine.prefill import Kept
from harness.engine.prefix import prefix_order
from harness.engine.prompt import Prompt
from harness.results import Audit, Cell


@dataclass(frozen=True)
class Known:
    """What a variant that needs no computing kept of a prompt and generated from it.

    Attributes:
        kept_sha256: hash of the kept indices.
        generated: its tokens.
    """

    kept_sha256: str
    generated: Generated


@dataclass(frozen=True)
class Request:
    """What is still to be generated from one prompt.

    Attributes:
        prompt: the prompt.
        missing: variants without an outcome, in the order of the grid.
        known: what other cells of the grid have of this prompt.
        hold: lengths of those of its beginnings that later requests go on from, ascending.
    """

    prompt: Prompt
    missing: tuple[Variant, ...]
    known: Mapping[Cell, Known]
    hold: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What one variant of one prompt came to.

    Attributes:
        generated: its tokens, or why there are none.
        kept: what was kept of the prompt, its entries taken over by decoding; None where the prefill did not come to
            its end.
        full_bytes: bytes of the stock full cache; 0 where ``kept`` is None.
        alias_of: the cell whose row stands for this one, as it kept exactly the same entries; None if it has its own.
        audit: what decoding the row again alone gave; None where it was not.
    """

    generated: Generated
    kept: Kept | None = None
    full_bytes: int = 0
    alias_of: Cell | None = None
    audit: Audit | None = None


def in_prefix_order(requests: Sequence[Request]) -> list[Request]:
    """Requests in the order in which what their prompts begin with is prefilled once, each with what to hold."""
    order = prefix_order([request.prompt.ids for request in requests])
    return [replace(requests[index], hold=hold) for index, hold in order]
