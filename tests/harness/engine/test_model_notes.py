"""What a model's files do to answers and prompts is said where a reader of the numbers must know it."""

from __future__ import annotations

import html
import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from rich.console import Console
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from harness.config.build import composed
from harness.engine.model_notes import generation_notes, prompt_notes
from harness.engine.prompt import encode_prompts
from harness.report.page.write import write_page
from harness.report.task_tables import print_table
from harness.run.configure import runs
from harness.run.execute import result
from harness.run.prepare import prepare
from harness.store.reader import Grid
from harness.task import Example
from tests.conftest import ROOT, Command

KNOBS = ("prompt",)


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)


def tokenizer(template: str = "<s> $A", more: Iterable[str] = ()) -> PreTrainedTokenizerBase:
    """The embedded model's, with another template of special tokens and more of these."""
    made: Any = AutoTokenizer.from_pretrained(ROOT / "models/tiny", trust_remote_code=False)
    made.add_special_tokens({"additional_special_tokens": list(more)})
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return cast("PreTrainedTokenizerBase", made)


def notes(made: PreTrainedTokenizerBase, *prompts: str | tuple[int, ...]) -> list[str]:
    examples = [Example(str(index), prompt) for index, prompt in enumerate(prompts)]
    return prompt_notes(encode_prompts(examples, made, 2000), made, {1}, KNOBS)


PUBLISHED = "<|im_start|> This is a very long story book"


def test_special_tokens_that_a_text_writes_out_are_named_with_the_knob() -> None:
    (note,) = notes(tokenizer(more=["<|im_start|>"]), PUBLISHED, "plain", PUBLISHED)
    assert note == (
        "2 of 3 prompts have <|im_start|> (id 1024) in their text, which this tokenizer reads as special and not as "
        "text: give a task.prompt without it."
    )
    assert notes(tokenizer(), PUBLISHED) == [], "a tokenizer without such a token reads text"
    assert notes(tokenizer(more=["<|im_start|>"]), "plain") == []


def test_the_begin_token_written_out_is_one_more_than_the_tokenizer_adds() -> None:
    written, doubled = notes(tokenizer(), "<s>plain", "plain")
    assert written.startswith("1 of 2 prompts have <s> (id 0) in their text")
    assert doubled.startswith("1 of 2 prompts begin with <s> (id 0) twice")


def test_what_a_chat_template_puts_into_every_prompt_is_not_taken_for_its_text() -> None:
    made = tokenizer(more=["<|user|>"])
    assert notes(made, (0, 1024, 5, 6, 1024, 7), (0, 1024, 8, 1024, 9)) == []
    (note,) = notes(made, (0, 1024, 5, 6), (0, 1024, 8, 1024, 9))
    assert note.startswith("1 of 2 prompts have <|user|> (id 1024) in their text")


def test_a_template_with_todays_date_is_noted_where_prompts_went_through_it() -> None:
    made = tokenizer()
    made.chat_template = "{{ strftime_now('%Y') }}"
    (note,) = notes(made, (0, 5, 6))
    assert "the same on every day, as task.chat_arguments.strftime_now" in note
    assert notes(made, "plain") == []


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("<s> $A", []),
        ("<s> $A </s>", ["All prompts end in the end token </s> (id 1), which this tokenizer appends"]),
        ("<s> <s> $A", ["All prompts begin with <s> (id 0) twice"]),
        ("$A", ["All prompts begin without the begin token <s> (id 0), as this tokenizer adds none"]),
    ],
)
def test_a_tokenizer_that_adds_too_much_or_too_little_is_noted_with_the_ids(template: str, expected: list[str]) -> None:
    found = notes(tokenizer(template), "some text", "another")
    assert len(found) == len(expected)
    assert all(note.startswith(begin) for note, begin in zip(found, expected, strict=True))


def test_a_begin_token_that_is_also_the_end_token_need_not_begin_a_prompt() -> None:
    made = tokenizer("$A")
    made.bos_token = "</s>"  # as in GPT-2
    assert notes(made, "some text") == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"repetition_penalty": 1.1, "no_repeat_ngram_size": 3}, "repetition_penalty=1.1, no_repeat_ngram_size=3"),
        ({"suppress_tokens": [5, 6]}, "suppress_tokens=[5, 6]"),
        ({"forced_eos_token_id": 1}, "forced_eos_token_id=1"),
        ({"forced_bos_token_id": 0}, "forced_bos_token_id=0"),
        ({"begin_suppress_tokens": list(range(100))}, "begin_suppress_tokens=[0, 1, 2,"),
        ({"repetition_penalty": 1.0, "num_beams": 1, "min_length": 0, "suppress_tokens": []}, None),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [1, 2]}, None),
    ],
)
def test_what_the_models_own_generate_would_apply_is_named(fields: dict[str, Any], named: str | None) -> None:
    found = generation_notes(GenerationConfig(**fields))
    assert (found == []) if named is None else (named in found[0] and len(found) == 1 and len(found[0]) < 320)


@pytest.mark.parametrize(
    ("field", "value", "file"),
    [
        ("repetition_penalty", 1.1, "generation_config.json"),
        ("repetition_penalty", 1.2, "config.json"),  # of earlier models, which have no other file
        ("no_repeat_ngram_size", 3, "generation_config.json"),
        ("suppress_tokens", [5, 6], "generation_config.json"),
        ("begin_suppress_tokens", [5], "generation_config.json"),
        ("forced_bos_token_id", 0, "generation_config.json"),
        ("forced_eos_token_id", 1, "generation_config.json"),
        ("bad_words_ids", [[5, 6]], "generation_config.json"),
    ],
)
def test_each_thing_that_generate_would_apply_is_noted_in_manifest_table_and_page(
    field: str, value: Any, file: str, tmp_path: Path
) -> None:
    for path in (ROOT / "models/tiny").iterdir():
        if path.name == file:
            (tmp_path / file).write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
        elif path.is_file() and path.name != "generation_config.json":
            (tmp_path / path.name).symlink_to(path)
    words = ("model=hf", f"model.path={tmp_path}", "method=fullkv", "task.lengths=[300]", "task.depths=[0]")
    prepared = prepare(runs(composed(*words), in_memory=True)[0][0])
    noted = f"The generation config of this model has {field}={value}: its own generate applies that, and kvgauge "
    manifests, grid = prepared.manifests, result(prepared)
    assert all(noted in manifest.note for manifest in manifests.values())
    printed = Console(file=io.StringIO(), width=100)
    print_table(grid, printed)
    assert noted in " ".join(cast("io.StringIO", printed.file).getvalue().split())
    page = write_page([Grid(grid, manifests, {})], [], [], tmp_path / "page.html")
    assert noted in html.unescape(page.read_text())


def test_a_penalty_changes_generate_and_not_ours_and_both_table_and_manifest_say_so(
    kvgauge: Command, prompts_file: Path, tmp_path: Path
) -> None:
    folder, results = tmp_path / "tiny", tmp_path / "results"
    shutil.copytree(ROOT / "models/tiny", folder)
    config = folder / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"no_repeat_ngram_size": 2}))
    done = kvgauge(
        "model=hf", f"model.path={folder}", "method=fullkv", "task=tokens", f"task.prompts={prompts_file}",
        "task.max_new_tokens=40", f"results_dir={results}",
    )  # fmt: skip
    assert done.code == 0, done.err
    cell = results / "tiny/tokens/fullkv-full"
    noted = "The generation config of this model has no_repeat_ngram_size=2"
    assert noted in json.loads((cell / "manifest.json").read_text())["note"]
    assert noted in " ".join(done.out.split())
    assert noted in (results / "report/index.html").read_text()

    ours = {record["example_id"]: record["tokens"] for record in map(json.loads, (cell / "records.0.jsonl").open())}
    prompts = json.loads(prompts_file.read_text())
    options = {"max_new_tokens": 40, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    theirs, plain = (
        {name: model.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist() for name, ids in prompts.items()}
        for model in map(loaded, (folder, ROOT / "models/tiny"))
    )
    assert ours == plain and ours != theirs


def test_a_prompt_that_writes_a_special_token_out_is_said_at_the_dry_run(kvgauge: Command) -> None:
    planned = kvgauge("task.prompt='</s> {context} {question}'", "task.lengths=[500]", "limit=1", "dry_run=true")
    assert planned.code == 0, planned.err
    assert "note: " in planned.out
    assert "All prompts have </s> (id 1) in their text, which this tokenizer reads as special" in planned.out
    assert "in their text" not in kvgauge("task.lengths=[500]", "limit=1", "dry_run=true").out
