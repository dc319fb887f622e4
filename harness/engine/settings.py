"""How rows are computed: settings that change speed and memory, never what is computed but for rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta

from harness.errors import ConfigError
from harness.kernels import Kernels
from harness.kernels.probe import why_not
from harness.values import LARGEST, Refusal, Size, check

# ``prefill_chunk=auto``: a piece of this many tokens fills any card, and its activations are small beside the weights.
_CHUNK_TOKENS = 8192


@dataclass(frozen=True)
class EngineSettings:
    """The ``engine`` group of the configuration.

    Attributes:
        width: rows that decode together at most, 1 or more; ``auto`` for what fits into half of the free memory.
        exact: decode every row alone, whatever ``width`` says.
        prefill_chunk: None, ``auto``, or the tokens of a piece in which longer prompts are prefilled.
        reuse_prefix: prefill what prompts begin with once.
        time_limit_seconds: of one prompt's prefill and of scoring one text; None for no limit.
        audit: share of the decoded rows that are decoded again alone, 0-1.
        kernels: ``torch``; ``triton`` for the project's own kernels, on a CUDA device; ``auto`` for these where they
            can run.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    width: Annotated[
        Size | Literal["auto"], Refusal("is not a whole number of 1 or more", "use engine.width=64, or auto")
    ]
    exact: bool
    prefill_chunk: Annotated[
        Size | Literal["auto"] | None, Refusal("is no number of tokens", "use null, auto or engine.prefill_chunk=8192")
    ]
    reuse_prefix: bool
    time_limit_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=LARGEST)] | None,
        Refusal("is no number of seconds above 0", "use null for no limit"),
    ]
    audit: Annotated[
        float, Meta(ge=0, le=1), Refusal("is no share of 0 to 1", "use engine.audit=0.02 for one row in fifty")
    ]
    kernels: Literal["auto"] | Kernels

    def __post_init__(self) -> None:
        check(self, "engine")

    def kernels_on(self, device: torch.device) -> Kernels:
        """What computes on a device.

        Raises:
            ConfigError: the project's are asked for where they cannot run.
        """
        return choose_kernels(self.kernels, device)

    @property
    def chunk_tokens(self) -> int | None:
        """Tokens of a piece; None where prompts are prefilled in one."""
        return _CHUNK_TOKENS if self.prefill_chunk == "auto" else self.prefill_chunk


def choose_kernels(kernels: Kernels | Literal["auto"], device: torch.device) -> Kernels:
    """What computes on a device.

    Args:
        kernels: ``engine.kernels``.
        device: the model's.

    Raises:
        ConfigError: the project's kernels are asked for where they cannot run.
    """
    if kernels == "torch":
        return "torch"
    reason = why_not(device)
    if reason is not None and kernels == "triton":
        raise ConfigError(f"engine.kernels=triton {reason}: use engine.kernels=auto")
    return "triton" if reason is None else "torch"
