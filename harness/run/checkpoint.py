"""A model without its weights: what prompts and manifests need to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """A model without its weights: what prompts and manifests need of it.

    Attributes:
        spec: the model.
        config: its configuration.
        tokenizer: its tokenizer; None where no task needs one.
        end_ids: its own end tokens.
        identity: what numbers depend on.
        provenance: versions, device, command.
    """

    spec: ModelSpec
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase | None
    end_ids: frozenset[int]
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]


def read_checkpoint(spec: ModelSpec, needs_tokenizer: bool) -> Checkpoint:
    """Everything of a model but its weights.

    Raises:
        ConfigError, ModelError: it cannot be used.
    """
    check_model_name(spec.label, "model.name")
    config = spec.config()
    where = provenance(str(choose_device(spec.device)))
    tokenizer = spec.tokenizer() if needs_tokenizer else None
    return Checkpoint(spec, config, tokenizer, spec.end_ids(config, tokenizer), spec.identity(config), where)


def checkpoint_of(engine: Engine, needs_tokenizer: bool) -> Checkpoint:
    """The same of a model that is loaded already.

    Raises:
        ConfigError: the task needs a tokenizer, and the engine has none.
        ModelError: what lies where it was loaded from cannot be read.
    """
    if engine.spec is not None:
        return read_checkpoint(engine.spec, needs_tokenizer)
    model, tokenizer = engine.model, engine.tokenizer if needs_tokenizer else None
    if needs_tokenizer and tokenizer is None:
        raise ConfigError(
            f"model={engine.name} has no tokenizer, and the task has texts: give Engine.wrap the tokenizer"
        )
    dtype = str(model.dtype).removeprefix("torch.")
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    return Checkpoint(
        spec=ModelSpec(engine.name, name=engine.name, device=str(model.device)),
        config=model.config,
        tokenizer=tokenizer,
        end_ids=all_end_ids(named, model.config, tokenizer),
        identity={"weights": memory_sha256(model), "dtype": dtype},
        provenance=provenance(str(model.device)),
    )
