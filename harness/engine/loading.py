"""Loading of a model onto its device, and the check of the engine's attention against the stock one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from harness.compression.grid import Plan
from harness.compression.selection import Selection
from harness.engine import tensor_parallel
from harness.engine.attention import WithoutEngine, install
from harness.engine.blocked_linear import block_linears
from harness.engine.decode import decode
from harness.engine.layer_forms import layer_windows
from harness.engine.memory import keep_freed_memory
from harness.engine.model_files import reading
from harness.engine.model_spec import ModelSpec, choose_device, kv_heads
from harness.engine.positions import last_position
from harness.engine.prefill import prefill
from harness.engine.quantized import is_packed
from harness.engine.rows import Limits, Row
from harness.engine.weights_check import refuse_misfits
from harness.errors import ConfigError, ModelError
from harness.kernels import Kernels

# Where the weights of a text model lie in a model that reads images or sound, too, and where they are to be.
_TEXT_MODEL_NAMES = {r"^model\.language_model\.": "model.", r"^language_model\.": ""}
_SELF_CHECK_TOKENS = 24
_SELF_CHECK_WINDOW = 7
_SELF_CHECK_LAST_ROWS = 4
# Largest allowed gap between our logits and the stock ones, in standard deviations of the logits. A missed layer makes
# a gap of about 1.
_SELF_CHECK_TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.4, torch.float16: 0.1}
_QUANTIZED_TOLERANCE = 0.4


def load_model(spec: ModelSpec, config: PretrainedConfig, kernels: Kernels = "torch") -> PreTrainedModel:
    """Load a model onto its device, install the engine's attention and check it.

    Args:
        spec: the model.
        config: what ``spec.config()`` returned.
        kernels: the kernels to check, which the run will use; see ``EngineSettings``.

    Raises:
        ConfigError: ``tp_plan`` is set, but torchrun did not start this process.
        ModelError: there are no safetensors weights, they do not fit the configuration or the device, the device does
            not exist, or the engine's logits differ from the stock ones.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]  # its bar would break up ours
    if spec.tp_plan is not None and not tensor_parallel.are_joined():
        raise ConfigError("model.tp_plan=auto is for runs, under torchrun: use model.tp_plan=null here")
    model = tensor_parallel.together(lambda: _loaded(spec, config))
    check_against_stock(model, spec.label, kernels, spec.in_blocks(config))
    return model


def _loaded(spec: ModelSpec, config: PretrainedConfig) -> PreTrainedModel:
    device, dtype = choose_device(spec.device), spec.torch_dtype(config)
    placement: dict[str, Any] = {"device_map": "auto"} if spec.device_map == "auto" else {}
    if not placement and is_packed(config):  # such weights cannot move
        placement = {"device_map": {"": device}}
    if tensor_parallel.count() > 1:
        placement = {"distributed_config": {"tp_plan": "auto"}}
    remedy = "mend or fetch its weights and config.json again"
    with reading(spec.path, "cannot be loaded", remedy, hub=not spec.is_local):
        wrapped = AutoConfig.from_pretrained(spec.files, **spec.arguments()).model_type != config.model_type
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                spec.weights(config),
                config=config,
                dtype=dtype,
                use_safetensors=True,
                key_mapping=_TEXT_MODEL_NAMES if wrapped else None,
                output_loading_info=True,
                **placement,
                **spec.arguments(),
            )
        except torch.OutOfMemoryError as error:
            more = "more processes" if tensor_parallel.count() > 1 else "model.device_map=auto"
            raise ModelError(
                f"model={spec.label} does not fit on {device}: use model.dtype=bfloat16 or {more}"
            ) from error
    model: PreTrainedModel = loaded[0]
    unexpected = [key for key in loaded[1]["unexpected_keys"] if not wrapped or key.startswith("model.layers.")]
    refuse_misfits(spec.path, loaded[1]["missing_keys"], unexpected)
    if not placement:
        model.to(device)  # type: ignore[arg-type]
        if device.type == "cpu":
            keep_freed_memory()
    model.train(False)
    return model


def check_against_stock(model: PreTrainedModel, name: str, kernels: Kernels = "torch", in_blocks: bool = False) -> None:
    """Install the engine's attention and compare one prefill and one decoding step with the stock model's.

    Token ids are random. Windows are made so narrow meanwhile, in the stock model too, that the prompt is longer than
    they are, and the last layer computes so few rows that some are left out. Weights that make the stock logits
    infinite pass: the run records them as errors.

    Args:
        model: the model, with its stock attention.
        name: the model's name, for errors.
        kernels: the kernels to check; see ``EngineSettings``.
        in_blocks: whether to lay out the weights of its linear layers in blocks; see ``block_linears``.

    Raises:
        ModelError: the logits differ by more than rounding.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = min(_SELF_CHECK_TOKENS, last_position(model.config) or _SELF_CHECK_TOKENS)
    ids = torch.randint(model.config.vocab_size, (tokens,), generator=generator).tolist()
    with narrow_windows(model, _SELF_CHECK_WINDOW):
        with torch.inference_mode():
            stock = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0, -2:].float()
        if in_blocks:
            block_linears(model, kernels)
        install(model)
        ours = _engine_logits(model, name, ids, kernels)
    if not torch.isfinite(stock).all():
        return
    tolerance = _SELF_CHECK_TOLERANCE.get(model.dtype, _QUANTIZED_TOLERANCE)
    if is_packed(model.config):  # their products round otherwise for one row than for many
        tolerance = max(tolerance, _QUANTIZED_TOLERANCE)
    gap = float((ours - stock).abs().max() / stock.std())
    if not gap <= tolerance:
        raise ModelError(
            f"model={name} ({model.config.model_type}): the engine's logits differ from the stock ones by {gap:.2g} "
            "standard deviations; its attention is not the one that its configuration tells, or its last layer mixes "
            "tokens elsewhere, and every score would be wrong: use another family"
        )


def _engine_logits(model: PreTrainedModel, name: str, ids: Sequence[int], kernels: Kernels) -> torch.Tensor:
    """The engine's logits [2, vocabulary] of what follows the last two tokens, the last of which is decoded."""
    layers = layer_windows(model.config).count(None)
    selection = Selection(granularity="kv_head", group="mean", ties="stable", dtype="float32")
    try:
        plans = [Plan((len(ids),) * layers, None)]
        done = prefill(model, name, ids[:-1], plans, selection, last_rows=_SELF_CHECK_LAST_ROWS)
    except WithoutEngine as error:
        raise ModelError(
            f"model={name} ({model.config.model_type}) does not hand the engine on to its attention in this release of "
            "transformers, so that nothing could be compressed: use another family"
        ) from error
    here, all_heads = done.kept[0].layers[0].keys.shape[0], kv_heads(model.config)
    if tensor_parallel.count() > 1 and tensor_parallel.count() * here != all_heads:
        raise ModelError(
            f"model={name} ({model.config.model_type}) has a tensor-parallel plan in transformers that gives each of "
            f"{tensor_parallel.count()} processes {here} of its {all_heads} kv heads: use model.device_map=auto"
        )
    forced = torch.full_like(done.logits, 0.0)
    forced[ids[-1]] = 1.0
    rows = [Row(len(ids) - 1, forced, done.kept[0].layers)]
    seen: list[torch.Tensor] = []
    decode(model, name, rows, Limits(frozenset(), 2), observe=lambda _, logits: seen.append(logits[0]), kernels=kernels)
    return torch.stack([done.logits, *seen[1:]])


@contextmanager
def narrow_windows(model: PreTrainedModel, size: int) -> Iterator[None]:
    """Make windows of more than so many tokens as narrow, for everything that runs in the ``with`` block."""
    owners: list[Any] = [model.config, *(module for module in model.modules() if hasattr(module, "layer_idx"))]
    wide = [
        (owner, setting, value)
        for owner in owners
        for setting in ("sliding_window", "attention_chunk_size")
        if isinstance(value := getattr(owner, setting, None), int) and value > size
    ]
    for owner, setting, _ in wide:
        setattr(owner, setting, size)
    try:
        yield
    finally:
        for owner, setting, value in wide:
            setattr(owner, setting, value)
