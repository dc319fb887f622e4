"""A loaded model with the project's attention: prompts to kept entries, kept entries to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.compression.grid import Plan
from harness.compression.selection import Selection
from harness.engine.decode import Decoding, Generated, Limits, Observer, Row, decode
from harness.engine.loading import load_model
from harness.engine.model_spec import ModelSpec
from harness.engine.prefill import Prefilled, extend, prefill
from harness.engine.prefill_attention import Past
from harness.kernels import Kernels

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Engine:
    """A model that prefills exactly and decodes from compressed caches.

    It knows no task, no disk and no configuration files.

    Attributes:
        model: with ``attention.install`` applied.
        name: the model's name, for errors.
        kernels: what computes attention while decoding, and H2O's column sums: ``torch``, or ``triton`` on a CUDA device.
    """

    model: PreTrainedModel
    name: str
    kernels: Kernels = "torch"

    @classmethod
    def load(cls, spec: ModelSpec, config: PretrainedConfig | None = None, kernels: Kernels = "torch") -> Engine:
        """Read a model's weights, install the attention and check it against the stock one.

        Args:
            spec: the model.
            config: what ``spec.config()`` returned, if it was read before.
            kernels: see the class.

        Raises:
            ConfigError: a setting that cannot be used here.
            ModelError: the model cannot be read, or not be evaluated exactly.
        """
        return cls(load_model(spec, spec.config() if config is None else config, kernels), spec.label, kernels)

    @property
    def device(self) -> torch.device:
        """Where token ids go in and logits come out."""
        return self.model.device

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.model.config.num_hidden_layers)

    def prefill(self, prompt: Sequence[int], plans: Sequence[Plan], selection: Selection, past: Past | None = None) -> Prefilled:
        """Run a prompt once and keep every plan's entries; see ``prefill.prefill``."""
        return prefill(self.model, self.name, prompt, plans, selection, past, self.kernels)

    def extend(self, beginning: Sequence[int], plans: Sequence[Plan], selection: Selection, past: Past | None = None) -> Past:
        """Prefill the beginning of a prompt and pick nothing yet; see ``prefill.extend``."""
        return extend(self.model, self.name, beginning, plans, selection, past)

    def decoding(self, limits: Limits, observe: Observer | None = None) -> Decoding:
        """An empty batch that rows can join at any step; see ``decode.Decoding``."""
        return Decoding(self.model, self.name, limits, observe, self.kernels)

    def decode(self, rows: Sequence[Row], limits: Limits, observe: Observer | None = None) -> list[Generated]:
        """Decode some rows together to their ends; see ``decode.decode``."""
        return decode(self.model, self.name, rows, limits, observe, self.kernels)

    def generate(self, prompt: Sequence[int], plans: Sequence[Plan], selection: Selection, limits: Limits) -> list[Generated]:
        """One prompt from its ids to the tokens of every plan: one prefill, rows decoded together.

        Args:
            prompt: token ids, 1 or more.
            plans: what to keep, 1 or more. Plans that keep the same entries are decoded once.
            selection: how entries are picked.
            limits: when a row ends.

        Returns:
            One outcome per plan, in order.

        Raises:
            ModelError: a layer did not come through the engine.
        """
        prefilled = self.prefill(prompt, plans, selection)
        rows = {kept.sha256: Row(len(prompt), prefilled.logits, kept.layers, prefilled.broken) for kept in prefilled.kept}
        generated = dict(zip(rows, self.decode(list(rows.values()), limits), strict=True))
        return [generated[kept.sha256] for kept in prefilled.kept]
