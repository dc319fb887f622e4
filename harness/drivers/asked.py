"""The grid that arguments of another program ask for, loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from omegaconf import OmegaConf

from harness.compression.budget import parse_budgets
from harness.compression.grid import make_grid
from harness.compression.selection import Selection
from harness.config.build import build, composed
from harness.config.methods import build_methods, build_storages
from harness.drivers.grid import AnsweringGrid, Answers, Scores
from harness.engine.engine import Engine
from harness.engine.model_spec import head_dim
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError
from harness.run.checkpoint import Checkpoint, read_checkpoint
from harness.values import made

_SHORT = {"pretrained": "model", "dtype": "model.dtype", "revision": "model.revision", "device": "model.device"}
"""Arguments that have another name among the settings of a run."""
_log = logging.getLogger(__name__)
_SETTINGS = ("model", "method", "storage", "budget", "selection", "engine")


@dataclass(frozen=True)
class Asked:
    """A loaded grid.

    Attributes:
        grid: the grid.
        checkpoint: the model without its weights.
        answers: of all cells, to the prompts that any of them was asked, by a key of the asker's.
        scores: likewise, one for each continuation.
    """

    grid: AnsweringGrid
    checkpoint: Checkpoint
    answers: dict[str, Answers] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)


def is_setting(name: str) -> bool:
    """Whether an argument is a setting of kvgauge's, as ``method``, ``engine.width`` or ``pretrained``."""
    return name in _SHORT or name.partition(".")[0] in _SETTINGS


def words_of(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings as words of kvgauge's command line, in one order, whatever theirs is.

    Args:
        arguments: settings for which ``is_setting`` is true, with values as the other program has read them.

    Raises:
        ConfigError: the model, the method or the budget is missing.
    """
    for name in ("pretrained", "method", "budget"):
        if name not in arguments:
            raise ConfigError(f"{name} is not given: for example pretrained=tiny,method=snapkv,budget=128")
    return tuple(sorted(f"{_SHORT.get(name, name)}={_spelt(value)}" for name, value in arguments.items()))


@lru_cache(maxsize=1)
def opened(words: tuple[str, ...]) -> Asked:
    """Load the model of a grid. The newest one stays loaded, so that each of its cells finds the others' answers.

    Args:
        words: settings as on kvgauge's command line.

    Raises:
        KvgaugeError: a setting or the model cannot be used.
    """
    values = cast("dict[str, Any]", OmegaConf.to_container(composed(*words), resolve=True, throw_on_missing=True))
    selection = made(Selection, values["selection"], "selection")
    if selection.after != "prompt":
        raise ConfigError(
            f"selection.after={selection.after} needs to know where a question begins, which these tasks do not say: "
            "use selection.after=prompt"
        )
    settings = made(EngineSettings, values["engine"], "engine")
    storages = build_storages(values["storage"])
    variants = make_grid(build_methods(values["method"]), parse_budgets(values["budget"]), storages=storages)
    checkpoint = read_checkpoint(build(values["model"]), needs_tokenizer=True)
    for storage in storages:
        storage.check_model(head_dim(checkpoint.config))
    engine = Engine.load(checkpoint.spec, config=checkpoint.config, kernels=settings.kernels)
    return Asked(AnsweringGrid(engine, variants, selection, settings, _log.warning), checkpoint)


def _spelt(value: object) -> str:
    """A value as kvgauge's command line has it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_spelt, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
