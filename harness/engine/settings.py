"""How rows are computed: settings that change speed and memory, never what is computed but for rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from harness.errors import ConfigError
from harness.kernels import Kernels
from harness.kernels.probe import why_not

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
        kernels: ``torch``; ``triton`` for the project's own kernels, on a CUDA device; ``auto`` for these where they can run.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    width: int | Literal["auto"]
    exact: bool
    prefill_chunk: int | Literal["auto"] | None
    reuse_prefix: bool
    time_limit_seconds: float | None
    audit: float
    kernels: Kernels | Literal["auto"]

    def __post_init__(self) -> None:
        if self.width != "auto" and not _is_whole(self.width):
            raise ConfigError(f"engine.width={self.width} is not a whole number of 1 or more: use engine.width=64, or auto")
        if self.prefill_chunk not in (None, "auto") and not _is_whole(self.prefill_chunk):
            raise ConfigError(
                f"engine.prefill_chunk={self.prefill_chunk} is no number of tokens: use null, auto or engine.prefill_chunk=8192"
            )
        for knob in ("exact", "reuse_prefix"):
            if not isinstance(getattr(self, knob), bool):
                raise ConfigError(f"engine.{knob}={getattr(self, knob)} is neither true nor false: use one of them")
        limit = self.time_limit_seconds
        if limit is not None and not (_is_number(limit) and 0 < limit < float("inf")):
            raise ConfigError(f"engine.time_limit_seconds={limit} is no number of seconds above 0: use null for no limit")
        if not _is_number(self.audit) or not 0 <= self.audit <= 1:
            raise ConfigError(f"engine.audit={self.audit} is no share of 0 to 1: use engine.audit=0.02 for one row in fifty")
        if self.kernels not in ("auto", *get_args(Kernels)):
            raise ConfigError(f"engine.kernels={self.kernels} is unknown: use auto, {' or '.join(get_args(Kernels))}")

    def kernels_on(self, device: torch.device) -> Kernels:
        """What computes on a device.

        Raises:
            ConfigError: the project's are asked for where they cannot run.
        """
        if self.kernels == "torch":
            return "torch"
        reason = why_not(device)
        if reason is not None and self.kernels == "triton":
            raise ConfigError(f"engine.kernels=triton {reason}: use engine.kernels=auto")
        return "triton" if reason is None else "torch"

    @property
    def chunk_tokens(self) -> int | None:
        """Tokens of a piece; None where prompts are prefilled in one."""
        return _CHUNK_TOKENS if self.prefill_chunk == "auto" else self.prefill_chunk


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
