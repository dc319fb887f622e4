"""RULER as a suite: its examples and prompts, from texts made here and from files, its table, and what is refused."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from harness.config.build import build, task_config
from harness.errors import ConfigError
from harness.text import shared_tokens
from tasks.ruler.making import Sources, texts_of
from tasks.ruler.recipe import ESSAY_TASKS, QA_TASKS, TASKS
from tasks.ruler.records import Record, needles_of
from tasks.ruler.suite import OFFLINE, Ruler
from tests.conftest import Command
from tests.tasks.ruler.golden import line

ROOT = Path(__file__).parents[3]
TOKENS = 1000
CHAT = "{{ '<u>' }}{{ messages[0]['content'] }}{{ '</u><a>' }}"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(ROOT / "models/tiny")


@pytest.fixture
def chatty() -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/tiny")
    tokenizer.chat_template = CHAT
    return tokenizer


def ruler(**changes: Any) -> Ruler:
    settings = {"lengths": [TOKENS], "tasks": ["niah_multikey_3"], "samples": 3} | changes
    return build(task_config("ruler") | settings)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """An essay of our own, and documents in the form of SQuAD and HotpotQA."""
    essays = tmp_path / "essays"
    essays.mkdir()
    words = " ".join(f"This is sentence number {n} of a dull essay." for n in range(80))
    (essays / "dull.txt").write_text(words)
    paragraphs = [
        {
            "context": f"Town {n} lies by the sea.",
            "qas": [
                {"question": f"Where does town {n} lie?", "answers": [{"text": "by the sea"}], "is_impossible": False},
                {"question": "Why?", "answers": [], "is_impossible": True},
            ],
        }
        for n in range(30)
    ]
    squad = tmp_path / "squad.json"
    squad.write_text(json.dumps({"data": [{"paragraphs": paragraphs[:3]}, {"paragraphs": paragraphs[3:]}]}))
    record = {"question": "Where?", "answer": "sea", "context": [[f"T{n}", ["It lies ", "by it."]] for n in range(10)]}
    hotpotqa = tmp_path / "hotpotqa.json"
    hotpotqa.write_text(json.dumps([record, record]))
    return {"essays": str(essays), "squad": str(squad), "hotpotqa": str(hotpotqa)}


# --- examples


def test_each_of_the_13_tasks_fits_its_length_and_names_where_the_question_begins(
    tokenizer: PreTrainedTokenizerBase, sources: dict[str, str]
) -> None:
    made = {}
    for task in ruler(tasks="all", lengths=[2048], samples=1, **sources).tasks():
        examples = list(task.examples(tokenizer))
        assert len(examples) == 1
        for example in examples:
            assert isinstance(example.prompt, str) and example.question_at is not None
            tokens = len(tokenizer.encode(example.prompt, add_special_tokens=False))
            assert tokens + task.max_new_tokens <= 2048
            context, question = example.prompt[: example.question_at], example.prompt[example.question_at :]
            assert context.endswith("\n")
            assert question.startswith(("What ", "Question: ", "Answer the question based"))
            if task.task in (*ESSAY_TASKS, "niah_single_1", "niah_multikey_2", "niah_multikey_3"):
                assert all(context.count(f"is: {answer}.") == 1 for answer in example.references)
        made[task.task] = examples
    assert tuple(made) == TASKS


def test_fewer_records_are_the_first_of_more(tokenizer: PreTrainedTokenizerBase) -> None:
    (few,), (many,) = ruler(samples=2).tasks(), ruler(samples=4).tasks()
    assert list(few.examples(tokenizer)) == list(many.examples(tokenizer))[:2]
    assert list(ruler(seed=1).tasks()[0].examples(tokenizer)) != list(ruler().tasks()[0].examples(tokenizer))


def test_in_a_chat_the_template_takes_its_part_of_the_length(chatty: PreTrainedTokenizerBase) -> None:
    (task,), (plain,) = ruler().tasks(), ruler(chat=False).tasks()
    for example, without in zip(task.examples(chatty), plain.examples(chatty), strict=True):
        assert isinstance(example.prompt, tuple) and isinstance(without.prompt, str)
        assert len(example.prompt) + task.max_new_tokens <= TOKENS
        text, at = chatty.decode(example.prompt), example.question_at
        assert text.startswith("<u>A special magic uuid") and "provided text?</u><a> The special magic uuid" in text
        context = text[: text.index("What is the special magic")]
        assert at == shared_tokens(example.prompt, chatty.encode(context, add_special_tokens=False))


def test_kvpress_encodes_context_and_question_one_by_one(
    chatty: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase
) -> None:
    for one, before, between in ((chatty, "<u>", "</u><a>"), (tokenizer, str(tokenizer.bos_token or ""), "\n")):
        (task,), (plain,) = ruler(protocol="kvpress").tasks(), ruler(chat=False).tasks()
        for example, made in zip(task.examples(one), plain.examples(one), strict=True):
            assert isinstance(made.prompt, str)
            context, rest = made.prompt[: made.question_at], made.prompt[made.question_at :]
            question, prefix = rest[: rest.index("The special magic")], rest[rest.index("The special magic") :]
            parts = [
                one.encode(text, add_special_tokens=False) for text in (before + context, question + between + prefix)
            ]
            assert example.prompt == tuple(parts[0] + parts[1]) and example.question_at == len(parts[0])


# --- files


@pytest.mark.parametrize("layout", ["nvidia", "nvidia of 2024", "golden", "jsonl", "parquet"])
def test_files_of_nvidia_and_kvpress_hold_the_records_that_are_made(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, layout: str
) -> None:
    tasks = ["niah_multikey_3", "fwe"]
    made = {task.task: list(task.examples(tokenizer)) for task in ruler(tasks=tasks).tasks()}

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    rows = []
    for task, examples in made.items():
        texts = list(islice(texts_of(task, TOKENS, 42, Sources("3.0.1"), count), len(examples)))
        lines = [json.loads(line(n, text, taken, count)) for n, (text, taken) in enumerate(texts)]
        if layout == "nvidia of 2024":
            lines = [one | {"input": one["input"] + one.pop("answer_prefix")} for one in lines]
        file = (
            tmp_path / f"{TOKENS}/{task}.jsonl"
            if layout == "golden"
            else tmp_path / f"{TOKENS}/{task}/validation.jsonl"
        )
        if layout in ("nvidia", "nvidia of 2024", "golden"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(one) + "\n" for one in lines))
        for example in examples:
            text, at = str(example.prompt), example.question_at
            prefix = text.index("The special magic" if task != "fwe" else "Answer:", at)
            rows.append(
                {
                    "context": text[:at],
                    "question": text[at:prefix],
                    "answer_prefix": text[prefix:],
                    "answer": list(example.references),
                    "task": task,
                    "max_new_tokens": 128,
                }
            )
    (tmp_path / str(TOKENS)).mkdir(exist_ok=True)
    if layout == "jsonl":
        (tmp_path / f"{TOKENS}/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if layout == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{TOKENS}/test-00000-of-00001.parquet")
    read = {task.task: task for task in ruler(tasks=tasks, data=str(tmp_path)).tasks()}
    assert {name: list(task.examples(tokenizer)) for name, task in read.items()} == made
    assert len({str(task.settings()["data_sha256"]) for task in read.values()}) == 2


# --- whole runs


@pytest.mark.slow
def test_the_tasks_that_need_no_file_run_at_1024_and_2048_tokens_to_their_table(
    kvgauge: Command, tmp_path: Path
) -> None:
    model = tmp_path / "tiny"  # with every fourth token an end token, so that answers are short
    shutil.copytree(ROOT / "models/tiny", model)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(1, 1024, 4))}))
    # By this tokenizer, the shortest text of cwe takes more than 1024 tokens.
    for tokens, tasks in ((1024, [task for task in OFFLINE if task != "cwe"]), (2048, OFFLINE)):
        done = kvgauge(
            "task=ruler", f"task.tasks=[{','.join(tasks)}]", f"task.lengths=[{tokens}]", "task.samples=1",
            "method=snapkv", "budget=25%", f"model.path={model}", f"results_dir={tmp_path / 'results'}",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert f"ruler on tiny: average of {len(tasks)} of 13" in done.out
        table = (tmp_path / "results/report/tiny/ruler/table.md").read_text()
        assert all(f"{tokens}-{task}".replace("_", "\\_") in table for task in tasks)


def test_the_mean_is_over_the_13_tasks_of_a_length() -> None:
    suite = ruler(tasks="all")
    names = [f"ruler-{tokens}-{task}" for tokens in (8192, 4096) for task in reversed(TASKS)]
    assert suite.ordered(names)[:14] == [*(f"ruler-4096-{task}" for task in TASKS), "ruler-8192-niah_single_1"]
    assert [average.title for average in suite.averages(names)] == ["average of 13 at 4096", "average of 13 at 8192"]
    assert [average.title for average in suite.averages(names[:13])] == ["average of 13"]
    assert [average.title for average in suite.averages(names[:2])] == ["average of 2 of 13"]


def test_presets_say_when_entries_are_chosen_and_whose_prompts_are_used() -> None:
    kvpress, official = (
        yaml.safe_load((ROOT / f"conf/experiment/ruler_{name}.yaml").read_text()) for name in ("kvpress", "official")
    )
    assert kvpress["selection"]["after"] == "context"
    assert (kvpress["task"]["protocol"], kvpress["task"]["newlines"]) == ("kvpress", "drop")
    assert official["selection"].get("after", "prompt") == "prompt" and "protocol" not in official["task"]


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 3}, "task.name=3 is not a text"),
        ({"lengths": []}, "task.lengths is empty"),
        ({"lengths": [0]}, "an entry of task.lengths is 0"),
        ({"lengths": ["4k"]}, "an entry of task.lengths is '4k'"),
        ({"tasks": []}, "task.tasks is empty"),
        ({"tasks": ["niah_single_4"]}, "task.tasks has 'niah_single_4', which is no task of RULER"),
        ({"samples": 0}, "task.samples is 0"),
        ({"seed": -1}, "task.seed=-1 is no seed"),
        ({"words": "3.0.0"}, "task.words='3.0.0' is unknown: use one of 3.0.1, 2.2.0"),
        ({"protocol": "x"}, "task.protocol='x' is unknown: use one of official, kvpress"),
        ({"newlines": "x"}, "task.newlines='x' is unknown"),
        ({"chat": "yes"}, "task.chat='yes' is unknown"),
        ({"chat_arguments": []}, "task.chat_arguments=[] is not a mapping"),
        ({"max_new_tokens": 0}, "task.max_new_tokens is 0"),
        ({"data": 3}, "task.data=3 is not a path"),
        ({"tasks": ["niah_single_2"]}, "niah_single_2 read essays: set task.essays (the 49 files of"),
        ({"tasks": "all", "essays": "x"}, "qa_1 reads documents: set task.squad to the file rajpurkar.github.io"),
        ({"tasks": ["qa_2"]}, "qa_2 reads documents: set task.hotpotqa to the file"),
        ({"tasks": ["niah_single_2"], "essays": "/nowhere"}, "task.essays='/nowhere' is not a folder"),
        ({"tasks": ["qa_1"], "squad": "/nowhere"}, "task.squad='/nowhere' cannot be read"),
        ({"tasks": ["qa_1"], "squad": str(ROOT / "LICENSE")}, "is not in the form of that dataset"),
        ({"data": "/nowhere"}, "task.data='/nowhere' cannot be read"),
        ({"data": str(ROOT / "conf")}, "holds no record of niah_multikey_3 at 1000 tokens"),
        ({"lengths": [100]}, "task.lengths has 100, into which no text of niah_multikey_3 for record 0 fits (the"),
        ({"lengths": [512], "tasks": ["vt"]}, "into which no text of vt for record 0 fits"),
        ({"lengths": [980], "tasks": ["vt"], "samples": 3}, "into which no text of vt for record 2 fits"),
        ({"lengths": [100], "tasks": ["fwe"]}, "into which no text of fwe for record 0 fits"),
        ({"chat": True}, "the tokenizer has no chat template"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(
    tokenizer: PreTrainedTokenizerBase, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(Exception) as caught:
        for task in ruler(**changes).tasks():
            task.settings()
            list(task.examples(tokenizer))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert type(caught.value).__name__ in ("ConfigError", "DataError")


def test_a_question_with_more_documents_than_fit_is_refused_as_ruler_would_never_end(
    tokenizer: PreTrainedTokenizerBase, sources: dict[str, str]
) -> None:
    assert set(QA_TASKS) == {"qa_1", "qa_2"}
    (task,) = ruler(tasks=["qa_2"], lengths=[200], **sources).tasks()
    with pytest.raises(ConfigError, match="no text of qa_2 for record 0 fits .* tries for ever"):
        list(task.examples(tokenizer))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("1000/niah_multikey_3.jsonl", '{"input": "x"}\n', "line 1 of {file} has no field 'outputs'"),
        ("1000/niah_multikey_3.jsonl", '{"input": "x", "outputs": ["y"]}\n', "line 1 of {file} holds no question of"),
        ("1000/niah_multikey_3.jsonl", '{"input": "x", "outputs": []}\n', "line 1 of {file} has no answer"),
        ("1000/niah_multikey_3.jsonl", '{"input": 3, "outputs": ["y"]}\n', "line 1 of {file} has input=3"),
        ("1000/niah_multikey_3.jsonl", "{\n", "line 1 of {file} is not JSON"),
        ("1000/test.jsonl", '{"context": "x"}\n', "line 1 of {file} has no field 'task'"),
        ("1000/test.jsonl", '{"task": "niah_multikey_3", "context": "x"}\n', "has no field 'question'"),
        ("1000/test.parquet", "x", "{file} is no parquet file"),
    ],
)
def test_a_wrong_record_is_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    file = tmp_path / name
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(Exception) as caught:
        ruler(data=str(tmp_path)).tasks()[0].settings()
    assert said.format(file=file) in str(caught.value) and "\n" not in str(caught.value)


def test_two_files_of_one_task_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (example, *_) = ruler().tasks()[0].examples(tokenizer)
    text = json.dumps({"input": example.prompt, "outputs": list(example.references)}) + "\n"
    for name in ("niah_multikey_3_1000.jsonl", "niah_multikey_3.jsonl"):
        (tmp_path / name).write_text(text)
    with pytest.raises(Exception, match="both hold records of niah_multikey_3 at 1000 tokens"):
        ruler(data=str(tmp_path)).tasks()[0].settings()


def test_passages_show_the_needles_of_a_record_in_the_order_of_its_text(tokenizer: PreTrainedTokenizerBase) -> None:
    needle, words = (task.examples(tokenizer)[0] for task in ruler(tasks=["niah_multikey_3", "fwe"]).tasks())
    (passage,) = needle.passages
    assert passage in str(needle.prompt) and needle.references[0] in passage and len(passage) < 300
    assert not words.passages
    text = f"{'a' * 500}22{'b' * 50}11{'c' * 500}33{'d' * 9}"
    shown = needles_of(Record(text, "?", "A:", ("33", "11", "22", "44")))
    assert shown == (f"{'a' * 120}22{'b' * 50}11{'c' * 120}", f"{'c' * 120}33{'d' * 9}")
