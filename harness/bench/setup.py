"""The grid and the model to measure, made from Hydra overrides."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

from omegaconf import OmegaConf
from transformers import PretrainedConfig, PreTrainedModel

from harness.bench.subject import Subject
from harness.compression.budget import parse_budgets
from harness.compression.grid import Variant, make_grid
from harness.compression.selection import Selection
from harness.config.build import build, composed
from harness.config.methods import build_methods, build_storages
from harness.engine.loading import load_model
from harness.engine.model_spec import ModelSpec
from harness.engine.settings import EngineSettings
from harness.kernels import Kernels


def subject_of(overrides: Sequence[str], new_tokens: int) -> Subject:
    """The model and the grid of a run with these overrides, with random prompts.

    Args:
        overrides: Hydra overrides, as on the command line.
        new_tokens: number of new tokens per row, 2 or more.

    Raises:
        KvgaugeError: a model, a method or a budget cannot be used.
    """
    settings = composed(*overrides)
    spec: ModelSpec = build(settings.model)
    config = spec.config()
    engine = EngineSettings(**{str(knob): value for knob, value in settings.engine.items()})
    kernels = engine.kernels_of(spec, config)
    return Subject(spec.label, partial(_load, spec, config), config, *grid_of(overrides), new_tokens, kernels)


def _load(spec: ModelSpec, config: PretrainedConfig, kernels: Kernels) -> PreTrainedModel:
    return load_model(spec, deepcopy(config), kernels)  # loading changes it, and other processes need the original


def grid_of(overrides: Sequence[str]) -> tuple[tuple[Variant, ...], Selection]:
    """The variants and the selection of a run with these overrides.

    Raises:
        KvgaugeError: a method or a budget cannot be used.
    """
    values = OmegaConf.to_container(composed(*overrides), resolve=True)
    assert isinstance(values, dict)
    variants = make_grid(
        build_methods(values["method"]), parse_budgets(values["budget"]), storages=build_storages(values["storage"])
    )
    return variants, Selection(**values["selection"])
