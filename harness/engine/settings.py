"""Settings of the engine: they change speed and memory, and results by rounding alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from msgspec import Meta

from harness.engine.layer_forms import why_not_plain
from harness.engine.model_spec import ModelSpec, choose_device
from harness.errors import ConfigError
from harness.kernels import Kernels
from harness.kernels.probe import why_not
from harness.kernels.products import onednn_is_faster, why_not_onednn
from harness.values import LARGEST, Refusal, Size, check

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# For ``unsaved_tokens=auto``. On a CPU: some seconds of prefills of a small model, and more than a short prompt. On a
# card it is a guess, no measurement: eight prompts of 32k tokens, so that as many can decode together, which should
# cost well below a minute of prefills with a model of 8 billion parameters, and more with a larger one.
_UNSAVED_TOKENS = {"cpu": 4096, "cuda": 262_144}
# For ``prefill_chunk=auto``: so many tokens fill any card, and their activations are small beside the weights.
_CHUNK_TOKENS = 8192


@dataclass(frozen=True)
class EngineSettings:
    """The ``engine`` group of the configuration.

    Attributes:
        width: largest number of rows that decode together, 1 or more; ``auto`` for what fits into half of the free
            memory.
        exact: whether every row decodes alone, whatever ``width`` says.
        prefill_chunk: prompts are prefilled in chunks of so many tokens; ``auto`` for 8192, None for whole prompts.
        reuse_prefix: whether a beginning that prompts share is prefilled once.
        time_limit_seconds: limit on one prompt's prefill and on scoring one text; None for no limit.
        audit: share of the decoded rows that are decoded again alone, 0-1.
        kernels: ``torch``; on a CUDA device ``triton`` for the project's own kernels; on a CPU ``onednn`` for float32
            products by that library; ``auto`` for triton where it can run, and for onednn where it is faster.
        unsaved_tokens: a further prompt starts only while the tokens of prompts that have started and are not written
            are at most so many, its own included; one prompt at a time always may. ``auto`` for 4096 on a CPU, some
            seconds of a small model's work, and for 262144 on a card, which is a guess and was not measured.
        row_time_limit_seconds: limit on the decoding of one answer, from when its row joins the batch; None for no
            limit.
        save_tokens: what rows that are longer than so many new tokens have generated is saved every so many steps, for
            a run that goes on after a kill; None to save nothing.

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
    unsaved_tokens: Annotated[
        Size | Literal["auto"], Refusal("is no number of tokens", "use auto or engine.unsaved_tokens=4096")
    ]
    row_time_limit_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=LARGEST)] | None,
        Refusal("is no number of seconds above 0", "use null for no limit"),
    ] = None
    save_tokens: Annotated[Size | None, Refusal("is no number of tokens", "use null or engine.save_tokens=512")] = None

    def __post_init__(self) -> None:
        check(self, "engine")

    def kernels_of(self, spec: ModelSpec, config: PretrainedConfig) -> Kernels:
        """The kernels to use for a model; see ``choose_kernels``."""
        return choose_kernels(self.kernels, choose_device(spec.device), config, spec.in_blocks(config))

    def unsaved_tokens_on(self, device: torch.device) -> int:
        """The most tokens of prompts that have started and are not written."""
        if self.unsaved_tokens == "auto":
            return _UNSAVED_TOKENS.get(device.type, _UNSAVED_TOKENS["cpu"])
        return self.unsaved_tokens

    @property
    def chunk_tokens(self) -> int | None:
        """Tokens of a chunk; None if prompts are prefilled whole."""
        return _CHUNK_TOKENS if self.prefill_chunk == "auto" else self.prefill_chunk


def choose_kernels(
    kernels: Kernels | Literal["auto"],
    device: torch.device,
    config: PretrainedConfig | None = None,
    in_blocks: bool = True,
) -> Kernels:
    """The kernels to use on a device.

    Args:
        kernels: a value of ``engine.kernels``.
        device: the model's device.
        config: the configuration of the model to use them for; None for one whose layers are all plain.
        in_blocks: whether its linear layers are laid out in blocks; see ``ModelSpec``.

    Raises:
        ConfigError: kernels were asked for that cannot run on this device, or not with this model.
    """
    if kernels == "torch":
        return "torch"
    wanted: Kernels = kernels if kernels != "auto" else "onednn" if device.type == "cpu" else "triton"
    if wanted == "onednn":
        reason = why_not_onednn(device) if in_blocks else "is for float32 weights that were loaded onto one CPU"
    else:
        reason = (why_not_plain(config) if config is not None else None) or why_not(device)
    if kernels == "auto":
        return wanted if reason is None and (wanted == "triton" or onednn_is_faster()) else "torch"
    if reason is not None:
        raise ConfigError(f"engine.kernels={kernels} {reason}: use engine.kernels=auto")
    return wanted
