"""LongBench and LongBench-E: 21 + 13 datasets with the official prompts and scores, under one of three published protocols.

Paper: LongBench, Bai et al., https://arxiv.org/abs/2308.14508; code and data https://github.com/THUDM/LongBench (MIT).
Prompts and protocols: ``tasks/prompts``; scores: ``tasks/longbench/metrics.py``; data: ``tasks/longbench/data.py``.

Each dataset is a task of its own, with its own limit of new tokens, end tokens and results folder; ``LongBench`` makes
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.task import Average, DataFile, Predictions
from tasks.checks import is_list, short, whole
from tasks.longbench.data import RECORDS, RECORDS_E, survey
from tasks.longbench.files import REMEDY, cached, fetch
from tasks.longbench.metrics import Scoring
from tasks.longbench.predictions import FORMATS, read_predictions
from tasks.longbench.protocols import PROTOCOLS
from tasks.longbench.task import LongBenchTask
from tasks.longbench.templates import NO_CHAT
from tasks.scores.text import check_backend

PAPER_DATASETS = (
    "narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "gov_report", "qmsum", "multi_news", "trec",
    "triviaqa", "samsum", "passage_count", "passage_retrieval_en", "lcc", "repobench-p",
)  # fmt: skip
"""The 16 of the SnapKV and PyramidKV tables, in their order."""
CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "single-document QA": ("narrativeqa", "qasper", "multifieldqa_en", "multifieldqa_zh"),
    "multi-document QA": ("hotpotqa", "2wikimqa", "musique", "dureader"),
    "summarization": ("gov_report", "qmsum", "multi_news", "vcsum"),
    "few-shot learning": ("trec", "triviaqa", "samsum", "lsht"),
    "synthetic": ("passage_count", "passage_retrieval_en", "passage_retrieval_zh"),
    "code": ("lcc", "repobench-p"),
}
"""LongBench's own; its average is the mean of the six category means."""
_SETS: Mapping[str, tuple[str, ...]] = {"all": tuple(RECORDS), "paper": PAPER_DATASETS, "e": tuple(RECORDS_E)}


@dataclass(frozen=True)
class LongBench:
    """The datasets asked for, as tasks.

    Attributes:
        name: label of the results, before the dataset's name.
        data: a folder of .jsonl files or a data.zip; None for the hub's cache and the hub.
        datasets: names, and sets of names: ``all`` (21), ``paper`` (16), ``e`` (13 of LongBench-E).
        protocol: ``longbench``, ``kvcache_factory`` or ``paper``.
        max_prompt_tokens: longer prompts lose their middle. A number, or one by protocol; None, as well as a protocol
            that is left out, for the protocol's own.
        chat: use the tokenizer's chat template where the protocol's datasets do; None for what the protocol does.
        chat_arguments: passed to the chat template.
        code_similarity: ``difflib`` or ``levenshtein``.
        official_zero: score 0 where the official ROUGE-L hits Python's recursion limit.
        rouge_score: also score English summaries with Google's rouge-score.
    """

    name: str
    data: str | None
    datasets: Sequence[str] | str
    protocol: str
    max_prompt_tokens: int | Mapping[str, int] | None
    chat: bool | None
    chat_arguments: Mapping[str, Any]
    code_similarity: str
    official_zero: bool
    rouge_score: bool

    def tasks(self) -> tuple[LongBenchTask, ...]:
        """One task per dataset, as listed, without repeats.

        Raises:
            ConfigError: a setting that cannot be used.
        """
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"task.name={short(self.name)} is not a text: give it one")
        if self.data is not None and not isinstance(self.data, str):
            raise ConfigError(
                f"task.data={short(self.data)} is not a path: give a folder, a data.zip, or null for the hub"
            )
        if not isinstance(self.protocol, str) or self.protocol not in PROTOCOLS:
            raise ConfigError(
                f"task.protocol={short(self.protocol)} is not a protocol: use one of {', '.join(PROTOCOLS)}"
            )
        for knob in ("official_zero", "rouge_score", *(["chat"] if self.chat is not None else [])):
            if not isinstance(getattr(self, knob), bool):
                raise ConfigError(
                    f"task.{knob}={short(getattr(self, knob))} is neither true nor false: use one of them"
                )
        if not isinstance(self.chat_arguments, Mapping):
            raise ConfigError(
                f"task.chat_arguments={short(self.chat_arguments)} is not a mapping: use {{}} or {{enable_thinking: "
                f"false}}"
            )
        protocol = PROTOCOLS[self.protocol]
        limits = self.max_prompt_tokens
        if isinstance(limits, Mapping):
            if unknown := set(limits) - set(PROTOCOLS):
                raise ConfigError(
                    f"task.max_prompt_tokens has {short(unknown.pop())}, which is no protocol: use "
                    f"{', '.join(PROTOCOLS)}"
                )
            limits = limits.get(self.protocol)
        limit = protocol.max_prompt_tokens if limits is None else limits
        if limit is None:
            raise ConfigError(
                f"task.max_prompt_tokens=null, but protocol {self.protocol} has another limit for each model: "
                "use 3500 for a model of 4k tokens, 7500 of 8k, 15500 of 16k, 31500 of 32k"
            )
        scoring = Scoring(
            check_backend(self.code_similarity, "task.code_similarity"), self.official_zero, self.rouge_score
        )
        return tuple(
            LongBenchTask(
                name=f"{self.name}-{dataset}",
                dataset=dataset,
                data=self.data,
                protocol=protocol,
                max_prompt_tokens=whole(limit, "task.max_prompt_tokens", 2),
                chat=(protocol.chat if self.chat is None else self.chat) and dataset.removesuffix("_e") not in NO_CHAT,
                chat_arguments=self.chat_arguments,
                scoring=scoring,
            )
            for dataset in _expand(self.datasets)
        )

    def ordered(self, names: Sequence[str]) -> list[str]:
        """The paper's 16 datasets first, in its order, then LongBench's others, then LongBench-E."""
        order = [f"{self.name}-{dataset}" for dataset in dict.fromkeys((*PAPER_DATASETS, *RECORDS, *RECORDS_E))]
        return sorted(names, key=order.index)

    def averages(self, names: Sequence[str]) -> tuple[Average, ...]:
        """The paper's mean over its 16 datasets, LongBench's six categories and the means of these.

        The 16 are LongBench's English datasets and its code, whose mean of categories is LongBench's own English
        average. A category that holds neither all of its datasets nor all of its English ones says how many it holds.
        """
        there = {name.removeprefix(f"{self.name}-"): name for name in names}
        averages = []
        if set(PAPER_DATASETS) <= set(there):
            averages.append(Average("average of 16", tuple((there[dataset],) for dataset in PAPER_DATASETS)))
        for suffix, of, published in (("", "", RECORDS), ("_e", " (E)", RECORDS_E)):
            whole = {
                title: [d + suffix for d in datasets if d + suffix in published]
                for title, datasets in CATEGORIES.items()
            }
            english = {
                title: [d for d in datasets if d.removesuffix("_e") in PAPER_DATASETS]
                for title, datasets in whole.items()
            }
            for title, datasets in whole.items():
                found = [d for d in datasets if d in there]
                if found:
                    part = "" if found in (datasets, english[title]) else f" ({len(found)} of {len(datasets)})"
                    averages.append(Average(title + of + part, (tuple(there[d] for d in found),)))
            for title, groups in (
                ("average of 6 categories" + of, english),
                ("average of 6 categories, 21 datasets", whole),
            ):
                if (groups is english or whole != english) and all(
                    d in there for datasets in groups.values() for d in datasets
                ):
                    averages.append(
                        Average(title, tuple(tuple(there[d] for d in datasets) for datasets in groups.values()))
                    )
        return tuple(averages)

    # --- data and predictions of others

    def cached(self) -> Path | None:
        """data.zip in the hub's cache, if it is there."""
        return cached()

    def fetch(self) -> Path:
        """LongBench's data.zip, from the hub's cache or the hub; see ``longbench_files.fetch``."""
        return fetch()

    def survey(self, path: Path) -> list[DataFile]:
        """The 21 + 13 files; another number of records than published is a problem, too."""
        files = []
        for dataset, found in survey(path).items():
            name, expected = f"{dataset}.jsonl", {**RECORDS, **RECORDS_E}[dataset]
            if isinstance(found, Exception):
                files.append(DataFile(name, expected, None, str(found)))
            elif found not in (None, expected):
                files.append(
                    DataFile(
                        name,
                        expected,
                        found,
                        f"{name} holds {found} records, not the {expected} that were published: {REMEDY}",
                    )
                )
            else:
                files.append(DataFile(name, expected, found, None))
        return files

    @property
    def formats(self) -> tuple[str, ...]:
        """LongBench's own, KVCache-Factory's and kvpress's."""
        return FORMATS

    def predictions(self, path: Path, format: str) -> list[Predictions]:
        """One for each file at or below a path; see ``longbench_import``."""
        found = []
        for file in read_predictions(path, format):
            (task,) = replace(self, datasets=[file.dataset]).tasks()
            found.append(
                Predictions(
                    file=file.file,
                    sha256=file.sha256,
                    task=task.name,
                    config={"datasets": [file.dataset]},
                    settings={"dataset": file.dataset, **task.score_settings()},
                    model=file.model,
                    label=file.label,
                    budget=file.budget,
                    rows=file.rows,
                )
            )
        return found


def _expand(datasets: object) -> list[str]:
    """Names as listed, sets spelt out, without repeats."""
    entries = list(datasets) if is_list(datasets) else [datasets]
    if not entries or entries == [None]:
        raise ConfigError("task.datasets is empty: use all, paper, e, or names such as [qasper,trec]")
    names: list[str] = []
    for entry in entries:
        if isinstance(entry, str) and entry in _SETS:
            names += _SETS[entry]
        elif isinstance(entry, str) and (entry in RECORDS or entry in RECORDS_E):
            names.append(entry)
        else:
            known = ", ".join(RECORDS)
            raise ConfigError(
                f"task.datasets has {short(entry)}, which is no LongBench dataset: use all, paper, e, or names of "
                f"{known}"
            )
    return list(dict.fromkeys(names))
