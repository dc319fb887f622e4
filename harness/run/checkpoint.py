"""A model without its weights: what prompts and manifests need to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.engine.layer_forms import layer_notes, layer_windows
from harness.engine.model_notes import generation_notes
from harness.engine.model_spec import ModelSpec, all_end_ids, choose_device
from harness.engine.weights_hash import memory_sha256
from harness.errors import ConfigError
from harness.run.provenance import provenance
from harness.text import check_model_name

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from harness.engine.engine import Engine


@dataclass(frozen=True)
class Checkpoint:
    """A model without its weights: what prompts and manifests need to know of it.

    Attributes:
        spec: where the model lies and how it is to be loaded.
        config: its configuration.
        tokenizer: its tokenizer; None if no task needs one.
        end_ids: ids of its own end tokens.
        notes: what its files would do to its answers and is not done here.
        identity: what of the model the numbers depend on.
        provenance: versions, device and command of this process.
    """

    spec: ModelSpec
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase | None
    end_ids: frozenset[int]
    notes: tuple[str, ...]
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]


def read_checkpoint(spec: ModelSpec, needs_tokenizer: bool) -> Checkpoint:
    """Read everything of a model but its weights.

    Args:
        spec: the model.
        needs_tokenizer: whether to read the tokenizer.

    Raises:
        ConfigError, ModelError: the model cannot be used.
    """
    check_model_name(spec.label, "model.name")
    config = spec.config()
    origin = provenance(str(choose_device(spec.device)))
    tokenizer = spec.tokenizer() if needs_tokenizer else None
    generation = spec.generation(config)
    return Checkpoint(
        spec=spec,
        config=config,
        tokenizer=tokenizer,
        end_ids=all_end_ids(generation.eos_token_id, config, tokenizer),
        notes=(*layer_notes(config), *generation_notes(generation)),
        identity=spec.identity(config),
        provenance=origin | _windows(config),
    )


def checkpoint_of(engine: Engine, needs_tokenizer: bool) -> Checkpoint:
    """The checkpoint of a model that is already loaded.

    Args:
        engine: the model.
        needs_tokenizer: whether the task needs a tokenizer.

    Raises:
        ConfigError: the task needs a tokenizer, and the engine has none.
        ModelError: the files that the model was loaded from cannot be read.
    """
    if engine.spec is not None:
        return read_checkpoint(engine.spec, needs_tokenizer)
    model, tokenizer = engine.model, engine.tokenizer if needs_tokenizer else None
    if needs_tokenizer and tokenizer is None:
        raise ConfigError(
            f"model={engine.name} has no tokenizer, and the task has texts: give Engine.wrap the tokenizer"
        )
    dtype = str(model.dtype).removeprefix("torch.")
    end_id = model.generation_config.eos_token_id if model.generation_config is not None else None
    return Checkpoint(
        spec=ModelSpec(engine.name, name=engine.name, device=str(model.device)),
        config=model.config,
        tokenizer=tokenizer,
        end_ids=all_end_ids(end_id, model.config, tokenizer),
        notes=(*layer_notes(model.config), *generation_notes(model.generation_config)),
        identity={"weights": memory_sha256(model), "dtype": dtype},
        provenance=provenance(str(model.device)) | _windows(model.config),
    )


def _windows(config: PretrainedConfig) -> dict[str, int]:
    """What a manifest says of a model some of whose layers have windows: how many."""
    windows = layer_windows(config)
    return {"window_layers": len(windows) - windows.count(None)} if any(windows) else {}
