"""LongBench and LongBench-E: 21 + 13 datasets with the official prompts and scores, under three published protocols.

Paper: LongBench, Bai et al., https://arxiv.org/abs/2308.14508; code and data https://github.com/THUDM/LongBench (MIT).
Prompts are in ``templates.py`` beside this file, protocols in ``protocols.py``, scores in ``metrics.py``, data in
``data.py``.

Each dataset is a task of its own, with its own limit of new tokens, end tokens and results folder; ``LongBench`` builds
these tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.task import Average, DataFile, Predictions
from tasks.asking import choose
from tasks.checks import short, whole
from tasks.longbench.data import RECORDS, RECORDS_E, survey
from tasks.longbench.files import HUB, REMEDY
from tasks.longbench.metrics import Scoring
from tasks.longbench.predictions import FORMATS, read_predictions
from tasks.longbench.protocols import PROTOCOLS
from tasks.longbench.task import LongBenchTask
from tasks.longbench.templates import NO_CHAT
from tasks.prompting import CLEAN_UP, Chat, check_chat
from tasks.scores.text import check_backend

PAPER_DATASETS = (
    "narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "gov_report", "qmsum", "multi_news",
    "trec", "triviaqa", "samsum", "passage_count", "passage_retrieval_en", "lcc", "repobench-p",
)  # fmt: skip
"""The 16 datasets of the SnapKV and PyramidKV tables, in their order."""
CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "single-document QA": ("narrativeqa", "qasper", "multifieldqa_en", "multifieldqa_zh"),
    "multi-document QA": ("hotpotqa", "2wikimqa", "musique", "dureader"),
    "summarization": ("gov_report", "qmsum", "multi_news", "vcsum"),
    "few-shot learning": ("trec", "triviaqa", "samsum", "lsht"),
    "synthetic": ("passage_count", "passage_retrieval_en", "passage_retrieval_zh"),
    "code": ("lcc", "repobench-p"),
}
"""LongBench's categories; its average is the mean of the six category means."""
_SETS: Mapping[str, tuple[str, ...]] = {"all": tuple(RECORDS), "paper": PAPER_DATASETS, "e": tuple(RECORDS_E)}


@dataclass(frozen=True)
class LongBench:
    """A suite of LongBench datasets, each of which is a task.

    Attributes:
        name: beginning of the label of the results, followed by the dataset's name.
        data: a folder of .jsonl files or a data.zip; None for the hub's cache or, failing that, the hub.
        datasets: names of datasets, or of sets of them: ``all`` (21), ``paper`` (16), ``e`` (13 of LongBench-E).
        protocol: ``longbench``, ``kvcache_factory`` or ``paper``.
        max_prompt_tokens: limit beyond which prompts lose their middle: a number, or one for each protocol. None, or a
            protocol that is left out, means the protocol's own limit.
        chat: whether to use the tokenizer's chat template, which few-shot and code datasets never do; ``auto``: if
            there is one; None for what the protocol does.
        chat_arguments: arguments of the chat template.
        code_similarity: measure for the code datasets, ``difflib`` or ``levenshtein``.
        official_zero: whether to score 0 if the official ROUGE-L would hit Python's recursion limit.
        rouge_score: whether to also score English summaries with Google's rouge-score.
        max_new_tokens: limit of new tokens for all datasets; None for that published for each.
        clean_up: whether decoded texts lose spaces before punctuation, one of ``tasks.prompting.CLEAN_UP``. Manifests
            without it are of texts that the version of transformers at the time decoded.
    """

    name: str
    data: str | None
    datasets: Sequence[str] | str
    protocol: str
    max_prompt_tokens: int | Mapping[str, int] | None
    chat: Chat | None
    chat_arguments: Mapping[str, Any]
    code_similarity: str
    official_zero: bool
    rouge_score: bool
    max_new_tokens: int | None = None
    clean_up: str = "installed"

    def tasks(self) -> tuple[LongBenchTask, ...]:
        """One task per dataset, in the order given, without repeats.

        Raises:
            ConfigError: a setting cannot be used.
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
        for knob in ("official_zero", "rouge_score"):
            if not isinstance(getattr(self, knob), bool):
                raise ConfigError(
                    f"task.{knob}={short(getattr(self, knob))} is neither true nor false: use one of them"
                )
        if self.max_new_tokens is not None:
            whole(self.max_new_tokens, "task.max_new_tokens", 1)
        if self.clean_up not in CLEAN_UP:
            raise ConfigError(f"task.clean_up={short(self.clean_up)} is unknown: use one of {', '.join(CLEAN_UP)}")
        if not isinstance(self.chat_arguments, Mapping):
            raise ConfigError(
                f"task.chat_arguments={short(self.chat_arguments)} is not a mapping: use {{}} or "
                "{enable_thinking: false}"
            )
        protocol = PROTOCOLS[self.protocol]
        chat = protocol.chat if self.chat is None else check_chat(self.chat)
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
        asked = choose(self.datasets, (*RECORDS, *RECORDS_E), _SETS, "LongBench")
        return tuple(
            LongBenchTask(
                name=f"{self.name}-{dataset}",
                dataset=dataset,
                asked=tuple(asked),
                data=self.data,
                protocol=protocol,
                max_prompt_tokens=whole(limit, "task.max_prompt_tokens", 2),
                chat=False if dataset.removesuffix("_e") in NO_CHAT else chat,
                chat_arguments=self.chat_arguments,
                new_tokens=self.max_new_tokens,
                clean_up=self.clean_up,
                scoring=scoring,
            )
            for dataset in asked
        )

    def ordered(self, names: Sequence[str]) -> list[str]:
        """The paper's 16 datasets first, in its order, then LongBench's others, then LongBench-E."""
        order = [f"{self.name}-{dataset}" for dataset in dict.fromkeys((*PAPER_DATASETS, *RECORDS, *RECORDS_E))]
        return sorted(names, key=order.index)

    def averages(self, names: Sequence[str]) -> tuple[Average, ...]:
        """The paper's mean over its 16 datasets, then the means of LongBench's six categories and the mean of these.

        The 16 are LongBench's English and code datasets; the mean of their categories is LongBench's own English
        average. The title of a category says how many of its datasets it covers, unless it covers all of them or all
        of its English ones.
        """
        by_dataset = {name.removeprefix(f"{self.name}-"): name for name in names}
        averages = []
        if set(PAPER_DATASETS) <= set(by_dataset):
            averages.append(Average("average of 16", tuple((by_dataset[dataset],) for dataset in PAPER_DATASETS)))
        for suffix, mark, published in (("", "", RECORDS), ("_e", " (E)", RECORDS_E)):
            whole = {
                title: [d + suffix for d in datasets if d + suffix in published]
                for title, datasets in CATEGORIES.items()
            }
            english = {
                title: [d for d in datasets if d.removesuffix("_e") in PAPER_DATASETS]
                for title, datasets in whole.items()
            }
            for title, datasets in whole.items():
                covered = [d for d in datasets if d in by_dataset]
                if covered:
                    part = "" if covered in (datasets, english[title]) else f" ({len(covered)} of {len(datasets)})"
                    averages.append(Average(title + mark + part, (tuple(by_dataset[d] for d in covered),)))
            for title, groups in (
                ("average of 6 categories" + mark, english),
                ("average of 6 categories, 21 datasets", whole),
            ):
                if (groups is english or whole != english) and all(
                    d in by_dataset for datasets in groups.values() for d in datasets
                ):
                    averages.append(
                        Average(title, tuple(tuple(by_dataset[d] for d in datasets) for datasets in groups.values()))
                    )
        return tuple(averages)

    # --- data, and predictions of other programs

    def cached(self) -> Path | None:
        """The path of data.zip in the hub's cache; None if it is not there."""
        return HUB.cached()

    def fetch(self) -> Path:
        """The path of LongBench's data.zip, from the hub's cache or the hub; see ``tasks.files.Hub``."""
        return HUB.fetch()

    def survey(self, path: Path) -> list[DataFile]:
        """The state of the 21 + 13 files; a number of records other than the published one is a problem, too."""
        files = []
        for dataset, count in survey(path).items():
            name, expected = f"{dataset}.jsonl", {**RECORDS, **RECORDS_E}[dataset]
            if isinstance(count, Exception):
                files.append(DataFile(name, expected, None, str(count)))
            elif count not in (None, expected):
                problem = f"{name} holds {count} records, not the {expected} that were published: {REMEDY}"
                files.append(DataFile(name, expected, count, problem))
            else:
                files.append(DataFile(name, expected, count, None))
        return files

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of LongBench, KVCache-Factory and kvpress."""
        return FORMATS

    def predictions(self, path: Path, format: str, doubled: str | None = None) -> list[Predictions]:
        """The predictions of each file at or below a path; see ``tasks.longbench.predictions``."""
        predictions = []
        for file in read_predictions(path, format, doubled):
            (task,) = replace(self, datasets=[file.dataset]).tasks()
            predictions.append(
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
        return predictions
