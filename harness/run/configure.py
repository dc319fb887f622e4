"""The runs that a composed configuration asks for: every value checked, every object built.

Of the model, everything but the weights is read.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from msgspec import Meta
from omegaconf import DictConfig, OmegaConf

from harness.compression.budget import parse_budgets
from harness.compression.grid import make_grid
from harness.compression.method import Method
from harness.compression.selection import Selection
from harness.config.build import build, build_task
from harness.config.catalog import RUN_GROUPS, SETTINGS, SEVERAL
from harness.config.methods import build_methods, build_storages
from harness.config.names import recorded
from harness.engine import tensor_parallel
from harness.engine.sampling import Sampling
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError
from harness.run.checkpoint import checkpoint_of, read_checkpoint
from harness.run.prepare import Run
from harness.store.shards import Shard
from harness.task import Suite, Task
from harness.values import Refusal, Size, check, made

if TYPE_CHECKING:
    from harness.engine.engine import Engine

_EXAMPLES = {
    "selection": "selection.ties=torch",
    "sampling": "sampling.temperature=0.6",
    "engine": "engine.width=64",
    "model": "model=tiny",
    "method": "method=[snapkv,pyramidkv]",
    "storage": "storage=[exact,kivi2]",
    "task": "task=needle",
    "tracker": "tracker=none",
}


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run that belong to no group and are checked nowhere else.

    Attributes:
        limit: compute only this many examples, the first ones; None for all.
        retry_errors: whether to compute examples again whose record is an error.
        save_prompts: whether prompts are written beside the records as texts, for readers.
        dry_run: whether to print what would be computed and what it will cost, and stop; ``measure`` loads the model
            and measures.
        results_dir: the results folder.

    Raises:
        ConfigError: a setting cannot be used.
    """

    limit: Annotated[Size | None, Refusal("is not a whole number of 1 or more", "use limit=null for all examples")]
    retry_errors: bool
    save_prompts: bool
    dry_run: Annotated[
        bool | Literal["measure"], Refusal("is none of true, false and measure", "use dry_run=true or dry_run=measure")
    ]
    results_dir: Annotated[str, Meta(pattern=r"\S"), Refusal("names no folder", "use results_dir=results")]

    def __post_init__(self) -> None:
        check(self)


def runs(
    config: DictConfig,
    *,
    engine: Engine | None = None,
    methods: Sequence[Method] = (),
    task: Task | None = None,
    in_memory: bool = False,
) -> tuple[list[Run], Suite | None]:
    """One run per task, and the suite that the tasks belong to, if any.

    Args:
        config: the composed configuration.
        engine: the model, if it is already loaded; ``config.model`` is then ignored.
        methods: methods in addition to those of the configuration.
        task: a task to use instead of the configuration's.
        in_memory: whether to do without a results folder.

    Raises:
        ConfigError, ModelError: a part of the configuration cannot be used.
    """
    values = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    if methods:  # perhaps with none of conf/method beside them
        values.setdefault("method", {})
    _check_groups(values)
    settings = RunSettings(**{name: values[name] for name in RunSettings.__annotations__})
    selection = made(Selection, values["selection"], "selection")
    sampling = made(Sampling, values["sampling"], "sampling")
    engine_settings = made(EngineSettings, values["engine"], "engine")
    variants = make_grid(
        [*build_methods(values["method"]), *methods],
        parse_budgets(values["budget"]),
        sampling.drawn,
        build_storages(values["storage"]),
    )
    tasks, suite = build_task(values["task"]) if task is None else ([task], None)
    task_config = values["task"] if task is None else {"_target_": recorded(type(task)), "name": task.name}
    needs_tokenizer = any(each.needs_tokenizer for each in tasks)
    checkpoint = (
        read_checkpoint(build(values["model"]), needs_tokenizer)
        if engine is None
        else checkpoint_of(engine, needs_tokenizer)
    )
    shard = Shard(values["shard"], values["shards"])
    if engine_settings.time_limit_seconds is not None and tensor_parallel.count() > 1:
        raise ConfigError(
            "engine.time_limit_seconds is each process's own, and none may stop alone with model.tp_plan=auto: use null"
        )
    gc.enable()  # the large imports are done; harness/cli/run.py disables the collector for their time
    task_runs = [
        Run(
            checkpoint=checkpoint,
            variants=variants,
            task=each,
            task_config=task_config,
            selection=selection,
            results=None if in_memory else Path(settings.results_dir).expanduser(),
            limit=settings.limit,
            engine_settings=engine_settings,
            shard=shard,
            retry_errors=settings.retry_errors,
            save_prompts=settings.save_prompts,
            sampling=sampling,
        )
        for each in tasks
    ]
    return task_runs, suite


def _check_groups(values: Mapping[Any, Any]) -> None:
    """Refuse settings that a run does not have, and single values in place of a group of settings.

    Raises:
        ConfigError: names the setting and its value.
    """
    if unknown := set(values) - set(SETTINGS):
        raise ConfigError(f"{unknown.pop()} is not a setting of this run: --cfg job prints all settings")
    for group in ("selection", "sampling", "engine", *RUN_GROUPS):
        if not isinstance(values.get(group), dict):
            raise ConfigError(
                f"{group}={values.get(group)} is no group of settings: set one of them, for example {_EXAMPLES[group]}"
            )
    for group in SEVERAL:
        for name, node in values[group].items():
            if not isinstance(node, dict):
                raise ConfigError(
                    f"{group}.{name}={node} is no {group}: set one of its knobs, or choose {group}s with {group}=[…]"
                )
