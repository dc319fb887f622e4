"""LongBench as tasks: one per dataset, three protocols, records in, scores out."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from harness.engine.prompt import encode_prompts
from harness.errors import ConfigError, DataError, KvgaugeError
from harness.task import Example, Task
from tasks.longbench.data import RECORDS, RECORDS_E
from tasks.longbench.metrics import METRIC_OF
from tasks.longbench.protocols import PROTOCOLS
from tasks.longbench.suite import CATEGORIES, PAPER_DATASETS, LongBench
from tasks.longbench.task import LongBenchTask
from tasks.longbench.templates import MAX_NEW_TOKENS, NO_CHAT, fill
from tasks.prompting import chat_frame, fit

ROOT = Path(__file__).parents[3]
REAL = ROOT.parent / "shared/data/longbench"
END, TURN = 1, 2
ANSWERS = {"retrieval": "Paragraph 3", "retrieval_zh": "段落3", "count": "3", "classification": "Food"}


@lru_cache(maxsize=1)
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, with the special tokens and the template of a chat model."""
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|turn|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=260, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    built.train_from_iterator([], trainer)
    built.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=built, bos_token="<s>", eos_token="</s>")  # type: ignore[no-untyped-call]
    made.chat_template = "{{ bos_token + 'U:' + messages[0]['content'] + '<|turn|>' + mood | default('A:') }}"
    return made


def record(dataset: str, number: int) -> dict[str, Any]:
    """A small record of the published form."""
    base = dataset.removesuffix("_e")
    metric = METRIC_OF[base]
    return {
        "input": f"Question {number}?",
        "context": f"Context {number} of {base}. " * 20,
        "answers": ["nothing", ANSWERS.get(metric, "the answer")][metric in ANSWERS :],
        "length": (100, 4000, 9000)[number % 3],
        "dataset": base,
        "language": "en",
        "all_classes": ["Food", f"Class {number}", "Fast Food"] if metric == "classification" else None,
        "_id": f"{number:048x}",
    }


@lru_cache(maxsize=1)
def fixture() -> bytes:
    """A data.zip with three records of each of the 34 datasets."""
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for dataset in (*RECORDS, *RECORDS_E):
            archive.writestr(f"data/{dataset}.jsonl", "\n".join(json.dumps(record(dataset, n)) for n in range(3)))
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "data.zip").write_bytes(fixture())
    return str(tmp_path / "data.zip")


def suite(**changes: Any) -> LongBench:
    values: dict[str, Any] = {
        "name": "longbench",
        "data": None,
        "datasets": "all",
        "protocol": "kvcache_factory",
        "max_prompt_tokens": None,
        "chat": None,
        "chat_arguments": {},
        "code_similarity": "difflib",
        "official_zero": True,
        "rouge_score": False,
    }
    return LongBench(**values | changes)


def one(dataset: str, **changes: Any) -> LongBenchTask:
    (task,) = suite(datasets=[dataset], **changes).tasks()
    return task


# --- the suite


def test_each_dataset_is_a_task_of_its_own_that_meets_the_contract(data: str) -> None:
    tasks: Sequence[Task] = suite(data=data, datasets=["all", "e"]).tasks()
    assert [task.name for task in tasks] == [f"longbench-{name}" for name in (*RECORDS, *RECORDS_E)]
    for task in tasks:
        examples = task.examples(tokenizer())
        prompts = encode_prompts(examples, tokenizer(), 260)
        assert [prompt.example.id for prompt in prompts] == [f"{n:048x}" for n in range(3)]
        assert json.loads(json.dumps(task.settings())) == task.settings()
        scores = task.score(examples[0], examples[0].references[-1])
        assert list(scores) == [metric.name for metric in task.metrics]
        assert next(iter(scores.values())) == pytest.approx(1, abs=1e-8)
        assert set(task.score(examples[0], None).values()) == {0.0}
        assert task.needs_tokenizer
        assert task.heatmap_axes is None


def test_sets_of_datasets_are_those_of_the_tables() -> None:
    assert len(suite(datasets="all").tasks()) == 21
    assert tuple(task.dataset for task in suite(datasets="paper").tasks()) == PAPER_DATASETS
    assert len(PAPER_DATASETS) == 16
    assert [task.dataset for task in suite(datasets="e").tasks()] == list(RECORDS_E)
    assert [task.dataset for task in suite(datasets=["trec", "lcc_e", "trec"]).tasks()] == ["trec", "lcc_e"]
    assert sorted(name for names in CATEGORIES.values() for name in names) == sorted(RECORDS)
    assert [len(names) for names in CATEGORIES.values()] == [4, 4, 4, 4, 3, 2]


def test_extended_datasets_have_prompt_limit_and_metric_of_their_base(data: str) -> None:
    for dataset in RECORDS_E:
        extended, base = one(dataset, data=data), one(dataset.removesuffix("_e"), data=data)
        assert extended.max_new_tokens == base.max_new_tokens == MAX_NEW_TOKENS[base.dataset]
        assert extended.metrics == base.metrics
        assert extended.examples(tokenizer())[1].prompt == base.examples(tokenizer())[1].prompt
        assert extended.settings() | {"dataset": base.dataset} == base.settings()
        assert extended.stop_ids(tokenizer(), frozenset({9})) == base.stop_ids(tokenizer(), frozenset({9}))


# --- examples


def test_example_carries_what_the_record_says_and_how_much_was_cut(data: str) -> None:
    task = one("qasper", data=data, max_prompt_tokens=100)
    example = task.examples(tokenizer())[1]
    row = record("qasper", 1)
    text = fill("qasper", row["context"], row["input"])
    assert example.references == ("nothing", "the answer")
    assert example.group == {"length": 4000, "bucket": "4-8k"}
    assert example.tokens_before_truncation == len(tokenizer().encode(text)) > 1000
    assert example.prompt == fit(text, tokenizer(), 100, chat_frame(tokenizer(), {})).ids
    assert len(example.prompt) < 120


def test_examples_are_encoded_only_when_asked_for(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    task = one("trec", data=data)
    monkeypatch.setattr("tasks.longbench.task.fit", lambda text, *rest: encoded.append(text) or fit(text, *rest))
    examples = task.examples(tokenizer())
    assert (len(examples), encoded) == (3, [])
    assert examples[:2] == [examples[0], examples[1]]
    assert len(encoded) == 4
    assert [example.id for example in examples] == [f"{n:048x}" for n in range(3)]
    with pytest.raises(IndexError):
        examples[3]


def test_classes_are_those_of_the_last_record_and_travel_with_the_example(data: str) -> None:
    task = one("trec", data=data)
    example = task.examples(tokenizer())[0]
    assert example.details == {"all_classes": ["Food", "Class 2", "Fast Food"]}
    assert task.score(example, "\nFood or Class 2\nFast Food") == {"classification": 0.5}
    with pytest.raises(DataError, match="without the classes"):
        task.score(Example("1", "", ("Food",)), "Food")


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared")
def test_real_records_become_prompts_within_the_limit() -> None:
    for task in suite(
        data=str(REAL), datasets=["multi_news", "multifieldqa_zh", "passage_retrieval_zh"], max_prompt_tokens=3500
    ).tasks():
        examples = task.examples(tokenizer())
        assert len(examples) == 200
        for example in examples[:3]:
            assert example.tokens_before_truncation is not None
            assert example.tokens_before_truncation > 3500
            assert 3400 < len(example.prompt) < 3600
            assert max(task.score(example, example.references[0]).values()) == pytest.approx(1, abs=1e-8)


# --- protocols


@pytest.mark.parametrize("dataset", RECORDS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocols_differ_where_the_published_runs_did(protocol: str, dataset: str) -> None:
    task = one(dataset, protocol=protocol, max_prompt_tokens=3500)
    wrapped, samsum = dataset not in NO_CHAT, dataset == "samsum"
    ends, newline = frozenset({END, TURN}), tokenizer().convert_tokens_to_ids("Ċ")
    expected = {
        "longbench": (wrapped, ends | {newline} if samsum else ends, int(samsum)),
        "kvcache_factory": (wrapped, ends | {newline} if samsum else ends, 1),
        "paper": (False, frozenset({END}), 1),
    }[protocol]
    assert (task.chat, task.stop_ids(tokenizer(), ends), task.min_new_tokens) == expected


def test_limit_is_the_protocols_unless_one_is_given() -> None:
    assert one("qasper", protocol="paper").max_prompt_tokens == 7950
    assert one("qasper", protocol="kvcache_factory").max_prompt_tokens == 7500
    assert one("qasper", protocol="longbench", max_prompt_tokens=31500).max_prompt_tokens == 31500
    with pytest.raises(ConfigError, match="use 3500 for a model of 4k tokens"):
        one("qasper", protocol="longbench")


def test_chat_can_be_switched_and_never_reaches_the_six_exempt_datasets(data: str) -> None:
    def begins(dataset: str, **changes: Any) -> str:
        ids = one(dataset, data=data, **changes).examples(tokenizer())[0].prompt
        return str(tokenizer().decode(list(ids)))[:12]

    assert begins("qasper") == "<s>U:You are"[:12]
    assert begins("qasper", chat=False) == begins("qasper", protocol="paper") == "<s>You are g"
    assert begins("qasper", protocol="paper", chat=True) == "<s>U:You are"
    assert len(NO_CHAT) == 6
    for dataset in NO_CHAT:
        assert "U:" not in begins(dataset, chat=True)
    assert "U:" not in begins("trec_e", chat=True)
    example = one("qasper", data=data, chat_arguments={"mood": "B:"}).examples(tokenizer())[0]
    assert str(tokenizer().decode(list(example.prompt))).endswith("<|turn|>B:")


def test_model_without_a_chat_template_is_refused_only_where_one_is_needed(data: str) -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, bos_token="<s>", eos_token="</s>")  # type: ignore[no-untyped-call]
    assert len(one("trec", data=data).examples(plain)) == 3
    assert len(one("qasper", data=data, chat=False).examples(plain)) == 3
    with pytest.raises(ConfigError, match="use task.chat=false"):
        one("qasper", data=data).examples(plain)


# --- settings


def test_settings_name_what_can_change_a_number(data: str, tmp_path: Path) -> None:
    base = one("gov_report", data=data).settings()
    changes: list[dict[str, Any]] = [
        {"protocol": "longbench", "max_prompt_tokens": 7500},  # may begin with an end token
        {"protocol": "paper"},
        {"max_prompt_tokens": 7499},
        {"chat": False},
        {"chat_arguments": {"mood": "B:"}},
        {"official_zero": False},
        {"rouge_score": True},
    ]
    assert all(one("gov_report", data=data, **change).settings() != base for change in changes)
    (tmp_path / "gov_report.jsonl").write_text(json.dumps(record("gov_report", 7)))
    assert one("gov_report", data=str(tmp_path)).settings() != base


def test_settings_do_not_name_what_changes_nothing_here(data: str, tmp_path: Path) -> None:
    code = one("lcc", data=data).settings()
    assert one("lcc", data=data, code_similarity="levenshtein").settings() != code
    assert (
        one("lcc", data=data, official_zero=False, rouge_score=True, chat_arguments={"mood": "B:"}).settings() == code
    )
    answers = one("qasper", data=data).settings()
    assert (
        one("qasper", data=data, code_similarity="levenshtein", official_zero=False, name="other").settings() == answers
    )
    (tmp_path / "qasper.jsonl").write_text("\r\n".join(json.dumps(record("qasper", n)) for n in range(3)))
    assert one("qasper", data=str(tmp_path)).settings() == answers
    assert "jieba" in one("dureader", data=data).settings()


# --- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "official"}, "use one of longbench, kvcache_factory, paper"),
        ({"protocol": None}, "task.protocol=None is not a protocol"),
        ({"datasets": []}, "task.datasets is empty"),
        ({"datasets": None}, "task.datasets is empty"),
        ({"datasets": "squad"}, "task.datasets has 'squad'"),
        ({"datasets": ["narrativeqa_e"]}, "task.datasets has 'narrativeqa_e'"),
        ({"datasets": [7]}, "task.datasets has 7"),
        ({"max_prompt_tokens": 1}, "task.max_prompt_tokens is 1: use a whole number, 2 or more"),
        ({"max_prompt_tokens": "7500"}, "task.max_prompt_tokens is '7500'"),
        ({"chat": "yes"}, "task.chat='yes' is neither true nor false"),
        ({"chat_arguments": []}, "task.chat_arguments=[] is not a mapping"),
        (
            {"code_similarity": "indel"},
            "task.code_similarity='indel' is not a measure of likeness: use difflib or levenshtein",
        ),
        ({"official_zero": None}, "task.official_zero=None is neither true nor false"),
        ({"rouge_score": 1}, "task.rouge_score=1 is neither true nor false"),
        ({"name": ""}, "task.name='' is not a text"),
        ({"data": 7}, "task.data=7 is not a path"),
        ({"data": "/nowhere"}, "task.data='/nowhere' does not exist"),
    ],
)
def test_unusable_setting_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(KvgaugeError) as caught:
        for task in suite(**changes).tasks():
            task.examples(tokenizer())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_model_without_a_tokenizer_is_refused(data: str) -> None:
    with pytest.raises(ConfigError, match="got no tokenizer"):
        one("qasper", data=data).examples(None)


def test_tokenizer_without_the_token_that_ends_an_answer_is_refused() -> None:
    class Bare:
        eos_token_id = None

        def encode(self, *_: object, **__: object) -> list[int]:
            return []

    bare: Any = Bare()
    with pytest.raises(ConfigError, match="ends at the tokenizer's one end token, and it has none"):
        one("qasper", protocol="paper").stop_ids(bare, frozenset({1}))
    with pytest.raises(ConfigError, match="samsum ends at a line break"):
        one("samsum").stop_ids(bare, frozenset({1}))
    assert one("qasper").stop_ids(bare, frozenset({1})) == {1}
