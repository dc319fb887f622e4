"""RULER: 13 tasks that find, track and count in texts of any length, made anew for a tokenizer or read from files.

Paper: RULER, Hsieh et al., https://arxiv.org/abs/2404.06654; code https://github.com/NVIDIA/RULER (Apache-2.0). Texts
and their numbers are in ``recipe.py`` beside this file; what is drawn, and in which order, in ``…_texts.py``; how texts
are fitted to a length in ``fitting.py``; scores in ``scores.py``.

Each task at each length is a task of its own, with its own limit of new tokens and results folder.

Differs:
    - Where no text fits, RULER's program goes on for ever; here it is an error.
    - Chat templates are the tokenizer's own, not RULER's list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.task import Average, Predictions
from tasks.checks import is_list, is_whole, short, whole
from tasks.ruler.predictions import FORMATS, read_predictions
from tasks.ruler.prompts import PROTOCOLS
from tasks.ruler.recipe import ESSAY_TASKS, NEEDLES, QA_TASKS, TASKS
from tasks.ruler.scores import NEWLINES
from tasks.ruler.sources import GET, GET_ESSAYS
from tasks.ruler.task import RulerTask
from tasks.ruler.words import VERSIONS

OFFLINE = tuple(task for task in TASKS if task not in (*ESSAY_TASKS, *QA_TASKS))
"""The tasks that are made of nothing that a user has to give."""
_SETS: Mapping[str, tuple[str, ...]] = {"all": TASKS, "niah": tuple(NEEDLES), "offline": OFFLINE}


@dataclass(frozen=True)
class Settings:
    """The settings of ``Ruler``. Every default is in ``conf/task/ruler.yaml``.

    Attributes:
        name: beginning of the label of the results, followed by the length and the task.
        lengths: numbers of tokens of a text with its answer, at most.
        tasks: names of tasks, or of sets of them: ``all`` (13), ``niah`` (8 with needles), ``offline`` (6 that need no
            file).
        samples: records per task and length, 1 or more; RULER has 500.
        seed: seed of all that is drawn.
        words: release of the word lists, ``3.0.1`` or ``2.2.0``.
        essays: folder of essays for ``niah_single_2`` and others; None if no task reads them.
        squad: SQuAD 2.0's file for ``qa_1``; None if it is not asked for.
        hotpotqa: HotpotQA's file for ``qa_2``; None if it is not asked for.
        data: a folder or file of records that were made elsewhere, see ``tasks.ruler.files``; None to make them.
        protocol: ``official``, or ``kvpress`` for its prompts.
        newlines: what becomes of control characters of a response: ``keep``, or ``drop`` as in kvpress.
        chat: whether to use the tokenizer's chat template; ``auto`` if there is one.
        chat_arguments: arguments of the chat template.
        max_new_tokens: limit of new tokens for all tasks; None for RULER's own.
    """

    name: str
    lengths: Sequence[int] | int
    tasks: Sequence[str] | str
    samples: int
    seed: int
    words: str
    essays: str | None
    squad: str | None
    hotpotqa: str | None
    data: str | None
    protocol: str
    newlines: str
    chat: bool | str
    chat_arguments: Mapping[str, Any]
    max_new_tokens: int | None

    def check(self) -> None:
        """Refuse settings that would fail later, but for lengths and tasks.

        Raises:
            ConfigError: a setting cannot be used.
        """
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"task.name={short(self.name)} is not a text: give it one")
        for knob, values in (("words", VERSIONS), ("protocol", PROTOCOLS), ("newlines", NEWLINES)):
            if getattr(self, knob) not in values:
                raise ConfigError(
                    f"task.{knob}={short(getattr(self, knob))} is unknown: use one of {', '.join(values)}"
                )
        if not isinstance(self.chat, bool) and self.chat != "auto":
            raise ConfigError(f"task.chat={short(self.chat)} is unknown: use auto, true or false")
        if not isinstance(self.chat_arguments, Mapping):
            raise ConfigError(
                f"task.chat_arguments={short(self.chat_arguments)} is not a mapping: use {{}} or "
                "{enable_thinking: false}"
            )
        whole(self.samples, "task.samples", 1)
        if not is_whole(self.seed) or not 0 <= self.seed < 2**32:
            raise ConfigError(f"task.seed={short(self.seed)} is no seed: use a whole number from 0 to {2**32 - 1}")
        if self.max_new_tokens is not None:
            whole(self.max_new_tokens, "task.max_new_tokens", 1)
        for knob in ("essays", "squad", "hotpotqa", "data"):
            if not isinstance(getattr(self, knob), str | None):
                raise ConfigError(f"task.{knob}={short(getattr(self, knob))} is not a path: give one, or null")

    def check_sources(self, tasks: Sequence[str]) -> None:
        """Refuse tasks whose texts are made of something that is not given.

        Raises:
            ConfigError: says which tasks, and where it comes from.
        """
        if self.data is not None:
            return
        others = "give task.data, or leave them out as task.tasks=offline does"
        if self.essays is None and (lacking := [task for task in tasks if task in ESSAY_TASKS]):
            raise ConfigError(f"{', '.join(lacking)} read essays: set task.essays ({GET_ESSAYS}), {others}")
        for task, dataset in QA_TASKS.items():
            if task in tasks and getattr(self, dataset) is None:
                raise ConfigError(f"{task} reads documents: set task.{dataset} to the file {GET[dataset]}, {others}")


class Ruler:
    """A suite of RULER's tasks.

    Attributes:
        settings: the settings. They are apart because one of them has the name of a method here: ``tasks``.
    """

    def __init__(self, **settings: Any) -> None:
        """Take the settings, unchecked: see ``Settings``."""
        self.settings = Settings(**settings)

    @property
    def name(self) -> str:
        """The suite's name."""
        return self.settings.name

    def tasks(self) -> tuple[RulerTask, ...]:
        """One task per length and task, in the order given, without repeats.

        Raises:
            ConfigError: a setting cannot be used.
        """
        settings = self.settings
        settings.check()
        lengths, tasks = _lengths(settings.lengths), _expand(settings.tasks)
        settings.check_sources(tasks)
        return tuple(self.task(task, tokens) for tokens in lengths for task in tasks)

    def task(self, task: str, tokens: int) -> RulerTask:
        """One task at one length.

        Args:
            task: one of ``tasks.ruler.recipe.TASKS``.
            tokens: the length.
        """
        settings = self.settings
        made = settings.data is None
        return RulerTask(
            name=f"{settings.name}-{tokens}-{task}",
            task=task,
            tokens=tokens,
            samples=settings.samples,
            seed=settings.seed,
            words=settings.words,
            essays=settings.essays,
            documents=getattr(settings, QA_TASKS[task]) if made and task in QA_TASKS else None,
            data=settings.data,
            protocol=settings.protocol,
            newlines=settings.newlines,
            chat=settings.chat,
            chat_arguments=settings.chat_arguments,
            new_tokens=settings.max_new_tokens,
        )

    def ordered(self, names: Sequence[str]) -> list[str]:
        """By length, and RULER's 13 tasks in their order."""
        return sorted(names, key=self._place)

    def averages(self, names: Sequence[str]) -> tuple[Average, ...]:
        """RULER's mean over its 13 tasks at each length, or over those of them that there are."""
        by_length: dict[int, list[str]] = {}
        for name in self.ordered(names):
            by_length.setdefault(self._place(name)[0], []).append(name)
        return tuple(
            Average(
                f"average of {len(there)}{'' if len(there) == len(TASKS) else f' of {len(TASKS)}'}"
                + (f" at {tokens}" if len(by_length) > 1 else ""),
                tuple((name,) for name in there),
            )
            for tokens, there in by_length.items()
        )

    def _place(self, name: str) -> tuple[int, int]:
        tokens, _, task = name.removeprefix(f"{self.name}-").partition("-")
        return int(tokens), TASKS.index(task)

    # --- predictions of other programs

    @property
    def formats(self) -> tuple[str, ...]:
        """The format of kvpress."""
        return FORMATS

    def predictions(self, path: Path, format: str, doubled: str | None = None) -> list[Predictions]:
        """The predictions of each file and task at or below a path; see ``tasks.ruler.predictions``."""
        self.settings.check()
        predictions = []
        for one in read_predictions(path, doubled):
            task = self.task(one.task, one.tokens)
            predictions.append(
                Predictions(
                    file=one.file,
                    sha256=one.sha256,
                    task=task.name,
                    config={"tasks": [one.task], "lengths": [one.tokens], "data": str(one.file)},
                    settings={"task": one.task, "tokens": one.tokens, **task.score_settings()},
                    model=one.model,
                    label=one.label,
                    budget=one.budget,
                    rows=one.rows,
                )
            )
        return predictions


def _lengths(lengths: object) -> list[int]:
    entries = list(lengths) if is_list(lengths) else [lengths]
    if not entries or entries == [None]:
        raise ConfigError("task.lengths is empty: use, for example, task.lengths=[4096]")
    return list(dict.fromkeys(whole(entry, "an entry of task.lengths", 1) for entry in entries))


def _expand(tasks: object) -> list[str]:
    """Names of tasks in the order given, with sets expanded, without repeats."""
    entries = list(tasks) if is_list(tasks) else [tasks]
    if not entries or entries == [None]:
        raise ConfigError("task.tasks is empty: use all, niah, offline, or names such as [niah_single_1,vt]")
    names: list[str] = []
    for entry in entries:
        if not isinstance(entry, str) or entry not in (*TASKS, *_SETS):
            raise ConfigError(
                f"task.tasks has {short(entry)}, which is no task of RULER: use {', '.join(_SETS)}, or names of "
                f"{', '.join(TASKS)}"
            )
        names += _SETS.get(entry, (entry,))
    return list(dict.fromkeys(names))
