"""RULER's texts, byte for byte those of NVIDIA's own program: from the same draws and the same numbers of tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.ruler.records import split
from tasks.ruler.sources import ESSAYS_SHA256, essay_words, essays_hash
from tasks.ruler.words import Pairs, every_word, pairs
from tasks.sentences import sentences
from tests.tasks.ruler.golden import FILES, SHARED, Tokens, made, sha256

PART = json.loads((Path(__file__).parents[2] / "golden/ruler/offline.json").read_text())["files"]
_NOT_HERE = pytest.mark.skipif(not FILES.is_dir(), reason="no ../shared")


@pytest.mark.parametrize("name", PART)
def test_texts_that_need_no_file_are_the_published_bytes_and_split_as_kvpress_does(name: str) -> None:
    part = PART[name]
    counts = iter(part["counts"])
    texts, lines = made(name, len(part["lines"]), lambda _: next(counts))
    assert list(map(sha256, lines)) == part["lines"]
    assert next(counts, None) is None, "fewer texts were made than by the published program"
    records = [split(Path(name).stem, text.whole, text.answers) for text in texts]
    assert all(record.text == text.whole for record, text in zip(records, texts, strict=True))
    for record, expected in zip(records, part["splits"], strict=False):
        assert [sha256(record.context), record.question, record.answer_prefix] == expected


@_NOT_HERE
@pytest.mark.slow
def test_all_57_golden_files_are_made_again_byte_for_byte() -> None:
    tokens, files = Tokens(SHARED), sorted(FILES.rglob("*.jsonl"))
    wrong = []
    for file in files:
        expected, name = file.read_text(encoding="utf-8").splitlines(), file.relative_to(FILES).as_posix()
        if made(name, len(expected), tokens.count)[1] != expected:
            wrong.append(name)
    assert (len(files), wrong) == (57, [])


@_NOT_HERE
def test_all_123_golden_splits_are_kvpress_own() -> None:
    splits = json.loads((FILES.parent / "kvpress_split.json").read_text())
    assert len(splits) == 123
    for expected in splits:
        values = json.loads((FILES / expected["file"]).read_text().splitlines()[expected["line"]])
        task = Path(expected["file"]).stem
        record = split(task, values["input"] + values["answer_prefix"], values["outputs"])
        assert sha256(record.context) == expected["context_sha256"]
        assert (record.question, record.answer_prefix) == (expected["question"], expected["answer_prefix"])


@_NOT_HERE
def test_sentences_are_those_of_nltk_with_its_downloaded_parameters() -> None:
    cases = json.loads((FILES.parent / "sentence_cases.json").read_text())
    for case in cases["texts"]:
        assert list(sentences(case["text"])) == case["sentences"]
    words = essay_words(str(SHARED / "data/essays"))
    assert essays_hash(str(SHARED / "data/essays")) == ESSAYS_SHA256
    for case in [case for case in cases["prefixes"] if case["words"] <= 4000]:
        found = sentences(" ".join(words[: case["words"]]).strip())
        assert (len(found), sha256("\n".join(found))) == (case["sentences"], case["sha256_of_newline_join"])


def test_a_sentence_ends_where_a_reader_ends_it() -> None:
    text = "Dr. Smith paid $3.50 in the U.S. last year. He left. Mr. J. Doe, e.g., did not! Did he?"
    assert sentences(text) == (
        "Dr. Smith paid $3.50 in the U.S. last year.", "He left.", "Mr. J. Doe, e.g., did not!", "Did he?",
    )  # fmt: skip


def test_pairs_of_words_are_the_sorted_list_without_making_it() -> None:
    adjectives, nouns = ("blue", "blue-eyed", "old", "bl", "blue-x"), ("sky", "eyed-cat", "cat", "x-cat", "eyed")
    expected = sorted({f"{adjective}-{noun}" for adjective in adjectives for noun in nouns})
    found = Pairs(adjectives, nouns)
    assert [found[i] for i in range(len(found))] == expected


def test_the_older_word_list_has_four_nouns_more() -> None:
    assert set(every_word("2.2.0")) - set(every_word("3.0.1")) == {
        "abortion",
        "brocolli",
        "idiot",
    }  # pray is a verb, too
    assert len(pairs("2.2.0")) > len(pairs("3.0.1"))
