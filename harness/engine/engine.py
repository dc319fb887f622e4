"""The engine: a loaded model that turns prompts into kept entries, and kept entries into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from harness.compression.grid import Plan
from harness.compression.selection import Selection
from harness.engine.attention import refuse_config
from harness.engine.decode import Decoding, Observer, decode
from harness.engine.layer_forms import layer_windows
from harness.engine.loading import check_against_stock, load_model
from harness.engine.model_spec import ModelSpec, choose_device
from harness.engine.prefill import Prefilled, extend, prefill
from harness.engine.prefill_attention import Past
from harness.engine.replay import Encode
from harness.engine.rows import Generated, Limits, Row
from harness.engine.settings import choose_kernels
from harness.errors import ConfigError
from harness.kernels import Kernels
from harness.text import check_name

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Engine:
    """A model that prefills exactly and decodes from compressed caches.

    It knows nothing of tasks, results folders or configuration files.

    Attributes:
        model: with ``attention.install`` applied.
        name: the model's name in errors and results.
        kernels: ``torch``; on a CUDA device ``triton`` for the attention of decoding steps and H2O's column sums; on a
            CPU ``onednn`` for products of float32 numbers.
        spec: where the model was loaded from; None for a model that was already in memory.
        tokenizer: the tokenizer of a model that was already in memory. That of a loaded model is read from its
            ``spec``.
    """

    model: PreTrainedModel
    name: str
    kernels: Kernels = "torch"
    spec: ModelSpec | None = None
    tokenizer: PreTrainedTokenizerBase | None = None

    @classmethod
    def load(
        cls,
        model: str | Path | ModelSpec,
        *,
        config: PretrainedConfig | None = None,
        kernels: Kernels | Literal["auto"] = "auto",
        **settings: Any,
    ) -> Engine:
        """Read a model's weights, install the engine's attention and check it against the stock attention.

        Args:
            model: a local folder, a hub id, or a ``ModelSpec``.
            config: what ``ModelSpec.config`` returned, if it was called before.
            kernels: see ``EngineSettings``.
            **settings: fields of ``ModelSpec`` for a folder or hub id: ``name``, ``revision``, ``dtype``, ``device``,
                ``device_map`` and so on.

        Raises:
            ConfigError: a setting that cannot be used here.
            ModelError: the model cannot be read, or cannot be evaluated exactly.
        """
        if unknown := set(settings) - {field.name for field in fields(ModelSpec)}:
            raise ConfigError(f"{unknown.pop()} is no setting of a model: Engine.load takes the fields of ModelSpec")
        spec = model if isinstance(model, ModelSpec) else ModelSpec(str(model), **settings)
        config = spec.config() if config is None else config
        chosen = choose_kernels(kernels, choose_device(spec.device), config, spec.in_blocks(config))
        loaded = load_model(spec, config, chosen)
        return cls(loaded, spec.label, chosen, spec)

    @classmethod
    def wrap(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        name: str | None = None,
        kernels: Kernels | Literal["auto"] = "auto",
    ) -> Engine:
        """Take a model that transformers has loaded, replace its attention and check it against the stock attention.

        Args:
            model: the model; it is switched to evaluation mode.
            tokenizer: its tokenizer; None for prompts of token ids.
            name: its name in results; None takes the last part of the name it was loaded by.
            kernels: see ``EngineSettings``; not ``onednn``, as the model keeps its own linear layers.

        Raises:
            ConfigError: the name cannot name a folder.
            ModelError: the model cannot be evaluated exactly.
        """
        label = check_name(name if name is not None else Path(str(model.name_or_path)).name or "model", "name")
        refuse_config(model.config, label)
        model.train(False)
        chosen = choose_kernels(kernels, model.device, model.config, in_blocks=False)
        check_against_stock(model, label, chosen)
        return cls(model, label, chosen, tokenizer=tokenizer)

    @property
    def device(self) -> torch.device:
        """The device that takes token ids and gives logits."""
        return self.model.device

    @property
    def layers(self) -> int:
        """Number of layers that attend to all earlier tokens, which are those that are compressed."""
        return layer_windows(self.model.config).count(None)

    def prefill(
        self, prompt: Sequence[int], plans: Sequence[Plan], selection: Selection, past: Past | None = None
    ) -> Prefilled:
        """Run a prompt once and keep the entries of every plan; see ``prefill.prefill``."""
        return prefill(self.model, self.name, prompt, plans, selection, past, self.kernels, self._encode)

    @cached_property
    def _encode(self) -> Encode | None:
        """Token ids of a text without added special tokens; None without a tokenizer. It is read when first used."""
        tokenizer, spec = self.tokenizer, self.spec
        if tokenizer is not None:
            read = cache(lambda: tokenizer)
        elif spec is not None:
            read = cache(spec.tokenizer)
        else:
            return None
        return lambda text: read().encode(text, add_special_tokens=False, verbose=False)

    def extend(
        self, beginning: Sequence[int], plans: Sequence[Plan], selection: Selection, past: Past | None = None
    ) -> Past:
        """Prefill the beginning of a prompt without selecting entries; see ``prefill.extend``."""
        return extend(self.model, self.name, beginning, plans, selection, past)

    def decoding(self, limits: Limits, observe: Observer | None = None) -> Decoding:
        """An empty batch that rows can join at any step; see ``decode.Decoding``."""
        return Decoding(self.model, self.name, limits, observe, self.kernels)

    def decode(self, rows: Sequence[Row], limits: Limits, observe: Observer | None = None) -> list[Generated]:
        """Decode some rows together to the end; see ``decode.decode``."""
        return decode(self.model, self.name, rows, limits, observe, self.kernels)

    def generate(
        self,
        prompt: Sequence[int],
        plans: Sequence[Plan],
        selection: Selection,
        limits: Limits,
        question: Sequence[int] = (),
    ) -> list[Generated]:
        """Generate from one prompt under every plan: one prefill, then all rows decoded together.

        Args:
            prompt: 1 or more token ids.
            plans: what to keep, 1 or more. Plans that keep the same entries are decoded once.
            selection: how entries are selected.
            limits: when a row ends.
            question: token ids that follow the prompt and run through what each plan kept of it.

        Returns:
            One result per plan, in order.

        Raises:
            ModelError: a layer did not come through the engine.
        """
        prefilled = self.prefill(prompt, plans, selection)
        rows = {
            kept.sha256: Row(
                kept.first_new(len(prompt), len(question)),
                prefilled.logits,
                kept.layers,
                prefilled.broken,
                tuple(question),
            )
            for kept in prefilled.kept
        }
        generated = dict(zip(rows, self.decode(list(rows.values()), limits), strict=True))
        return [generated[kept.sha256] for kept in prefilled.kept]
